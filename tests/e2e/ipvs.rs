//! The kernel's own balancer, IPVS, as a judge of ours: the same clients and backends meet one after the other, and what they
//! see has to be the same. Ours is set up by what `ipvsadm` saved of the other, as somebody would who moves.
//!
//! Not every kernel has it; `cargo xtask vm` runs these on kernels that do.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::daemon::Config;
use lb_tests::load::Held;
use lb_tests::net::{BACKENDS, Node};
use lb_tests::process;
use lb_tests::site::{SERVING, Site};
use lb_tests::tools::Tools;
use lb_userspace::model::ForwardMode;

use crate::cases::Case;
use crate::ways::{Way, some_ways};

/// Connections that are opened at a time.
const CONNECTIONS: usize = 120;
/// Of connections so many hundredths may be elsewhere than weights say: hashes of so few are not even.
const TOLERANCE: usize = 20;
/// The backends' weights: the first gets half of all.
const WEIGHTS: [u32; 3] = [100, 50, 50];
/// Who is drained.
const DRAINED: Node = Node::Backend(1);
const COMMAND: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Vec<Case> {
    // Its tunnels keep the family; its GUE is of variant 0, which kernels unwrap but `lb decap` does not.
    let kept = |way: &Way| way.mode != ForwardMode::Gue && !matches!(way.name, "ipip_4in6" | "ipip_6in4");
    let cases =
        some_ways("ipvs::what_moves_here_sees_no_difference", kept, what_moves_here_sees_no_difference);
    cases.into_iter().map(|case| case.needing(&["ip_vs", "ip_vs_mh"])).collect()
}

/// One of the two.
trait Balancer {
    /// Lets a backend have no new connections, or as many as before.
    fn set_drained(&self, site: &Site, node: Node, drained: bool) -> Result<()>;
}

/// What clients see of a balancer.
#[derive(Debug, PartialEq, Eq)]
struct Behaviour {
    /// Who answers.
    at_first: Vec<String>,
    /// How many of the connections that were there answer while a backend is drained.
    kept: usize,
    /// Who gets new ones then.
    meanwhile: Vec<String>,
    /// And when it is back.
    afterwards: Vec<String>,
}

fn what_moves_here_sees_no_difference(tools: Tools, way: Way) -> Result<()> {
    let mut site = way.site(tools)?;
    let theirs = Ipvs { way };
    theirs.set_up(&site)?;
    let expected = behaviour(&site, way, &theirs).context("IPVS")?;
    let saved = theirs.take_down(&site)?;

    let mut config = way.config(Vec::new());
    config.sections = site.free_cli().succeed(&["import", "ipvsadm", &saved])?;
    let ours = Ours { service: start(&mut site, &config)? };
    let seen = behaviour(&site, way, &ours).context("lb")?;
    ensure!(seen == expected, "IPVS: {expected:?}\nlb: {seen:?}");
    let kept: Vec<Node> = BACKENDS.into_iter().filter(|node| *node != DRAINED).collect();
    let names = |nodes: &[Node]| nodes.iter().map(Node::to_string).collect::<Vec<_>>();
    let right = Behaviour {
        at_first: names(&BACKENDS),
        kept: CONNECTIONS,
        meanwhile: names(&kept),
        afterwards: names(&BACKENDS),
    };
    ensure!(seen == right, "both: {seen:?}");
    Ok(())
}

fn behaviour(site: &Site, way: Way, balancer: &impl Balancer) -> Result<Behaviour> {
    let open = || Held::open_many(&site.client(1), way.tcp_echo().vip, CONNECTIONS);
    let mut connections = open()?;
    ensure_weighed(&connections)?;
    balancer.set_drained(site, DRAINED, true)?;
    let kept = connections.iter_mut().filter_map(|connection| connection.ask().ok()).count();
    let meanwhile = names(&open()?);
    balancer.set_drained(site, DRAINED, false)?;
    Ok(Behaviour { at_first: names(&connections), kept, meanwhile, afterwards: names(&open()?) })
}

/// Who answers, each once, in order.
fn names(connections: &[Held]) -> Vec<String> {
    counts(connections).into_keys().collect()
}

fn counts(connections: &[Held]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for connection in connections {
        *counts.entry(connection.backend().to_owned()).or_default() += 1;
    }
    counts
}

