//! The lab under chaos: what is there, what was asked for, and what is broken at the moment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use fastrand::Rng;
use lb_tests::daemon::{Config, other_build};
use lb_tests::interrupt;
use lb_tests::load::{Flood, Running, ping};
use lb_tests::mounts::{BpfFs, Disk};
use lb_tests::net::{BACKENDS, Node, VIP4};
use lb_tests::servers::ECHO_PORT;
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::view::HealthState;

use super::judge::Truth;
use super::traffic::{Connections, Disturbances, OTHERS, send_syns};
use super::wanted::{FLOOD, HELD, Kept, MAPPED, Member, SHIELD, WEB, Wanted};
use crate::api::Connection;
use crate::config::NOT_KEPT;

/// What fails and recovers: the servers and the link of a backend, the link of a client, neighbours and links of others.
const VICTIM: Node = Node::Backend(3);
const STEADY: [Node; 2] = [Node::Backend(1), Node::Backend(2)];
const FAR: Node = Node::Client(OTHERS);

/// Bytes of IP that fit the victim's link at first, and at other times.
const USUAL_MTU: u32 = 1600;
const MTUS: [u32; 3] = [1500, 1540, USUAL_MTU];

/// How long the daemon may take to notice that a backend is gone.
const NOTICED: Duration = Duration::from_secs(5);
/// How long a client may take to find its gateway once its link is there.
const REACHED: Duration = Duration::from_secs(10);
/// How many further services there may be.
const EXTRAS: u16 = 4;
/// How many connections may be open.
const CONNECTIONS: usize = 200;
const DISK_MEBIBYTES: u32 = 4;

/// An enum of what can happen, each with its words.
macro_rules! events {
    ($($event:ident $words:literal)*) => {
        /// What can happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Event {
            $($event),*
        }

        impl Event {
            pub(super) const ALL: &[Self] = &[$(Self::$event),*];
        }

        impl fmt::Display for Event {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$event => $words),* })
            }
        }
    };
}

events! {
    AddBackend "backend added"
    RemoveBackend "backend removed"
    Drain "backend drained"
    Ready "backend put back to work"
    Weight "weight changed"
    TwoWriters "two writers at once"
    AddService "service added"
    RemoveService "service removed"
    KillBackend "servers of a backend killed"
    RecoverBackend "servers started again"
    LinkDown "link down"
    LinkUp "link up"
    LoseNeighbor "neighbour forgotten by the kernel"
    Mtu "MTU of a link changed"
    KillDaemon "daemon killed (SIGKILL)"
    StopDaemon "daemon stopped"
    StartDaemon "daemon started"
    Upgrade "daemon replaced by another build"
    Reload "file changed and reloaded"
    FillDisk "state disk full"
    FreeDisk "state disk has room again"
    ApiStorm "API storm"
    SynFlood "SYN flood from spoofed addresses"
    Flood "flood of a limited service"
    Connect "connections opened"
}

impl Event {
    /// What changes what is wanted.
    pub(super) const CHANGES: &[Self] = &[
        Self::AddBackend,
        Self::RemoveBackend,
        Self::Drain,
        Self::Ready,
        Self::Weight,
        Self::TwoWriters,
        Self::AddService,
        Self::RemoveService,
        Self::Reload,
    ];
}

/// Everything. The file systems go before the directory that they are mounted in.
pub(super) struct World {
    bpffs: BpfFs,
    disk: Disk,
    pub(super) site: Site,
    pub(super) rng: Rng,
    pub(super) wanted: Wanted,
    pub(super) connections: Connections,
    pub(super) disturbances: Disturbances,
    floods: Vec<Running>,
    file: Config,
    builds: [PathBuf; 2],
    daemon_runs: bool,
    disk_is_full: bool,
    servers_run: bool,
    links: BTreeMap<Node, bool>,
    mtu: u32,
}

