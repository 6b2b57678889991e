//! Not one packet is lost and not one connection broken, whatever is done to the balancer.
//!
//! A stream of [`RATE`] packets a second, each counted when it leaves and when it arrives, and connections that ask all the
//! time, run through everything. What arrives of the stream is counted in the drivers of the backends' interfaces.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::{Config, Service, other_build};
use lb_tests::load::{Counted, CountedStream, Held, Tally};
use lb_tests::mounts::BpfFs;
use lb_tests::net::{BACKENDS, Node, VIP4, VIP6};
use lb_tests::servers::ECHO_PORT;
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::traffic::{FULL_WINDOW, Sources};
use lb_userspace::model::Protocol;

use crate::cases::{Case, cases};

/// Packets a second.
const RATE: u64 = 200_000;
/// Connections that are open from the beginning to the end.
const CONNECTIONS: usize = 200;
/// Of which so many ask after each step.
const ASKING: usize = 20;

pub(crate) fn cases() -> Vec<Case> {
    cases!["zero_loss":
        two_hundred_changes,
        twenty_reloads,
        twenty_restarts,
        twenty_kills,
        five_upgrades,
    ]
}

/// A balancer at work, and everybody who would notice. The file system goes before the directory that it is mounted in.
struct Trial {
    bpffs: BpfFs,
    site: Site,
    stream: Counted,
    connections: Vec<Held>,
    asked: usize,
    begun: Instant,
    steps: Vec<(Instant, String)>,
}

fn flood() -> Service {
    Service::new("flood", (VIP4, 80).into(), Protocol::Udp)
}

fn held() -> Service {
    Service::new("held", (VIP6, ECHO_PORT).into(), Protocol::Tcp)
}

/// Two backends that stay for as long as they have connections; the third comes and goes.
const STAY: [Node; 2] = [Node::Backend(1), Node::Backend(2)];

/// The configuration in which these backends of `held` serve.
fn config(bpffs: &BpfFs, serve: &[Node]) -> Config {
    Config::new(vec![flood(), held().only(serve)]).pinned(&bpffs.path().join("lb"))
}

impl Trial {
    fn begin(tools: Tools) -> Result<Self> {
        let mut site = Site::new(tools)?;
        let bpffs = BpfFs::mount(site.directory())?;
        site.serve(&config(&bpffs, &STAY))?;
        let connections = Held::open_many(&site.client(2), (VIP6, ECHO_PORT).into(), CONNECTIONS)?;
        let stream = CountedStream { sources: Sources::BUSY, vip: VIP4, rate: RATE, window: FULL_WINDOW }
            .start(&site.lab, Node::Client(1))?;
        let begun = Instant::now();
        Ok(Self { bpffs, site, stream, connections, asked: 0, begun, steps: Vec::new() })
    }

    /// One step, after which some of the connections ask.
    fn step(&mut self, what: &str, deed: impl FnOnce(&mut Site) -> Result<()>) -> Result<()> {
        self.steps.push((Instant::now(), what.to_owned()));
        deed(&mut self.site).with_context(|| what.to_owned())?;
        for _ in 0..ASKING {
            let count = self.connections.len();
            let connection = &mut self.connections[self.asked % count];
            connection.ask().with_context(|| format!("a connection broke: {what}"))?;
            self.asked += 1;
        }
        Ok(())
    }

    /// Starts a daemon after the one that is gone, which goes on with its work.
    fn follow(&mut self, what: &str) -> Result<()> {
        let config = config(&self.bpffs, &STAY);
        self.step(what, |site| {
            site.serve(&config)?;
            let log = site.daemon()?.process.log();
            ensure!(log.contains("going on with the tables"), "it began anew:\n{log}");
            Ok(())
        })
    }

    /// Ends the stream. Every packet has arrived, and every connection still answers.
    fn end(mut self) -> Result<()> {
        for connection in &mut self.connections {
            connection.ask().context("a connection broke")?;
        }
        let tally = self.stream.finish()?;
        let Tally { sent, received, ref losses, took } = tally;
        let told: Vec<String> = losses
            .iter()
            .map(|(when, lost)| {
                let step = self
                    .steps
                    .iter()
                    .rev()
                    .find(|(since, _)| since <= when)
                    .map_or("nothing yet", |(_, what)| what);
                format!("{lost} lost {:?} after the beginning, during or after: {step}", *when - self.begun)
            })
            .collect();
        ensure!(
            sent == received && losses.is_empty(),
            "{received} of {sent} packets arrived:\n{}",
            told.join("\n")
        );
        ensure!(tally.rate() > RATE / 10 * 9, "only {sent} packets were sent in {took:?}");
        Ok(())
    }
}

fn two_hundred_changes(tools: Tools) -> Result<()> {
    let mut trial = Trial::begin(tools)?;
    let newcomer = held().endpoint(Node::Backend(3));
    let settled = held().endpoint(Node::Backend(1));
    let [first, second] = [1, 2].map(|number| flood().endpoint(Node::Backend(number)));
    for round in 0..20 {
        let weight = (round * 37 % 200 + 1).to_string();
        let changes: [&[&str]; 10] = [
            &["add", "held", &newcomer],
            &["set", "held", &newcomer, "--weight", &weight],
            &["drain", "held", &settled],
            &["drain", "flood", &first],
            &["remove", "flood", &second],
            &["add", "flood", &second, "--weight", &weight],
            &["ready", "flood", &first],
            &["set", "flood", &first, "--weight", &weight],
            &["ready", "held", &settled],
            &["remove", "held", &newcomer],
        ];
        for words in changes {
            let words = [&["backend"], words].concat();
            trial.step(&format!("round {round}: {}", words.join(" ")), |site| {
                site.cli()?.succeed(&words).map(drop)
            })?;
        }
    }

    trial.end()
}

/// The file changes, and SIGHUP tells the daemon.
fn twenty_reloads(tools: Tools) -> Result<()> {
    let mut trial = Trial::begin(tools)?;
    for round in 0..20 {
        let serve: &[Node] = if round % 2 == 0 { &BACKENDS } else { &STAY };
        let config = config(&trial.bpffs, serve);
        trial.step(&format!("reload {round}"), |site| site.daemon()?.reload(&config))?;
    }
    trial.end()
}

fn twenty_restarts(tools: Tools) -> Result<()> {
    let mut trial = Trial::begin(tools)?;
    for round in 0..20 {
        trial.step(&format!("stop {round}"), |site| site.take_daemon()?.stop())?;
        trial.follow(&format!("start {round}"))?;
    }
    trial.end()
}

fn twenty_kills(tools: Tools) -> Result<()> {
    let mut trial = Trial::begin(tools)?;
    for round in 0..20 {
        trial.step(&format!("kill {round}"), |site| site.daemon()?.process.kill().map(drop))?;
        trial.follow(&format!("start {round}"))?;
    }
    trial.end()
}

/// To another build of the program, back, and so on.
fn five_upgrades(tools: Tools) -> Result<()> {
    let mut trial = Trial::begin(tools)?;
    let usual = trial.site.lb().to_owned();
    let other = other_build(&usual, &trial.site.directory().join("other-lb"))?;
    for round in 0..5 {
        trial.step(&format!("stop {round}"), |site| site.take_daemon()?.stop())?;
        trial.site.use_lb(if round % 2 == 0 { &other } else { &usual });
        trial.follow(&format!("upgrade {round}"))?;
    }
    trial.end()
}
