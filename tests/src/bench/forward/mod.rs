//! `lb-bench forward`: packets a second through the attached program, beside a bare reflector and the kernel's own NAT.
//!
//! A generator on one CPU sends over veth pairs to whoever forwards on another. It never has more packets under way than the
//! smallest queue on the way holds, so that everybody gets them as fast as they are forwarded, and none has to be lost.

mod contenders;
mod cpus;
mod network;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::geteuid;
use serde::Serialize;

use super::{Machine, median, write_json};
use crate::interrupt;

use crate::traffic::{Pace, Passage, Route, Traffic};
use contenders::Contender;
use network::{Link, Network};

/// Rounds in which every contender gets a stream. The machine's speed changes between rounds, hardly within one.
const ROUNDS: u32 = 9;

/// Turns of the generator in the first streams, which tell how many fit a round.
const FIRST_TURNS: u32 = 1 << 16;
/// The most turns of a stream: about ten seconds.
const MOST_TURNS: u32 = 100_000_000;

/// Nanoseconds there and back between CPUs that share no cache, at least.
const FAR_NS: f64 = 250.0;

/// Send packets through the attached program, beside a bare reflector and nftables
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long to send, all in all
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Let the sender's CPU forward too: for machines with one CPU, or with CPUs that are far apart
    #[arg(long)]
    one_cpu: bool,
    /// Write the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A contender, and its streams.
struct Lane {
    contender: Contender,
    route: Route,
    /// Turns of the generator that take as long as a round should.
    turns: u32,
    /// Packets of all streams.
    sent: u64,
    received: u64,
    /// Millions of packets a second of each round; none if too few arrived to tell.
    rates: Vec<Option<f64>>,
}

/// What was measured of one contender.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    deed: &'static str,
    /// Median of the rounds.
    mpps: f64,
    /// Medians of the rounds' ratios.
    ratio_to_reflector: f64,
    ratio_to_nftables: f64,
    sent: u64,
    received: u64,
    lost: u64,
}

/// Everything that was measured. The sums are over all contenders.
#[derive(Debug, Serialize)]
struct Forward {
    reflector_mpps: f64,
    lb_tx_mpps: f64,
    lb_ipip_tx_mpps: f64,
    lb_redirect_mpps: f64,
    nftables_mpps: f64,
    /// Of `lb_tx`.
    ratio_to_reflector: f64,
    /// Of `lb_tx`.
    ratio_to_nftables: f64,
    sent: u64,
    received: u64,
    lost: u64,
    contenders: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    machine: Machine,
    #[serde(flatten)]
    places: Places,
    forward: Forward,
}

/// Who works where.
#[derive(Debug, Serialize)]
struct Places {
    generator_cpu: usize,
    /// None if there is no other.
    balancer_cpu: Option<usize>,
    /// Nanoseconds between the two, there and back.
    round_trip_ns: Option<f64>,
}

impl Places {
    fn choose(one_cpu: bool) -> Result<Self> {
        let cpus = cpus::allowed()?;
        let generator_cpu = *cpus.first().context("there is no CPU")?;
        if one_cpu {
            return Ok(Self { generator_cpu, balancer_cpu: None, round_trip_ns: None });
        }
        let other = *cpus.get(1).context("there is only one CPU, which is enough with --one-cpu")?;
        let round_trip_ns = Some(cpus::round_trip(generator_cpu, other)?);
        Ok(Self { generator_cpu, balancer_cpu: Some(other), round_trip_ns })
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generator_cpu, balancer_cpu, round_trip_ns } = self;
        match balancer_cpu.zip(*round_trip_ns) {
            None => write!(f, "everything on CPU {generator_cpu}"),
            Some((cpu, ns)) => {
                write!(f, "sent from CPU {generator_cpu}, forwarded on CPU {cpu}, {ns:.0} ns there and back")
            }
        }
    }
}

/// Measures and reports.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(geteuid().is_root(), "network namespaces need root: run this again with sudo");
    interrupt::watch().context("cannot watch for signals")?;
    let machine = Machine::this();
    let places = Places::choose(arguments.one_cpu)?;
    println!("{machine}; {places}\n");
    let network = Network::new()?;
    let mut traffic = Traffic::load()?;
    let _balancer = contenders::start(&network, &mut traffic)?;
    if let Some(cpu) = places.balancer_cpu {
        network.poll_on(cpu)?;
    }
    let streams = u32::try_from(Contender::ALL.len())? * (ROUNDS + 1);
    let length = Duration::from_secs(arguments.seconds.into()) / streams;
    let mut lanes = Contender::ALL
        .map(|contender| Lane::new(contender, &network))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    // The first round fills caches and the table of connections, and its rates are not counted.
    for round in 0..=ROUNDS {
        for lane in &mut lanes {
            interrupt::check()?;
            let send = || {
                cpus::pin(None, places.generator_cpu)
                    .and_then(|()| traffic.pass(&lane.route, Pace::default(), lane.turns))
            };
            let passage = network.far(Link::Reflected).run(send)??;
            lane.note(&passage, length, round > 0)?;
        }
    }
    let forward = Forward::of(&lanes)?;
    forward.show();
    if places.round_trip_ns.is_some_and(|ns| ns > FAR_NS) {
        println!(
            "\nThe two CPUs are far apart: most of the time goes into moving packets from one to the other,"
        );
        println!("the same for everybody. --one-cpu compares without that.");
    }
    match &arguments.json {
        Some(file) => write_json(file, &Report { machine, places, forward }),
        None => Ok(()),
    }
}

