//! Flows stay where they are, whatever happens to other backends.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::daemon::{Cli, Config, Service};
use lb_tests::load::{Asker, Held, KeepAlive, allow_many_files};
use lb_tests::net::{BACKENDS, CLIENTS, Node, VIP4, VIP6};
use lb_tests::process::Process;
use lb_tests::servers::ECHO_PORT;
use lb_tests::site::{SERVING, Site};
use lb_tests::tools::Tools;
use lb_tests::{interrupt, wait};
use lb_userspace::model::Protocol;
use lb_userspace::view::{
    Applied, BackendSlots, FlowCount, FlowLookup, FlowView, HealthState, PlanView, ServiceSlots,
};

use crate::cases::{Case, cases, echo};
use crate::ways::{Way, each_way};

/// The history of the test of many connections.
const SEED: u64 = 20_260_117;
const CHANGES: usize = 200;
/// Connections before the first change, and new ones after each.
const AT_FIRST: usize = 1_000;
const EACH_TIME: usize = 5;
/// Connections that ask after each change; the others are silent until the end.
const ASKING: usize = 20;

/// Checks are 200 ms apart and two decide.
const NOTICED: Duration = Duration::from_secs(5);
/// A time-out of 2 s, two ticks of 1.1 s to be sure, and two sweeps.
const AGED: Duration = Duration::from_secs(20);
/// Sweeps are 2 s apart.
const SWEPT: Duration = Duration::from_secs(10);
/// Flows that tables have room for which are swept: a sweep takes a hundredth of the time at most, so it comes seldom where a
/// million of them take long.
const FEW: Option<u32> = Some(1 << 14);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = each_way("flows::fifty_changes", fifty_changes);
    cases.extend(cases!["flows":
        two_thousand_connections_survive_two_hundred_changes,
        a_udp_flow_outlives_changes,
        slots_settle_again,
        slots_settle_with_time,
        the_last_backend_is_drained,
        a_drain_is_waited_for,
        what_is_looked_up_is_where_packets_go,
    ]);
    cases
}

fn held() -> Service {
    Service::new("held", (VIP4, ECHO_PORT).into(), Protocol::Tcp)
}

/// What is true of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    present: bool,
    drains: bool,
    failed: bool,
}

impl Standing {
    const SERVES: Self = Self { present: true, drains: false, failed: false };

    fn serves(self) -> bool {
        self == Self::SERVES
    }
}

/// What can be done to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Add,
    Remove,
    Drain,
    Undrain,
    Weigh,
    Fail,
    Recover,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Drain => "drain",
            Self::Undrain => "put back to work",
            Self::Weigh => "weigh",
            Self::Fail => "fail",
            Self::Recover => "recover",
        })
    }
}

/// Numbers that look random (xorshift, G. Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

/// A site under changes, and the connections that should not notice.
struct Trial {
    site: Site,
    service: Service,
    random: Random,
    standings: BTreeMap<Node, Standing>,
    connections: Vec<Held>,
    /// Connections whose backend was removed or failed.
    died: usize,
    deeds: BTreeMap<Deed, usize>,
    slots_moved: u64,
}

impl Trial {
    fn new(tools: Tools) -> Result<Self> {
        allow_many_files()?;
        let service = held().pulsed().with("slow_start = \"1s\"");
        let mut site = Site::new(tools)?;
        for node in BACKENDS {
            site.start_pulse(node)?;
        }
        site.serve(&Config::new(vec![service.clone()]))?;
        let standings = BACKENDS.map(|node| (node, Standing::SERVES)).into();
        let random = Random(SEED);
        let (connections, deeds) = (Vec::new(), BTreeMap::new());
        Ok(Self { site, service, random, standings, connections, died: 0, deeds, slots_moved: 0 })
    }

    fn open(&mut self, count: usize) -> Result<()> {
        for node in CLIENTS {
            let namespace = self.site.lab.namespace(node);
            self.connections.extend(Held::open_many(&namespace, self.service.vip, count / CLIENTS.len())?);
        }
        Ok(())
    }

    fn serving(&self) -> usize {
        self.standings.values().filter(|standing| standing.serves()).count()
    }

