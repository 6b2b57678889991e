//! The data plane outlives its daemon: what happens to it is noticed by no packet.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::bpffs::BpfFs;
use lb_tests::daemon::{Config, Service};
use lb_tests::load::{self, Held, Plan, SteadyLoad};
use lb_tests::net::{Node, VIP4};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::model::Protocol;

use crate::cases::{Case, cases, ensure_answered, ensure_spread, web};

pub(crate) fn cases() -> Vec<Case> {
    cases!["survive": a_killed_daemon_leaves_its_work_to_the_next]
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

    /// Requests at a steady rate until they are counted.
    fn load(&self) -> SteadyLoad {
        let plan = Plan { target: (VIP4, HTTP_PORT).into(), rate: 100, longest: Duration::from_secs(60) };
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

    lasting.restart()?;
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
    lasting.restart()?;
    ask_all(&mut connections)?;
    wait_for_more(&load, 50)?;
    ensure_answered(&load.finish()?)?;
    ensure_spread(&load::requests(&lasting.site.client(1), (VIP4, HTTP_PORT).into(), 60)?)
}
