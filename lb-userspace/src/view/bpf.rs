//! What `lb bpf` tells of the maps, with or without a daemon.

use serde::{Deserialize, Serialize};

/// A pinned map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfMap {
    /// Its name, which is that of its pin.
    pub name: String,
    /// The number that the kernel gave it.
    pub id: u32,
    /// Its kind, as `bpftool map` calls it.
    pub kind: String,
    /// Entries it has room for.
    pub max_entries: u32,
    /// Bytes of one key.
    pub key_bytes: u32,
    /// Bytes of one value, on each CPU if each has its own.
    pub value_bytes: u32,
    /// Bytes that it takes; absent if the kernel does not tell.
    pub memory_bytes: Option<u64>,
}

/// An entry of a map that is not zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfEntry {
    /// Its index; of a deny or allow list, its place in the order of its keys.
    pub index: u32,
    /// Its value in words of 64 bits, hexadecimal; added up if each CPU has its own.
    pub words: Vec<String>,
    /// What it says, if it is an entry of one of the tables that the daemon fills or of counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
}