impl World {
    pub(super) fn new(tools: Tools, seed: u64) -> Result<Self> {
        let mut site = Site::new(tools)?;
        site.lab.keep_addresses()?;
        let bpffs = BpfFs::mount(site.directory())?;
        let disk = Disk::mount(site.files("lb").state, DISK_MEBIBYTES)?;
        let wanted = Wanted::at_first();
        let file = wanted.config(&bpffs.path().join("lb"));
        site.serve(&file)?;
        let builds = [site.lb().to_owned(), other_build(site.lb(), &site.directory().join("other-lb"))?];
        let mut world = Self {
            bpffs,
            disk,
            site,
            rng: Rng::with_seed(seed),
            wanted,
            connections: Connections::default(),
            disturbances: Disturbances::default(),
            floods: Vec::new(),
            file,
            builds,
            daemon_runs: true,
            disk_is_full: false,
            servers_run: true,
            links: BTreeMap::from([(VICTIM, true), (FAR, true)]),
            mtu: USUAL_MTU,
        };
        world.connect(40)?;
        Ok(world)
    }

    pub(super) fn pins(&self) -> PathBuf {
        self.bpffs.path().join("lb")
    }

    /// How the backends really are.
    pub(super) fn truths(&self) -> Vec<Truth> {
        let steady = STEADY.map(|node| Truth { node, serves: true, linked: true, mtu: USUAL_MTU });
        let linked = self.links[&VICTIM];
        let victim = Truth { node: VICTIM, serves: self.servers_run, linked, mtu: self.mtu };
        steady.into_iter().chain([victim]).collect()
    }

    fn victim_lives(&self) -> bool {
        self.servers_run && self.links[&VICTIM]
    }

