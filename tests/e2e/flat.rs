//! A flat network: one switch, no router, no static entries. The balancer answers for the VIPs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::{Config, Daemon, Files, Service};
use lb_tests::load::{self, Asker, Report, ping};
use lb_tests::net::{Group, Namespace, Node};
use lb_tests::process::Process;
use lb_tests::servers::{ECHO_PORT, HTTP_PORT, Serve};
use lb_tests::site::SERVING;
use lb_tests::tools::Tools;
use lb_userspace::model::Protocol;
use tempfile::TempDir;

use crate::cases::{Case, cases, ensure_answered};

const SWITCH: &str = "switch";
/// The machines, each with the same settings as such a machine of the lab; the balancer is no router.
const CLIENT: (&str, Node) = ("client", Node::Client(1));
const BALANCER: (&str, Node) = ("balancer", Node::Client(2));
const BACKENDS: [(&str, Node); 2] = [("backend1", Node::Backend(1)), ("backend2", Node::Backend(2))];

/// The last part of the announced VIPs, and of others that are VIPs, but not announced.
const ANNOUNCED: u8 = 100;
const SILENT: u8 = 101;

/// How long a program takes to load.
const LOAD: Duration = Duration::from_secs(20);

pub(crate) fn cases() -> Vec<Case> {
    cases!["flat": a_newcomer_reaches_announced_vips]
}

fn machines() -> impl Iterator<Item = (&'static str, Node)> {
    [CLIENT, BALANCER].into_iter().chain(BACKENDS)
}

/// The addresses of a machine or VIP.
fn addresses(host: u8) -> [IpAddr; 2] {
    [Ipv4Addr::new(10, 9, 0, host).into(), Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, host.into()).into()]
}

/// The network and what runs in it. Dropping it ends the processes first, then removes the rest.
struct Flat {
    daemon: Option<Daemon>,
    processes: Vec<Process>,
    directory: TempDir,
    tools: Tools,
    group: Group,
}

impl Flat {
    fn new(tools: Tools) -> Result<Self> {
        let names: Vec<&str> = machines().map(|(name, _)| name).chain([SWITCH]).collect();
        let group = Group::unique(&names)?;
        group.set_up_like(SWITCH, Node::Client(0))?;
        group.ip(SWITCH, &["link add switch type bridge".to_owned(), "link set switch up".to_owned()])?;
        let directory = TempDir::new().context("no temporary directory")?;
        let mut flat = Self { daemon: None, processes: Vec::new(), directory, tools, group };
        for ((name, node), host) in machines().zip(1..) {
            flat.plug_in(name, node, host)?;
        }
        for (name, _) in BACKENDS {
            flat.serve(name)?;
        }
        // What the balancer sends back by XDP is given to a port only if that has a program of its own.
        let mut receive = flat.namespace(SWITCH).command(&flat.tools.lab);
        receive.args(["receive", "--interface", BALANCER.0]);
        let log = flat.directory.path().join("receive.log");
        flat.processes.push(Process::spawn_ready("the balancer's port", receive, &log, LOAD)?);
        Ok(flat)
    }

    fn plug_in(&self, name: &str, node: Node, host: u8) -> Result<()> {
        let (group, full_name) = (&self.group, self.group.full_name(name));
        group.set_up_like(name, node)?;
        group.ip(
            SWITCH,
            &[
                format!("link add {name} type veth peer name eth0 netns {full_name}"),
                format!("link set {name} master switch up"),
            ],
        )?;
        let [v4, v6] = addresses(host);
        let mut lines = vec![
            "link set lo up".to_owned(),
            format!("address add {v4}/24 dev eth0"),
            format!("address add {v6}/64 dev eth0 nodad"),
            "link set eth0 up".to_owned(),
        ];
        if BACKENDS.contains(&(name, node)) {
            lines.extend(addresses(ANNOUNCED).map(|vip| format!("address add {vip} dev lo")));
        }
        group.ip(name, &lines)?;
        // See the lab: nobody computes a checksum on the way through XDP.
        group.set_features(name, "eth0", &[("tx-checksum-ip-generic", false), ("rx-gro", true)])
    }