    /// What may be done now, deadly deeds less often than others, and never to the last that serves.
    fn choose(&mut self) -> (Node, Deed) {
        loop {
            let node = BACKENDS[self.random.below(BACKENDS.len())];
            let standing = self.standings[&node];
            let spare = !standing.serves() || self.serving() > 1;
            let deed = match (self.random.below(300), standing) {
                (_, Standing { present: false, .. }) => Deed::Add,
                (0, _) if spare => Deed::Remove,
                (1, Standing { failed: false, .. }) if spare => Deed::Fail,
                (2..75, Standing { failed: true, .. }) => Deed::Recover,
                (75..180, Standing { drains: true, .. }) => Deed::Undrain,
                (180..240, Standing { drains: false, .. }) if spare => Deed::Drain,
                (240.., _) => Deed::Weigh,
                _ => continue,
            };
            return (node, deed);
        }
    }

    fn do_it(&mut self, node: Node, deed: Deed) -> Result<()> {
        let address = self.service.endpoint(node);
        let weight = (50 + 50 * self.random.below(4)).to_string();
        if matches!(deed, Deed::Remove | Deed::Fail) {
            let before = self.connections.len();
            self.connections.retain(|connection| connection.backend() != node.to_string());
            self.died += before - self.connections.len();
        }
        match deed {
            Deed::Add => self.change(&["add", "held", &address, "--weight", &weight]),
            Deed::Remove => self.change(&["remove", "held", &address]),
            Deed::Drain => self.change(&["drain", "held", &address]),
            Deed::Undrain => self.change(&["ready", "held", &address]),
            Deed::Weigh => self.change(&["set", "held", &address, "--weight", &weight]),
            Deed::Fail => {
                self.site.stop_pulse(node)?;
                self.wait_health(node, HealthState::Down)
            }
            Deed::Recover => {
                self.site.start_pulse(node)?;
                self.wait_health(node, HealthState::Up)
            }
        }?;
        *self.deeds.entry(deed).or_default() += 1;
        let standing = self.standings.entry(node).or_insert(Standing::SERVES);
        match deed {
            Deed::Add => *standing = Standing { failed: standing.failed, ..Standing::SERVES },
            Deed::Remove => standing.present = false,
            Deed::Drain => standing.drains = true,
            Deed::Undrain => standing.drains = false,
            Deed::Weigh => {}
            Deed::Fail => standing.failed = true,
            Deed::Recover => standing.failed = false,
        }
        if let (Deed::Add, true) = (deed, standing.failed) {
            // Until it is checked it is believed well, and may get connections that then die.
            self.wait_health(node, HealthState::Down)?;
        }
        Ok(())
    }

    fn change(&mut self, words: &[&str]) -> Result<()> {
        let applied: Applied = self.site.cli()?.ask(&[&["backend"], words].concat())?;
        self.slots_moved += applied.slots_moved;
        Ok(())
    }

    fn wait_health(&self, node: Node, health: HealthState) -> Result<()> {
        let address = self.service.endpoint(node);
        wait::until(NOTICED, &format!("{node} is {health:?}"), || {
            let backends = self.site.cli()?.backends("held")?;
            let backend = backends.iter().find(|backend| backend.address == address).context("it is gone")?;
            ensure!(backend.health == health, "{backend:?}");
            Ok(())
        })
    }

    fn ask_some(&mut self) -> Result<()> {
        for _ in 0..ASKING.min(self.connections.len()) {
            let number = self.random.below(self.connections.len());
            self.ask(number)?;
        }
        Ok(())
    }

    fn ask(&mut self, number: usize) -> Result<()> {
        let connection = &mut self.connections[number];
        connection.ask().with_context(|| format!("connection {number} to {} is broken", connection.backend()))
    }

    fn ask_all(&mut self) -> Result<()> {
        (0..self.connections.len()).try_for_each(|number| self.ask(number))
    }
}

