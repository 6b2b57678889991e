//! `lb decap` on the backends: what it unwraps, what it drops, how it begins and ends, and what it refuses.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::{Config, METRICS};
use lb_tests::load::{self, Asker};
use lb_tests::net::{BACKENDS, Node, VIP4, VIP6};
use lb_tests::process::{self, Process};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::model::ForwardMode;
use rustix::process::{Pid, Signal, kill_process};

use crate::cases::{Case, FAMILIES, cases, echo, ensure_answered, ensure_only, ensure_spread, web};
use crate::refusals::ensure_refused;

/// Enough that every backend of three gets some.
const REQUESTS: usize = 60;
/// How long anything may take that takes no time.
const SOON: Duration = Duration::from_secs(5);
/// How long loading or refusing may take.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [ForwardMode::Ipip, ForwardMode::Gue] {
        for (inner, vip) in FAMILIES {
            for (outer, like) in FAMILIES {
                let name = format!("decap::{mode}_carries_{inner}_over_{outer}");
                cases.push(Case::new(name, move |tools| carries(tools, mode, vip, like)));
            }
        }
    }
    for (name, signal) in [("sigterm", Signal::TERM), ("sigint", Signal::INT), ("sigkill", Signal::KILL)] {
        cases.push(Case::new(format!("decap::{name}_detaches"), move |tools| detaches(tools, signal)));
    }
    cases.extend(cases!["decap":
        jumbo_frames_in_ipip,
        jumbo_frames_in_gue,
        another_gue_port,
        unlisted_balancers_are_dropped_and_nobody_else,
        a_new_address_is_followed,
        several_interfaces,
        bad_input_is_refused,
        an_interface_in_use_is_refused,
    ]);
    cases
}

fn metrics() -> String {
    SocketAddr::from(METRICS).to_string()
}

/// What a backend counted under a result.
fn counted(site: &Site, node: Node, result: &str) -> Result<u64> {
    let fetch = || load::get(METRICS.into(), "/metrics");
    let page = site.lab.namespace(node).run(fetch)?.context("no metrics page")?;
    let series = format!("lb_decap_packets_total{{interface=\"eth0\",result=\"{result}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&series));
    Ok(line.with_context(|| format!("no series {series} in\n{page}"))?.parse()?)
}

fn carries(tools: Tools, mode: ForwardMode, vip: IpAddr, like: IpAddr) -> Result<()> {
    let mut site = Site::new(tools)?;
    site.decapsulate_with(&["--metrics", &metrics()])?;
    let services = [web(vip).checked(), echo(vip).checked()];
    site.serve(&Config::new(services.map(|service| service.by(mode, like)).to_vec()))?;
    ensure_spread(&load::requests(&site.client(1), SocketAddr::new(vip, HTTP_PORT), REQUESTS)?)?;
    let target = SocketAddr::new(vip, ECHO_PORT);
    ensure_spread(&Asker::requests(&site.client(1), target, REQUESTS)?)?;
    // The largest datagram that fits a client's frame.
    Asker::open(&site.client(1), target)?.ask("x".repeat(1400)).context("a large datagram")?;
    for node in BACKENDS {
        let unwrapped = counted(&site, node, &format!("unwrapped_{mode}"))?;
        ensure!(unwrapped > 10, "{node} unwrapped {unwrapped} packets");
        for dropped in ["unlisted", "udp_checksum", "no_udp_checksum", "outer_checksum", "inner_length"] {
            ensure!(counted(&site, node, dropped)? == 0, "{node} dropped packets as {dropped}");
        }
    }
    Ok(())
}

fn jumbo_frames_in_ipip(tools: Tools) -> Result<()> {
    jumbo_frames(tools, ForwardMode::Ipip)
}

/// Over IPv6, where the UDP checksum covers all of the frame's buffers.
fn jumbo_frames_in_gue(tools: Tools) -> Result<()> {
    jumbo_frames(tools, ForwardMode::Gue)
}

fn jumbo_frames(tools: Tools, mode: ForwardMode) -> Result<()> {
    let mut site = Site::new(tools)?;
    let backend = Node::Backend(1);
    site.lab.set_mtu(9000)?;
    site.decapsulate_with(&["--metrics", &metrics()])?;
    let xdp = &site.lab.link(backend, "eth0")?["xdp"];
    ensure!(xdp["mode"] == 1, "it is not attached natively: {xdp}");
    let service = echo(VIP4).checked().by(mode, VIP6.into()).only(&[backend]);
    site.serve(&Config::new(vec![service]))?;
    let asker = Asker::open(&site.client(1), (VIP4, ECHO_PORT).into())?;
    for length in [1400, 3500, 4096, 8900] {
        asker.ask("x".repeat(length)).with_context(|| format!("a datagram of {length} bytes"))?;
    }
    let unwrapped = counted(&site, backend, &format!("unwrapped_{mode}"))?;
    ensure!(unwrapped == 4, "{unwrapped} packets were unwrapped");
    Ok(())
}

fn another_gue_port(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    site.decapsulate_with(&["--gue-port", "7000", "--metrics", &metrics()])?;
    let at = |port: u16| {
        let service = web(VIP4).checked().by(ForwardMode::Gue, VIP6.into());
        Config::new(vec![service.with(&format!("gue_port = {port}"))])
    };
    let target = (VIP4, HTTP_PORT).into();
    site.serve(&at(7000))?;
    ensure_spread(&load::requests(&site.client(1), target, REQUESTS)?)?;
    site.take_daemon()?.stop()?;
    site.serve(&at(7001))?;
    let report = load::requests(&site.client(1), target, 2)?;
    ensure!(report.failed() == report.total(), "a tunnel to another port was unwrapped: {report:?}");
    Ok(())
}

fn unlisted_balancers_are_dropped_and_nobody_else(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    let node = Node::Backend(1);
    let mut command = site.decap_command(node);
    command.args(["--from", "203.0.113.0/24", "--from", "::/0", "--metrics", &metrics()]);
    site.start_decap(node, command)?;
    let mut plain = web(VIP6).only(&[node]);
    "plain".clone_into(&mut plain.name);
    let tunnel = web(VIP4).checked().by(ForwardMode::Ipip, VIP4.into()).only(&[node]);
    // The health check reaches the backend all the same: it is no tunnel packet.
    site.serve(&Config::new(vec![tunnel, plain]))?;
    let report = load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), 2)?;
    ensure!(report.failed() == report.total(), "packets of a stranger were unwrapped: {report:?}");
    ensure!(counted(&site, node, "unlisted")? >= 2, "they were not counted");
    ensure!(counted(&site, node, "unwrapped_ipip")? == 0, "something was unwrapped");
    ensure_only(&load::requests(&site.client(1), (VIP6, HTTP_PORT).into(), 5)?, &[node])
}

