//! The pinned maps.

use super::{count, grouped};
use crate::cli::look::{Column, Look};
use crate::view::{BpfEntry, BpfMap};

/// Maps, a line each, and what they take together.
pub(in crate::cli) fn maps(look: Look, maps: &[BpfMap]) -> String {
    let columns = [
        Column::words("MAP"),
        Column::number("ID"),
        Column::words("KIND"),
        Column::number("ENTRIES"),
        Column::number("KEY").extra(),
        Column::number("VALUE"),
        Column::number("MEMORY"),
    ];
    let rows = maps.iter().map(|map| {
        [
            map.name.clone(),
            map.id.to_string(),
            map.kind.clone(),
            grouped(map.max_entries.into()),
            map.key_bytes.to_string(),
            map.value_bytes.to_string(),
            map.memory_bytes.map_or_else(|| "-".to_owned(), count),
        ]
    });
    let total: u64 = maps.iter().filter_map(|map| map.memory_bytes).sum();
    look.table(&columns, rows) + &look.fold(&format!("{} bytes together\n", grouped(total)))
}

/// Entries of a map, a line each.
pub(in crate::cli) fn entries(look: Look, entries: &[BpfEntry]) -> String {
    if entries.is_empty() {
        return look.fold("From there on every entry is zero.\n");
    }
    let columns = [Column::number("INDEX"), Column::words("SAYS")];
    let rows = entries.iter().map(|entry| {
        [entry.index.to_string(), entry.meaning.clone().unwrap_or_else(|| entry.words.join(" "))]
    });
    look.table(&columns, rows)
}