fn two_thousand_connections_survive_two_hundred_changes(tools: Tools) -> Result<()> {
    let mut trial = Trial::new(tools)?;
    trial.open(AT_FIRST)?;
    for number in 0..CHANGES {
        let (node, deed) = trial.choose();
        let what = || format!("seed {SEED}, change {number}: {deed} {node}");
        trial.do_it(node, deed).with_context(what)?;
        trial.open(EACH_TIME + number % 2).with_context(what)?;
        trial.ask_some().with_context(what)?;
    }
    let opened = trial.connections.len() + trial.died;
    trial.ask_all().with_context(|| format!("seed {SEED}, in the end"))?;
    let status = trial.site.status()?;
    let (flows, slots) = (status.flows, status.services[0].slots);
    let (live, deeds) = (trial.connections.len(), &trial.deeds);
    ensure!(opened == 2 * AT_FIRST && live > AT_FIRST / 2, "{live} of {opened} live after {deeds:?}");
    ensure!(deeds.len() == 7, "not everything was done: {deeds:?}");
    ensure!(trial.slots_moved > 65_537, "only {} slots moved", trial.slots_moved);
    ensure!(flows.evicted == 0 && flows.remembered > 0 && slots.moving > 0, "{flows:?}, {slots:?}");
    Ok(())
}

