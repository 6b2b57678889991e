//! What the program answers by itself: echo requests, packets that are too big, and who has an announced VIP.
//!
//! An answer is made of the frame that asked, and leaves by the interface it came in by. Answers that cost more than they
//! were asked with are limited per source, in the buckets of the limiter, under a number that no service has.

mod echo;
mod neighbors;
mod too_big;

use crate::checksum::Sum;
use crate::limiter::rule::Rule;
use crate::limiter::{Admission, Sets, charge};
use crate::link::Link;
use crate::packet::Packet;
use crate::pipeline::{Clock, Tables};
use crate::verdict::{AnswerReason, DropReason, Refusal};
use crate::wire::{Be16, Ipv4Header, Ipv6Header, MacPair, protocol};

pub use echo::echo;
pub use neighbors::{ALL_NODES, ALL_NODES_MAC, Advertisement, arp, neighbor};
pub use too_big::too_big;

/// The salt of the limiter of answers, which no other limiter has.
pub const SALT: u32 = u32::MAX;
/// Each source gets 100 answers a second, and 100 at once.
const LIMIT: Rule = match Rule::token_bucket(100, 100) {
    Ok(rule) => rule,
    Err(_) => panic!("the limit is within the limiter's bounds"),
};

/// Hops that an answer starts with (IANA's recommended default).
const TTL: u8 = 64;

/// Whether a source may have another answer.
#[inline(always)]
pub fn affords<T: Tables>(tables: &T, source: u64) -> bool {
    let hash = tables.hash_key().source([source, 0], SALT);
    let set = Sets::of_ticks(tables.bucket_sets()).find(hash);
    let Some(buckets) = tables.buckets(set) else { return false };
    charge(&buckets, hash, tables.now(Clock::Jiffies), &LIMIT, 1) != Admission::Limited
}

#[inline(always)]
fn done(written: Option<()>, answer: AnswerReason) -> Refusal {
    match written {
        Some(()) => Refusal::Answer(answer),
        None => DropReason::Inconsistent.into(),
    }
}

/// Whether a packet is from one host and to one host: others are not answered (RFC 1122, section 3.2.2; RFC 4443,
/// section 2.4 (e)).
#[inline(always)]
fn is_between_hosts<P: Packet>(packet: &P, link: &Link, is_ipv6: bool) -> bool {
    let from_host = if is_ipv6 {
        packet.read::<Ipv6Header>(link.length).is_some_and(|header| header.source.is_host())
    } else {
        packet.read::<Ipv4Header>(link.length).is_some_and(|header| header.source.is_host())
    };
    from_host && packet.read::<MacPair>(0).is_some_and(|macs| !macs.is_to_group())
}

/// The sum over the pseudo header of an `ICMPv6` message (RFC 8200, section 8.1).
#[inline(always)]
fn pseudo_sum(ip: &Ipv6Header) -> Sum {
    let ([s0, s1], [d0, d1]) = (ip.source.raw(), ip.destination.raw());
    let addresses = Sum::default().add_u64(s0).add_u64(s1).add_u64(d0).add_u64(d1);
    addresses.add(ip.payload_length).add(Be16::new(protocol::ICMPV6.into()))
}
