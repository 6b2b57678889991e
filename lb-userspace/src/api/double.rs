//! A double in the controller's place, behind the real API on a real socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Control, Shared, bind, serve};
use crate::config::{limit_keys, packets_per_source, read_service};
use crate::controller::{Change, ChangeError, ControllerGone, FlowsQuery, ListChange, SuggestionQuery};
use crate::journal::Journal;
use crate::model::{Action, AdminState, Limit, ListName, Service};
use crate::view::{
    Applied, BackendSlots, BackendView, Busiest, CheckView, ConfigApplied, ConfigDiff, ConfigStatus,
    FlowCount, FlowLookup, FlowName, FlowPage, FlowStage, FlowView, FlowsView, GenerationView, HealthState,
    InterfaceView, LimitView, LimitedSource, LimitedView, ListsView, PlanView, PrefixList, SamplesView,
    ServiceSlots, Status, Suggestion,
};

/// Knows the service `web` without backends, refuses to drain for ever, and remembers what it was asked. One prefix is denied.
#[derive(Clone, Default)]
pub(crate) struct Double {
    pub(crate) changes: Arc<Mutex<Vec<Change>>>,
    pub(crate) list_changes: Arc<Mutex<Vec<ListChange>>>,
    /// What was asked of the configuration, in words.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    expected: Option<u64>,
    pub(crate) journal: Journal,
}

impl Double {
    fn config_applied(&self, asked: String) -> ConfigApplied {
        self.asked.lock().unwrap().push(asked);
        let applied = Applied {
            generation: 4,
            summary: "command: 1 change".to_owned(),
            slots_moved: 48,
            slots_least: 39,
            slots_total: 1_000,
        };
        ConfigApplied { applied, changes: vec!["+ deny: 10.0.0.0/8".to_owned()], confirm_by: None }
    }
}

fn check_service(service: &str) -> Result<(), ChangeError> {
    if service == "web" {
        Ok(())
    } else {
        Err(ChangeError::NotFound(format!("there is no service {service:?}")))
    }
}

#[async_trait]
impl Control for Double {
    fn expecting(&self, generation: u64) -> Shared {
        Arc::new(Self { expected: Some(generation), ..self.clone() })
    }

    fn generation(&self) -> u64 {
        1
    }

    async fn status(&self) -> Result<Status, ControllerGone> {
        Ok(Status {
            version: "0.1.0".to_owned(),
            uptime_seconds: 1,
            generation: 1,
            config: ConfigStatus { origin: "file lb.toml".to_owned(), ..ConfigStatus::default() },
            interfaces: Vec::new(),
            services: Vec::new(),
            flows: FlowsView::default(),
            lists: ListsView::default(),
            limiter_samples: SamplesView { told: 40, lost: 2 },
            warnings: Vec::new(),
        })
    }

    async fn interfaces(&self) -> Result<Vec<InterfaceView>, ControllerGone> {
        Ok(Vec::new())
    }

    fn journal(&self) -> &Journal {
        &self.journal
    }

    async fn service(&self, name: &str) -> Result<Service, ChangeError> {
        check_service(name)?;
        let keys =
            serde_json::json!({"name": "web", "vip": "192.0.2.10:80", "protocol": "tcp", "mode": "ipip"});
        Ok(read_service(&serde_json::from_value(keys).unwrap()).unwrap())
    }

    async fn backends(&self, service: &str) -> Result<Vec<BackendView>, ChangeError> {
        check_service(service).map(|()| Vec::new())
    }

    async fn limits(&self, service: Option<&str>) -> Result<Vec<LimitView>, ChangeError> {
        service.map_or(Ok(()), check_service)?;
        let limit = Limit::try_new("source-packets", packets_per_source(1_000, 200)).unwrap();
        Ok(vec![LimitView {
            service: Some("web".to_owned()),
            name: limit.name().to_owned(),
            words: limit.policy().to_string(),
            settings: limit_keys(limit.policy()),
            clock: "coarse".to_owned(),
            action: Action::Drop,
            over: 5,
            unmarked: 0,
            contended: 1,
            admitted: 1_500,
        }])
    }

