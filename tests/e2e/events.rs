//! What happens, as `lb events` tells it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::Config;
use lb_tests::load::Asker;
use lb_tests::net::{Node, VIP4};
use lb_tests::process::Process;
use lb_tests::servers::ECHO_PORT;
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;

use crate::cases::{Case, cases, echo, web};

pub(crate) fn cases() -> Vec<Case> {
    cases!["events": what_happens_is_told_a_line_each]
}

/// The event of no daemon: everything that is kept comes after it.
const BEFORE_ALL: &str = "0-0";

/// Longer than drops are summed up.
const SOON: Duration = Duration::from_secs(25);

fn what_happens_is_told_a_line_each(tools: Tools) -> Result<()> {
    let mut site = Site::with_daemon(tools, &Config::new(vec![web(VIP4).checked(), echo(VIP4)]))?;
    let mut command = site.client(1).command(site.lb());
    command.env("LB_SOCKET", site.files("lb").socket).args(["events", "--after", BEFORE_ALL]);
    let mut follower = Process::spawn_logged("lb events", command, &site.directory().join("events.log"))?;
    let hears = |follower: &Process, what: &str| {
        wait::until(SOON, "it is told", || {
            let log = follower.log();
            let line = log.lines().find(|line| line.contains(what)).map(str::to_owned);
            line.with_context(|| format!("no {what:?} in {log}"))
        })
    };
    let gap = hears(&follower, "  gap     ")?;
    ensure!(gap.contains("the daemon has started anew"), "{gap}");

    let drained = web(VIP4).endpoint(Node::Backend(2));
    site.cli()?.succeed(&["backend", "drain", "web", &drained])?;
    hears(&follower, &format!("UTC  change  generation 2: web: backend {drained} drains"))?;
    let victim = web(VIP4).endpoint(Node::Backend(1));
    site.kill_servers(Node::Backend(1))?;
    hears(&follower, &format!("UTC  health  web: backend {victim} is down: "))?;
    site.start_servers(Node::Backend(1))?;
    hears(&follower, &format!("UTC  health  web: backend {victim} is up: "))?;
    site.cli()?.succeed(&["deny", "add", &Node::Client(1).ipv4().to_string()])?;
    let asked = Asker::requests(&site.client(1), SocketAddr::new(VIP4.into(), ECHO_PORT), 3)?;
    ensure!(asked.failed() == 3, "a denied client is answered: {asked:?}");
    let drop = hears(&follower, "UTC  drop  ")?;
    ensure!(drop.contains(" dropped 3 packets in 10 s: denied 3"), "{drop}");

    site.take_daemon()?.stop()?;
    let ended = wait::until(Duration::from_secs(10), "lb events ends", || {
        follower.ended()?.context("it follows a daemon that is gone")
    })?;
    ensure!(ended.code() == Some(3), "{ended}");
    let log = follower.log();
    ensure!(log.contains("gap     the daemon is shutting down\n"), "{log}");
    ensure!(log.contains("lb: the daemon tells no more events; go on with: lb events --after "), "{log}");
    Ok(())
}
