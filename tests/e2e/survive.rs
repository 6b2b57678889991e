//! The data plane outlives its daemon: what happens to it is noticed by no packet.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::{Config, Service, other_build, run_command};
use lb_tests::load::{self, Held, Plan, SteadyLoad};
use lb_tests::mounts::BpfFs;
use lb_tests::net::{BACKENDS, Node, VIP4};
use lb_tests::process::{self, Finished};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT};
use lb_tests::site::{SERVING, Site};
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::model::Protocol;
use lb_userspace::view::BackendState::{self, Drain, Ready};
use lb_userspace::view::{BpfEntry, BpfMap, XdpStatus};

use crate::cases::{Case, cases, ensure_answered, ensure_detached, ensure_spread, web};
use crate::refusals::ensure_refused;

pub(crate) fn cases() -> Vec<Case> {
    cases!["survive":
        a_killed_daemon_leaves_its_work_to_the_next,
        a_daemon_is_killed_at_any_moment_of_its_changes,
        another_build_of_the_program_takes_over,
        a_second_daemon_is_told_of_the_first,
        detaching_leaves_nothing,
        maps_are_read_with_and_without_a_daemon,
        an_interface_that_came_back_gets_its_program_again,
        a_map_of_another_layout,
        a_read_only_file_system,
        no_bpf_file_system,
        somebody_elses_program,
        what_was_kept_ends_with_a_daemon_that_detaches,
        more_flows_need_other_tables,
    ]
}

/// A site whose daemon's work outlives it. The file system goes before the directory that it is mounted in.
struct Lasting {
    bpffs: BpfFs,
    site: Site,
    config: Config,
}

fn held() -> Service {
    Service::new("held", (VIP4, ECHO_PORT).into(), Protocol::Tcp)
}

impl Lasting {
    fn new(tools: Tools) -> Result<Self> {
        let mut site = Site::new(tools)?;
        let bpffs = BpfFs::mount(site.directory())?;
        let config = Config::new(vec![web(VIP4), held()]).pinned(&bpffs.path().join("lb"));
        site.serve(&config)?;
        Ok(Self { bpffs, site, config })
    }

    fn pins(&self) -> PathBuf {
        self.bpffs.path().join("lb")
    }

    fn restart(&mut self) -> Result<()> {
        self.site.serve(&self.config)
    }

    /// The same when commands have changed the backends of `held`: waits until those that are to serve do.
    fn restart_changed(&mut self) -> Result<()> {
        self.site.start_daemon(&self.config)?;
        self.site.cli()?.wait_serving("web", 3, SERVING)?;
        let ready = self.states()?.iter().filter(|state| **state == Ready).count();
        self.site.cli()?.wait_serving("held", ready, SERVING)
    }

    /// What is asked of each backend of `held`.
    fn states(&mut self) -> Result<Vec<BackendState>> {
        Ok(self.site.cli()?.backends("held")?.into_iter().map(|backend| backend.state).collect())
    }

    /// Requests at a steady rate until they are counted.
    fn load(&self) -> SteadyLoad {
        let plan = Plan { target: (VIP4, HTTP_PORT).into(), rate: 100, longest: Duration::from_mins(1) };
        SteadyLoad::start(&self.site.client(1), plan)
    }
}

fn wait_for_more(load: &SteadyLoad, count: usize) -> Result<()> {
    let before = load.so_far().total();
    wait::until(Duration::from_secs(15), "requests go on", || {
        let made = load.so_far().total() - before;
        ensure!(made >= count, "{made} of {count} so far");
        Ok(())
    })
}

fn ask_all(connections: &mut [Held]) -> Result<()> {
    connections.iter_mut().try_for_each(|one| Ok(one.ask()?))
}