    fn serve(&mut self, name: &str) -> Result<()> {
        let serve = Serve {
            name: name.to_owned(),
            http: vec![SocketAddr::from(([0u16; 8], HTTP_PORT))],
            udp_echo: addresses(ANNOUNCED).map(|vip| (vip, ECHO_PORT).into()).to_vec(),
            ..Serve::default()
        };
        let log = self.directory.path().join(format!("{name}.log"));
        self.processes.push(serve.start(&self.tools.lab, &self.namespace(name), &log)?);
        Ok(())
    }

    fn start_daemon(&mut self, services: Vec<Service>) -> Result<()> {
        let names: Vec<String> = services.iter().map(|service| service.name.clone()).collect();
        let config = Config { interfaces: vec!["eth0".to_owned()], metrics: false, services };
        let files = Files::inside(self.directory.path(), "lb");
        let daemon = Daemon::start(&self.tools.lb, &self.namespace(BALANCER.0), files, &config)?;
        for name in names {
            daemon.cli.wait_serving(&name, BACKENDS.len(), SERVING)?;
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    fn namespace(&self, name: &str) -> Namespace {
        self.group.namespace(name)
    }

    /// The MAC address that the client believes an address to have.
    fn believed(&self, address: IpAddr) -> Result<Option<String>> {
        let entries = self.group.query(CLIENT.0, &["neighbor", "show", "to", &address.to_string()])?;
        Ok(entries[0]["lladdr"].as_str().map(str::to_owned))
    }
}

fn service(name: &str, vip: IpAddr, port: u16, protocol: Protocol) -> Service {
    let service =
        Service::new(&format!("{name}-{vip}").replace(':', "."), SocketAddr::new(vip, port), protocol);
    let backends = 3..3 + BACKENDS.len() as u8;
    let backends = backends.map(|host| addresses(host)[usize::from(vip.is_ipv6())]);
    Service { backends: backends.collect(), ..service }
}

/// Every VIP is in the client's own subnet, and it knows of none, nor listens to what it has not asked for.
fn a_newcomer_reaches_announced_vips(tools: Tools) -> Result<()> {
    let mut flat = Flat::new(tools)?;
    flat.namespace(CLIENT.0).run(|| {
        let deaf = ["ipv4/conf/eth0/drop_gratuitous_arp", "ipv6/conf/eth0/drop_unsolicited_na"];
        deaf.iter().try_for_each(|key| std::fs::write(format!("/proc/sys/net/{key}"), "1"))
    })??;
    let announced = addresses(ANNOUNCED).into_iter().flat_map(|vip| {
        let web = service("web", vip, HTTP_PORT, Protocol::Tcp).with("announce = \"l2\"");
        [web, service("echo", vip, ECHO_PORT, Protocol::Udp)]
    });
    let silent = addresses(SILENT).map(|vip| service("silent", vip, HTTP_PORT, Protocol::Tcp));
    flat.start_daemon(announced.chain(silent).collect())?;
    let links = flat.group.query(BALANCER.0, &["link", "show", "dev", "eth0"])?;
    let mac = links[0]["address"].as_str().context("the balancer has no MAC address")?;
    let client = flat.namespace(CLIENT.0);
    for vip in addresses(ANNOUNCED) {
        ping(&client, vip, 56)?;
        let believed = flat.believed(vip)?;
        ensure!(believed.as_deref() == Some(mac), "{vip} is believed to be at {believed:?} instead of {mac}");
        ensure_both(&load::requests(&client, (vip, HTTP_PORT).into(), 40)?)?;
        ensure_both(&Asker::requests(&client, (vip, ECHO_PORT).into(), 40)?)?;
    }
    for vip in addresses(SILENT) {
        let report = load::requests(&client, (vip, HTTP_PORT).into(), 1)?;
        let believed = flat.believed(vip)?;
        ensure!(report.failed() == 1 && believed.is_none(), "{vip} is not announced, but at {believed:?}");
    }
    Ok(())
}

fn ensure_both(report: &Report) -> Result<()> {
    ensure_answered(report)?;
    let counts = report.by_backend();
    ensure!(counts.len() == BACKENDS.len(), "only these answered: {counts:?}");
    Ok(())
}
