//! What was counted, for people, for programs and for Prometheus.

use std::sync::Arc;

use lb_common::decap::Outcome;
use serde::Serialize;

use super::Counters;
use crate::datapath::{Attachment, TableError};
use crate::metrics::Page;
use crate::view::ReasonCount;

/// What became of the packets that came in by one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceReport {
    /// The interface's name.
    pub name: String,
    /// How the program is attached: `native` or `generic`.
    pub mode: String,
    /// Packets by what became of them; all outcomes there are.
    pub results: Vec<ReasonCount>,
}

/// Where reports come from.
#[derive(Clone)]
pub(super) struct Reporter {
    counters: Arc<Counters>,
    /// Name and mode of each interface, in the order of their rows.
    interfaces: Arc<[(String, &'static str)]>,
}

impl Reporter {
    /// For interfaces in the order in which the program was told of them.
    pub(super) fn new(counters: Counters, attachments: &[Attachment]) -> Self {
        let interfaces = attachments.iter().map(|one| (one.interface.clone(), one.mode.name())).collect();
        Self { counters: Arc::new(counters), interfaces }
    }

    /// Every interface's counters as they stand.
    pub(super) fn report(&self) -> Result<Vec<InterfaceReport>, TableError> {
        (1..).zip(self.interfaces.iter()).map(|(row, (name, mode))| self.interface(row, name, mode)).collect()
    }

    fn interface(&self, row: u32, name: &str, mode: &str) -> Result<InterfaceReport, TableError> {
        let count = |outcome: Outcome| {
            let packets = self.counters.read(row, outcome)?;
            Ok(ReasonCount { reason: outcome.label().into(), meaning: outcome.meaning().into(), packets })
        };
        let results = Outcome::all().map(count).collect::<Result<_, _>>()?;
        Ok(InterfaceReport { name: name.to_owned(), mode: mode.to_owned(), results })
    }

    /// The answer to a scrape.
    pub(super) fn metrics(&self) -> Result<String, String> {
        let report = self.report().map_err(|error| error.to_string())?;
        render(&report).map_err(|error| error.to_string())
    }
}

fn render(interfaces: &[InterfaceReport]) -> Result<String, prometheus::Error> {
    let page = Page::of(env!("CARGO_PKG_VERSION"))?;
    page.attached(interfaces.iter().map(|one| (one.name.as_str(), one.mode.as_str())))?;
    let packets = page.counter(
        "lb_decap_packets_total",
        "Packets that came in, by what became of them.",
        &["interface", "result"],
    )?;
    for interface in interfaces {
        for ReasonCount { reason, packets: count, .. } in &interface.results {
            packets.with_label_values(&[&interface.name, reason]).inc_by(*count);
        }
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_outcome() {
        let page = include_str!("../../../docs/backends.md");
        let rows: Vec<&str> =
            page.lines().filter(|line| line.starts_with("| `") && line.contains(". |")).collect();
        let expected =
            Outcome::all().map(|outcome| format!("| `{}` | {} |", outcome.label(), outcome.meaning()));
        assert_eq!(rows, expected.collect::<Vec<_>>());
    }

    #[test]
    fn every_outcome_is_a_series_of_its_own() {
        let results = Outcome::all().zip(1..).map(|(outcome, packets)| ReasonCount {
            reason: outcome.label().to_owned(),
            meaning: outcome.meaning().to_owned(),
            packets,
        });
        let report =
            InterfaceReport { name: "eth0".into(), mode: "native".into(), results: results.collect() };
        let text = render(&[report]).unwrap();
        assert!(text.contains("lb_xdp_attached{interface=\"eth0\",mode=\"native\"} 1\n"), "{text}");
        let series = "lb_decap_packets_total{interface=\"eth0\",result=\"unwrapped_ipip\"} 1\n";
        assert!(text.contains(series), "{text}");
        let series = text.lines().filter(|line| line.starts_with("lb_decap_packets_total{")).count();
        assert_eq!(series, Outcome::all().count());
    }
}