/// `kill -9`, nobody there for a while, a new daemon, SIGTERM, another one.
fn a_killed_daemon_leaves_its_work_to_the_next(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    let target = (VIP4, ECHO_PORT).into();
    let mut connections = Held::open_many(&lasting.site.client(2), target, 50)?;
    let load = lasting.load();
    wait_for_more(&load, 20)?;
    let before = lasting.site.cli()?.service("web")?.packets;
    let drained = held().endpoint(Node::Backend(1));
    lasting.site.cli()?.succeed(&["backend", "drain", "held", &drained])?;
    connections.extend(Held::open_many(&lasting.site.client(2), target, 20)?);

    lasting.site.daemon()?.process.kill()?;
    wait_for_more(&load, 50)?;
    ask_all(&mut connections)?;
    connections.extend(Held::open_many(&lasting.site.client(2), target, 20)?);

    lasting.restart_changed()?;
    ensure!(lasting.states()? == [Drain, Ready, Ready], "the drain is forgotten: {:?}", lasting.states()?);
    wait_for_more(&load, 50)?;
    ask_all(&mut connections)?;
    let log = lasting.site.daemon()?.process.log();
    ensure!(log.contains("going on with the tables"), "it began anew:\n{log}");
    let after = lasting.site.cli()?.service("web")?.packets;
    ensure!(after > before, "the counters went back from {before} to {after}");
    for interface in lasting.site.status()?.interfaces {
        ensure!(interface.mode == "native", "{interface:?}");
    }

    lasting.site.take_daemon()?.stop()?;
    ensure!(fs::read_dir(lasting.pins().join("links"))?.count() == 2, "links should stay");
    wait_for_more(&load, 50)?;
    ask_all(&mut connections)?;
    lasting.restart_changed()?;
    ask_all(&mut connections)?;
    wait_for_more(&load, 50)?;
    ensure_answered(&load.finish()?)?;
    ensure_spread(&load::requests(&lasting.site.client(1), (VIP4, HTTP_PORT).into(), 60)?)
}

/// A daemon is killed while it is at work on changes, again and again.
fn a_daemon_is_killed_at_any_moment_of_its_changes(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    let target = (VIP4, ECHO_PORT).into();
    // The third backend comes and goes and has no connections.
    let third = held().endpoint(Node::Backend(3));
    lasting.site.cli()?.succeed(&["backend", "remove", "held", &third])?;
    let mut connections = Held::open_many(&lasting.site.client(2), target, 60)?;
    let load = lasting.load();
    lasting.config.services[1] = held().only(&[Node::Backend(1), Node::Backend(2)]);
    for round in 0..10u64 {
        let cli = lasting.site.cli()?.clone();
        let third = third.clone();
        let changing = std::thread::spawn(move || {
            // It is there if the last daemon was killed between the adding and the removal.
            drop(cli.run(&["backend", "remove", "held", &third]));
            // The daemon does not survive one of these.
            for _ in 0..200 {
                for verb in ["add", "drain", "remove"] {
                    if !cli.run(&["backend", verb, "held", &third]).is_ok_and(|said| said.code == Some(0)) {
                        return;
                    }
                }
            }
        });
        std::thread::sleep(Duration::from_millis(60 + 37 * round % 200));
        lasting.site.daemon()?.process.kill()?;
        changing.join().map_err(|_| anyhow::anyhow!("the changing thread panicked"))?;
        ask_all(&mut connections)?;
        // Where it was killed decides whether the third backend is there.
        lasting.restart_changed()?;
        ask_all(&mut connections)?;
    }
    wait_for_more(&load, 20)?;
    ensure_answered(&load.finish()?)
}

/// The same program with another text in it is another build.
fn another_build_of_the_program_takes_over(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    let mut connections = Held::open_many(&lasting.site.client(2), (VIP4, ECHO_PORT).into(), 50)?;
    let load = lasting.load();
    let old = program_of(&lasting)?;
    lasting.site.take_daemon()?.stop()?;
    let other = other_build(lasting.site.lb(), &lasting.site.directory().join("other-lb"))?;
    lasting.site.use_lb(&other);
    lasting.restart()?;
    ensure!(program_of(&lasting)? != old, "the program is still the old one");
    wait_for_more(&load, 50)?;
    ask_all(&mut connections)?;
    ensure_answered(&load.finish()?)
}

fn xdp_status(lasting: &Lasting) -> Result<XdpStatus> {
    let pins = lasting.pins();
    lasting.site.free_cli().ask(&["xdp", "status", "--pins", &pins.to_string_lossy()])
}

fn program_of(lasting: &Lasting) -> Result<u32> {
    Ok(xdp_status(lasting)?.interfaces.first().context("it is attached nowhere")?.program)
}

/// Runs `lb run` to its end.
fn run(lasting: &Lasting, config: &Config) -> Result<Finished> {
    let files = lasting.site.files("other");
    fs::write(&files.config, config.render(&files.socket))?;
    let balancer = lasting.site.lab.namespace(Node::Balancer);
    process::finish(run_command(lasting.site.lb(), &balancer, &files), Duration::from_secs(20))
}

fn ensure_unharmed(lasting: &Lasting) -> Result<()> {
    ensure_spread(&load::requests(&lasting.site.client(1), (VIP4, HTTP_PORT).into(), 60)?)
}