    async fn suggestions(&self, query: SuggestionQuery) -> Result<Vec<Suggestion>, ChangeError> {
        let SuggestionQuery { service, limiter, quantile } = query;
        service.as_deref().map_or(Ok(()), check_service)?;
        let limit = Limit::try_new("probe", packets_per_source(320, 640)).unwrap();
        Ok(vec![Suggestion {
            service,
            limiter: limiter.unwrap_or_else(|| "probe".to_owned()),
            watched_seconds: 600,
            sources: 12_304,
            contended: 0,
            busiest: vec![Busiest { percent: 50.0, rate: 3 }, Busiest { percent: 100.0, rate: 2_047 }],
            quantile: quantile.percent(),
            words: limit.policy().to_string(),
            settings: limit_keys(limit.policy()),
            hits: 9,
            command: "lb limit set web probe packets=320/s burst=640 action=drop".to_owned(),
        }])
    }

    async fn limited(&self, service: Option<&str>, most: usize) -> Result<LimitedView, ChangeError> {
        service.map_or(Ok(()), check_service)?;
        let one = |source: &str, packets_per_second, uncertainty| LimitedSource {
            source: Some(source.to_owned()),
            packets_per_second,
            uncertainty,
            service: Some("web".to_owned()),
            limiter: "source-packets".to_owned(),
            action: Action::Drop,
        };
        let sources = [one("198.51.100.7", 1204.5, 20.25), one("2001:db8::/64", 0.25, 0.0)];
        Ok(LimitedView {
            seconds: 15.0,
            packets_per_second: 1204.75,
            samples: 40,
            samples_lost: 2,
            sources_total: 2,
            sources: sources.into_iter().take(most).collect(),
        })
    }

    /// One flow for each place.
    async fn flows(&self, query: FlowsQuery) -> Result<FlowPage, ChangeError> {
        query.service.as_deref().map_or(Ok(()), check_service)?;
        let end = (query.from + query.most as u64).min(3);
        let flow = |place: u64| FlowView {
            hash: format!("{place:016x}"),
            service: "web".to_owned(),
            slot: 7,
            backend: Some("10.0.1.1:80".to_owned()),
            stage: FlowStage::Confirmed,
            idle_seconds: place,
        };
        Ok(FlowPage { flows: (query.from..end).map(flow).collect(), next: Some(end).filter(|end| *end < 3) })
    }

    async fn count_flows(&self, service: Option<&str>) -> Result<Vec<FlowCount>, ChangeError> {
        service.map_or(Ok(()), check_service)?;
        let backend = Some("10.0.1.1:80".to_owned());
        Ok(vec![FlowCount { service: "web".to_owned(), backend, fresh: 1, confirmed: 2 }])
    }

    async fn lookup(&self, flow: FlowName) -> Result<FlowLookup, ChangeError> {
        if flow.vip.port() != 80 {
            return Err(ChangeError::NotFound(format!("no service takes packets for {}", flow.vip)));
        }
        Ok(FlowLookup {
            service: "web".to_owned(),
            hash: "00000000deadbeef".to_owned(),
            slot: Some(7),
            moving: false,
            backend: Some("10.0.1.1:80".to_owned()),
            opens_at: Some("10.0.1.1:80".to_owned()),
            remembered: None,
            reason: "its slot is settled".to_owned(),
        })
    }

    async fn slots(&self, service: &str) -> Result<ServiceSlots, ChangeError> {
        check_service(service)?;
        let one = BackendSlots {
            address: "10.0.1.1:80".to_owned(),
            owned: 251,
            share: 1.0,
            wanted_share: 1.0,
            arriving: 2,
            leaving: 0,
        };
        Ok(ServiceSlots { table_size: 251, settled: 249, moving: 2, backends: vec![one] })
    }

    async fn checks(&self, service: Option<&str>) -> Result<Vec<CheckView>, ChangeError> {
        service.map_or(Ok(()), check_service)?;
        Ok(vec![CheckView {
            service: "web".to_owned(),
            backend: "10.0.1.1:80".to_owned(),
            target: "10.0.1.1:8080".to_owned(),
            health: HealthState::Down,
            since_seconds: Some(3),
            interval_ms: 1_000,
            rise: 2,
            fall: 3,
            last_check: "connection refused".to_owned(),
        }])
    }

