//! The tables between the daemon and the program: shapes, sizes and how one entry leads to the next.
//!
//! ```text
//! destination address -> VIPS[set].ways -> region of SERVICES -> the service's range of SLOTS and of BACKENDS
//! ```
//!
//! Everything the daemon changes while packets flow is published by one aligned store: a region word in [`VipSet`], a
//! [`Slot`], a word of a [`BackendEntry`]. All integers are in the byte order of the host.

use bytemuck::{Pod, Zeroable};

use crate::flow::FlowEvent;
use crate::hash::HashKey;
use crate::limiter::rule::Rule;
use crate::limiter::{Asker, LimiterEvent, OPENS, Sets};
use crate::lists::Side;
use crate::slot::Slot;
use crate::wire::{Be16, Be32, Ipv4Address, Ipv6Address, Mac, MacPair};

/// An IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2), as two words of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct VipKey {
    /// The first eight bytes.
    pub high: u64,
    /// The last eight bytes.
    pub low: u64,
}

impl VipKey {
    /// The key of an IPv4 address.
    #[inline(always)]
    pub const fn v4(address: Ipv4Address) -> Self {
        Self { high: 0, low: (address.word() as u64) << 32 | 0xffff_0000 }
    }

    /// The key of an IPv6 address.
    #[inline(always)]
    pub const fn v6(address: Ipv6Address) -> Self {
        let [high, low] = address.words();
        Self { high, low }
    }

    /// The address's bytes, in words as they lie in memory.
    #[inline(always)]
    pub const fn words(self) -> AddressWords {
        let (high, low) = (self.high.to_le(), self.low.to_le());
        [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32]
    }

    /// The address as the key of a trie.
    #[inline(always)]
    pub const fn trie_words(self) -> TrieWords {
        let [first, second, third, fourth] = self.words();
        [0, first, second, third, fourth]
    }

    /// The set of [`VIP_SETS`] in which this address is looked for.
    ///
    /// Only the operator chooses what is stored, so the hash needs no key.
    #[inline(always)]
    pub const fn set(self) -> u32 {
        let mixed =
            self.low.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.high.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        (mixed >> (64 - VIP_SETS.trailing_zeros())) as u32
    }
}

/// The 16 bytes of an IPv6 address, or of an IPv4 address mapped into IPv6: the key of a kernel map.
pub type AddressWords = [u32; 4];

/// An address as the key of a trie: a word of zeros, then [`AddressWords`]. The kernel puts a prefix length of four bytes in
/// front, and the stack has to have its 64-bit words aligned.
pub type TrieWords = [u32; 5];

/// Bits of [`TrieWords`] before the address, which count as part of every prefix.
pub const TRIE_OFFSET: u32 = 32;

/// Sets of the VIP directory: a power of two.
pub const VIP_SETS: u32 = 4096;
/// Addresses that one set holds.
pub const VIP_WAYS: usize = 4;

/// One set of the VIP directory. A way whose region is [`Region::NONE`] is vacant, whatever its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct VipSet {
    /// [`VipKey::low`] of each way.
    pub low: [u64; VIP_WAYS],
    /// [`VipKey::high`] of each way.
    pub high: [u64; VIP_WAYS],
    /// Where the address's services are; written last, cleared first.
    pub region: [Region; VIP_WAYS],
}

impl VipSet {
    /// Where the services of `key` are, if it is the address of any.
    #[inline(always)]
    pub fn find(&self, key: VipKey) -> Option<Region> {
        for way in 0..VIP_WAYS {
            if self.low[way] == key.low && self.high[way] == key.high {
                let region = self.region[way];
                if region != Region::NONE {
                    return Some(region);
                }
            }
        }
        None
    }
}

/// A VIP's own piece of the service table, in one word: a perfect hash of its ports.
///
/// Entries `base` and `base + 1` serve every port of TCP and of UDP; then come `2^bits` entries, among which a service is
/// found at [`Region::index`]. The daemon searches a seed under which no two ports collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Region(u64);

impl Region {
    /// No region: the way is vacant.
    pub const NONE: Self = Self(0);
    /// Entries before the hashed ones.
    pub const WILDCARDS: u32 = 2;
    /// The most `bits` a region can have: every port of both protocols, with room to hash.
    pub const MAX_BITS: u32 = 20;

    const VALID: u64 = 1 << 63;
    const ANNOUNCED: u64 = 1 << 62;
    const REPLIES: u64 = 1 << 61;

    /// A region of `2^bits` hashed entries after two wildcards, beginning at `base`.
    pub const fn new(base: u32, bits: u32, seed: u16) -> Self {
        Self(Self::VALID | (seed as u64) << 40 | (bits as u64 & 0xff) << 32 | base as u64)
    }

