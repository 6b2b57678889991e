//! Backends fail and come back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::Config;
use lb_tests::load::{self, Plan, SteadyLoad};
use lb_tests::net::{Node, VIP4, VIP6};
use lb_tests::servers::HTTP_PORT;
use lb_tests::site::{SERVING, Site};
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::view::{BackendView, HealthState};

use crate::cases::{Case, cases, ensure_only, ensure_spread, web};

const VICTIM: Node = Node::Backend(3);
const OTHERS: [Node; 2] = [Node::Backend(1), Node::Backend(2)];
/// Checks are 200 ms apart and two must fail.
const NOTICED: Duration = Duration::from_secs(5);

pub(crate) fn cases() -> Vec<Case> {
    cases!["failures": requests_move_away_and_back, a_silent_backend_is_noticed, all_backends_down]
}

fn requests_move_away_and_back(tools: Tools) -> Result<()> {
    let mut site = Site::with_daemon(tools, &Config::new(vec![web(VIP4).checked()]))?;
    let target = (VIP4, HTTP_PORT).into();
    let begun = Instant::now();
    let plan = Plan { target, rate: 100, longest: Duration::from_secs(30) };
    let load = SteadyLoad::start(&site.client(1), plan);
    wait_for(&load, begun, 50)?;
    site.kill_servers(VICTIM)?;
    site.cli()?.wait_serving("web", 2, NOTICED)?;
    let moved = Instant::now();
    wait_for(&load, moved, 100)?;
    ensure!(victim(&site)?.health == HealthState::Down, "{:?}", victim(&site)?);
    let report = load.finish()?;
    ensure_only(&report.since(moved), &OTHERS)?;
    let before = report.total() - report.since(moved).total();
    ensure!(report.failed() < before / 2, "{} of {before} requests failed", report.failed());

    site.start_servers(VICTIM)?;
    site.cli()?.wait_serving("web", 3, SERVING)?;
    ensure!(victim(&site)?.health == HealthState::Up, "{:?}", victim(&site)?);
    ensure_spread(&load::requests(&site.client(1), target, 90)?)
}

fn wait_for(load: &SteadyLoad, since: Instant, count: usize) -> Result<()> {
    wait::until(Duration::from_secs(15), "enough requests were made", || {
        let made = load.so_far().since(since).total();
        ensure!(made >= count, "{made} of {count} so far");
        Ok(())
    })
}

fn victim(site: &Site) -> Result<BackendView> {
    let name = web(VIP4).endpoint(VICTIM);
    let backends = site.cli()?.backends("web")?;
    backends.into_iter().find(|backend| backend.address == name).context("the backend is gone")
}

/// Its link goes down: nothing refuses a connection, the checks time out.
fn a_silent_backend_is_noticed(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP6).checked()]))?;
    site.lab.ip(VICTIM, &["link set dev eth0 down".to_owned()])?;
    site.cli()?.wait_serving("web", 2, NOTICED)?;
    ensure_only(&load::requests(&site.client(2), (VIP6, HTTP_PORT).into(), 60)?, &OTHERS)
}

/// The daemon says so, survives, and recovers.
fn all_backends_down(tools: Tools) -> Result<()> {
    let nodes = [Node::Backend(1), Node::Backend(2)];
    let mut site = Site::with_daemon(tools, &Config::new(vec![web(VIP4).only(&nodes).checked()]))?;
    for node in nodes {
        site.kill_servers(node)?;
    }
    wait::until(NOTICED, "the service has no backend", || {
        let status = site.status()?;
        let serving = status.services[0].backends_serving;
        ensure!(
            serving == 0 && !status.warnings.is_empty(),
            "{serving} serve, warnings: {:?}",
            status.warnings
        );
        Ok(())
    })?;
    for node in nodes {
        site.start_servers(node)?;
    }
    site.cli()?.wait_serving("web", 2, SERVING)?;
    ensure_only(&load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), 20)?, &nodes)
}