fn a_second_daemon_is_told_of_the_first(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    let mut second = lasting.config.clone();
    second.metrics = false;
    let id = lasting.site.daemon()?.process.id();
    let said = run(&lasting, &second)?;
    ensure_refused(&said, &[&format!("process {id}"), &lasting.pins().to_string_lossy()])?;
    ensure!(xdp_status(&lasting)?.daemon == Some(id), "the status does not know of it");
    let detach =
        lasting.site.free_cli().run(&["xdp", "detach", "--pins", &lasting.pins().to_string_lossy()])?;
    ensure!(detach.code == Some(4), "{detach:?}");
    ensure_refused(&detach, &[&format!("process {id}")])?;
    ensure_unharmed(&lasting)?;
    // A lock ends with its process: there is nothing to be cleared away.
    lasting.site.daemon()?.process.kill()?;
    ensure!(xdp_status(&lasting)?.daemon.is_none(), "a dead daemon holds a lock");
    lasting.restart()?;
    ensure_unharmed(&lasting)
}

/// What `lb bpf` reads with and without a daemon is what the daemon stored and packets counted.
fn maps_are_read_with_and_without_a_daemon(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    ensure_unharmed(&lasting)?;
    let pins = lasting.pins();
    let pins = pins.to_string_lossy();
    let cli = lasting.site.free_cli();
    let with_pins = |words: &[&'static str]| [words, &["--pins", &*pins]].concat();
    let before: Vec<BpfMap> = cli.ask(&with_pins(&["bpf", "maps"]))?;
    let memory = |maps: &[BpfMap], name: &str| maps.iter().find(|map| map.name == name)?.memory_bytes;
    // 2^17 sets of two cache lines.
    ensure!(memory(&before, "FLOWS") >= Some(1 << 24), "{before:?}");
    lasting.site.take_daemon()?.stop()?;
    let after: Vec<BpfMap> = cli.ask(&with_pins(&["bpf", "maps"]))?;
    ensure!(before == after, "{before:?} became {after:?}");
    let backends: Vec<BpfEntry> = cli.ask(&with_pins(&["bpf", "dump", "backends"]))?;
    let usable =
        |entry: &BpfEntry| entry.meaning.as_ref().is_some_and(|words| words.contains("BackendEntry"));
    ensure!(backends.len() == 2 * BACKENDS.len() && backends.iter().all(usable), "{backends:?}");
    // Counters of all CPUs together: one row for each backend of `web`, which had the requests.
    let forwarded: Vec<BpfEntry> = cli.ask(&with_pins(&["bpf", "dump", "FORWARDED"]))?;
    ensure!(forwarded.len() >= BACKENDS.len(), "{forwarded:?}");
    let from = backends[1].index.to_string();
    let asked = [&with_pins(&["bpf", "dump", "backends", "--count", "1"])[..], &["--from", &from]].concat();
    let later: Vec<BpfEntry> = cli.ask(&asked)?;
    ensure!(later == backends[1..2], "{later:?} are not {:?}", &backends[1..2]);
    let unknown = cli.run(&with_pins(&["bpf", "dump", "BACKEND"]))?;
    ensure!(unknown.code == Some(5) && unknown.stderr.contains("did you mean BACKENDS?"), "{unknown:?}");
    let nowhere = cli.run(&["bpf", "maps", "--pins", "/sys/fs/bpf/nothing-here"])?;
    ensure!(nowhere.code == Some(5) && nowhere.stderr.contains("start a daemon"), "{nowhere:?}");
    lasting.restart()?;
    ensure_unharmed(&lasting)
}

fn detaching_leaves_nothing(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    let pins = lasting.pins();
    let pins = pins.to_string_lossy();
    lasting.site.take_daemon()?.stop()?;
    let cli = lasting.site.free_cli();
    ensure!(
        xdp_status(&lasting)?.interfaces.iter().all(|one| one.mode.as_deref() == Some("native")),
        "not native"
    );
    cli.succeed(&["xdp", "detach", "client1", "--pins", &pins])?;
    ensure!(!lasting.site.lab.has_xdp(Node::Balancer, "client1")?, "a program is left on client1");
    ensure!(lasting.site.lab.has_xdp(Node::Balancer, "client2")?, "client2 was not meant");
    cli.succeed(&["xdp", "attach", "client1", "--pins", &pins])?;
    ensure_unharmed(&lasting)?;
    cli.succeed(&["xdp", "detach", "--pins", &pins])?;
    ensure_detached(&lasting.site.lab)?;
    ensure!(!lasting.pins().exists(), "the pin directory is left");
    ensure!(cli.run(&["xdp", "detach", "--pins", &pins])?.code == Some(5), "there is nothing to detach");
    lasting.restart()?;
    ensure_unharmed(&lasting)
}

/// The link of an interface that is gone holds nothing; a new one of that name is attached anew.
fn an_interface_that_came_back_gets_its_program_again(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    let add = ["link add again0 type veth peer name again1".to_owned(), "link set again0 up".to_owned()];
    let delete = ["link del again0".to_owned()];
    lasting.site.lab.ip(Node::Balancer, &add)?;
    lasting.site.take_daemon()?.stop()?;
    lasting.config.interfaces.push("again0".to_owned());
    lasting.restart()?;
    ensure!(lasting.site.lab.has_xdp(Node::Balancer, "again0")?, "no program on again0");
    lasting.site.take_daemon()?.stop()?;
    lasting.site.lab.ip(Node::Balancer, &delete)?;
    lasting.site.lab.ip(Node::Balancer, &add)?;
    let gone = xdp_status(&lasting)?.interfaces.into_iter().find(|one| one.name == "again0");
    ensure!(gone.is_some_and(|one| one.mode.is_none()), "it should be told as gone");
    lasting.restart()?;
    ensure!(lasting.site.lab.has_xdp(Node::Balancer, "again0")?, "no program on the new again0");
    // What is not wanted any more is let go.
    lasting.site.take_daemon()?.stop()?;
    lasting.config.interfaces.pop();
    lasting.restart()?;
    ensure!(!lasting.site.lab.has_xdp(Node::Balancer, "again0")?, "a program is left on again0");
    ensure_unharmed(&lasting)
}

/// The directory of the tables.
fn tables(lasting: &Lasting) -> Result<PathBuf> {
    for entry in fs::read_dir(lasting.pins())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tables-")) {
            return Ok(path);
        }
    }
    anyhow::bail!("there are no tables")
}