    /// The word as it stands in the directory.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The same region of a VIP for which the program answers ARP requests and neighbour solicitations.
    #[must_use]
    pub const fn announced(self) -> Self {
        Self(self.0 | Self::ANNOUNCED)
    }

    /// The same region of an address that is no VIP but a backend's own, from which replies come.
    #[must_use]
    pub const fn of_replies(self) -> Self {
        Self(self.0 | Self::REPLIES)
    }

    /// Whether the program answers for the address.
    #[inline(always)]
    pub const fn is_announced(self) -> bool {
        self.0 & Self::ANNOUNCED != 0
    }

    /// Whether the address is a VIP: one that packets are for, and not one that they are from.
    #[inline(always)]
    pub const fn is_vip(self) -> bool {
        self.0 & Self::REPLIES == 0
    }

    /// The first entry.
    #[inline(always)]
    pub const fn base(self) -> u32 {
        self.0 as u32
    }

    /// The region without what is said of the address.
    #[must_use]
    pub const fn plain(self) -> Self {
        Self(self.0 & !(Self::ANNOUNCED | Self::REPLIES))
    }

    /// Entries of the region, wildcards included.
    pub const fn entries(self) -> u32 {
        Self::WILDCARDS + (1 << (self.0 >> 32 & 0x1f))
    }

    /// The entry where `key` stands, if the VIP has that service.
    #[inline(always)]
    pub const fn index(self, key: ServiceKey) -> u32 {
        let bits = self.0 >> 32 & 0x1f;
        let seed = (self.0 >> 40) as u16 as u32;
        let hash = key.0.wrapping_mul((seed << 1 | 1).wrapping_mul(0x9e37_79b1));
        self.base().wrapping_add(Self::WILDCARDS).wrapping_add(((hash as u64) << bits >> 32) as u32)
    }

    /// The entry that serves every port of the key's protocol, if the VIP has such a service.
    #[inline(always)]
    pub const fn wildcard(self, key: ServiceKey) -> u32 {
        self.base().wrapping_add(key.is_udp() as u32)
    }
}

/// Port and protocol of a service: the port in the lower half, the protocol number above it. Zero is vacant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct ServiceKey(u32);

impl ServiceKey {
    /// The key of a port of a protocol.
    #[inline(always)]
    pub const fn new(protocol: u8, port: u16) -> Self {
        Self((protocol as u32) << 16 | port as u32)
    }

    /// The key of every port of this key's protocol.
    #[inline(always)]
    #[must_use]
    pub const fn any_port(self) -> Self {
        Self(self.0 & 0xff_0000)
    }

    const fn is_udp(self) -> bool {
        self.0 >> 16 == crate::wire::protocol::UDP as u32
    }
}

/// A service as the program sees it: one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ServiceEntry {
    /// Which packets it takes.
    pub key: ServiceKey,
    /// Row of its counters.
    pub id: u32,
    /// Its first slot.
    pub slot_base: u32,
    /// Its slots; 0 while no backend takes traffic.
    pub slot_count: u32,
    /// Row of its backend 0.
    pub backend_base: u32,
    /// [`BY_SOURCE`], [`QUIC`], [`CLOSED`], [`REPLIES`] and [`LISTED`].
    pub flags: u32,
    /// Its limiters; one word, since they are replaced together.
    pub limiters: LimiterRows,
    /// Zero: fills the cache line.
    pub spare: u64,
    /// If [`REPLIES`]: the address that replies come from, IPv4 in the first word.
    pub vip: [u32; 4],
    /// If [`REPLIES`]: the port that replies come from; 0 keeps the packet's own.
    pub vip_port: u16,
    /// Zero: fills the cache line.
    pub reserved: [u16; 3],
}

/// In [`ServiceEntry::flags`]: the source address alone chooses the slot.
pub const BY_SOURCE: u32 = 1;
/// In [`ServiceEntry::flags`]: UDP packets are QUIC.
pub const QUIC: u32 = 2;
/// In [`ServiceEntry::flags`]: no backend takes new flows; the slots are those of the flows there are.
pub const CLOSED: u32 = 4;
/// In [`ServiceEntry::flags`]: this is no service but the way back from a backend of mode `nat`: the packet's source is to
/// become [`ServiceEntry::vip`].
pub const REPLIES: u32 = 8;
/// In [`ServiceEntry::flags`]: there are deny or allow lists to be asked, see [`crate::lists`].
pub const LISTED: u32 = 16;

