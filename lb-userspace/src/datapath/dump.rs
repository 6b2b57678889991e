//! The pinned maps as anybody may look at them who may use BPF, with or without a daemon. Nothing is changed.

use std::fs;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapError, MapInfo, MapType};
use aya::util::nr_cpus;
use bytemuck::{AnyBitPattern, cast_slice, pod_read_unaligned};
use lb_common::layout::{
    BackendEntry, Features, FlowCounts, Forwarded, InterfaceEntry, LimiterCounts, LimiterEntry, ServiceEntry,
    VipSet, Withheld,
};
use lb_common::owner::{BackendOwner, LimiterOwner, ServiceOwner};
use rustix::io::Errno;

use super::TableError;
use super::batch::visit_rows;
use super::lists::ListTable;
use super::maps::kept_maps;
use super::pins::{Glance, PinsError};
use crate::names::instead;
use crate::view::{BpfEntry, BpfMap};

/// Why pinned maps cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DumpError {
    /// There are none.
    #[error("no maps are pinned at {}: start a daemon, which pins them, or say where with --pins", path.display())]
    NoMaps {
        /// The pin directory.
        path: PathBuf,
    },
    /// There is no such map.
    #[error("there is no map {name:?}{instead}")]
    NoMap {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        instead: String,
    },
    /// The pin directory cannot be read.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A map cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Unreadable {
        /// Its pin.
        path: PathBuf,
        /// The reason.
        source: MapError,
    },
    /// A map cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The maps that packets use, of those pinned below a directory.
pub(crate) fn maps(pins: &Path) -> Result<Vec<BpfMap>, DumpError> {
    let directory = tables(pins)?;
    kept_maps().map(|map| describe(map.name, &directory.join(map.name))).collect()
}

/// Up to `most` entries of a map that are not zero, from an index on.
pub(crate) fn dump(pins: &Path, name: &str, from: u32, most: usize) -> Result<Vec<BpfEntry>, DumpError> {
    let directory = tables(pins)?;
    let known = kept_maps().map(|map| map.name).find(|known| known.eq_ignore_ascii_case(name));
    let name = known.ok_or_else(|| DumpError::NoMap {
        name: name.to_owned(),
        instead: instead(&name.to_uppercase(), kept_maps().map(|map| map.name)),
    })?;
    let path = directory.join(name);
    let unreadable = |source| DumpError::Unreadable { path: path.clone(), source };
    let map = MapData::from_pin(&path).map_err(unreadable)?;
    let info = map.info().map_err(unreadable)?;
    match info.map_type().map_err(unreadable)? {
        MapType::LpmTrie => Ok(listed(name, map, from, most)?),
        MapType::PerCpuArray => {
            let cpus = nr_cpus().map_err(|(_, error)| {
                failed(name, from, Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })?;
            Ok(array(name, &map, &info, from, most, cpus)?)
        }
        _ => Ok(array(name, &map, &info, from, most, 1)?),
    }
}

/// Where the tables are pinned that the newest program uses.
fn tables(pins: &Path) -> Result<PathBuf, DumpError> {
    let program = Glance::at(pins).newest_tables()?;
    program.ok_or_else(|| DumpError::NoMaps { path: pins.to_owned() })
}

fn describe(name: &str, path: &Path) -> Result<BpfMap, DumpError> {
    let unreadable = |source| DumpError::Unreadable { path: path.to_owned(), source };
    let map = MapData::from_pin(path).map_err(unreadable)?;
    let info = map.info().map_err(unreadable)?;
    let kind = match info.map_type().map_err(unreadable)? {
        MapType::Array => "array".to_owned(),
        MapType::PerCpuArray => "percpu_array".to_owned(),
        MapType::LpmTrie => "lpm_trie".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    Ok(BpfMap {
        name: name.to_owned(),
        id: info.id(),
        kind,
        max_entries: info.max_entries(),
        key_bytes: info.key_size(),
        value_bytes: info.value_size(),
        memory_bytes: memory(&map),
    })
}

/// What the kernel says a map takes (Documentation/filesystems/proc.rst, fdinfo; `bpf_map_show_fdinfo` of kernel/bpf/syscall.c).
fn memory(map: &MapData) -> Option<u64> {
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd())).ok()?;
    facts.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

fn array(
    name: &'static str,
    map: &MapData,
    info: &MapInfo,
    from: u32,
    most: usize,
    cpus: usize,
) -> Result<Vec<BpfEntry>, TableError> {
    let words = info.value_size().div_ceil(8) as usize;
    let mut entries = Vec::new();
    visit_rows(map.fd(), name, from..info.max_entries(), words * cpus, |index, values: &[u64]| {
        if entries.len() == most {
            return ControlFlow::Break(());
        }
        let mut sum = vec![0u64; words];
        for (at, word) in values.iter().enumerate() {
            sum[at % words] = sum[at % words].wrapping_add(*word);
        }
        if sum.iter().any(|word| *word != 0) {
            let meaning = meaning(name, cast_slice(&sum));
            entries.push(BpfEntry { index, words: hexadecimal(&sum), meaning });
        }
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

fn listed(name: &'static str, map: MapData, from: u32, most: usize) -> Result<Vec<BpfEntry>, TableError> {
    let mut all = ListTable::new(name, map)?.entries()?;
    all.sort_unstable();
    let wanted = (0..).zip(all).skip(from as usize).take(most);
    let entry = |(index, entry): (u32, super::ListEntry)| BpfEntry {
        index,
        words: hexadecimal(&[entry.listed as u64]),
        meaning: Some(format!("{:?}: {:?}", entry.key, entry.listed)),
    };
    Ok(wanted.map(entry).collect())
}

fn hexadecimal(words: &[u64]) -> Vec<String> {
    words.iter().map(|word| format!("{word:016x}")).collect()
}

fn failed(table: &'static str, entry: u32, error: Errno) -> TableError {
    TableError { table, entry: entry as usize, reason: error.to_string() }
}

/// What an entry of a map says.
fn meaning(name: &str, bytes: &[u8]) -> Option<String> {
    fn of<T: AnyBitPattern + std::fmt::Debug>(bytes: &[u8]) -> Option<String> {
        bytes.get(..size_of::<T>()).map(|bytes| format!("{:?}", pod_read_unaligned::<T>(bytes)))
    }
    match name {
        "VIPS" => of::<VipSet>(bytes),
        "SERVICES" => of::<ServiceEntry>(bytes),
        "BACKENDS" => of::<BackendEntry>(bytes),
        "FEATURES" => of::<Features>(bytes),
        "INTERFACES" => of::<InterfaceEntry>(bytes),
        "LIMITERS" => of::<LimiterEntry>(bytes),
        "BACKEND_OWNERS" => of::<BackendOwner>(bytes),
        "SERVICE_OWNERS" => of::<ServiceOwner>(bytes),
        "LIMITER_OWNERS" => of::<LimiterOwner>(bytes),
        "FORWARDED" => of::<Forwarded>(bytes),
        "WITHHELD" => of::<Withheld>(bytes),
        "LIMITER_COUNTS" => of::<LimiterCounts>(bytes),
        "FLOW_COUNTS" => of::<FlowCounts>(bytes),
        _ => None,
    }
}