/// An address that the backend gets while `lb decap` runs, as the end of a tunnel.
fn a_new_address_is_followed(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    site.decapsulate_with(&["--metrics", &metrics()])?;
    let node = Node::Backend(1);
    let new = IpAddr::from([10, 0, 11, 77]);
    let mut service = web(VIP4).by(ForwardMode::Ipip, VIP4.into());
    service.backends = vec![new];
    site.lab.ip(node, &[format!("address add {new}/24 dev eth0")])?;
    site.serve(&Config::new(vec![service]))?;
    let target = (VIP4, HTTP_PORT).into();
    wait::until(SOON, "tunnels end at the new address", || {
        ensure_answered(&load::requests(&site.client(1), target, 1)?)
    })?;
    // It is gone, but the neighbour still remembers it, and packets still come: they are for somebody else now.
    let mac = site.lab.link(node, "eth0")?["address"].as_str().context("no MAC address")?.to_owned();
    let known = format!("neigh replace {new} lladdr {mac} dev {node} nud permanent");
    site.lab.ip(Node::Balancer, &[known])?;
    site.lab.ip(node, &[format!("address del {new}/24 dev eth0")])?;
    wait::until(SOON, "tunnels end there no more", || {
        let before = counted(&site, node, "not_for_host")?;
        let report = load::requests(&site.client(1), target, 1)?;
        ensure!(report.failed() == 1, "it still does");
        ensure!(counted(&site, node, "not_for_host")? > before, "the packets do not come");
        Ok(())
    })
}

fn several_interfaces(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let node = Node::Balancer;
    let mut command = site.lab.namespace(node).command(site.lb());
    command.args(["decap", "--interface", "backend1", "-i", "backend2", "--from", "10.0.0.0/8"]);
    let mut process = started(&site, command)?;
    for (interface, expected) in [("backend1", true), ("backend2", true), ("backend3", false)] {
        ensure!(site.lab.has_xdp(node, interface)? == expected, "{interface}");
    }
    ensure!(process.terminate(SOON)?.success(), "{}", process.log());
    ensure!(
        !site.lab.has_xdp(node, "backend1")? && !site.lab.has_xdp(node, "backend2")?,
        "a program is left"
    );
    Ok(())
}

/// Starts `lb decap` with everything that it prints in its log, and waits until it says that it is ready.
fn started(site: &Site, command: Command) -> Result<Process> {
    let mut process = Process::spawn_logged("lb decap", command, &site.directory().join("one.log"))?;
    wait::until(LIMIT, "it is ready", || {
        ensure!(process.ended()?.is_none(), "{}", process.failure("ended"));
        ensure!(process.log().contains("decapsulating on "), "it says {:?}", process.log());
        Ok(())
    })?;
    Ok(process)
}

