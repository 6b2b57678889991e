//! Deny and allow lists in the kernel: tries that are filled and emptied by a system call for all their entries.

use std::os::fd::{AsFd, AsRawFd as _};

use aya::maps::MapData;
use bytemuck::{Pod, Zeroable};
use lb_common::lists::{ListKey, Listed};
use rustix::io::Errno;

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
            let (found, onward) = lookup(&self.map, from, &mut keys, &mut values);
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
        let (done, result) = batch(&self.map, DELETE_BATCH, &self.held, &[]);
        self.held.drain(..done);
        result.map_err(|error| self.error(done, error))?;
        let keys: Vec<ListKey> = entries.iter().map(|entry| entry.key).collect();
        let values: Vec<u32> = entries.iter().map(|entry| entry.listed.word()).collect();
        let (done, result) = batch(&self.map, UPDATE_BATCH, &keys, &values);
        self.held.extend_from_slice(&keys[..done]);
        result.map_err(|error| self.error(done, error))
    }

    fn error(&self, entry: usize, error: Errno) -> TableError {
        TableError { table: self.name, entry, reason: error.to_string() }
    }
}

/// Commands of `bpf(2)` (`enum bpf_cmd` of include/uapi/linux/bpf.h).
const LOOKUP_BATCH: i64 = 24;
const UPDATE_BATCH: i64 = 26;
const DELETE_BATCH: i64 = 27;

/// The member `batch` of `union bpf_attr` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Batch {
    from: u64,
    onward: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Does the same with many entries; how many it was done with, and why not with all.
///
/// Values are not read when entries are deleted.
fn batch(map: &MapData, command: i64, keys: &[ListKey], values: &[u32]) -> (usize, Result<(), Errno>) {
    assert!(command == DELETE_BATCH || keys.len() == values.len(), "the kernel reads a value for each key");
    let mut batch = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
        ..Batch::zeroed()
    };
    if keys.is_empty() {
        return (0, Ok(()));
    }
    // SAFETY: the kernel reads `count` keys of the size that the map was made with, which is that of a `ListKey`, and as
    // many values of four bytes, all of which outlive the call; it writes to `batch`, whose size is told, and nowhere else.
    let code =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(&mut batch), size_of::<Batch>()) };
    if code == 0 {
        return (keys.len(), Ok(()));
    }
    let error = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    // An error before the first entry leaves the count as it was.
    let done = if batch.count as usize == keys.len() { 0 } else { batch.count as usize };
    (done, Err(error))
}

/// Entries that are looked up by one call.
const LOOKED_UP: usize = 4096;

/// Looks up entries from some place on, or from the first: how many, and where to go on, or why there is nowhere.
fn lookup(
    map: &MapData,
    from: Option<ListKey>,
    keys: &mut [ListKey],
    values: &mut [u32],
) -> (usize, Result<ListKey, Errno>) {
    let mut onward = ListKey::zeroed();
    let mut batch = Batch {
        from: from.as_ref().map_or(0, |key| std::ptr::from_ref(key) as u64),
        onward: std::ptr::from_mut(&mut onward) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
        ..Batch::zeroed()
    };
    // SAFETY: the kernel writes at most `count` keys and values of the sizes that the map was made with, which are those of a
    // `ListKey` and of four bytes, and one key to `onward`; it reads a key at `from`. All outlive the call.
    let code = unsafe {
        libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, std::ptr::from_mut(&mut batch), size_of::<Batch>())
    };
    if code == 0 {
        return (batch.count as usize, Ok(onward));
    }
    let error = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    // The end of the table is told as an error that leaves the entries before it.
    let found = if error == Errno::NOENT { batch.count as usize } else { 0 };
    (found, Err(error))
}

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