/// Every backend but its own comes and goes, and its own drains: the connection is as good as new, and so is a UDP flow.
fn fifty_changes(tools: Tools, way: Way) -> Result<()> {
    let services = vec![way.web(), way.udp_echo()];
    let site = way.serving(tools, services.clone())?;
    let mut connection = KeepAlive::open(&site.client(1), way.web().vip)?;
    let asker = Asker::open(&site.client(2), way.udp_echo().vip)?;
    let tcp = Survivor::new(&services[0], connection.ask()?)?;
    let udp = Survivor::new(&services[1], asker.ask("who?")?)?;
    for number in 0..50 {
        for survivor in [&tcp, &udp] {
            let words = survivor.change(number);
            site.cli()?.succeed(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
            let what = || format!("after change {number}: {words:?}");
            tcp.ensure_same(&connection.ask().with_context(what)?).with_context(what)?;
            udp.ensure_same(&asker.ask("and now?").with_context(what)?).with_context(what)?;
        }
    }
    Ok(())
}

/// A flow, by the backend that it must keep.
struct Survivor {
    service: String,
    name: String,
    own: String,
    others: [String; 2],
}

impl Survivor {
    fn new(service: &Service, name: String) -> Result<Self> {
        let (own, others): (Vec<Node>, Vec<Node>) =
            BACKENDS.iter().partition(|node| node.to_string() == name);
        let ([own], [one, other]) = (&own[..], &others[..]) else { bail!("{name:?} is no backend") };
        let [own, one, other] = [own, one, other].map(|node| service.endpoint(*node));
        Ok(Self { service: service.name.clone(), name, own, others: [one, other] })
    }

    /// The `number`th change of its service, for ever.
    fn change(&self, number: usize) -> Vec<String> {
        let Self { service, own, others: [one, other], .. } = self;
        let round = [
            format!("drain {service} {own}"),
            format!("remove {service} {one}"),
            format!("set {service} {other} --weight 7"),
            format!("add {service} {one}"),
            format!("remove {service} {other}"),
            format!("ready {service} {own}"),
            format!("add {service} {other}"),
            format!("drain {service} {one}"),
            format!("set {service} {own} --weight 100"),
            format!("ready {service} {one}"),
        ];
        let words = &round[number % round.len()];
        std::iter::once("backend").chain(words.split(' ')).map(str::to_owned).collect()
    }

    fn ensure_same(&self, name: &str) -> Result<()> {
        ensure!(name == self.name, "{name} answered instead of {}", self.name);
        Ok(())
    }
}

fn a_udp_flow_outlives_changes(tools: Tools) -> Result<()> {
    let service = echo(VIP4);
    let site = Site::with_daemon(tools, &Config::new(vec![service.clone()]))?;
    let asker = Asker::open(&site.client(2), (VIP4, ECHO_PORT).into())?;
    let name = asker.ask("who")?;
    let (own, others): (Vec<Node>, Vec<Node>) = BACKENDS.iter().partition(|node| node.to_string() == name);
    let drain = |node: &Node| service.endpoint(*node);
    for (number, (verb, address)) in
        [("drain", drain(&own[0])), ("remove", drain(&others[0])), ("add", drain(&others[0]))]
            .iter()
            .enumerate()
    {
        site.cli()?.succeed(&["backend", verb, "echo", address])?;
        let answer = asker.ask(format!("after change {number}"))?;
        ensure!(answer == name, "after change {number}, {verb}, {answer} answered instead of {name}");
    }
    Ok(())
}

/// What `lb flow`, `lb slots` and the API say of flows is what their packets do, before a change, during and after it.
fn what_is_looked_up_is_where_packets_go(tools: Tools) -> Result<()> {
    let old_backends = [Node::Backend(1), Node::Backend(2)];
    let mut labs = vec![tools.clone(), tools];
    for vip in [IpAddr::from(VIP4), VIP6.into()] {
        let tools = labs.pop().context("there is one for each family")?;
        let service = Service::new("held", (vip, ECHO_PORT).into(), Protocol::Tcp).only(&old_backends);
        let site = Site::with_daemon(tools, &Config::new(vec![service.clone()]))?;
        let (cli, target) = (site.cli()?, SocketAddr::from((vip, ECHO_PORT)));
        let mut old = Held::open_many(&site.client(1), target, 40)?;
        check_lookups(cli, &service, target, &old, |_| true)?;
        let newcomer = service.endpoint(Node::Backend(3));
        let plan: PlanView = cli.ask(&["slots", "disruption", "held", "--add", &newcomer])?;
        let done: Applied = cli.ask(&["backend", "add", "held", &newcomer])?;
        let foretold = (plan.slots_moved, plan.slots_least, plan.slots_total);
        let moved = (done.slots_moved, done.slots_least, done.slots_total);
        ensure!(foretold == moved && moved.0 > 0, "{foretold:?} was foretold, and it was {moved:?}");
        old.iter_mut().try_for_each(Held::ask).context("an old connection is broken")?;
        let new = Held::open_many(&site.client(1), target, 40)?;
        // Who opens the flow anew goes to the new owner, whether the flow was there before or not.
        check_lookups(cli, &service, target, &old, |found| !found.moving || found.remembered.is_some())?;
        check_lookups(cli, &service, target, &new, |found| found.opens_at == found.backend)?;
        check_slots(cli, &newcomer)?;
        let (counts, flows): (Vec<FlowCount>, Vec<FlowView>) =
            (cli.ask(&["flow", "count", "held"])?, cli.ask(&["flow", "list", "held"])?);
        let counted: u64 = counts.iter().map(|count| count.fresh + count.confirmed).sum();
        ensure!(
            counted == flows.len() as u64 && counted > 0,
            "{counted} are counted, {} listed",
            flows.len()
        );
        let first: Vec<FlowView> = cli.ask(&["flow", "list", "--limit", "1"])?;
        ensure!(
            first.len() == 1 && first[0].hash == flows[0].hash,
            "{first:?} came first, and {:?}",
            flows[0]
        );
    }
    Ok(())
}

/// What is looked up of connections is true of them, and as it should be.
fn check_lookups(
    cli: &Cli,
    service: &Service,
    target: SocketAddr,
    connections: &[Held],
    as_it_should_be: impl Fn(&FlowLookup) -> bool,
) -> Result<()> {
    for connection in connections {
        let source = connection.source()?.to_string();
        let found: FlowLookup = cli.ask(&["flow", "lookup", "tcp", &source, &target.to_string()])?;
        let mut nodes = BACKENDS.into_iter().filter(|node| node.to_string() == connection.backend());
        let backend = nodes.next().map(|node| service.endpoint(node));
        ensure!(found.backend == backend, "{source} is served by {backend:?}, and not as {found:?}");
        ensure!(as_it_should_be(&found), "{source}: {found:?}");
    }
    Ok(())
}

/// The slots of two backends on their way to a third.
fn check_slots(cli: &Cli, newcomer: &str) -> Result<()> {
    let slots: ServiceSlots = cli.ask(&["slots", "show", "held"])?;
    let owned: u32 = slots.backends.iter().map(|backend| backend.owned).sum();
    let sum = |of: fn(&BackendSlots) -> u32| -> u64 {
        slots.backends.iter().map(|backend| u64::from(of(backend))).sum()
    };
    let (arriving, leaving) = (sum(|one| one.arriving), sum(|one| one.leaving));
    ensure!(owned == slots.table_size && slots.settled + slots.moving == u64::from(owned), "{slots:?}");
    ensure!(arriving == slots.moving && leaving == slots.moving && leaving > 0, "{slots:?}");
    let arrives = |backend: &BackendSlots| backend.arriving > 0;
    let arrivals: Vec<&str> =
        slots.backends.iter().filter(|one| arrives(one)).map(|one| one.address.as_str()).collect();
    ensure!(arrivals.contains(&newcomer), "{arrivals:?} arrive");
    ensure!(slots.backends.iter().all(|one| (one.share - one.wanted_share).abs() < 0.01), "{slots:?}");
    Ok(())
}

/// A backend that was added and removed leaves no trace, and what the metrics tell is true.
fn slots_settle_again(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(
        tools,
        &Config { flows: FEW, ..Config::new(vec![held().only(&[Node::Backend(1)])]) },
    )?;
    let address = held().endpoint(Node::Backend(3));
    ensure!(moving(&site)? == 0, "slots move before anything has changed");
    let mut old = Held::open_many(&site.client(1), (VIP4, ECHO_PORT).into(), 60)?;
    site.cli()?.succeed(&["backend", "add", "held", &address])?;
    let new = Held::open_many(&site.client(1), (VIP4, ECHO_PORT).into(), 60)?;
    let half = 65_537 / 2;
    ensure!(moving(&site)?.abs_diff(half) < half / 10, "{} slots move", moving(&site)?);
    old.iter_mut().try_for_each(Held::ask).context("an old connection is broken")?;
    wait::until(SWEPT, "every flow that was added is remembered", || {
        let page = site.metrics()?;
        let remembered = value(&page, "lb_flows")?;
        let (added, known) = (lookups(&page, "added")?, lookups(&page, "known")?);
        ensure!(remembered > 0 && remembered == added && known > 0, "{remembered} of {added}, {known} known");
        Ok(())
    })?;
    drop(new);
    site.cli()?.succeed(&["backend", "remove", "held", &address])?;
    let begun = Instant::now();
    wait::until(SWEPT, "all slots are settled and no flow is remembered", || {
        let (moving, flows) = (moving(&site)?, value(&site.metrics()?, "lb_flows")?);
        ensure!(moving == 0 && flows == 0, "{moving} move, {flows} are remembered");
        Ok(())
    })?;
    ensure!(begun.elapsed() < SWEPT, "it took {:?}", begun.elapsed());
    old.iter_mut().try_for_each(Held::ask).context("an old connection is broken")?;
    ensure!(value(&site.metrics()?, "lb_flow_evictions_total")? == 0, "flows were evicted");
    Ok(())
}

/// Slots settle around old connections, and these once they are gone. Nobody who talks is cut off.
fn slots_settle_with_time(tools: Tools) -> Result<()> {
    let service = held().only(&[Node::Backend(1)]).idle("2s");
    let site = Site::with_daemon(tools, &Config { flows: FEW, ..Config::new(vec![service]) })?;
    let mut old = Held::open_many(&site.client(1), (VIP4, ECHO_PORT).into(), 60)?;
    site.cli()?.succeed(&["backend", "add", "held", &held().endpoint(Node::Backend(3))])?;
    let mut new = Held::open_many(&site.client(2), (VIP4, ECHO_PORT).into(), 60)?;
    let mut left = 0;
    wait::until(AGED, "only slots of old connections move", || {
        old.iter_mut().chain(&mut new).try_for_each(Held::ask).context("a connection is broken")?;
        left = moving(&site)?;
        ensure!((1..=60).contains(&left), "{left} slots move");
        Ok(())
    })?;
    drop(old);
    wait::until(AGED, "all slots are settled and no flow is remembered", || {
        new.iter_mut().try_for_each(Held::ask).context("a connection is broken")?;
        let (moving, flows) = (moving(&site)?, value(&site.metrics()?, "lb_flows")?);
        ensure!(moving == 0 && flows == 0, "{moving} move, {flows} are remembered");
        Ok(())
    })?;
    new.iter_mut().try_for_each(Held::ask).context("a connection is broken")
}

/// `lb backend drain --wait` comes back when the last flow has gone and not before; of the last backend nobody can tell.
fn a_drain_is_waited_for(tools: Tools) -> Result<()> {
    let service = held().only(&[Node::Backend(1), Node::Backend(3)]).idle("2s");
    let site = Site::with_daemon(tools, &Config { flows: FEW, ..Config::new(vec![service]) })?;
    let drain = |node: Node| {
        let mut connections = Held::open_many(&site.client(1), (VIP4, ECHO_PORT).into(), 30)?;
        ensure!(
            connections.iter().any(|held| held.backend() == node.to_string()),
            "{node} has no connection"
        );
        let mut command = site.client(2).command(site.lb());
        command.env("LB_SOCKET", site.files("lb").socket);
        command.args(["backend", "drain", "held", &held().endpoint(node), "--wait"]);
        let log = site.directory().join(format!("{node}.log"));
        let mut drain = Process::spawn_logged("lb backend drain --wait", command, &log)?;
        // Twice as long as an idle flow is remembered, and some looks more.
        let enough = Instant::now() + Duration::from_secs(5);
        while Instant::now() < enough {
            connections.iter_mut().try_for_each(Held::ask).context("a connection is broken")?;
            ensure!(drain.ended()?.is_none(), "it has not waited: {}", drain.log());
            interrupt::pause(Duration::from_millis(100))?;
        }
        drop(connections);
        let ended = wait::until(AGED, "the drain has ended", || drain.ended()?.context("it still waits"))?;
        ensure!(ended.success() && drain.log().contains(" is drained\n"), "{ended}: {}", drain.log());
        Ok(())
    };
    drain(Node::Backend(1))?;
    let last = ["backend", "drain", "held", &held().endpoint(Node::Backend(3)), "--wait"];
    let unknown = site.cli()?.run(&last)?;
    ensure!(
        unknown.code == Some(1) && unknown.stderr.contains("with --timeout it can be waited for"),
        "{unknown:?}"
    );
    let waited = site.cli()?.run(&[&last[..], &["--timeout", "2s"]].concat())?;
    ensure!(waited.code == Some(0) && waited.stdout.contains(" is drained\n"), "{waited:?}");
    Ok(())
}

fn moving(site: &Site) -> Result<u64> {
    value(&site.metrics()?, "lb_slots{service=\"held\",state=\"moving\"}")
}

fn lookups(page: &str, result: &str) -> Result<u64> {
    value(page, &format!("lb_flow_lookups_total{{result=\"{result}\"}}"))
}

fn value(page: &str, series: &str) -> Result<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.with_context(|| format!("{series} is missing:\n{page}"))?.parse().context("not a number")
}

