//! What every loaded object is asked for: its programs, and its counters of all CPUs.

use std::borrow::Borrow;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use aya::programs::Xdp;

use super::{LoadError, TableError};

/// A program of the object.
pub(crate) fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, LoadError> {
    Ok(ebpf.program_mut(name).ok_or(LoadError::Incomplete(name))?.try_into()?)
}

/// Takes a table of counters out of the object.
pub(crate) fn counters<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<PerCpuArray<MapData, T>, LoadError>
where
    T: aya::Pod,
{
    let map = ebpf.take_map(name).ok_or(LoadError::Incomplete(name))?;
    PerCpuArray::try_from(map).map_err(|source| LoadError::Table { name, source })
}

/// A row of counters of every CPU.
pub(crate) fn row<M, T>(map: &PerCpuArray<M, T>, name: &'static str, row: u32) -> Result<Vec<T>, TableError>
where
    M: Borrow<MapData>,
    T: aya::Pod,
{
    let values = map.get(&row, 0);
    let values =
        values.map_err(|e| TableError { table: name, entry: row as usize, reason: e.to_string() })?;
    Ok(values.iter().copied().collect())
}
