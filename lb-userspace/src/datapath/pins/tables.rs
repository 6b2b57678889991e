//! Which pinned tables a daemon goes on with, and whether they are what their names say.

use std::hash::Hasher;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapInfo};
use lb_common::hash::HashKey;
use lb_common::layout::{InterfaceEntry, MAX_ATTACHED, SLOTS_PER_LINE};
use lb_common::owner::FORMAT;
use siphasher::sip::SipHasher24;

use super::super::mapping::Mapping;
use super::super::maps::{MapKind, kept_maps};
use super::super::{BALANCER_OBJECT, Capacity, NO_INTERFACE, Room, Table};
use super::links::PinnedLinkFacts;
use super::{PinsError, make, names, remove_all};

/// Tables that are pinned together.
#[derive(Clone, Debug)]
pub(super) struct Set {
    /// Where.
    pub(super) directory: PathBuf,
    name: String,
    /// The programs that are pinned with them.
    pub(super) programs: Vec<u32>,
}

impl Set {
    /// Where a program is pinned.
    pub(super) fn program(&self, id: u32) -> PathBuf {
        self.directory.join(program_name(id))
    }
}

fn program_name(id: u32) -> String {
    format!("program-{id}")
}

/// All sets of tables below a pin directory.
pub(super) fn sets(root: &Path) -> Result<Vec<Set>, PinsError> {
    let mut sets = Vec::new();
    for name in names(root)?.into_iter().filter(|name| name.starts_with("tables-")) {
        let directory = root.join(&name);
        let inside = names(&directory)?;
        let id = |name: &String| name.strip_prefix("program-")?.parse().ok();
        sets.push(Set { programs: inside.iter().filter_map(id).collect(), directory, name });
    }
    Ok(sets)
}

/// The tables that a daemon works on, and where its program will be pinned.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where the tables are pinned, or will be.
    pub(crate) directory: PathBuf,
    /// How much they hold.
    pub(crate) capacity: Capacity,
    /// The interface of each row from the second on.
    pub(crate) rows: Vec<u32>,
    /// Rows that other interfaces had before, or none.
    pub(crate) new_rows: Vec<u32>,
}

impl Plan {
    /// Where a program is to be pinned.
    pub(crate) fn program(&self, id: u32) -> PathBuf {
        self.directory.join(program_name(id))
    }
}

/// Finds the tables to go on with, makes room where there are none, and removes what nobody will need.
pub(super) fn plan(
    root: &Path,
    links: &[PinnedLinkFacts],
    key: &HashKey,
    Room { wanted, least }: &Room,
    indices: &[u32],
) -> Result<Plan, PinsError> {
    let is_live = |set: &Set| links.iter().any(|link| set.programs.contains(&link.program));
    let kind = format!("tables-{FORMAT}-{:08x}-", digest(bytemuck::bytes_of(key)));
    let mut found: Vec<(Set, Capacity)> = Vec::new();
    for set in sets(root)? {
        let capacity =
            capacity_of(&set.directory).filter(|_| set.name.starts_with(&kind) && !set.programs.is_empty());
        match capacity {
            Some(capacity) => found.push((set, capacity)),
            // What no link leads to, and is of no use, is in the way.
            None if !is_live(&set) => remove_all(&set.directory)?,
            None => {}
        }
    }
    // Tables that packets are forwarded by come first, and among them those that can be kept.
    found.sort_by_key(|(set, capacity)| (is_live(set), capacity.covers(least)));
    let chosen = found.pop();
    for (set, _) in found.iter().filter(|(set, _)| !is_live(set)) {
        remove_all(&set.directory)?;
    }
    let (directory, capacity, rows) = match chosen {
        Some((set, capacity)) if capacity.covers(least) => {
            check(&set.directory, &capacity)?;
            let rows = rows_in(&set.directory);
            (set.directory, capacity, rows)
        }
        _ => {
            let directory = root.join(format!("{kind}{:08x}", digest(format!("{wanted:?}").as_bytes())));
            remove_all(&directory)?;
            make(&directory)?;
            (directory, *wanted, Vec::new())
        }
    };
    let (rows, new_rows) = assign(&rows, indices);
    Ok(Plan { directory, capacity, rows, new_rows })
}

fn digest(bytes: &[u8]) -> u32 {
    let mut hasher = SipHasher24::new_with_keys(0x7069_6e73, 0);
    hasher.write(bytes);
    hasher.finish() as u32
}

/// Gives every interface a row from the second on: the one it had, or the first that is nobody's. Says which are new.
fn assign(before: &[u32], indices: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let kept = |index: &u32| if indices.contains(index) { *index } else { NO_INTERFACE };
    let mut rows: Vec<u32> = before.iter().map(kept).collect();
    let mut new_rows = Vec::new();
    for index in indices.iter().filter(|index| !before.contains(index)) {
        let vacant = rows.iter().position(|row| *row == NO_INTERFACE);
        let at = vacant.unwrap_or(rows.len());
        rows.resize(rows.len().max(at + 1), NO_INTERFACE);
        rows[at] = *index;
        new_rows.push(at as u32 + 1);
    }
    let used = rows.iter().rposition(|row| *row != NO_INTERFACE).map_or(0, |last| last + 1);
    rows.truncate(used);
    (rows, new_rows)
}

