//! What the daemon tells: the JSON of the API, the input of the CLI's tables and of the metrics.

mod backends;
mod bpf;
mod config;
mod events;
mod flows;
mod health;
mod limited;
mod lists;
mod stats;
mod suggestion;
mod xdp;

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::{LimitKeys, show_duration};
use crate::model::{Action, Affinity, ForwardMode, GUE_PORT, Protocol, Service, ServiceOptions};

pub use self::backends::{AddBackend, BackendState, BackendView, DrainBackend, HealthState, SetBackend};
pub use self::bpf::{BpfEntry, BpfMap};
pub use self::config::{
    ApplyQuery, ConfigApplied, ConfigDiff, ConfigStatus, GenerationView, PlanView, Rollback,
};
pub use self::events::{Event, EventKind, EventsQuery};
pub use self::flows::{
    BackendSlots, FlowCount, FlowLookup, FlowName, FlowPage, FlowStage, FlowView, ServiceSlots,
};
pub use self::health::CheckView;
pub use self::limited::{LimitedSource, LimitedView, SamplesView};
pub use self::lists::{ListsView, PrefixList};
pub use self::stats::Stats;
pub use self::suggestion::{Busiest, Suggestion};
pub use self::xdp::{XdpInterface, XdpStatus};

/// The daemon as a whole: `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// The number of what is wanted: one more with every change, over restarts too.
    pub generation: u64,
    /// Where that comes from, and how its files and its state are.
    #[serde(default)]
    pub config: ConfigStatus,
    /// The interfaces the program is attached to.
    pub interfaces: Vec<InterfaceView>,
    /// Every service.
    pub services: Vec<ServiceView>,
    /// The flows that are remembered, all services together.
    pub flows: FlowsView,
    /// How full the deny and the allow list are.
    pub lists: ListsView,
    /// What became of the samples of packets over limits.
    pub limiter_samples: SamplesView,
    /// What is not well, a sentence each; empty when all is well.
    pub warnings: Vec<String>,
}

/// Flows in moving slots, which have to be remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowsView {
    /// Flows that are remembered, to within those forgotten since the last sweep, a few seconds ago.
    pub remembered: u64,
    /// Flows that can be remembered.
    pub capacity: u64,
    /// Packets of remembered flows.
    pub known: u64,
    /// Flows remembered in a vacant place.
    pub added: u64,
    /// Flows remembered in the place of another.
    pub evicted: u64,
    /// Flows that could not be remembered, since CPUs got in each other's way.
    pub contended: u64,
}

/// The slots of a service's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlotsView {
    /// Slots whose flows all belong to one backend.
    pub settled: u64,
    /// Slots that changed their owner and remember flows.
    pub moving: u64,
}

/// One attached interface and what happened there to packets that were not forwarded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InterfaceView {
    /// The interface's name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    /// Packets handed to the host's stack, by reason; reasons never seen are absent.
    pub passes: Vec<ReasonCount>,
    /// Packets dropped, by reason; reasons never seen are absent.
    pub drops: Vec<ReasonCount>,
    /// Packets that the program answered or sent back to a client by itself, by reason; reasons never seen are absent.
    pub answers: Vec<ReasonCount>,
}

#[cfg(test)]
impl InterfaceView {
    /// An interface that dropped and answered so many packets for these reasons.
    pub(crate) fn example(name: &str, drops: &[(&str, u64)], answers: &[(&str, u64)]) -> Self {
        let count = |(reason, packets): &(&str, u64)| ReasonCount {
            reason: (*reason).to_owned(),
            meaning: String::new(),
            packets: *packets,
        };
        Self {
            name: name.to_owned(),
            mode: "native".to_owned(),
            passes: Vec::new(),
            drops: drops.iter().map(count).collect(),
            answers: answers.iter().map(count).collect(),
        }
    }
}

/// How often one reason was the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReasonCount {
    /// The reason's label, from a closed set.
    pub reason: String,
    /// What it means, a sentence.
    pub meaning: String,
    /// Packets since the program was loaded.
    pub packets: u64,
}

/// One service: an element of `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// The service's name.
    pub name: String,
    /// `ADDRESS:PORT`.
    pub vip: String,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How packets travel to the backends.
    pub mode: ForwardMode,
    /// The limit in words, such as `1000 packets/s per source, burst 200`; `None` if unlimited.
    pub limit: Option<String>,
    /// What it does in a way of its own.
    pub options: OptionsView,
    /// Slots of its Maglev table.
    pub table_size: u32,
    /// Its slots now; none while no backend is alive.
    pub slots: SlotsView,
    /// Backends that take traffic now.
    pub backends_serving: usize,
    /// Backends configured.
    pub backends_total: usize,
    /// Packets received for the service since its start, forwarded and dropped.
    pub packets: u64,
    /// Bytes forwarded (IP length plus Ethernet header).
    pub bytes: u64,
    /// TCP connection attempts (SYN) and nothing for UDP.
    pub new_flows: u64,
    /// Packets dropped by the limiter.
    pub limited: u64,
    /// Packets let through because the limiter's set was full of other busy sources.
    pub contended: u64,
}

/// One limiter: an element of `GET /v1/limits` and of `GET /v1/services/{service}/limits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitView {
    /// The service that has it; absent if every service has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its name.
    pub name: String,
    /// What it does in words, such as `1000 packets/s per source, burst 200`.
    pub words: String,
    /// The same as the configuration has it, without the name: what `PUT` takes.
    pub settings: LimitKeys,
    /// `coarse`, the timer's ticks, or `exact`, to the nanosecond and dearer: where the burst is too small for ticks.
    pub clock: String,
    /// What happens to packets over the limit.
    pub action: Action,
    /// Packets over the limit, dealt with as `action` says.
    pub over: u64,
    /// Packets over the limit that could not be marked, since their senders do not understand marks, and passed.
    pub unmarked: u64,
    /// Packets let through because the buckets for them were full of other busy sources.
    pub contended: u64,
    /// Packets within the limit.
    pub admitted: u64,
}

