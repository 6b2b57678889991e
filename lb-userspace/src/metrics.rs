//! `/metrics`: each scrape is built anew from the views, so that the series of what was removed are gone.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::net::TcpListener;

use crate::api::{Shared, serve_http};
use crate::controller::ChangeError;
use crate::model::Action;
use crate::view::{
    BackendView, ConfigStatus, FlowsView, HealthState, InterfaceView, LimitView, ListsView, SamplesView,
    ServiceView, Status,
};

/// Why the metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error(
        "metrics address {address} is in use; find the other program with: ss -ltnp, or choose another \
         address ([daemon] metrics, or --metrics of lb decap)"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The kernel refuses.
    #[error(
        "cannot serve metrics on {address}: {source}; choose another address ([daemon] metrics, or --metrics of lb decap)"
    )]
    Io {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Binds the listener of the metrics.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::Io { address, source },
    })
}

/// Serves `/metrics` until `shutdown` completes.
pub async fn serve(
    listener: TcpListener,
    control: Shared,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    serve_http(listener, router(control), shutdown).await;
}

/// `/metrics`, and a page at `/` for those who open the address in a browser.
pub fn router(control: Shared) -> Router {
    pages(get(scrape)).with_state(control)
}

/// The routes of whoever answers a scrape.
pub(crate) fn pages<S: Clone + Send + Sync + 'static>(scrape: MethodRouter<S>) -> Router<S> {
    let page =
        Html("<!doctype html><title>lb</title><p><a href=\"/metrics\">Metrics</a> of the load balancer lb\n");
    Router::new().route("/", get(page)).route("/metrics", scrape)
}

async fn scrape(State(control): State<Shared>) -> Response {
    answer(collect(&control).await)
}