    /// Lets something happen, and tells what. `None` if it cannot happen now.
    pub(super) fn let_happen(&mut self, event: Event) -> Result<Option<String>> {
        let running = self.daemon_runs;
        match event {
            Event::AddBackend if running => self.add_backend(),
            Event::RemoveBackend if running => self.remove_backend(),
            Event::Drain if running => self.drain(),
            Event::Ready if running => self.ready(),
            Event::Weight if running => self.set_weight(),
            Event::TwoWriters if running && !self.disk_is_full => self.two_writers().map(Some),
            Event::AddService if running => self.add_service(),
            Event::RemoveService if running => self.remove_service(),
            Event::KillBackend if self.servers_run => {
                self.break_victim(|world| {
                    world.servers_run = false;
                    world.site.kill_servers(VICTIM)
                })?;
                Ok(Some(format!("the servers of {VICTIM} are killed")))
            }
            Event::RecoverBackend if !self.servers_run => {
                self.site.start_servers(VICTIM)?;
                self.servers_run = true;
                self.victim_recovers();
                Ok(Some(format!("the servers of {VICTIM} are back")))
            }
            Event::LinkDown => self.link_down(),
            Event::LinkUp => self.link_up(),
            Event::LoseNeighbor => self.lose_neighbor().map(Some),
            Event::Mtu if self.links[&VICTIM] => {
                self.mtu = self.rng.choice(MTUS).unwrap_or(USUAL_MTU);
                self.site.lab.set_link_mtu(VICTIM, self.mtu)?;
                Ok(Some(format!("the link of {VICTIM} carries {} bytes", self.mtu)))
            }
            Event::KillDaemon if running => {
                self.site.daemon()?.process.kill()?;
                self.daemon_runs = false;
                Ok(Some("the daemon is killed".to_owned()))
            }
            Event::StopDaemon if running => {
                self.stop_daemon()?;
                Ok(Some("the daemon is stopped".to_owned()))
            }
            Event::StartDaemon if !running => {
                self.start_daemon()?;
                Ok(Some("a daemon is started".to_owned()))
            }
            Event::Upgrade if running => {
                self.builds.swap(0, 1);
                let build = self.builds[0].clone();
                self.stop_daemon()?;
                self.site.use_lb(&build);
                self.start_daemon()?;
                Ok(Some(format!("{} has taken over", build.display())))
            }
            Event::Reload if running && !self.disk_is_full => self.reload().map(Some),
            Event::FillDisk if !self.disk_is_full => {
                self.disk.fill()?;
                self.disk_is_full = true;
                Ok(Some("the disk is full".to_owned()))
            }
            Event::FreeDisk if self.disk_is_full => {
                self.disk.free()?;
                self.disk_is_full = false;
                Ok(Some("the disk has room".to_owned()))
            }
            Event::ApiStorm if running => self.storm().map(Some),
            Event::SynFlood if self.links[&FAR] => {
                let (count, salt) = (self.rng.u32(200..2000), self.rng.u32(..));
                send_syns(&self.site.client(OTHERS), (VIP4, 80), count, salt)?;
                Ok(Some(format!("{count} SYNs")))
            }
            Event::Flood if self.links[&FAR] && self.floods.len() < 3 => {
                let duration = Duration::from_millis(self.rng.u64(100..800));
                let flood = Flood { target: (VIP4, ECHO_PORT).into(), rate: 3000, duration };
                self.floods.push(flood.start(&self.site.client(OTHERS)));
                Ok(Some(format!("a flood of {duration:?}")))
            }
            Event::Connect if self.disturbances.is_calm() && self.connections.count() < CONNECTIONS => {
                self.connect(10)?;
                Ok(Some("connections are opened".to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// Mends what would be in the way of looking: there is a daemon that answers, and clients reach it.
    pub(super) fn come_to_rest(&mut self) -> Result<()> {
        if self.disk_is_full {
            self.disk.free()?;
            self.disk_is_full = false;
        }
        if !self.daemon_runs {
            self.start_daemon()?;
        }
        if !self.links[&FAR] {
            self.set_link(FAR, true)?;
        }
        for flood in self.floods.drain(..) {
            let report = flood.finish()?;
            ensure!(report.answered <= report.sent, "{report:?}");
        }
        Ok(())
    }

    /// Some connections ask, if their link is there.
    pub(super) fn ask(&mut self, count: usize) -> Result<()> {
        if self.links[&FAR] {
            for _ in 0..count {
                self.connections.ask(self.rng.usize(..))?;
            }
        }
        Ok(())
    }

    pub(super) fn ask_all(&mut self) -> Result<()> {
        (0..self.connections.count()).try_for_each(|index| self.connections.ask(index))
    }

    fn connect(&mut self, count: usize) -> Result<()> {
        let from = self.site.client(OTHERS);
        for name in [HELD, MAPPED] {
            let target = self.wanted.service(name).context("there is no such service")?.service.vip;
            self.connections.open(&from, name, target, count, VICTIM)?;
        }
        Ok(())
    }
}

/// Changes by the command line.
impl World {
    /// Runs a command that changes something; tells whether it was taken. A full disk is the one reason not to.
    fn change(&mut self, words: &[&str]) -> Result<bool> {
        let said = self.site.cli()?.run(words)?;
        if self.disk_is_full && said.code == Some(4) && said.stderr.contains(NOT_KEPT) {
            return Ok(false);
        }
        ensure!(said.code == Some(0), "lb {words:?}: {said:?}");
        Ok(true)
    }

    fn pick(&mut self, names: &[&str]) -> usize {
        let name = names[self.rng.usize(..names.len())];
        self.wanted.services.iter().position(|kept| kept.name() == name).unwrap_or(0)
    }

    /// Any backend of a service that fits, at random.
    fn member(&mut self, service: usize, fits: impl Fn(Node, Member) -> bool) -> Option<Node> {
        let members = &self.wanted.services[service].members;
        let fitting: Vec<Node> =
            members.iter().filter(|(node, member)| fits(**node, **member)).map(|(node, _)| *node).collect();
        self.rng.choice(fitting)
    }

    /// Whether a service has somebody to serve who never fails, other than this one.
    fn others_serve(&self, service: usize, but: Node) -> bool {
        let members = &self.wanted.services[service].members;
        STEADY.iter().any(|node| *node != but && members.get(node).is_some_and(|member| !member.drains))
    }

    fn endpoint(&self, service: usize, node: Node) -> (String, String) {
        let kept = &self.wanted.services[service];
        (kept.name().to_owned(), kept.service.endpoint(node))
    }

    fn add_backend(&mut self) -> Result<Option<String>> {
        let service = self.pick(&[FLOOD, HELD, MAPPED, WEB]);
        let weight = self.rng.u16(1..=200);
        let nodes: &[Node] = if self.wanted.services[service].name() == FLOOD { &STEADY } else { &BACKENDS };
        let members = &self.wanted.services[service].members;
        let missing: Vec<Node> = nodes.iter().copied().filter(|node| !members.contains_key(node)).collect();
        let Some(node) = self.rng.choice(missing) else { return Ok(None) };
        let (name, endpoint) = self.endpoint(service, node);
        // It may be broken, and the daemon has to find that out first.
        let broken = !self.victim_lives() && node == VICTIM;
        if broken {
            self.disturbances.begin(VICTIM);
        }
        let words = ["backend", "add", &name, &endpoint, "--weight", &weight.to_string()];
        let taken = self.change(&words)?;
        if taken {
            self.wanted.services[service].members.insert(node, Member { weight, drains: false });
        }
        if broken {
            self.wait_noticed()?;
        }
        Ok(Some(told(&words, taken)))
    }

    /// What nobody has a connection to: the victim, anyone of whom only packets are counted, or who was drained before.
    fn remove_backend(&mut self) -> Result<Option<String>> {
        let service = self.pick(&[FLOOD, HELD, MAPPED, WEB]);
        let name = self.wanted.services[service].name().to_owned();
        let free = |node: Node, member: Member| match name.as_str() {
            FLOOD => true,
            WEB => member.drains,
            _ => node == VICTIM,
        };
        let Some(node) = self.member(service, free) else { return Ok(None) };
        if !self.others_serve(service, node) {
            return Ok(None);
        }
        let (name, endpoint) = self.endpoint(service, node);
        let words = ["backend", "remove", &name, &endpoint];
        let taken = self.change(&words)?;
        if taken {
            self.wanted.services[service].members.remove(&node);
        }
        Ok(Some(told(&words, taken)))
    }

    fn drain(&mut self) -> Result<Option<String>> {
        let service = self.pick(&[FLOOD, HELD, MAPPED, WEB]);
        let Some(node) = self.member(service, |_, member| !member.drains) else { return Ok(None) };
        if !self.others_serve(service, node) {
            return Ok(None);
        }
        self.set_state(service, node, "drain")
    }

    fn ready(&mut self) -> Result<Option<String>> {
        let service = self.pick(&[FLOOD, HELD, MAPPED, WEB]);
        let Some(node) = self.member(service, |_, member| member.drains) else { return Ok(None) };
        self.set_state(service, node, "ready")
    }

    fn set_state(&mut self, service: usize, node: Node, verb: &str) -> Result<Option<String>> {
        let (name, endpoint) = self.endpoint(service, node);
        let words = ["backend", verb, &name, &endpoint];
        let taken = self.change(&words)?;
        if let Some(member) = self.wanted.services[service].members.get_mut(&node).filter(|_| taken) {
            member.drains = verb == "drain";
        }
        Ok(Some(told(&words, taken)))
    }

    fn set_weight(&mut self) -> Result<Option<String>> {
        let service = self.pick(&[FLOOD, HELD, MAPPED, WEB, SHIELD]);
        let Some(node) = self.member(service, |_, _| true) else { return Ok(None) };
        let weight = self.rng.u16(1..=200);
        let (name, endpoint) = self.endpoint(service, node);
        let words = ["backend", "set", &name, &endpoint, "--weight", &weight.to_string()];
        let taken = self.change(&words)?;
        if let Some(member) = self.wanted.services[service].members.get_mut(&node).filter(|_| taken) {
            member.weight = weight;
        }
        Ok(Some(told(&words, taken)))
    }

    /// Each sets another backend of a service to several weights, at the same time: nobody's last word is lost.
    fn two_writers(&mut self) -> Result<String> {
        let service = self.pick(&[HELD, MAPPED, WEB, FLOOD]);
        let nodes: Vec<Node> = self.wanted.services[service].members.keys().copied().take(2).collect();
        let rng = &mut self.rng;
        let weights: Vec<[u16; 3]> = nodes.iter().map(|_| [0; 3].map(|_: u16| rng.u16(1..=200))).collect();
        let cli = self.site.cli()?.clone();
        let writers: Vec<_> = nodes
            .iter()
            .zip(&weights)
            .map(|(node, weights)| {
                let (cli, weights) = (cli.clone(), *weights);
                let (name, endpoint) = self.endpoint(service, *node);
                thread::spawn(move || {
                    weights.iter().try_for_each(|weight| {
                        let words = ["backend", "set", &name, &endpoint, "--weight", &weight.to_string()];
                        cli.succeed(&words).map(drop)
                    })
                })
            })
            .collect();
        for writer in writers {
            writer.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        for (node, [.., last]) in nodes.iter().zip(&weights) {
            if let Some(member) = self.wanted.services[service].members.get_mut(node) {
                member.weight = *last;
            }
        }
        Ok(format!("two writers set weights of {nodes:?}: {weights:?}"))
    }

    fn add_service(&mut self) -> Result<Option<String>> {
        let number = self.rng.u16(..EXTRAS);
        let nodes: Vec<Node> = BACKENDS.iter().copied().filter(|_| self.rng.bool()).collect();
        let kept = Kept::extra(number, &nodes);
        if self.wanted.service(kept.name()).is_some() {
            return Ok(None);
        }
        let backend = |node: &Node| format!("{{ address = \"{}\" }}", kept.service.endpoint(*node));
        let backends: Vec<String> = nodes.iter().map(backend).collect();
        let backends = format!("backends=[{}]", backends.join(", "));
        let (name, vip) = (kept.name().to_owned(), kept.service.vip.to_string());
        let words =
            ["service", "add", &name, &vip, "protocol=tcp", "mode=dsr-l2", "table_size=4099", &backends];
        let taken = self.change(&words)?;
        if taken {
            self.wanted.services.push(kept);
        }
        Ok(Some(told(&words, taken)))
    }

    fn remove_service(&mut self) -> Result<Option<String>> {
        let name = format!("extra{}", self.rng.u16(..EXTRAS));
        if self.wanted.service(&name).is_none() {
            return Ok(None);
        }
        let words = ["service", "delete", &name];
        let taken = self.change(&words)?;
        if taken {
            self.wanted.services.retain(|kept| kept.name() != name);
        }
        Ok(Some(told(&words, taken)))
    }

    /// The file says what is wanted, with other weights.
    fn reload(&mut self) -> Result<String> {
        for kept in &mut self.wanted.services {
            for member in kept.members.values_mut() {
                member.weight = self.rng.u16(1..=200);
            }
        }
        let file = self.wanted.config(&self.pins());
        self.site.daemon()?.reload(&file)?;
        self.file = file;
        Ok("the file with other weights is reloaded".to_owned())
    }
}

fn told(words: &[&str], taken: bool) -> String {
    let taken = if taken { "" } else { ", refused for want of disk" };
    format!("lb {}{taken}", words.join(" "))
}

/// What happens to the daemon, to machines and to links.
impl World {
    fn stop_daemon(&mut self) -> Result<()> {
        self.daemon_runs = false;
        self.site.take_daemon()?.stop()
    }

    fn start_daemon(&mut self) -> Result<()> {
        self.site.start_daemon(&self.file)?;
        self.daemon_runs = true;
        let log = self.site.daemon()?.process.log();
        ensure!(log.contains("going on with the tables"), "it began anew:\n{log}");
        if !self.victim_lives() {
            self.wait_noticed()?;
        }
        Ok(())
    }

    /// Breaks the victim. If there is a daemon, it notices.
    fn break_victim(&mut self, deed: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.disturbances.begin(VICTIM);
        deed(self)?;
        if self.daemon_runs { self.wait_noticed() } else { Ok(()) }
    }

    /// Waits until the daemon knows that the victim is gone, from when on nobody is sent there. Whoever just had no link gets
    /// traffic as soon as there is one again: of servers that are gone, checks have to tell.
    fn wait_noticed(&mut self) -> Result<()> {
        let endpoint = |kept: &Kept| kept.service.endpoint(VICTIM);
        let checked = self.wanted.services.iter().filter(|kept| kept.is_checked());
        let watched: Vec<(String, String)> =
            checked.map(|kept| (kept.name().to_owned(), endpoint(kept))).collect();
        let (cli, servers_run) = (self.site.cli()?, self.servers_run);
        wait::until(NOTICED, "the daemon knows that the victim is gone", || {
            for (name, endpoint) in &watched {
                let backends = cli.backends(name)?;
                let Some(victim) = backends.iter().find(|one| one.address == *endpoint) else { continue };
                let known = servers_run || victim.health == HealthState::Down;
                ensure!(known && victim.share == 0.0, "{name}: {victim:?}");
            }
            Ok(())
        })?;
        self.disturbances.end(VICTIM);
        Ok(())
    }

    fn link_down(&mut self) -> Result<Option<String>> {
        let node = self.rng.choice([VICTIM, FAR]).unwrap_or(FAR);
        if !self.links[&node] {
            return Ok(None);
        }
        if node == VICTIM {
            self.break_victim(|world| world.set_link(VICTIM, false))?;
        } else {
            self.disturbances.begin(FAR);
            self.set_link(FAR, false)?;
        }
        Ok(Some(format!("the link of {node} is down")))
    }

    fn link_up(&mut self) -> Result<Option<String>> {
        let down: Vec<Node> = self.links.iter().filter(|(_, up)| !**up).map(|(node, _)| *node).collect();
        let Some(node) = self.rng.choice(down) else { return Ok(None) };
        self.set_link(node, true)?;
        Ok(Some(format!("the link of {node} is up")))
    }

    fn set_link(&mut self, node: Node, up: bool) -> Result<()> {
        self.site.lab.set_link(node, up)?;
        self.links.insert(node, up);
        if node == FAR && up {
            // Its neighbours have to be found again, which may have to fail first.
            let (client, gateways) =
                (self.site.client(OTHERS), [FAR.gateway4().into(), FAR.gateway6().into()]);
            wait::until(REACHED, "the client reaches its gateways", || {
                gateways.iter().try_for_each(|gateway| ping(&client, *gateway, 56).map(drop))
            })?;
            self.disturbances.end(FAR);
        }
        self.victim_recovers();
        Ok(())
    }

    /// Once it lives again, whoever is sent there is answered, noticed or not.
    fn victim_recovers(&mut self) {
        if self.victim_lives() {
            self.disturbances.end(VICTIM);
        }
    }

    /// The kernel forgets a neighbour, as it does when it has too many.
    fn lose_neighbor(&mut self) -> Result<String> {
        let node = self.rng.choice(BACKENDS.into_iter().chain([FAR]).collect::<Vec<_>>()).unwrap_or(FAR);
        self.site.lab.ip(Node::Balancer, &[format!("neighbor flush dev {node}")])?;
        Ok(format!("the neighbours behind {node} are forgotten"))
    }

    /// Many clients look at everything.
    fn storm(&mut self) -> Result<String> {
        const CLIENTS: usize = 16;
        const ROUNDS: usize = 5;
        let socket = self.site.files("lb").socket;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let socket = socket.clone();
                thread::spawn(move || {
                    let mut api = Connection::open(&socket)?;
                    for _ in 0..ROUNDS {
                        for path in ["/v1/status", "/v1/services", "/v1/services/web/backends", "/v1/flows"] {
                            let answer = api.ask("GET", path, "", "")?;
                            // 429: it asks too often, and is told so.
                            if !matches!(answer.status, 200 | 429) {
                                let body = String::from_utf8_lossy(&answer.body).into_owned();
                                bail!("GET {path}: {} {body}", answer.status);
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok(format!("{CLIENTS} clients have asked the API {} times each", ROUNDS * 4))
    }

    /// A pause of random length.
    pub(super) fn pause(&mut self) -> Result<Instant> {
        interrupt::pause(Duration::from_millis(self.rng.u64(10..150)))?;
        Ok(Instant::now())
    }

    /// Ends everything in good order; nothing that was seen is left.
    pub(super) fn end(self) -> Result<()> {
        let Self { bpffs, disk, mut site, connections, .. } = self;
        drop(connections);
        site.take_daemon()?.stop()?;
        let traces = site.traces();
        drop((bpffs, disk));
        drop(site);
        let left = traces.left();
        ensure!(left.is_empty(), "{left:?} are left");
        Ok(())
    }
}