    async fn weigh(&self, change: Change) -> Result<PlanView, ChangeError> {
        change.service().map_or(Ok(()), check_service)?;
        Ok(PlanView { tables: 1, slots_moved: 48, slots_least: 39, slots_total: 1_000, flows: 0 })
    }

    async fn change(&self, change: Change) -> Result<Applied, ChangeError> {
        change.service().map_or(Ok(()), check_service)?;
        if let Some(expected) = self.expected.filter(|expected| *expected != 1) {
            return Err(ChangeError::Superseded { present: 1, expected });
        }
        if matches!(change, Change::SetState { state: AdminState::Drain { timeout: None }, .. }) {
            return Err(ChangeError::Refused("10.0.1.1:80 drains already".to_owned()));
        }
        self.changes.lock().unwrap().push(change);
        Ok(Applied {
            generation: 2,
            summary: "done".to_owned(),
            slots_moved: 1,
            slots_least: 1,
            slots_total: 3,
        })
    }

    async fn list(&self, list: ListName) -> Result<PrefixList, ControllerGone> {
        let denied = if list == ListName::Deny { vec!["198.51.100.0/24".to_owned()] } else { Vec::new() };
        Ok(PrefixList { prefixes: denied })
    }

    async fn change_list(&self, change: ListChange) -> Result<Applied, ChangeError> {
        self.list_changes.lock().unwrap().push(change);
        let summary = "listed".to_owned();
        Ok(Applied { generation: 3, summary, slots_moved: 0, slots_least: 0, slots_total: 0 })
    }

    async fn config(&self) -> Result<String, ControllerGone> {
        Ok("[daemon]\ninterfaces = [\"eth0\"]\n".to_owned())
    }

    /// The files say what is in force, and every other text says one thing more.
    async fn diff_config(&self, text: Option<String>) -> Result<ConfigDiff, ChangeError> {
        if text.is_none() {
            return Ok(ConfigDiff::default());
        }
        let plan = PlanView { tables: 1, slots_moved: 48, slots_least: 39, slots_total: 1_000, flows: 0 };
        let changes = vec!["+ deny: 10.0.0.0/8".to_owned()];
        Ok(ConfigDiff { changes, count: 1, plan: Some(plan), restart: Vec::new() })
    }

    async fn apply_config(
        &self,
        text: Option<String>,
        confirm_within: Option<Duration>,
    ) -> Result<ConfigApplied, ChangeError> {
        let what = if text.is_some() { "text" } else { "files" };
        Ok(self.config_applied(format!("apply {what} {confirm_within:?}")))
    }

    async fn history(&self) -> Result<Vec<GenerationView>, ControllerGone> {
        let view = |generation, changes: &str| GenerationView {
            generation,
            current: generation == 2,
            time: 86_400,
            origin: "command".to_owned(),
            changes: vec![changes.to_owned(), "more".to_owned()],
        };
        Ok(vec![view(1, "+ a"), view(2, "+ b")])
    }

    async fn roll_back(&self, generation: Option<u64>) -> Result<ConfigApplied, ChangeError> {
        Ok(self.config_applied(format!("rollback {generation:?}")))
    }

    async fn confirm(&self) -> Result<ConfigApplied, ChangeError> {
        Err(ChangeError::Refused("generation 2 does not wait to be confirmed".to_owned()))
    }
}

/// A daemon of nothing but an API.
pub(crate) struct Daemon {
    folder: TempDir,
    pub(crate) double: Double,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = bind(&folder.path().join("lb.sock")).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let double = Double::default();
        let shutdown = async { drop(stopped.await) };
        let served = tokio::spawn(serve(socket, Arc::new(double.clone()), shutdown));
        Self { folder, double, stop, served }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("lb.sock")
    }

    /// Stops as on SIGTERM; the folder lives on for a look at what is left.
    pub(crate) async fn stop(self) -> TempDir {
        let _ = self.stop.send(());
        self.served.await.unwrap();
        self.folder
    }
}