/// The rows of a service's limiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct LimiterRows {
    /// The first row.
    pub first: u32,
    /// How many, [`MAX_LIMITERS`] at most.
    pub count: u32,
}

/// The most limiters that one packet is asked by.
pub const MAX_LIMITERS: u32 = 8;

/// A limiter as one service's packets meet it: one cache line. A limiter of all services has one for each of them.
///
/// While its rate or burst changes, a packet may be judged by one old and one new parameter. Whatever else would make another
/// limiter of it makes another row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LimiterEntry {
    /// How much is too much.
    pub rule: Rule,
    /// The bits of a source's [`VipKey`] that tell it from others, high half first; none if all sources are counted together.
    pub mask: [u64; 2],
    /// Where its buckets are: the first set.
    pub first_set: u32,
    /// How many sets.
    pub set_count: u32,
    /// What sources are hashed with, so that no two limiters have a bucket in common.
    pub salt: u32,
    /// Row of its counters.
    pub counters: u32,
    /// [`Self::BYTES`] or [`Self::NEW_CONNECTIONS`], [`Self::EXACT_CLOCK`], and [`Self::DROP`], [`Self::MARK`] or
    /// [`Self::METERED`].
    pub flags: u32,
    /// If [`Self::METERED`]: its meter, see [`crate::limiter::meter`]. In one word with the flags.
    pub meter: u32,
}

impl LimiterEntry {
    /// Bytes are counted; packets otherwise.
    pub const BYTES: u32 = 1;
    /// Only packets that open a flow are counted.
    pub const NEW_CONNECTIONS: u32 = 2;
    /// It needs the exact clock.
    pub const EXACT_CLOCK: u32 = 4;
    /// What is too much is dropped. With neither this nor [`Self::MARK`] it is counted only.
    pub const DROP: u32 = 8;
    /// What is too much is marked.
    pub const MARK: u32 = 16;
    /// It has a meter, which takes it out of the usual way.
    pub const METERED: u32 = 32;

    /// The hash of a packet's source among this limiter's.
    #[inline(always)]
    pub fn hash(&self, key: &HashKey, source: VipKey) -> u64 {
        let VipKey { high, low } = self.masked(source);
        key.source([high, low], self.salt)
    }

    /// A source as far as this limiter tells it from others.
    #[inline(always)]
    pub const fn masked(&self, source: VipKey) -> VipKey {
        VipKey { high: source.high & self.mask[0], low: source.low & self.mask[1] }
    }

    /// Whether it counts the packet at all.
    #[inline(always)]
    pub const fn counts(&self, asker: &Asker) -> bool {
        self.flags & Self::NEW_CONNECTIONS == 0 || asker.traits & OPENS != 0
    }

    /// Where its buckets are.
    #[inline(always)]
    pub const fn sets(&self) -> Sets {
        Sets { first: self.first_set, count: self.set_count }
    }
}

/// A backend and the way to it: one cache line of 64-bit words that are each replaced at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BackendEntry {
    /// MAC addresses of the next hop and of the interface it leaves by.
    pub macs: MacPair,
    /// [`USABLE`], at most one of [`OUTER_IPV4`], [`OUTER_IPV6`] and [`NAT`], and [`GUE`] with an outer header.
    pub flags: u16,
    /// The most bytes of IP that fit the way there.
    pub mtu: u16,
    /// Interface it leaves by.
    pub ifindex: u32,
    /// Sum over the fixed words of the outer IPv4 header, see [`crate::deliver::outer_sum`]; over the backend's own address
    /// of [`NAT`].
    pub outer_sum: u32,
    /// Outer source and destination address; of [`NAT`] the destination is the backend's own address.
    pub outer: OuterAddresses,
    /// Bits of the outer source's last four bytes, in network order, that come from the flow's hash.
    pub entropy: Be32,
    /// UDP port of [`GUE`]; of [`NAT`] the backend's port, or 0 to keep the packet's own.
    pub port: Be16,
    /// Zero: fills the cache line.
    pub reserved: u16,
}

/// The addresses of an outer header: a pair of IPv6 addresses, or of IPv4 addresses in their first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct OuterAddresses {
    source: [u32; 4],
    destination: [u32; 4],
}

impl OuterAddresses {
    /// Two IPv4 addresses.
    pub fn v4(source: Ipv4Address, destination: Ipv4Address) -> Self {
        let pad = |address: Ipv4Address| [bytemuck::cast(address), 0, 0, 0];
        Self { source: pad(source), destination: pad(destination) }
    }

    /// Two IPv6 addresses.
    pub fn v6(source: Ipv6Address, destination: Ipv6Address) -> Self {
        Self { source: bytemuck::cast(source), destination: bytemuck::cast(destination) }
    }