impl Lane {
    fn new(contender: Contender, network: &Network) -> Result<Self> {
        let route = contender.route(network)?;
        Ok(Self { contender, route, turns: FIRST_TURNS, sent: 0, received: 0, rates: Vec::new() })
    }

    /// Adds a stream to the figures, and makes the next one as long as a round should be.
    fn note(&mut self, passage: &Passage, length: Duration, counts: bool) -> Result<()> {
        let Passage { sent, received, interval_ns, took } = *passage;
        ensure!(received <= sent, "{}: {received} packets arrived of {sent}", self.contender.name());
        self.sent += sent;
        self.received += received;
        if counts {
            self.rates.push(interval_ns.map(|ns| 1e3 / ns));
        }
        let turns = u128::from(self.turns) * length.as_nanos() / took.as_nanos().max(1);
        self.turns = u32::try_from(turns).unwrap_or(MOST_TURNS).clamp(FIRST_TURNS, MOST_TURNS);
        Ok(())
    }

    /// The median of the rounds' rates.
    fn rate(&self) -> Result<f64> {
        let Self { contender, sent, received, .. } = self;
        ensure!(
            self.rates.iter().any(Option::is_some),
            "{}: of {sent} packets only {received} arrived, too few to tell a rate",
            contender.name()
        );
        Ok(median(self.rates.iter().copied().flatten()))
    }

    /// The median of the rounds' ratios of its rate to another's.
    fn ratio(&self, other: &Self) -> f64 {
        let rounds = self.rates.iter().zip(&other.rates);
        median(rounds.filter_map(|(own, other)| Some((*own)? / (*other)?)))
    }

    fn figure(&self, reflector: &Self, nftables: &Self) -> Result<Figure> {
        Ok(Figure {
            name: self.contender.name(),
            deed: self.contender.deed(),
            mpps: self.rate()?,
            ratio_to_reflector: self.ratio(reflector),
            ratio_to_nftables: self.ratio(nftables),
            sent: self.sent,
            received: self.received,
            lost: self.sent - self.received,
        })
    }
}

impl Forward {
    fn of(lanes: &[Lane]) -> Result<Self> {
        let lane = |contender| {
            lanes.iter().find(|lane| lane.contender == contender).context("a contender was left out")
        };
        let (reflector, nftables) = (lane(Contender::Reflector)?, lane(Contender::Nftables)?);
        let mpps = |contender| lane(contender)?.rate();
        let balancer = lane(Contender::Dsr)?;
        let sum = |of: fn(&Lane) -> u64| lanes.iter().map(of).sum();
        let (sent, received): (u64, u64) = (sum(|lane| lane.sent), sum(|lane| lane.received));
        Ok(Self {
            reflector_mpps: mpps(Contender::Reflector)?,
            lb_tx_mpps: mpps(Contender::Dsr)?,
            lb_ipip_tx_mpps: mpps(Contender::Ipip)?,
            lb_redirect_mpps: mpps(Contender::Onward)?,
            nftables_mpps: mpps(Contender::Nftables)?,
            ratio_to_reflector: balancer.ratio(reflector),
            ratio_to_nftables: balancer.ratio(nftables),
            sent,
            received,
            lost: sent - received,
            contenders: lanes.iter().map(|lane| lane.figure(reflector, nftables)).collect::<Result<_>>()?,
        })
    }

    fn show(&self) {
        let header = ["MPPS", "/ REFLECTOR", "/ NFTABLES", "SENT", "RECEIVED", "LOST"];
        let [mpps, reflector, nftables, sent, received, lost] = header;
        println!(
            "{:12} {mpps:>6} {reflector:>12} {nftables:>11} {sent:>10} {received:>10} {lost:>6}  WHAT",
            "WHO"
        );
        for figure in &self.contenders {
            let Figure { name, deed, mpps, sent, received, lost, .. } = figure;
            let Figure { ratio_to_reflector: reflector, ratio_to_nftables: nftables, .. } = figure;
            println!(
                "{name:12} {mpps:6.2} {reflector:12.2} {nftables:11.2} {sent:10} {received:10} {lost:6}  {deed}"
            );
        }
    }
}
