//! Later fragments follow the first, which alone has ports: a bounded table remembers where it went.
//!
//! The table has the shape of the flow table, see [`crate::flow`]. A first fragment that never came, came later than its
//! followers or was not forwarded leaves them without a way: they are counted.

use crate::flow::{Entry, Stage, Tick, recall as find, replace, store};
use crate::pipeline::{Tables, tick};
use crate::slot::BackendId;

/// How long the followers of a first fragment are expected, in ticks: 30 s, as long as Linux waits for them
/// (`IP_FRAG_TIME` in include/net/ip.h).
const PATIENCE: u16 = (30_000_000_000 / Tick::NS) as u16;

/// Where the fragments of a packet go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// To the backend in this row.
    ToBackend(u32),
    /// Back from a backend of mode `nat`: entry of the service table.
    ToClient(u32),
}

const TO_CLIENT: u32 = 1 << 31;

impl Piece {
    /// As the table holds it.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        match self {
            Self::ToBackend(row) => row & !TO_CLIENT,
            Self::ToClient(index) => index | TO_CLIENT,
        }
    }

    /// From what the table held.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        if word & TO_CLIENT == 0 { Self::ToBackend(word) } else { Self::ToClient(word & !TO_CLIENT) }
    }
}

/// Remembers where the first fragment of a packet went: the word of a [`Piece`] for the fragments' hash.
#[inline(always)]
pub fn remember<T: Tables>(tables: &T, hash: u64, piece: u32) {
    let Some(set) = tables.fragments(hash) else { return };
    let entry = Entry::new(hash, Stage::Confirmed, BackendId::FIRST, tick(tables));
    match find(&set, hash) {
        // Sent twice, or a new packet: senders begin their 16 bits of identification anew within seconds.
        Some(found) => {
            replace(&set, &found, hash, entry, piece);
        }
        None => {
            store(&set, hash, entry, piece);
        }
    }
}

/// The word that was remembered for the fragments' hash within 30 seconds.
#[inline(always)]
pub fn recall<T: Tables>(tables: &T, hash: u64) -> Option<u32> {
    let found = find(&tables.fragments(hash)?, hash)?;
    let fresh = found.entry.seen().until(tick(tables)) <= PATIENCE;
    fresh.then(|| found.detail.index())
}
