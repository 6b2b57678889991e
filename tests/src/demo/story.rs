//! The chapters of the demo.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_userspace::view::HealthState;

use super::findings::Findings;
use super::screen::{bars, chapter, say, show};
use crate::load::{self, Asker, Flood, KeepAlive, Plan, Report, SteadyLoad};
use crate::net::{BACKENDS, Node, VIP4};
use crate::servers::{ECHO_PORT, HTTP_PORT};
use crate::site::{SERVING, Site};
use crate::{interrupt, wait};

/// The backend that is killed.
const VICTIM: Node = Node::Backend(2);
/// Its address as `lb` writes it.
const VICTIM_ADDRESS: &str = "10.0.12.2:80";
/// Enough that a third of it is not a matter of luck.
const MANY: usize = 300;
/// Requests a second while a backend is killed.
const STEADY_RATE: u32 = 100;
/// Checks every 200 ms, two of which must fail: this is generous.
const DETECTION: Duration = Duration::from_secs(2);
/// Limit of the echo service for each source, as the configuration has it.
const LIMIT: u64 = 500;
const BURST: u64 = 100;

const FLOOD: u32 = 10_000;
const FLOOD_TIME: Duration = Duration::from_secs(3);

fn web() -> SocketAddr {
    (VIP4, HTTP_PORT).into()
}

fn echo() -> SocketAddr {
    (VIP4, ECHO_PORT).into()
}

/// What runs now.
pub(super) fn start(site: &Site) -> Result<()> {
    chapter("The load balancer runs");
    show("lb status", &site.cli()?.succeed(&["status"])?);
    Ok(())
}

/// Requests reach all backends.
pub(super) fn spread(site: &mut Site, findings: &mut Findings) -> Result<()> {
    chapter("Requests are spread over the backends");
    say(&format!("client1 sends {MANY} requests to http://{VIP4}/, each over a new connection:"));
    let report = load::requests(&site.client(1), web(), MANY)?;
    bars(&report.by_backend());
    note_answers(findings, "all requests are answered", &report);
    let shares: Vec<usize> = report.by_backend().into_values().collect();
    let even = shares.len() == BACKENDS.len() && shares.iter().all(|share| *share * 5 >= MANY);
    let seen = shares.iter().map(|share| format!("{} %", share * 100 / MANY)).collect::<Vec<_>>().join(", ");
    findings.note("every backend has its share", "about 33 % each (at least 20)", seen, even);
    Ok(())
}

/// A connection does not change its backend.
pub(super) fn stay(site: &mut Site, findings: &mut Findings) -> Result<()> {
    chapter("A connection stays where it is");
    say("client1 opens three connections and asks 20 times over each:");
    let mut steady = 0;
    for number in 1..=3 {
        let mut connection = KeepAlive::open(&site.client(1), web())?;
        let answers: Vec<String> = (0..20).map(|_| connection.ask()).collect::<Result<_, _>>()?;
        let names: BTreeSet<&str> = answers.iter().map(String::as_str).collect();
        steady += usize::from(names.len() == 1);
        let names: Vec<&str> = names.into_iter().collect();
        say(&format!("connection {number}: 20 answers from {}", names.join(" and ")));
    }
    findings.note("a connection keeps its backend", "3 of 3", format!("{steady} of 3"), steady == 3);
    Ok(())
}

/// A backend dies under load, and the requests move away.
pub(super) fn lose_one(site: &mut Site, findings: &mut Findings) -> Result<()> {
    chapter("A backend dies under load");
    say(&format!("client1 sends {STEADY_RATE} requests a second; then the server on {VICTIM} is killed."));
    let plan = Plan { target: web(), rate: STEADY_RATE, longest: Duration::from_secs(20) };
    let begun = Instant::now();
    let load = SteadyLoad::start(&site.client(1), plan);
    wait_for_requests(&load, 100, begun)?;
    site.kill_servers(VICTIM)?;
    let killed = Instant::now();
    wait_until_down(site)?;
    let moved = Instant::now();
    wait_for_requests(&load, 150, moved)?;
    show("lb backend list web", &site.cli()?.succeed(&["backend", "list", "web"])?);
    report_loss(&load.finish()?, killed, moved, findings);
    Ok(())
}

fn wait_for_requests(load: &SteadyLoad, count: usize, since: Instant) -> Result<()> {
    wait::until(Duration::from_secs(10), "enough requests were made", || {
        let made = load.so_far().since(since).total();
        ensure!(made >= count, "{made} of {count} so far");
        Ok(())
    })
}

fn wait_until_down(site: &Site) -> Result<()> {
    wait::until(Duration::from_secs(10), "the dead backend is noticed", || {
        let backends = site.cli()?.backends("web")?;
        let victim =
            backends.iter().find(|backend| backend.address == VICTIM_ADDRESS).context("it is gone")?;
        ensure!(victim.health == HealthState::Down && victim.share == 0.0, "it still counts: {victim:?}");
        Ok(())
    })
}

