//! `lb-lab demo`: what the load balancer does, shown with real packets, and checked while it is shown.

mod findings;
mod screen;
mod story;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::daemon::Config;
use crate::playground;
use crate::site::{Site, Traces};
use crate::tools::Tools;

use findings::Findings;
use screen::{chapter, say};

/// Tells the story. Fails with exit code 1 if something differs from what is expected.
pub fn run(tools: Tools) -> Result<ExitCode> {
    let begun = Instant::now();
    let mut findings = Findings::default();
    let traces = tell(tools, &mut findings)?;
    clean(&traces, &mut findings);
    println!("\n{findings}");
    say(&format!("{} of {} as expected, in {:.0?}.", findings.good(), findings.len(), begun.elapsed()));
    Ok(if findings.all_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that needs the network, which is gone when this returns.
fn tell(tools: Tools, findings: &mut Findings) -> Result<Traces> {
    screen::introduction();
    let mut site = Site::new(tools)?;
    site.serve(&Config::new(playground::services()))?;
    let mut traces = site.traces();
    story::start(&site)?;
    for part in [story::spread, story::stay, story::lose_one, story::add_back, story::flood, story::metrics] {
        part(&mut site, findings)?;
    }
    let started_later = site.traces().processes.into_iter().filter(|id| !traces.processes.contains(id));
    traces.processes.extend(started_later.collect::<Vec<_>>());
    Ok(traces)
}

fn clean(traces: &Traces, findings: &mut Findings) {
    chapter("Cleaning up");
    let left = traces.left();
    say(&format!(
        "{} processes ended, {} namespaces and all files removed.",
        traces.processes.len(),
        traces.namespaces.len()
    ));
    findings.note("nothing is left behind", "nothing", seen_left(&left), left.is_empty());
}

fn seen_left(left: &[String]) -> String {
    if left.is_empty() { "nothing".to_owned() } else { left.join(", ") }
}
