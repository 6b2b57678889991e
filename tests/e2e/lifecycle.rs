//! The daemon's beginning and end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::Config;
use lb_tests::net::{Node, VIP4};
use lb_tests::servers::HTTP_PORT;
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::{load, process, wait};
use rustix::process::{Pid, Signal, kill_process};

use crate::cases::{Case, FAMILIES, cases, ensure_detached, ensure_spread, web};

pub(crate) fn cases() -> Vec<Case> {
    cases!["lifecycle":
        sigterm_detaches,
        sigint_detaches,
        a_killed_daemon_is_followed_by_another,
        generic_mode_with_a_warning,
        neighbors_learn_an_announced_vip,
    ]
}

fn sigterm_detaches(tools: Tools) -> Result<()> {
    detaches_on(tools, Signal::TERM)
}

fn sigint_detaches(tools: Tools) -> Result<()> {
    detaches_on(tools, Signal::INT)
}

fn detaches_on(tools: Tools, signal: Signal) -> Result<()> {
    let mut site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    for interface in site.status()?.interfaces {
        ensure!(interface.mode == "native", "{interface:?}");
        ensure!(site.lab.has_xdp(Node::Balancer, &interface.name)?, "no program on {}", interface.name);
    }
    let daemon = site.take_daemon()?;
    let socket = daemon.files.socket.clone();
    ensure!(socket.exists(), "there is no socket");
    let id = i32::try_from(daemon.process.id()).ok().and_then(Pid::from_raw).context("no process")?;
    kill_process(id, signal)?;
    daemon.stop()?;
    ensure_detached(&site.lab)?;
    ensure!(!socket.exists(), "the socket is left");
    Ok(())
}

/// A daemon that could not clean up does not stand in its successor's way.
fn a_killed_daemon_is_followed_by_another(tools: Tools) -> Result<()> {
    let config = Config::new(vec![web(VIP4)]);
    let mut site = Site::with_daemon(tools, &config)?;
    site.daemon()?.process.kill()?;
    ensure!(site.files("lb").socket.exists(), "this test wants to find a stale socket");
    site.serve(&config)?;
    ensure_spread(&load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), 60)?)
}

/// A client that remembers another machine for the VIP is told better, once the program is there to answer it.
fn neighbors_learn_an_announced_vip(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    for (family, vip) in FAMILIES {
        let old = format!("neigh replace {vip} lladdr 02:00:00:00:00:99 dev eth0 nud stale");
        site.lab.ip(Node::Client(1), &[old])?;
        site.serve(&Config::new(vec![web(vip).with("announce = \"l2\"")]))?;
        let link = site.lab.link(Node::Balancer, "client1")?;
        let mac = link["address"].as_str().context("no MAC address")?;
        wait::until(Duration::from_secs(5), &format!("the client knows the {family} VIP at {mac}"), || {
            let mut command = site.client(1).command("ip");
            command.args(["neigh", "show", &vip.to_string(), "dev", "eth0"]);
            let shown = process::succeed(command, Duration::from_secs(5))?;
            ensure!(shown.contains(mac), "it knows {shown:?}");
            Ok(())
        })?;
        let view = site.status()?.services.remove(0);
        ensure!(view.options.announce.as_deref() == Some("l2"), "the status tells {:?}", view.options);
        site.take_daemon()?.stop()?;
    }
    Ok(())
}

/// Devices without XDP support of their own, in the order in which they are tried: not every kernel has each.
const PLAIN_DEVICES: [&str; 3] = ["dummy", "ifb", "bridge"];

fn generic_mode_with_a_warning(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    let add = |kind: &&str| {
        let lines = [format!("link add plain0 type {kind}"), "link set plain0 up".to_owned()];
        site.lab.ip(Node::Balancer, &lines).is_ok()
    };
    ensure!(PLAIN_DEVICES.iter().any(add), "this kernel has none of {PLAIN_DEVICES:?}");
    let mut config = Config::new(vec![web(VIP4)]);
    config.interfaces.push("plain0".to_owned());
    site.start_daemon(&config)?;
    let status = site.status()?;
    let modes: Vec<_> = status.interfaces.iter().map(|one| (one.name.as_str(), one.mode.as_str())).collect();
    ensure!(modes == [("client1", "native"), ("client2", "native"), ("plain0", "generic")], "{modes:?}");
    let log = site.daemon()?.process.log();
    let warned = log.lines().any(|line| line.contains("plain0") && line.contains("generic"));
    ensure!(warned, "no warning in:\n{log}");
    site.take_daemon()?.process.terminate(Duration::from_secs(5))?;
    ensure!(!site.lab.has_xdp(Node::Balancer, "plain0")?, "a program is left on plain0");
    Ok(())
}