/// The answer to a scrape: the metrics, or why there are none.
pub(crate) fn answer(metrics: Result<String, String>) -> Response {
    match metrics {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn collect(control: &Shared) -> Result<String, String> {
    let status = control.status().await.map_err(|error| error.to_string())?;
    let mut backends = Vec::with_capacity(status.services.len());
    for service in &status.services {
        match control.backends(&service.name).await {
            Ok(views) => backends.push((service.name.clone(), views)),
            // Removed since the status was taken.
            Err(ChangeError::NotFound(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let limits = control.limits(None).await.map_err(|error| error.to_string())?;
    render(&status, &backends, &limits).map_err(|error| error.to_string())
}

/// The metrics in Prometheus' text format, version 0.0.4. `backends` holds each service's name and backends.
pub fn render(
    status: &Status,
    backends: &[(String, Vec<BackendView>)],
    limits: &[LimitView],
) -> Result<String, prometheus::Error> {
    let page = Page::of(&status.version)?;
    page.gauge("lb_config_generation", "The number of what is wanted: one more with every change.", &[])?
        .with_label_values::<&str>(&[])
        .set(signed(status.generation));
    page.reloads(&status.config)?;
    page.interfaces(&status.interfaces)?;
    page.services(&status.services)?;
    page.flows(&status.flows)?;
    page.maps(&status.flows, &status.lists)?;
    page.limiters(limits)?;
    page.limiter_samples(status.limiter_samples)?;
    page.backends(backends)?;
    page.text()
}

/// A registry that lives for one scrape.
#[derive(Default)]
pub(crate) struct Page {
    registry: Registry,
}

impl Page {
    /// What every scrape says first: which version answers.
    pub(crate) fn of(version: &str) -> Result<Self, prometheus::Error> {
        let page = Self::default();
        page.gauge("lb_build_info", "The running version; always 1.", &["version"])?
            .with_label_values(&[version])
            .set(1);
        Ok(page)
    }

    /// Everything in the text format.
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// How the program is attached.
    pub(crate) fn attached<'i>(
        &self,
        interfaces: impl IntoIterator<Item = (&'i str, &'i str)>,
    ) -> Result<(), prometheus::Error> {
        let attached =
            self.gauge("lb_xdp_attached", "1 per interface and XDP mode in use.", &["interface", "mode"])?;
        interfaces.into_iter().for_each(|(name, mode)| attached.with_label_values(&[name, mode]).set(1));
        Ok(())
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    /// A family of counters.
    pub(crate) fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn reloads(&self, config: &ConfigStatus) -> Result<(), prometheus::Error> {
        let success = "Whether the files were in order when they were read last.";
        self.gauge("lb_config_last_reload_success", success, &[])?
            .with_label_values::<&str>(&[])
            .set(i64::from(config.reload_error.is_none()));
        let time = "When the files were read last, in seconds since 1970.";
        self.gauge("lb_config_last_reload_timestamp_seconds", time, &[])?
            .with_label_values::<&str>(&[])
            .set(signed(config.reload_time));
        Ok(())
    }

    fn interfaces(&self, interfaces: &[InterfaceView]) -> Result<(), prometheus::Error> {
        self.attached(interfaces.iter().map(|one| (one.name.as_str(), one.mode.as_str())))?;
        let by_reason = ["interface", "reason"];
        let passes =
            self.counter("lb_passes_total", "Packets handed to the host's network stack.", &by_reason)?;
        let drops = self.counter("lb_drops_total", "Packets dropped.", &by_reason)?;
        let answers = self.counter(
            "lb_answers_total",
            "Packets that were answered, or sent on to a client, by the program itself.",
            &by_reason,
        )?;
        for interface in interfaces {
            let outcomes =
                [(&passes, &interface.passes), (&drops, &interface.drops), (&answers, &interface.answers)];
            for (counter, counts) in outcomes {
                for count in counts {
                    counter.with_label_values(&[&interface.name, &count.reason]).inc_by(count.packets);
                }
            }
        }
        Ok(())
    }

    fn services(&self, services: &[ServiceView]) -> Result<(), prometheus::Error> {
        let label = ["service"];
        let packets =
            self.counter("lb_service_packets_total", "Packets received, forwarded and dropped.", &label)?;
        let bytes = self.counter("lb_service_bytes_total", "Bytes forwarded.", &label)?;
        let flows = self.counter("lb_service_new_flows_total", "TCP connection attempts (SYN).", &label)?;
        let slots = self.gauge(
            "lb_slots",
            "Slots by whether flows of one backend or of several live in them.",
            &["service", "state"],
        )?;
        for service in services {
            let name = [service.name.as_str()];
            packets.with_label_values(&name).inc_by(service.packets);
            bytes.with_label_values(&name).inc_by(service.bytes);
            flows.with_label_values(&name).inc_by(service.new_flows);
            let of_state = |state| slots.with_label_values(&[service.name.as_str(), state]);
            of_state("settled").set(signed(service.slots.settled));
            of_state("moving").set(signed(service.slots.moving));
        }
        Ok(())
    }

    fn flows(&self, flows: &FlowsView) -> Result<(), prometheus::Error> {
        let none: [&str; 0] = [];
        let gauges = [
            ("lb_flows", "Flows remembered while their slots move.", flows.remembered),
            ("lb_flow_capacity", "Flows that can be remembered.", flows.capacity),
        ];
        for (name, help, value) in gauges {
            self.gauge(name, help, &none)?.with_label_values(&none).set(signed(value));
        }
        let evictions = self.counter(
            "lb_flow_evictions_total",
            "Flows that were forgotten to make room for others.",
            &none,
        )?;
        evictions.with_label_values(&none).inc_by(flows.evicted);
        let lookups = self.counter("lb_flow_lookups_total", "Packets in moving slots.", &["result"])?;
        let results = [
            ("known", flows.known),
            ("added", flows.added),
            ("evicted", flows.evicted),
            ("contended", flows.contended),
        ];
        for (result, packets) in results {
            lookups.with_label_values(&[result]).inc_by(packets);
        }
        Ok(())
    }

    fn maps(&self, flows: &FlowsView, lists: &ListsView) -> Result<(), prometheus::Error> {
        let entries = self.gauge("lb_map_entries", "Entries in use.", &["map"])?;
        let most = self.gauge("lb_map_max_entries", "Entries there is room for.", &["map"])?;
        let maps = [
            ("flows", flows.remembered, flows.capacity),
            ("lists", lists.denied + lists.allowed, lists.capacity),
        ];
        for (map, used, capacity) in maps {
            entries.with_label_values(&[map]).set(signed(used));
            most.with_label_values(&[map]).set(signed(capacity));
        }
        Ok(())
    }

    fn limiters(&self, limits: &[LimitView]) -> Result<(), prometheus::Error> {
        let labels = ["service", "limiter", "verdict"];
        let packets =
            self.counter("lb_limiter_packets_total", "Packets by the limiter's verdict.", &labels)?;
        let contended = self.counter(
            "lb_limiter_contended_total",
            "Packets let through because the limiter was full of other busy sources.",
            &labels[..2],
        )?;
        for limit in limits {
            // A limiter of all services; no service can be called that.
            let service = limit.service.as_deref().unwrap_or("*");
            let mut verdicts = vec![("admitted", limit.admitted), (limit.action.verdict(), limit.over)];
            if limit.action == Action::Mark {
                verdicts.push(("unmarked", limit.unmarked));
            }
            for (verdict, count) in verdicts {
                packets.with_label_values(&[service, &limit.name, verdict]).inc_by(count);
            }
            contended.with_label_values(&[service, &limit.name]).inc_by(limit.contended);
        }
        Ok(())
    }

    /// Totals only: who is over limits is for `lb limit top`, and never a label.
    fn limiter_samples(&self, SamplesView { told, lost }: SamplesView) -> Result<(), prometheus::Error> {
        let samples = self.counter(
            "lb_limiter_samples_total",
            "Samples of packets over limits, by whether there was room for them.",
            &["result"],
        )?;
        samples.with_label_values(&["told"]).inc_by(told);
        samples.with_label_values(&["lost"]).inc_by(lost);
        Ok(())
    }

    fn backends(&self, services: &[(String, Vec<BackendView>)]) -> Result<(), prometheus::Error> {
        let labels = ["service", "backend"];
        let packets = self.counter("lb_backend_packets_total", "Packets forwarded.", &labels)?;
        let bytes = self.counter("lb_backend_bytes_total", "Bytes forwarded.", &labels)?;
        let up = self.gauge("lb_backend_up", "0 if the health checks fail, else 1.", &labels)?;
        let help = "Weight in force: less than configured during a slow start, 0 without new flows.";
        let weight = self.gauge("lb_backend_weight", help, &labels)?;
        let state = self.gauge(
            "lb_backend_state",
            "1 for the state that is asked of the backend: ready, drain or maintenance.",
            &["service", "backend", "state"],
        )?;
        for (service, backends) in services {
            for backend in backends {
                let values = [service, &backend.address];
                packets.with_label_values(&values).inc_by(backend.packets);
                bytes.with_label_values(&values).inc_by(backend.bytes);
                up.with_label_values(&values).set(i64::from(backend.health != HealthState::Down));
                weight.with_label_values(&values).set(i64::from(backend.effective_weight.0));
                state.with_label_values(&[service, &backend.address, backend.state.word()]).set(1);
            }
        }
        Ok(())
    }
}

/// Prometheus' gauges are signed.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::double::Double;
    use crate::config::LimitKeys;
    use crate::model::{ForwardMode, Protocol, Weight};
    use crate::view::{BackendState, OptionsView, ReasonCount, SlotsView};

    fn reason(reason: &str, packets: u64) -> ReasonCount {
        ReasonCount { reason: reason.to_owned(), meaning: String::new(), packets }
    }

    fn service(name: &str, limit: Option<&str>) -> ServiceView {
        ServiceView {
            name: name.to_owned(),
            vip: "192.0.2.10:80".to_owned(),
            protocol: Protocol::Tcp,
            mode: ForwardMode::DsrL2,
            limit: limit.map(str::to_owned),
            options: OptionsView::default(),
            table_size: 65_537,
            slots: SlotsView { settled: 65_530, moving: 7 },
            backends_serving: 1,
            backends_total: 2,
            packets: 1_000,
            bytes: 64_000,
            new_flows: 10,
            limited: 5,
            contended: 1,
        }
    }

    fn limits() -> [LimitView; 2] {
        let limit = |service: Option<&str>, name: &str, action| LimitView {
            service: service.map(str::to_owned),
            name: name.to_owned(),
            words: String::new(),
            settings: LimitKeys::new(),
            clock: "coarse".to_owned(),
            action,
            over: 5,
            unmarked: 2,
            contended: 1,
            admitted: 100,
        };
        [limit(Some("web"), "source", Action::Drop), limit(None, "all", Action::Mark)]
    }

    fn backend(address: &str, health: HealthState) -> BackendView {
        BackendView {
            address: address.to_owned(),
            state: BackendState::Ready,
            drain_seconds_left: None,
            health,
            weight: Weight(100),
            effective_weight: Weight(if health == HealthState::Up { 100 } else { 0 }),
            share: 1.0,
            next_hop: String::new(),
            reachable: true,
            packets: 995,
            bytes: 63_000,
            since_seconds: None,
            last_check: String::new(),
        }
    }

    fn status() -> Status {
        let interface = InterfaceView {
            name: "eth0".to_owned(),
            mode: "native".to_owned(),
            passes: vec![reason("not_a_service", 7)],
            drops: vec![reason("limited", 5)],
            answers: vec![reason("echo", 2)],
        };
        Status {
            version: "0.1.0".to_owned(),
            uptime_seconds: 60,
            generation: 3,
            config: ConfigStatus { reload_time: 1_795_672_000, ..ConfigStatus::default() },
            interfaces: vec![interface],
            services: vec![service("web", Some("1000 packets/s")), service("api", None)],
            flows: FlowsView { remembered: 9, capacity: 64, known: 500, added: 12, evicted: 3, contended: 1 },
            lists: ListsView { denied: 2, allowed: 1, capacity: 250_000 },
            limiter_samples: SamplesView { told: 40, lost: 2 },
            warnings: Vec::new(),
        }
    }

    #[test]
    fn every_series_is_named_and_labelled_as_promised() {
        let backends =
            vec![backend("10.0.1.1:80", HealthState::Up), backend("10.0.1.2:80", HealthState::Down)];
        let text = render(&status(), &[("web".to_owned(), backends)], &limits()).unwrap();
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(series, EXPECTED);
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let counter = line.contains("_total ");
            assert!(line.ends_with(if counter { " counter" } else { " gauge" }), "{line}");
        }
    }

    const EXPECTED: [&str; 48] = [
        "lb_answers_total{interface=\"eth0\",reason=\"echo\"} 2",
        "lb_backend_bytes_total{backend=\"10.0.1.1:80\",service=\"web\"} 63000",
        "lb_backend_bytes_total{backend=\"10.0.1.2:80\",service=\"web\"} 63000",
        "lb_backend_packets_total{backend=\"10.0.1.1:80\",service=\"web\"} 995",
        "lb_backend_packets_total{backend=\"10.0.1.2:80\",service=\"web\"} 995",
        "lb_backend_state{backend=\"10.0.1.1:80\",service=\"web\",state=\"ready\"} 1",
        "lb_backend_state{backend=\"10.0.1.2:80\",service=\"web\",state=\"ready\"} 1",
        "lb_backend_up{backend=\"10.0.1.1:80\",service=\"web\"} 1",
        "lb_backend_up{backend=\"10.0.1.2:80\",service=\"web\"} 0",
        "lb_backend_weight{backend=\"10.0.1.1:80\",service=\"web\"} 100",
        "lb_backend_weight{backend=\"10.0.1.2:80\",service=\"web\"} 0",
        "lb_build_info{version=\"0.1.0\"} 1",
        "lb_config_generation 3",
        "lb_config_last_reload_success 1",
        "lb_config_last_reload_timestamp_seconds 1795672000",
        "lb_drops_total{interface=\"eth0\",reason=\"limited\"} 5",
        "lb_flow_capacity 64",
        "lb_flow_evictions_total 3",
        "lb_flow_lookups_total{result=\"added\"} 12",
        "lb_flow_lookups_total{result=\"contended\"} 1",
        "lb_flow_lookups_total{result=\"evicted\"} 3",
        "lb_flow_lookups_total{result=\"known\"} 500",
        "lb_flows 9",
        "lb_limiter_contended_total{limiter=\"all\",service=\"*\"} 1",
        "lb_limiter_contended_total{limiter=\"source\",service=\"web\"} 1",
        "lb_limiter_packets_total{limiter=\"all\",service=\"*\",verdict=\"admitted\"} 100",
        "lb_limiter_packets_total{limiter=\"all\",service=\"*\",verdict=\"marked\"} 5",
        "lb_limiter_packets_total{limiter=\"all\",service=\"*\",verdict=\"unmarked\"} 2",
        "lb_limiter_packets_total{limiter=\"source\",service=\"web\",verdict=\"admitted\"} 100",
        "lb_limiter_packets_total{limiter=\"source\",service=\"web\",verdict=\"dropped\"} 5",
        "lb_limiter_samples_total{result=\"lost\"} 2",
        "lb_limiter_samples_total{result=\"told\"} 40",
        "lb_map_entries{map=\"flows\"} 9",
        "lb_map_entries{map=\"lists\"} 3",
        "lb_map_max_entries{map=\"flows\"} 64",
        "lb_map_max_entries{map=\"lists\"} 250000",
        "lb_passes_total{interface=\"eth0\",reason=\"not_a_service\"} 7",
        "lb_service_bytes_total{service=\"api\"} 64000",
        "lb_service_bytes_total{service=\"web\"} 64000",
        "lb_service_new_flows_total{service=\"api\"} 10",
        "lb_service_new_flows_total{service=\"web\"} 10",
        "lb_service_packets_total{service=\"api\"} 1000",
        "lb_service_packets_total{service=\"web\"} 1000",
        "lb_slots{service=\"api\",state=\"moving\"} 7",
        "lb_slots{service=\"api\",state=\"settled\"} 65530",
        "lb_slots{service=\"web\",state=\"moving\"} 7",
        "lb_slots{service=\"web\",state=\"settled\"} 65530",
        "lb_xdp_attached{interface=\"eth0\",mode=\"native\"} 1",
    ];

    #[test]
    fn series_of_a_removed_backend_disappear() {
        let text = |addresses: &[&str]| {
            let backends = addresses.iter().map(|address| backend(address, HealthState::Up)).collect();
            render(&status(), &[("web".to_owned(), backends)], &limits()).unwrap()
        };
        assert!(text(&["10.0.1.1:80", "10.0.1.2:80"]).contains("10.0.1.2:80"));
        assert!(!text(&["10.0.1.1:80"]).contains("10.0.1.2:80"));
    }

    #[tokio::test]
    async fn a_scrape_asks_the_controller_and_speaks_the_text_format() {
        let answer = scrape(State(std::sync::Arc::new(Double::default()))).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; version=0.0.4");
        let text = axum::body::to_bytes(answer.into_body(), 65_536).await.unwrap();
        assert!(text.starts_with(b"# HELP lb_build_info "));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_advice() {
        let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let sentence = bind(address).await.unwrap_err().to_string();
        let expected = format!(
            "metrics address {address} is in use; find the other program with: ss -ltnp, or choose another \
             address ([daemon] metrics, or --metrics of lb decap)"
        );
        assert_eq!(sentence, expected);
    }

    #[tokio::test]
    async fn an_address_of_another_host_is_refused() {
        let sentence = bind("192.0.2.1:9441".parse().unwrap()).await.unwrap_err().to_string();
        assert!(sentence.starts_with("cannot serve metrics on 192.0.2.1:9441: Cannot assign"), "{sentence}");
    }
}
