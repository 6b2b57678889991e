//! Everything that happens to a balancer, in any order, while packets flow.
//!
//! Rounds of random events, which a seed repeats. In each, a stream is counted packet by packet, connections stay open, and
//! requests come and go; then all comes to rest, and two seconds later the kernel's tables and counters are held against
//! what was asked for and what really happened. `cargo xtask chaos` runs it for as long as you like.

mod judge;
mod sabotage;
mod traffic;
mod wanted;
mod world;

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::interrupt;
use lb_tests::tools::Tools;

use self::judge::{Account, Fate, Holdings, Seen, ensure_rows, ensure_tables};
use self::sabotage::what_goes_wrong_is_found;
use self::traffic::{Counts, Traffic};
use self::world::{Event, World};
use crate::cases::{Case, cases};

/// Events of a round.
const EVENTS: usize = 25;
/// How long the tables may take to become what was asked for.
const SETTLED: Duration = Duration::from_secs(2);
/// Connections that ask after each event.
const ASKING: usize = 5;

pub(crate) fn cases() -> Vec<Case> {
    cases!["chaos": nobody_notices, what_goes_wrong_is_found]
}

/// What a run came to.
#[derive(Default)]
struct Summary {
    rounds: u32,
    events: BTreeMap<Event, u32>,
    counts: Counts,
    asked: u64,
    fate: Fate,
}

/// How long, and with which seed: `LB_CHAOS_SECONDS` and `LB_CHAOS_SEED`.
fn asked(variable: &str, otherwise: u64) -> Result<u64> {
    let Ok(text) = env::var(variable) else { return Ok(otherwise) };
    text.parse().with_context(|| format!("{variable} is {text:?}, not a number"))
}

fn nobody_notices(tools: Tools) -> Result<()> {
    let (seconds, seed) = (asked("LB_CHAOS_SECONDS", 60)?, asked("LB_CHAOS_SEED", 1)?);
    let summary = run(tools, Duration::from_secs(seconds), seed)
        .with_context(|| format!("the same again: cargo xtask chaos --seconds {seconds} --seed {seed}"))?;
    summary.print(seconds, seed);
    Ok(())
}

fn run(tools: Tools, lasts: Duration, seed: u64) -> Result<Summary> {
    let end = Instant::now() + lasts;
    let mut world = World::new(tools, seed)?;
    let pins = world.pins();
    let first = Holdings::of(&mut world.site, &pins)?;
    let mut held = Seen::default();
    let mut summary = Summary::default();
    while summary.rounds == 0 || Instant::now() < end {
        let mut happened = Vec::new();
        round(&mut world, &mut summary, &mut happened).with_context(|| {
            format!("round {}, in which this happened:\n{}\n", summary.rounds + 1, happened.join("\n"))
        })?;
        let now = Holdings::of(&mut world.site, &pins)?;
        now.ensure_no_more_than(&first)?;
        held.ensure_freed_but(&now)?;
        summary.rounds += 1;
    }
    summary.asked = world.connections.asked;
    world.end()?;
    held.ensure_all_freed()?;
    Ok(summary)
}

fn round(world: &mut World, summary: &mut Summary, happened: &mut Vec<String>) -> Result<()> {
    let before = Account::take(&world.site)?;
    world.disturbances.forget();
    let traffic = Traffic::begin(&world.site)?;
    let begun = Instant::now();
    let mut events = 0;
    while events < EVENTS {
        // One in two is a change: the others make it hard.
        let of = if world.rng.bool() { Event::CHANGES } else { Event::ALL };
        let event = of[world.rng.usize(..of.len())];
        let at = begun.elapsed();
        let done = world.let_happen(event).with_context(|| format!("{at:?}: {event}"))?;
        let Some(what) = done else { continue };
        happened.push(format!("{at:?}: {what}"));
        *summary.events.entry(event).or_default() += 1;
        events += 1;
        world.ask(ASKING)?;
        world.pause()?;
    }
    world.come_to_rest()?;
    let last = Instant::now();
    world.ask_all()?;
    summary.counts.add(traffic.end(&world.disturbances)?);
    interrupt::pause((last + SETTLED).saturating_duration_since(Instant::now()))?;
    ensure_tables(&world.site, &world.pins(), &world.wanted, &world.truths())
        .context("two seconds after the last event")?;
    ensure_rows(&world.site, &world.pins(), &world.wanted)?;
    let after = Account::take(&world.site)?;
    summary.fate.add(after.ensure_conserved(&before, world.disturbances.were_any())?);
    ensure!(summary.fate.forwarded > 0, "nothing was forwarded");
    Ok(())
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.streamed += other.streamed;
        self.requests += other.requests;
        self.excused += other.excused;
    }
}

impl Summary {
    fn print(&self, seconds: u64, seed: u64) {
        let Self { rounds, events, counts, asked, fate } = self;
        let Counts { streamed, requests, excused } = counts;
        let Fate { received, forwarded, passed, dropped, answered, lost } = fate;
        let all: u32 = events.values().sum();
        println!("chaos for {seconds} s with seed {seed}: {rounds} rounds, {all} events");
        for (event, count) in events {
            println!("  {count:6}  {event}");
        }
        println!(
            "{streamed} packets of the stream, none lost; {asked} questions on connections, none broken"
        );
        println!("{requests} requests, of which {excused} failed while what they met was broken");
        println!(
            "{received} packets received: {forwarded} forwarded, of which {lost} met a link that was down, {passed} passed, \
             {dropped} dropped, {answered} answered"
        );
    }
}