fn ensure_weighed(connections: &[Held]) -> Result<()> {
    let counts = counts(connections);
    let sum: u32 = WEIGHTS.iter().sum();
    for (node, weight) in BACKENDS.iter().zip(WEIGHTS) {
        let share = counts.get(&node.to_string()).copied().unwrap_or_default() * 100 / connections.len();
        let due = (weight * 100 / sum) as usize;
        ensure!(
            share.abs_diff(due) <= TOLERANCE,
            "{node} has {share} hundredths instead of {due}: {counts:?}"
        );
    }
    Ok(())
}

/// The kernel's.
struct Ipvs {
    way: Way,
}

impl Ipvs {
    /// The VIP is an address of the balancer, as IPVS wants it; whose packets from it are let in, as they come back by here.
    fn set_up(&self, site: &Site) -> Result<()> {
        let settings = || {
            let keys = ["ipv4/conf/all/accept_local", "ipv4/ip_forward"];
            keys.iter().try_for_each(|key| fs::write(format!("/proc/sys/net/{key}"), "1"))
        };
        site.lab.namespace(Node::Balancer).run(settings)??;
        self.set_address(site, "add")?;
        let vip = self.way.tcp_echo().vip.to_string();
        self.run(site, &["-A", "-t", &vip, "-s", "mh", "-b", "mh-fallback,mh-port"])?;
        for (node, weight) in BACKENDS.iter().zip(WEIGHTS) {
            self.server(site, "-a", *node, weight)?;
        }
        Ok(())
    }

    fn set_address(&self, site: &Site, verb: &str) -> Result<()> {
        let vip = self.way.vip;
        site.lab.ip(Node::Balancer, &[format!("address {verb} {vip} dev lo")])
    }

    fn run(&self, site: &Site, words: &[&str]) -> Result<String> {
        let mut command = site.lab.namespace(Node::Balancer).command("ipvsadm");
        command.args(words);
        process::succeed(command, COMMAND).with_context(|| format!("{}: ipvsadm {words:?}", self.way.name))
    }

    fn server(&self, site: &Site, verb: &str, node: Node, weight: u32) -> Result<()> {
        let service = self.way.tcp_echo();
        let (vip, server, weight) = (service.vip.to_string(), service.endpoint(node), weight.to_string());
        let how: &[&str] = match self.way.mode {
            ForwardMode::DsrL2 => &["-g"],
            ForwardMode::Nat => &["-m"],
            ForwardMode::Ipip => &["-i"],
            ForwardMode::Gue => bail!("its GUE is another one"),
        };
        let words = [&[verb, "-t", &vip, "-r", &server, "-w", &weight][..], how].concat();
        self.run(site, &words).map(drop)
    }

    /// Ends it, and leaves what it was in a file.
    fn take_down(&self, site: &Site) -> Result<String> {
        let saved = self.run(site, &["--save", "-n"])?;
        let file = site.directory().join("ipvsadm-save").to_string_lossy().into_owned();
        fs::write(&file, saved)?;
        self.run(site, &["-C"])?;
        self.set_address(site, "delete")?;
        Ok(file)
    }
}

impl Balancer for Ipvs {
    fn set_drained(&self, site: &Site, node: Node, drained: bool) -> Result<()> {
        let usual = BACKENDS.iter().zip(WEIGHTS).find(|(of, _)| **of == node).map_or(0, |(_, weight)| weight);
        self.server(site, "-e", node, if drained { 0 } else { usual })
    }
}

/// Ours, with the service that was imported.
struct Ours {
    service: String,
}

fn start(site: &mut Site, config: &Config) -> Result<String> {
    site.start_daemon(config)?;
    let cli = site.cli()?;
    let status = cli.status()?;
    let service = status.services.first().context("nothing was imported")?.name.clone();
    cli.wait_serving(&service, BACKENDS.len(), SERVING)?;
    Ok(service)
}

impl Balancer for Ours {
    fn set_drained(&self, site: &Site, node: Node, drained: bool) -> Result<()> {
        let cli = site.cli()?;
        let backends = cli.backends(&self.service)?;
        let addresses = [node.ipv4().to_string(), format!("[{}]", node.ipv6())];
        let backend = backends
            .iter()
            .find(|backend| addresses.iter().any(|address| backend.address.starts_with(address)));
        let address = &backend.with_context(|| format!("{node} was not imported"))?.address;
        cli.succeed(&["backend", if drained { "drain" } else { "ready" }, &self.service, address]).map(drop)
    }
}
