//! Every check of the chaos fails when what it checks is wrong: each of these does one thing behind the world's back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use lb_common::layout::{BackendEntry, Forwarded};
use lb_tests::interrupt;
use lb_tests::net::Node;
use lb_tests::tools::Tools;

use super::judge::{Account, Holdings, Seen, ensure_rows, ensure_tables};
use super::traffic::Traffic;
use super::wanted::{FLOOD, HELD, WEB};
use super::world::World;

const SEED: u64 = 7;
/// How long traffic flows while something is wrong with it.
const MOMENT: Duration = Duration::from_millis(500);

const WORDS: usize = size_of::<BackendEntry>() / size_of::<u64>();
const COUNTS: usize = size_of::<Forwarded>() / size_of::<u64>();

pub(super) fn what_goes_wrong_is_found(tools: Tools) -> Result<()> {
    let mut world = World::new(tools, SEED)?;
    ensure_tables(&world.site, &world.pins(), &world.wanted, &world.truths())?;
    ensure_rows(&world.site, &world.pins(), &world.wanted)?;
    other_weight(&world)?;
    other_mac(&world)?;
    more_backends(&world)?;
    a_count_too_many(&world)?;
    a_pin_and_a_program_too_many(&mut world)?;
    a_lost_request(&mut world)?;
    lost_packets(&world)?;
    a_broken_connection(&mut world)
}

fn ensure_found<T>(outcome: Result<T>, words: &str) -> Result<()> {
    let Err(error) = outcome else { bail!("nothing is found of: {words}") };
    let told = format!("{error:#}");
    ensure!(told.contains(words), "what is found is another thing than {words:?}: {told}");
    Ok(())
}

fn tables(world: &World) -> Result<()> {
    ensure_tables(&world.site, &world.pins(), &world.wanted, &world.truths())
}

fn command(world: &World, verb: &str, service: &str, node: Node, more: &[&str]) -> Result<()> {
    let kept = world.wanted.service(service).context("no such service")?;
    let endpoint = kept.service.endpoint(node);
    world.site.cli()?.succeed(&[&["backend", verb, service, &endpoint], more].concat()).map(drop)
}

fn other_weight(world: &World) -> Result<()> {
    let set = |weight: &str| command(world, "set", FLOOD, Node::Backend(1), &["--weight", weight]);
    set("90")?;
    ensure_found(tables(world), "the shares are")?;
    set("100")?;
    tables(world)
}

fn other_mac(world: &World) -> Result<()> {
    let mut backends: Array<_, [u64; WORDS]> = Map::Array(pinned(&world.pins(), "BACKENDS")?).try_into()?;
    let row = (0..backends.len()).find(|row| backends.get(row, 0).is_ok_and(|words| words[0] != 0));
    let row = row.context("there are no backends")?;
    let words = backends.get(&row, 0)?;
    let other = [&[words[0] ^ 1][..], &words[1..]].concat().try_into().unwrap_or(words);
    backends.set(row, other, 0)?;
    ensure_found(tables(world), "nobody has the MAC addresses")?;
    backends.set(row, words, 0)?;
    tables(world)
}

fn more_backends(world: &World) -> Result<()> {
    command(world, "add", FLOOD, Node::Backend(3), &[])?;
    ensure_found(ensure_rows(&world.site, &world.pins(), &world.wanted), "BACKEND_OWNERS has")?;
    command(world, "remove", FLOOD, Node::Backend(3), &[])?;
    ensure_rows(&world.site, &world.pins(), &world.wanted)
}

fn a_count_too_many(world: &World) -> Result<()> {
    let mut counts: PerCpuArray<_, [u64; COUNTS]> =
        Map::PerCpuArray(pinned(&world.pins(), "FORWARDED")?).try_into()?;
    let before = Account::take(&world.site)?;
    Account::take(&world.site)?.ensure_conserved(&before, false)?;
    let row = (0..counts.len()).find(|row| is_in_use(&counts, *row)).context("nothing was forwarded")?;
    let mut values: Vec<[u64; COUNTS]> = counts.get(&row, 0)?.to_vec();
    values[0][0] += 1;
    counts.set(row, PerCpuValues::try_from(values)?, 0)?;
    ensure_found(Account::take(&world.site)?.ensure_conserved(&before, false), "services say 1 packets")
}

fn is_in_use(counts: &PerCpuArray<MapData, [u64; COUNTS]>, row: u32) -> bool {
    counts.get(&row, 0).is_ok_and(|values| values.iter().any(|words| words[0] != 0))
}

fn a_pin_and_a_program_too_many(world: &mut World) -> Result<()> {
    let pins = world.pins();
    let first = Holdings::of(&mut world.site, &pins)?;
    let mut seen = Seen::default();
    seen.ensure_freed_but(&first)?;
    ensure_found(seen.ensure_all_freed(), "are left")?;
    pinned(&pins, "BACKENDS")?.pin(pins.join("stranger"))?;
    ensure_found(Holdings::of(&mut world.site, &pins)?.ensure_no_more_than(&first), "pins,")?;
    Ok(fs::remove_file(pins.join("stranger"))?)
}

fn flowing(world: &World) -> Result<Traffic> {
    let traffic = Traffic::begin(&world.site)?;
    interrupt::pause(MOMENT)?;
    Ok(traffic)
}

fn a_lost_request(world: &mut World) -> Result<()> {
    let (victim, begun) = (Node::Backend(3), Instant::now());
    let traffic = flowing(world)?;
    world.site.kill_servers(victim)?;
    world.site.cli()?.wait_serving(WEB, 2, Duration::from_secs(5))?;
    ensure_found(traffic.end(&world.disturbances), "had no excuse")?;
    world.site.start_servers(victim)?;
    world.site.cli()?.wait_serving(WEB, 3, Duration::from_secs(5))?;
    ensure!(begun.elapsed() > MOMENT, "there was no traffic");
    Ok(())
}

fn lost_packets(world: &World) -> Result<()> {
    let traffic = flowing(world)?;
    for number in [1, 2] {
        command(world, "maintenance", FLOOD, Node::Backend(number), &[])?;
    }
    interrupt::pause(MOMENT)?;
    ensure_found(traffic.end(&world.disturbances), "packets arrived")
}

fn a_broken_connection(world: &mut World) -> Result<()> {
    world.ask_all()?;
    command(world, "maintenance", HELD, Node::Backend(1), &[])?;
    ensure_found(world.ask_all(), "a connection of held to backend1 broke")
}

/// A map that the program uses, by its pin.
fn pinned(pins: &Path, name: &str) -> Result<MapData> {
    let path = find(pins, name)?.with_context(|| format!("{name} is not pinned"))?;
    Ok(MapData::from_pin(path)?)
}

fn find(directory: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
        if entry.file_type()?.is_dir()
            && let Some(found) = find(&entry.path(), name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
