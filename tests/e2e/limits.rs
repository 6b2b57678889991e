//! A source that sends too much is held to its rate; the others notice nothing.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::daemon::Config;
use lb_tests::load::{Asker, Flood};
use lb_tests::servers::ECHO_PORT;
use lb_tests::site::Site;
use lb_tests::tools::Tools;

use crate::cases::{Case, FAMILIES, echo, ensure_answered};

const RATE: u64 = 400;
const BURST: u32 = 50;
const FLOOD: Flood =
    Flood { target: SocketAddr::new(FAMILIES[0].1, ECHO_PORT), rate: 8000, duration: Duration::from_secs(2) };

pub(crate) fn cases() -> Vec<Case> {
    let case = |(family, vip)| {
        let test = move |tools| only_the_flood_is_limited(tools, SocketAddr::new(vip, ECHO_PORT));
        Case::new(format!("limits::only_the_flood_is_limited_{family}"), test)
    };
    FAMILIES.map(case).into()
}

fn only_the_flood_is_limited(tools: Tools, target: SocketAddr) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![echo(target.ip()).limited(RATE, BURST)]))?;
    let flood = Flood { target, ..FLOOD }.start(&site.client(2));
    // Within its own limit: 100 a second at most.
    let innocent = Asker::paced(&site.client(1), target, 150, Duration::from_millis(10))?;
    let flood = flood.finish()?;
    ensure_answered(&innocent)?;

    let allowed = RATE * flood.took.as_millis() as u64 / 1000 + u64::from(BURST);
    let service = site.cli()?.service("echo")?;
    let admitted = service.packets - service.limited - innocent.total() as u64;
    ensure!(flood.sent > 2 * allowed, "only {} datagrams were sent", flood.sent);
    ensure!(admitted <= allowed + allowed / 10, "{admitted} admitted of {allowed} allowed: {service:?}");
    ensure!(admitted >= allowed / 2, "only {admitted} admitted of {allowed} allowed: {service:?}");
    ensure!(flood.answered <= admitted, "{} answered, {admitted} admitted", flood.answered);
    Ok(())
}