fn a_map_of_another_layout(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    lasting.site.take_daemon()?.stop()?;
    let tables = tables(&lasting)?;
    fs::rename(tables.join("WITHHELD"), tables.join("aside"))?;
    fs::rename(tables.join("FLOW_COUNTS"), tables.join("WITHHELD"))?;
    let said = run(&lasting, &lasting.config)?;
    ensure_refused(&said, &["WITHHELD", "lb xdp detach"])?;
    ensure_unharmed(&lasting)?;
    fs::rename(tables.join("WITHHELD"), tables.join("FLOW_COUNTS"))?;
    fs::rename(tables.join("aside"), tables.join("WITHHELD"))?;
    lasting.restart()?;
    ensure_unharmed(&lasting)
}

fn a_read_only_file_system(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    lasting.site.take_daemon()?.stop()?;
    lasting.bpffs.set_writable(false)?;
    let said = run(&lasting, &lasting.config)?;
    lasting.bpffs.set_writable(true)?;
    ensure_refused(&said, &["read-only", "remount,rw"])?;
    ensure_unharmed(&lasting)
}

fn no_bpf_file_system(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    lasting.site.take_daemon()?.stop()?;
    let elsewhere = lasting.config.clone().pinned(&lasting.site.directory().join("pins"));
    let said = run(&lasting, &elsewhere)?;
    ensure_refused(&said, &["mount -t bpf bpf", "on_exit"])
}

/// Programs of others are in the way of a daemon that keeps its own, too.
fn somebody_elses_program(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    let mut other = Config::new(vec![web(VIP4)]).pinned(&lasting.bpffs.path().join("other"));
    other.metrics = false;
    let said = run(&lasting, &other)?;
    ensure_refused(&said, &["client1", "already has an XDP program"])?;
    let links = fs::read_dir(lasting.bpffs.path().join("other/links"))?.count();
    ensure!(links == 0, "it has left {links} links");
    lasting.site.daemon()?;
    ensure_unharmed(&lasting)
}

fn what_was_kept_ends_with_a_daemon_that_detaches(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    let load = lasting.load();
    lasting.site.take_daemon()?.stop()?;
    lasting.config.detaches = true;
    lasting.restart()?;
    wait_for_more(&load, 20)?;
    ensure_answered(&load.finish()?)?;
    ensure!(!lasting.pins().exists(), "something is still pinned");
    lasting.site.daemon()?.process.kill()?;
    ensure_detached(&lasting.site.lab)
}

/// Tables of another size are filled before packets get there.
fn more_flows_need_other_tables(tools: Tools) -> Result<()> {
    let mut lasting = Lasting::new(tools)?;
    let mut connections = Held::open_many(&lasting.site.client(2), (VIP4, ECHO_PORT).into(), 50)?;
    let load = lasting.load();
    let before = tables(&lasting)?;
    lasting.site.take_daemon()?.stop()?;
    lasting.config.flows = Some(4096);
    lasting.restart()?;
    ensure!(tables(&lasting)? != before, "the tables are the old ones");
    ensure!(lasting.site.status()?.flows.capacity == 4096, "the flow table has another size");
    wait_for_more(&load, 20)?;
    ask_all(&mut connections)?;
    ensure_answered(&load.finish()?)
}