/// Those who are connected stay so, and nobody else is let in.
fn the_last_backend_is_drained(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![held()]))?;
    let target = (VIP4, ECHO_PORT).into();
    let mut connections = Held::open_many(&site.client(1), target, 30)?;
    for node in BACKENDS {
        site.cli()?.succeed(&["backend", "drain", "held", &held().endpoint(node)])?;
        connections.iter_mut().try_for_each(Held::ask).with_context(|| format!("{node} was drained"))?;
    }
    let refused = Held::open(&site.client(1), target);
    ensure!(
        refused.is_err(),
        "a new connection was let in by {:?}",
        refused.map(|held| held.backend().to_owned())
    );
    let status = site.status()?;
    let drops = status.interfaces.iter().flat_map(|interface| &interface.drops);
    ensure!(drops.clone().any(|drop| drop.reason == "no_backend"), "{:?}", drops.collect::<Vec<_>>());
    ensure!(
        status.warnings.iter().any(|warning| warning.contains("no backend takes new flows")),
        "{status:?}"
    );
    site.cli()?.succeed(&["backend", "ready", "held", &held().endpoint(BACKENDS[0])])?;
    site.cli()?.wait_serving("held", 1, SERVING)?;
    connections.iter_mut().try_for_each(Held::ask).context("a backend is ready again")?;
    let late = Held::open(&site.client(1), target)?;
    ensure!(late.backend() == BACKENDS[0].to_string(), "{} answered", late.backend());
    Ok(())
}