/// What of a service's options differs from the default, named and written as in the configuration; the rest is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OptionsView {
    /// UDP port of its tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1)]
    pub gue_port: Option<NonZeroU16>,
    /// Source of outer headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer_source: Option<String>,
    /// What of a flow decides about its backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Whether its packets are QUIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<bool>,
    /// After how long without a packet a flow counts as gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// How long backends drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<String>,
    /// How long weights rise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// How the balancer makes itself known as the one that has the VIP: `l2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<String>,
}

impl OptionsView {
    /// The options of a service.
    pub fn of(service: &Service) -> Self {
        let ServiceOptions { affinity, quic, announce, outer_source, gue_port, .. } = service.options;
        let ServiceOptions { drain_timeout, slow_start, .. } = service.options;
        let idle_timeout = service.idle_timeout();
        let unusual = |timeout: &Duration| *timeout != service.protocol.idle_timeout();
        Self {
            gue_port: gue_port.filter(|port| *port != GUE_PORT),
            outer_source: outer_source.map(|source| source.to_string()),
            affinity: Some(affinity).filter(|affinity| *affinity != Affinity::default()),
            quic: quic.then_some(true),
            idle_timeout: Some(idle_timeout).filter(unusual).map(show_duration),
            drain_timeout: drain_timeout.map(show_duration),
            slow_start: slow_start.map(show_duration),
            announce: announce.then(|| "l2".to_owned()),
        }
    }
}

/// `affinity=source idle_timeout=5m`, or `none`.
impl fmt::Display for OptionsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.gue_port.map(|port| format!("gue_port={port}")),
            self.outer_source.as_ref().map(|source| format!("outer_source={source}")),
            self.affinity.map(|affinity| format!("affinity={affinity}")),
            self.quic.map(|quic| format!("quic={quic}")),
            self.idle_timeout.as_ref().map(|timeout| format!("idle_timeout={timeout}")),
            self.drain_timeout.as_ref().map(|timeout| format!("drain_timeout={timeout}")),
            self.slow_start.as_ref().map(|time| format!("slow_start={time}")),
            self.announce.as_ref().map(|announce| format!("announce={announce}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        if words.is_empty() { f.write_str("none") } else { f.write_str(&words.join(" ")) }
    }
}

/// What a change did: the answer to every accepted change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// The generation this change made.
    pub generation: u64,
    /// What was changed, a sentence.
    pub summary: String,
    /// Slots whose owner changed.
    pub slots_moved: u64,
    /// The least that had to move for this change.
    pub slots_least: u64,
    /// Slots of the tables concerned.
    pub slots_total: u64,
}

/// An answer that is not a success, as `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The kind of problem in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do, a sentence.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Endpoint;

    fn view(protocol: Protocol, options: ServiceOptions) -> OptionsView {
        let vip: Endpoint = "192.0.2.10:80".parse().unwrap();
        OptionsView::of(&Service {
            name: "web".to_owned(),
            vip,
            protocol,
            mode: ForwardMode::Gue,
            table_size: 251,
            limits: Vec::new(),
            health: None,
            options,
            backends: Vec::new(),
        })
    }

    #[test]
    fn options_are_told_as_they_are_configured() {
        let options = ServiceOptions {
            affinity: Affinity::Source,
            quic: true,
            idle_timeout: Some(Duration::from_secs(90)),
            drain_timeout: Some(Duration::from_mins(5)),
            slow_start: Some(Duration::from_secs(30)),
            announce: true,
            outer_source: Some("10.99.0.0/16".parse().unwrap()),
            gue_port: NonZeroU16::new(6081),
        };
        let view = view(Protocol::Udp, options);
        let json = serde_json::json!({
            "gue_port": 6081, "outer_source": "10.99.0.0/16", "affinity": "source", "quic": true,
            "idle_timeout": "90s", "drain_timeout": "5m", "slow_start": "30s", "announce": "l2"
        });
        assert_eq!(serde_json::to_value(&view).unwrap(), json);
        assert_eq!(serde_json::from_value::<OptionsView>(json).unwrap(), view);
        assert_eq!(
            view.to_string(),
            "gue_port=6081 outer_source=10.99.0.0/16 affinity=source quic=true idle_timeout=90s \
             drain_timeout=5m slow_start=30s announce=l2"
        );
    }

    #[test]
    fn what_is_as_usual_is_not_told() {
        let timeout = |minutes| Some(Duration::from_mins(minutes));
        let spelt_out = |timeout| ServiceOptions {
            idle_timeout: timeout,
            gue_port: Some(GUE_PORT),
            ..ServiceOptions::default()
        };
        for (protocol, minutes) in [(Protocol::Tcp, 15), (Protocol::Udp, 2)] {
            for options in [ServiceOptions::default(), spelt_out(timeout(minutes))] {
                assert_eq!(view(protocol, options), OptionsView::default());
            }
        }
        assert_eq!(view(Protocol::Udp, spelt_out(timeout(15))).to_string(), "idle_timeout=15m");
        assert_eq!(serde_json::to_string(&OptionsView::default()).unwrap(), "{}");
        assert_eq!(OptionsView::default().to_string(), "none");
    }
}