    /// Source and destination as IPv4 addresses.
    #[inline(always)]
    pub fn ipv4(&self) -> [Ipv4Address; 2] {
        [bytemuck::cast(self.source[0]), bytemuck::cast(self.destination[0])]
    }

    /// Source and destination as IPv6 addresses.
    #[inline(always)]
    pub fn ipv6(&self) -> [Ipv6Address; 2] {
        [bytemuck::cast(self.source), bytemuck::cast(self.destination)]
    }
}

/// In [`BackendEntry::flags`]: it is alive and the next hop is known.
pub const USABLE: u16 = 1;
/// In [`BackendEntry::flags`]: packets get an outer IPv4 header.
pub const OUTER_IPV4: u16 = 2;
/// In [`BackendEntry::flags`]: packets get an outer IPv6 header.
pub const OUTER_IPV6: u16 = 4;
/// In [`BackendEntry::flags`]: a UDP header follows the outer one.
pub const GUE: u16 = 8;
/// In [`BackendEntry::flags`]: the packet's destination becomes the backend's own address and port.
pub const NAT: u16 = 16;

/// What holds for all packets, in one word that the daemon replaces at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Features(pub u64);

impl Features {
    /// Some service is of mode `nat`: packets that are not for a VIP may be replies.
    pub const REPLIES: u64 = 1;
    /// Some VIP is announced: ARP requests and neighbour solicitations may be for it.
    pub const ANNOUNCED: u64 = 2;
    /// There are deny or allow lists, see [`crate::lists`].
    pub const LISTS: u64 = 4;
    /// If [`Self::LISTS`]: the second table is the one to ask.
    pub const SIDE_B: u64 = 8;
    /// What is of interest to packets that are not for a VIP.
    pub const OF_BYSTANDERS: u64 = Self::REPLIES | Self::ANNOUNCED;

    /// Whether any of these is on.
    #[inline(always)]
    pub const fn any(self, features: u64) -> bool {
        self.0 & features != 0
    }

    /// The table of deny and allow lists to ask, if any.
    #[inline(always)]
    pub const fn lists(self) -> Option<Side> {
        match self.0 & (Self::LISTS | Self::SIDE_B) {
            Self::LISTS => Some(Side::A),
            0 | Self::SIDE_B => None,
            _ => Some(Side::B),
        }
    }
}

/// An attached interface. Its place is that of its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct InterfaceEntry {
    /// Its MAC address.
    pub mac: Mac,
    /// 1 if the MAC address is known.
    pub known: u16,
    /// Its index: whose place it is.
    pub index: u32,
    /// Zero: fills the second word.
    pub reserved: u32,
}

/// Slots of one element of the slot table: a cache line, since the kernel rounds elements up to eight bytes.
pub const SLOTS_PER_LINE: u32 = 16;

/// One element of the slot table.
pub type SlotLine = [Slot; SLOTS_PER_LINE as usize];

/// What was forwarded to a backend, per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Forwarded {
    /// Packets.
    pub packets: u64,
    /// Their bytes: IP length and Ethernet header, before encapsulation.
    pub bytes: u64,
    /// TCP packets that open a connection.
    pub new_flows: u64,
}

/// What a service received and did not forward, per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Withheld {
    /// Packets that a limiter dropped.
    pub limited: u64,
    /// Packets dropped for any other reason.
    pub dropped: u64,
}

/// What a limiter said, per CPU. Packets that it does not count, such as those of known connections, are in none of these.
/// The first [`METERS`](crate::limiter::meter::METERS) rows are those of the meters, of which only `contended` is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LimiterCounts {
    /// Packets within the limit.
    pub admitted: u64,
    /// Packets over it that were dropped, marked, or would have been.
    pub over: u64,
    /// Packets over it that could not be marked and passed.
    pub unmarked: u64,
    /// Packets let through because their set of buckets was full of other busy sources.
    pub contended: u64,
}

impl LimiterCounts {
    /// Counts one packet.
    #[inline(always)]
    pub fn count(&mut self, event: LimiterEvent) {
        match event {
            LimiterEvent::Admitted => self.admitted += 1,
            LimiterEvent::Over => self.over += 1,
            LimiterEvent::Unmarked => self.unmarked += 1,
            LimiterEvent::Contended => self.contended += 1,
        }
    }
}

/// What the flow table had to say, per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FlowCounts {
    /// Packets of known flows.
    pub known: u64,
    /// Flows remembered in a vacant place.
    pub added: u64,
    /// Flows remembered in the place of another.
    pub evicted: u64,
    /// Flows not remembered, since other CPUs changed their set at the same time.
    pub contended: u64,
}

