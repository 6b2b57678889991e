//! Many entries of a table by one system call.

use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, AsRawFd as _};

use bytemuck::{Pod, Zeroable};
use rustix::io::Errno;

use super::TableError;
use super::sys::bpf;

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

/// Stores a value for each key; how many were stored, and why not all.
///
/// `K` and `V` must be what the map was made with, by size.
pub(super) fn update_batch<K: Pod, V: Pod>(
    map: impl AsFd,
    keys: &[K],
    values: &[V],
) -> (usize, Result<(), Errno>) {
    assert!(keys.len() == values.len(), "the kernel reads a value for each key");
    change(UPDATE_BATCH, map, keys, values.as_ptr() as u64)
}

/// Deletes entries; how many were deleted, and why not all. `K` must be what the map was made with, by size.
pub(super) fn delete_batch<K: Pod>(map: impl AsFd, keys: &[K]) -> (usize, Result<(), Errno>) {
    change(DELETE_BATCH, map, keys, 0)
}

fn change<K: Pod>(command: i64, map: impl AsFd, keys: &[K], values: u64) -> (usize, Result<(), Errno>) {
    if keys.is_empty() {
        return (0, Ok(()));
    }
    let mut batch = Batch { keys: keys.as_ptr() as u64, values, ..Batch::of(map, keys.len()) };
    match call(command, &mut batch) {
        Ok(()) => (keys.len(), Ok(())),
        // An error before the first entry leaves the count as it was.
        Err(error) if batch.count as usize == keys.len() => (0, Err(error)),
        Err(error) => (batch.count as usize, Err(error)),
    }
}

/// Looks up entries from behind a key on, or from the first: how many, and where to go on, or why there is nowhere.
///
/// `K` must be what the map was made with, by size, and so must be as many `V` as there are for each key. A map of counters
/// that each CPU has for itself has values of all CPUs that there can be, a multiple of eight bytes each.
pub(super) fn lookup_batch<K: Pod, V: Pod>(
    map: impl AsFd,
    from: Option<K>,
    keys: &mut [K],
    values: &mut [V],
) -> (usize, Result<K, Errno>) {
    assert!(values.len().is_multiple_of(keys.len()), "the kernel writes as many values for each key");
    let mut onward = K::zeroed();
    let mut batch = Batch {
        from: from.as_ref().map_or(0, |key| std::ptr::from_ref(key) as u64),
        onward: std::ptr::from_mut(&mut onward) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        ..Batch::of(map, keys.len())
    };
    match call(LOOKUP_BATCH, &mut batch) {
        Ok(()) => (batch.count as usize, Ok(onward)),
        // The end of the table is told as an error that leaves the entries before it.
        Err(Errno::NOENT) => (batch.count as usize, Err(Errno::NOENT)),
        Err(error) => (0, Err(error)),
    }
}

/// Entries of an array that [`visit_rows`] looks up by one system call.
const ROWS_AT_ONCE: usize = 512;

/// Shows the values of rows of an array, `each` of them for a row, to `visit` until it has seen enough.
///
/// `each` is as of [`lookup_batch`].
pub(super) fn visit_rows<V: Pod>(
    map: impl AsFd,
    table: &'static str,
    rows: Range<u32>,
    each: usize,
    mut visit: impl FnMut(u32, &[V]) -> ControlFlow<()>,
) -> Result<(), TableError> {
    let mut keys = vec![0u32; ROWS_AT_ONCE.min(rows.len())];
    let mut values = vec![V::zeroed(); keys.len() * each];
    let mut next = rows.start;
    while next < rows.end {
        let keys = &mut keys[..ROWS_AT_ONCE.min((rows.end - next) as usize)];
        let values = &mut values[..keys.len() * each];
        let (found, onward) = lookup_batch(map.as_fd(), next.checked_sub(1), keys, values);
        if found < keys.len() {
            let reason = onward.err().unwrap_or(Errno::NOENT).to_string();
            return Err(TableError { table, entry: next as usize + found, reason });
        }
        for (row, values) in (next..).zip(values.chunks_exact(each)) {
            if visit(row, values).is_break() {
                return Ok(());
            }
        }
        next += found as u32;
    }
    Ok(())
}

impl Batch {
    fn of(map: impl AsFd, count: usize) -> Self {
        Self { count: count as u32, map_fd: map.as_fd().as_raw_fd().cast_unsigned(), ..Self::zeroed() }
    }
}

fn call(command: i64, batch: &mut Batch) -> Result<(), Errno> {
    // SAFETY: the kernel reads or writes `count` keys and values of the sizes that the map was made with, which are those of
    // the callers' slices, as their callers promise, and a key at `from` and one at `onward` if these are not null. All outlive
    // the call.
    unsafe { bpf(command, batch) }.map(drop)
}