/// The interface of each row from the second on, as the tables have it.
fn rows_in(directory: &Path) -> Vec<u32> {
    let words = (MAX_ATTACHED + 1) * Table::Interfaces.entry_words();
    let map = MapData::from_pin(directory.join(Table::Interfaces.name())).ok();
    let mapping = map.and_then(|map| Mapping::new(std::os::fd::AsFd::as_fd(map.fd()), words).ok());
    let words = mapping.map(|mapping| mapping.load_all()).unwrap_or_default();
    let entries = words.chunks_exact(Table::Interfaces.entry_words()).skip(1);
    let entry = |words: &[u64]| bytemuck::pod_read_unaligned::<InterfaceEntry>(bytemuck::cast_slice(words));
    let index = |words| Some(entry(words).index).filter(|index| *index != 0).unwrap_or(NO_INTERFACE);
    entries.map(index).collect()
}

/// How much the tables of a directory hold, if they are there.
fn capacity_of(directory: &Path) -> Option<Capacity> {
    let entries = |name: &str| Some(MapInfo::from_pin(directory.join(name)).ok()?.max_entries());
    Some(Capacity {
        services: entries(Table::ServiceOwners.name())?,
        service_entries: entries(Table::Services.name())?,
        slots: entries(Table::Slots.name())?.checked_mul(SLOTS_PER_LINE)?,
        backends: entries(Table::Backends.name())?,
        limiters: entries(Table::Limiters.name())?,
        bucket_sets: entries("BUCKETS")?,
        lists: entries("LISTS_A")?,
        flow_sets: entries("FLOWS")?,
        fragment_sets: entries("FRAGMENTS")?,
    })
}

/// What the kernel says of a map, and what decides whether a program can use it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, key, value, entries, flags } = self;
        write!(f, "{entries} entries of {key} and {value} bytes, type {kind}, flags {flags:#x}")
    }
}

/// Whether all pinned maps are those of this program. A map that only counts may be missing: an older program had none.
fn check(directory: &Path, capacity: &Capacity) -> Result<(), PinsError> {
    let object = aya_obj::Object::parse(BALANCER_OBJECT);
    let Ok(object) = object else { return Ok(()) };
    let present = names(directory)?;
    for map in kept_maps().filter(|map| present.iter().any(|name| name == map.name)) {
        let path = directory.join(map.name);
        let Some(expected) = object.maps.get(map.name).map(|inside| expected(inside, map, capacity)) else {
            continue;
        };
        let info = MapInfo::from_pin(&path);
        let found = info.ok().and_then(|info| {
            let kind = info.map_type().ok()? as u32;
            let (key, value) = (info.key_size(), info.value_size());
            Some(Shape { kind, key, value, entries: info.max_entries(), flags: info.map_flags() })
        });
        if found != Some(expected) {
            let found = found.map_or_else(|| "not a map".to_owned(), |found| found.to_string());
            return Err(PinsError::OtherMap { path, found, expected: expected.to_string() });
        }
    }
    Ok(())
}

fn expected(inside: &aya_obj::Map, map: &MapKind, capacity: &Capacity) -> Shape {
    Shape {
        kind: inside.map_type(),
        key: inside.key_size(),
        value: inside.value_size(),
        entries: map.entries.map_or(inside.max_entries(), |entries| entries(capacity)),
        flags: inside.map_flags(),
    }
}

/// Removes what the program of this number and these tables have no use for.
pub(super) fn tidy(root: &Path, plan: &Plan, program: u32) -> Result<(), PinsError> {
    for set in sets(root)? {
        if set.directory != plan.directory {
            remove_all(&set.directory)?;
        }
    }
    let known = |name: &str| kept_maps().any(|map| map.name == name) || name == program_name(program);
    for name in names(&plan.directory)?.into_iter().filter(|name| !known(name)) {
        let path = plan.directory.join(&name);
        if path.is_dir() {
            remove_all(&path)?;
        } else {
            std::fs::remove_file(&path).map_err(|error| PinsError::system("remove", &path, error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_keep_their_rows() {
        let none = NO_INTERFACE;
        assert_eq!(assign(&[], &[7, 8]), (vec![7, 8], vec![1, 2]));
        assert_eq!(assign(&[7, 8], &[8, 7]), (vec![7, 8], vec![]));
        assert_eq!(assign(&[7, 8, 9], &[9, 4]), (vec![4, none, 9], vec![1]));
        assert_eq!(assign(&[7, 8], &[7]), (vec![7], vec![]));
        assert_eq!(assign(&[none, 8, none], &[8, 3, 4]), (vec![3, 8, 4], vec![1, 3]));
    }

    #[test]
    fn tables_are_kept_if_there_is_room_in_them() {
        let small = Capacity::default();
        let more = Capacity { slots: 2 * small.slots, ..small };
        assert!(small.covers(&small) && more.covers(&small) && !small.covers(&more));
        let flows = Capacity { flow_sets: 2 * small.flow_sets, ..small };
        assert!(!flows.covers(&small) && !small.covers(&flows), "what is configured is meant");
    }
}
