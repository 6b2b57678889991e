//! Deny and allow lists in the kernel: tries that are filled and emptied by a system call for all their entries.

use aya::maps::MapData;
use bytemuck::Zeroable as _;
use lb_common::lists::{ListKey, Listed};
use rustix::io::Errno;

use super::batch::{delete_batch, lookup_batch, update_batch};
use super::{ListEntry, TableError};

/// One of the two tables of [`lb_common::lists`].
pub(super) struct ListTable {
    name: &'static str,
    map: MapData,
    /// What it holds: deleting by key is the one way to empty a trie.
    held: Vec<ListKey>,
}

impl ListTable {
    /// A table with what it holds.
    pub(super) fn new(name: &'static str, map: MapData) -> Result<Self, TableError> {
        let mut table = Self { name, map, held: Vec::new() };
        table.held = table.entries()?.into_iter().map(|entry| entry.key).collect();
        Ok(table)
    }

    /// What it holds, by a system call for some thousand entries.
    pub(super) fn entries(&self) -> Result<Vec<ListEntry>, TableError> {
        let mut entries = Vec::new();
        let (mut keys, mut values) = (vec![ListKey::zeroed(); LOOKED_UP], vec![0u32; LOOKED_UP]);
        let mut from: Option<ListKey> = None;
        loop {
            let (found, onward) = lookup_batch(self.map.fd(), from, &mut keys, &mut values);
            let entry =
                |(key, word): (&ListKey, &u32)| ListEntry { key: *key, listed: Listed::from_word(*word) };
            entries.extend(keys.iter().zip(&values).take(found).map(entry));
            match onward {
                Ok(onward) => from = Some(onward),
                Err(Errno::NOENT) => return Ok(entries),
                Err(error) => return Err(self.error(entries.len(), error)),
            }
        }
    }

    /// Makes it hold these entries and nothing else. After a failure it holds some of them, and can be filled again.
    pub(super) fn fill(&mut self, entries: &[ListEntry]) -> Result<(), TableError> {
        let (done, result) = delete_batch(self.map.fd(), &self.held);
        self.held.drain(..done);
        result.map_err(|error| self.error(done, error))?;
        let keys: Vec<ListKey> = entries.iter().map(|entry| entry.key).collect();
        let values: Vec<u32> = entries.iter().map(|entry| entry.listed.word()).collect();
        let (done, result) = update_batch(self.map.fd(), &keys, &values);
        self.held.extend_from_slice(&keys[..done]);
        result.map_err(|error| self.error(done, error))
    }

    fn error(&self, entry: usize, error: Errno) -> TableError {
        TableError { table: self.name, entry, reason: error.to_string() }
    }
}

/// Entries that are looked up by one call.
const LOOKED_UP: usize = 4096;

/// The lists of tables in memory, for comparison: every length is tried, the longest first.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryList(std::collections::BTreeMap<(u32, u128), Listed>);

impl MemoryList {
    /// See [`ListTable::fill`].
    pub(super) fn fill(&mut self, entries: &[ListEntry]) {
        let place = |key: ListKey| (key.length, u128::from_be_bytes(bytemuck::cast(key.address)));
        self.0 = entries.iter().map(|entry| (place(entry.key), entry.listed)).collect();
    }

    /// See [`ListTable::entries`].
    pub(super) fn entries(&self) -> impl Iterator<Item = ListEntry> {
        let entry = |((length, address), listed): (&(u32, u128), &Listed)| ListEntry {
            key: ListKey { length: *length, address: bytemuck::cast(address.to_be_bytes()) },
            listed: *listed,
        };
        self.0.iter().map(entry)
    }

    /// What is said of an address.
    pub(super) fn find(&self, key: ListKey) -> Listed {
        let address = u128::from_be_bytes(bytemuck::cast(key.address));
        let cut = |length: u32| address & !u128::MAX.checked_shr(length).unwrap_or(0);
        let found = (0..=key.length).rev().find_map(|length| self.0.get(&(length, cut(length))));
        found.copied().unwrap_or_default()
    }
}