fn report_loss(report: &Report, killed: Instant, moved: Instant, findings: &mut Findings) {
    let after = report.since(moved);
    let last = report.last_failure().map_or(Duration::ZERO, |last| last.saturating_duration_since(killed));
    say("");
    say(&format!("{} requests in all; {} failed, the last of them", report.total(), report.failed()));
    say(&format!("{last:.0?} after the kill. The health check needed {:.0?}; since then:", moved - killed));
    bars(&after.by_backend());
    let bound = format!("within {DETECTION:.0?}");
    findings.note(
        "the dead backend is noticed",
        &bound,
        format!("{:.0?}", moved - killed),
        moved - killed <= DETECTION,
    );
    findings.note("the last request fails", bound, format!("{last:.0?} after the kill"), last <= DETECTION);
    note_answers(findings, "then all requests are answered", &after);
    let stray = after.by_backend().get(&VICTIM.to_string()).copied().unwrap_or(0);
    findings.note(
        "by the other backends",
        format!("0 by {VICTIM}"),
        format!("{stray} by {VICTIM}"),
        stray == 0,
    );
}

/// The dead backend is taken out of the configuration, repaired, and added again.
pub(super) fn add_back(site: &mut Site, findings: &mut Findings) -> Result<()> {
    chapter("The backend is repaired and added back");
    let cli = site.cli()?.clone();
    let command =
        |words: &[&str]| cli.succeed(words).map(|output| show(&format!("lb {}", words.join(" ")), &output));
    command(&["backend", "remove", "web", VICTIM_ADDRESS])?;
    site.start_servers(VICTIM)?;
    say(&format!("(the server on {VICTIM} is started again)"));
    command(&["backend", "add", "web", VICTIM_ADDRESS])?;
    cli.wait_serving("web", BACKENDS.len(), SERVING)?;
    command(&["backend", "list", "web"])?;
    say("");
    let report = load::requests(&site.client(1), web(), MANY)?;
    bars(&report.by_backend());
    note_answers(findings, "the repaired backend is back", &report);
    let again = report.by_backend().get(&VICTIM.to_string()).copied().unwrap_or(0);
    findings.note(
        "and has its share again",
        "at least 20 %",
        format!("{} %", again * 100 / MANY),
        again * 5 >= MANY,
    );
    Ok(())
}

/// A client floods and is held to the limit; the other one notices nothing.
pub(super) fn flood(site: &mut Site, findings: &mut Findings) -> Result<()> {
    chapter("A flooding client is held to its rate");
    say(&format!("The echo service lets each source send {LIMIT} packets a second. client2 sends {FLOOD}."));
    let before = site.cli()?.service("echo")?;
    let flood = Flood { target: echo(), rate: FLOOD, duration: FLOOD_TIME }.start(&site.client(2));
    let innocent = ask_meanwhile(site)?;
    let flood = flood.finish()?;
    let after = site.cli()?.service("echo")?;
    let dropped = after.limited - before.limited;
    let admitted = (after.packets - before.packets).saturating_sub(dropped + innocent.total() as u64 / 2);
    say(&format!(
        "client2  sent {} in {:.1?}: {admitted} admitted, {dropped} dropped",
        flood.sent, flood.took
    ));
    let (total, failed) = (innocent.total(), innocent.failed());
    say(&format!("client1  sent {total} requests meanwhile (echo and web): {failed} failed"));
    let most = LIMIT * flood.took.as_millis() as u64 / 1000 + BURST;
    let held = admitted <= most + most / 10 && admitted >= most / 2;
    findings.note(
        "the flood is held to its rate",
        format!("at most {most} (+10 %)"),
        admitted.to_string(),
        held,
    );
    note_answers(findings, "the other client is unharmed", &innocent);
    Ok(())
}

/// As long as the flood lasts: by turns a question to the flooded service, and a web request.
fn ask_meanwhile(site: &Site) -> Result<Report> {
    let end = Instant::now() + FLOOD_TIME;
    let mut all = Report::default();
    while Instant::now() < end {
        all.requests.extend(Asker::requests(&site.client(1), echo(), 1)?.requests);
        all.requests.extend(load::requests(&site.client(1), web(), 1)?.requests);
        interrupt::pause(Duration::from_millis(20))?;
    }
    Ok(all)
}

/// What a monitoring system would read.
pub(super) fn metrics(site: &mut Site, findings: &mut Findings) -> Result<()> {
    chapter("The metrics page");
    let page = site.metrics()?;
    let wanted = [
        "lb_service_packets_total{service=\"web\"",
        "lb_backend_packets_total{",
        "lb_backend_up{",
        "lb_limiter_packets_total{",
        "lb_drops_total{",
        "lb_xdp_attached{",
    ];
    show("curl http://127.0.0.1:9441/metrics    (excerpt)", &excerpt(&page, &wanted));
    let found = wanted.iter().filter(|name| page.contains(*name)).count();
    let seen = format!("{found} of {}", wanted.len());
    findings.note(
        "the metrics tell all this",
        format!("{} series", wanted.len()),
        seen,
        found == wanted.len(),
    );
    Ok(())
}

/// The lines for IPv4's services that begin with one of `names`, three of each.
fn excerpt(page: &str, names: &[&str]) -> String {
    let lines = |name: &&str| {
        let own = page.lines().filter(move |line| line.starts_with(name) && !line.contains("6\""));
        own.take(3).map(str::to_owned).collect::<Vec<_>>()
    };
    names.iter().flat_map(lines).collect::<Vec<_>>().join("\n")
}

fn note_answers(findings: &mut Findings, what: &str, report: &Report) {
    let (total, failed) = (report.total(), report.failed());
    let reason = report.first_failure().map_or(String::new(), |reason| format!(" ({reason})"));
    let seen = format!("{} of {total}{reason}", total - failed);
    findings.note(what, format!("{total} of {total}"), seen, failed == 0 && total > 0);
}