impl FlowCounts {
    /// Counts one packet.
    #[inline(always)]
    pub fn count(&mut self, event: FlowEvent) {
        match event {
            FlowEvent::Known => self.known += 1,
            FlowEvent::Added => self.added += 1,
            FlowEvent::Evicted => self.evicted += 1,
            FlowEvent::Contended => self.contended += 1,
        }
    }
}

/// Bytes of the buffer in which [`crate::limiter::sample::OverSample`]s wait to be fetched, each with eight bytes of the
/// kernel's own: room for 16 384.
pub const OVER_SAMPLES_BYTES: usize = 1 << 19;
/// Samples that the buffer has room for.
pub const OVER_SAMPLES_ROOM: usize =
    OVER_SAMPLES_BYTES / (size_of::<crate::limiter::sample::OverSample>() + 8);

/// Place of the program that runs [`crate::pipeline::detour`] among those that `balance` goes on to.
pub const DETOUR: u32 = 0;
/// Place of the program that runs [`crate::aside::aside`].
pub const ASIDE: u32 = 1;

/// Four buckets: see [`crate::limiter`].
pub type BucketWords = [u64; crate::limiter::WAYS];

/// Rows of reason counters. The first is for packets from interfaces that have none.
pub const MAX_INTERFACES: usize = 16;
/// Interfaces that one daemon can attach to, each with a row of its own.
pub const MAX_ATTACHED: usize = MAX_INTERFACES - 1;

/// What the daemon fixes when it loads the program: read-only data, so that the verifier sees constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// The key of the flow hash.
    pub hash_key: HashKey,
    /// Sets of buckets, see [`Sets`].
    pub bucket_sets: u32,
    /// Sets of remembered flows.
    pub flow_sets: u32,
    /// Sets of remembered fragments.
    pub fragment_sets: u32,
    /// Nanoseconds from one tick of the kernel's timer to the next.
    pub tick_ns: u32,
    /// Index of each attached interface; its place is its row of reason counters. Zero is vacant.
    pub interfaces: [u32; MAX_INTERFACES],
}

/// What `lb decap` fixes when it loads its program: read-only data, as [`Settings`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct DecapSettings {
    /// UDP port of GUE tunnels.
    pub gue_port: Be16,
    /// Zero.
    pub reserved: u16,
    /// As [`Settings::interfaces`].
    pub interfaces: [u32; MAX_INTERFACES],
}

/// Addresses of one host at which tunnels may end.
pub const MAX_ENDPOINTS: usize = 4096;
/// Prefixes whose tunnel packets one host takes.
pub const MAX_SENDERS: usize = 1024;

// The verifier and mmap see these shapes: words of eight bytes, no hidden padding (`Pod` proves that), whole cache lines.
const _: () = assert!(size_of::<VipSet>() == 96 && size_of::<ServiceEntry>() == 64);
const _: () = assert!(size_of::<LimiterEntry>() == 64 && size_of::<LimiterRows>() == size_of::<u64>());
const _: () = assert!(size_of::<BackendEntry>() == 64 && size_of::<SlotLine>() == 64);
const _: () = assert!(size_of::<BucketWords>() == 32 && size_of::<Settings>() == 144);
const _: () = assert!(size_of::<Features>() == 8 && size_of::<InterfaceEntry>() == 16);
const _: () = assert!(VIP_SETS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_region_contains_its_indices(base in 0u32..1 << 30, bits in 0..=Region::MAX_BITS, seed: u16, port: u16) {
            let region = Region::new(base, bits, seed);
            for protocol in [6, 17] {
                let key = ServiceKey::new(protocol, port);
                let inside = base..base + region.entries();
                prop_assert!(inside.contains(&region.index(key)));
                prop_assert!(inside.contains(&region.wildcard(key)));
                prop_assert!(region.index(key) >= base + Region::WILDCARDS);
            }
            prop_assert_ne!(region, Region::NONE);
        }
    }

    #[test]
    fn a_vacant_way_is_never_found() {
        let mut set = VipSet::zeroed();
        let key = VipKey::v6(Ipv6Address::new([0; 16]));
        assert_eq!(set.find(key), None);
        set.region[2] = Region::new(0, 0, 0);
        assert_eq!(set.find(key), Some(Region::new(0, 0, 0)));
    }

    #[test]
    fn ipv4_is_mapped_into_ipv6() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
        assert_eq!(VipKey::v4(Ipv4Address::new([192, 0, 2, 1])), VipKey::v6(Ipv6Address::new(mapped)));
    }
}