fn detaches(tools: Tools, signal: Signal) -> Result<()> {
    let site = Site::new(tools)?;
    let node = Node::Backend(1);
    let mut command = site.decap_command(node);
    command.args(["--from", "10.0.11.1"]);
    let mut process = started(&site, command)?;
    ensure!(site.lab.has_xdp(node, "eth0")?, "there is no program");
    // Something to report.
    ensure!(load_directly(&site, node)?.contains("backend1"), "the backend's own address does not work");
    let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).context("no process")?;
    kill_process(id, signal)?;
    let status = wait::until(SOON, "it ended", || process.ended()?.context("it still runs"))?;
    wait::until(SOON, "it is detached", || {
        ensure!(!site.lab.has_xdp(node, "eth0")?, "the program is left");
        Ok(())
    })?;
    if signal != Signal::KILL {
        let log = process.log();
        ensure!(status.success(), "{status}: {log}");
        ensure!(log.starts_with("decapsulating on eth0 (native)\nINTERFACE"), "{log}");
        ensure!(log.contains("eth0       not_tunnel"), "{log}");
    }
    Ok(())
}

/// A page of a backend, by its own address.
fn load_directly(site: &Site, node: Node) -> Result<String> {
    let fetch = || load::get((node.ipv4(), HTTP_PORT).into(), "/");
    Ok(site.client(1).run(fetch)??)
}

fn bad_input_is_refused(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let node = Node::Backend(1);
    let run = |arguments: &[&str]| {
        let mut command = site.lab.namespace(node).command(site.lb());
        command.arg("decap").args(arguments);
        process::finish(command, LIMIT)
    };
    let (good, metrics) = (["--interface", "eth0", "--from", "10.0.11.1"], metrics());
    let taken = site.lab.namespace(node).run(|| TcpListener::bind(SocketAddr::from(METRICS)))??;
    let bad: [(&[&str], i32, &[&str]); 10] = [
        (&good[..2], 2, &["--from"]),
        (&good[2..], 2, &["--interface"]),
        (&["--interface", "eth0", "--from", "10.0.300.1"], 4, &["--from", "300 is not a byte"]),
        (&["--interface", "eth0", "--from", "10.0.11.1/24"], 4, &["write 10.0.11.0/24"]),
        (&["--interface", "eth0", "--from", "10.0.11.0/33"], 4, &["prefix length \"33\"", "0 to 32"]),
        (&["--interface", "eth0", "--from", "balancer1"], 4, &["names are not resolved"]),
        (&[&good[..], &["--gue-port", "0"]].concat(), 2, &["1 to 65535"]),
        (&[&good[..], &["--interface", "eth9"]].concat(), 1, &["eth9", "ip link"]),
        (&[&good[..], &["--interface", "eth0"]].concat(), 1, &["eth0", "twice"]),
        (&[&good[..], &["--metrics", &metrics]].concat(), 1, &["127.0.0.1:9441", "--metrics"]),
    ];
    for (arguments, code, words) in bad {
        let said = run(arguments)?;
        ensure!(said.code == Some(code), "{arguments:?} should exit with {code}: {said:?}");
        if code == 2 {
            // Usage, in the words of the argument parser.
            ensure!(words.iter().all(|word| said.stderr.contains(word)), "{}", said.stderr);
        } else {
            ensure_refused(&said, words)?;
            ensure!(said.stderr.lines().count() == 1, "that is more than a sentence: {}", said.stderr);
        }
        ensure!(!site.lab.has_xdp(node, "eth0")?, "{arguments:?} leaves a program");
    }
    drop(taken);
    Ok(())
}

/// The second interface is taken: the first one is given back.
fn an_interface_in_use_is_refused(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let node = Node::Balancer;
    let decap = |interfaces: &[&str]| {
        let mut command = site.lab.namespace(node).command(site.lb());
        command.args(["decap", "--from", "10.0.0.0/8", "--interface"]).args(interfaces);
        command
    };
    let mut first = started(&site, decap(&["backend1"]))?;
    let said = process::finish(decap(&["backend2", "--interface", "backend1"]), LIMIT)?;
    ensure_refused(&said, &["backend1", "already has an XDP program"])?;
    ensure!(!site.lab.has_xdp(node, "backend2")?, "a program is left on backend2");
    ensure!(site.lab.has_xdp(node, "backend1")?, "the first one's program is gone");
    ensure!(first.terminate(SOON)?.success(), "{}", first.log());
    Ok(())
}
