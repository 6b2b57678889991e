//! The loaded program and its tables.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use lb_common::decap::Outcome;
use lb_common::layout::{AddressWords, DecapSettings, TRIE_OFFSET, TrieWords};
use lb_common::verdict::REASON_COUNTERS;
use lb_common::wire::Be16;

use crate::datapath::attach::attach;
use crate::datapath::object::{counters, program, row};
use crate::datapath::{AttachError, Attachment, DECAP_OBJECT, LoadError, TableError, rows};
use crate::model::Prefix;
use crate::placement::vip_key;

/// The program that unwraps, and its tables.
pub struct Decapsulator {
    ebpf: Ebpf,
    endpoints: HashMap<MapData, AddressWords, u32>,
    /// What [`Self::endpoints`] holds.
    known: BTreeSet<IpAddr>,
}

/// What the program has counted.
pub struct Counters(PerCpuArray<MapData, u64>);

/// Why an address could not be made known to the program.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be stored or removed as an address that tunnels end at: {source}")]
pub struct EndpointError {
    address: IpAddr,
    source: MapError,
}

impl Decapsulator {
    /// Loads the program, which knows no address to end tunnels at yet. Each of `interfaces` gets counters of its own.
    pub fn load(
        gue_port: NonZeroU16,
        senders: &[Prefix],
        interfaces: &[u32],
    ) -> Result<(Self, Counters), LoadError> {
        let settings =
            DecapSettings { gue_port: Be16::new(gue_port.get()), reserved: 0, interfaces: rows(interfaces) };
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", bytemuck::bytes_of(&settings), true)
            .load(DECAP_OBJECT)?;
        program(&mut ebpf, "decap")?.load()?;
        list(take(&mut ebpf, "SENDERS")?, senders)
            .map_err(|source| LoadError::Table { name: "SENDERS", source })?;
        let reasons = counters(&mut ebpf, "REASONS")?;
        let endpoints = HashMap::try_from(take(&mut ebpf, "ENDPOINTS")?)
            .map_err(|source| LoadError::Table { name: "ENDPOINTS", source })?;
        Ok((Self { ebpf, endpoints, known: BTreeSet::new() }, Counters(reasons)))
    }

    /// The loaded program, to run it on test packets.
    pub fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, "decap")
    }

    /// Attaches the program natively, else generically with a warning that says why.
    pub fn attach(&mut self, interface: &str, index: u32) -> Result<Attachment, AttachError> {
        attach(self.program()?, interface, index)
    }

    /// From now on tunnels end at these addresses and at no others. As many as can be are made known even on an error.
    pub fn set_endpoints(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), EndpointError> {
        let gone: Vec<_> = self.known.difference(addresses).copied().collect();
        let new: Vec<_> = addresses.difference(&self.known).copied().collect();
        let forgotten = gone.into_iter().map(|address| self.forget(address)).fold(Ok(()), Result::and);
        let learnt = new.into_iter().map(|address| self.learn(address)).fold(Ok(()), Result::and);
        forgotten.and(learnt)
    }

    fn forget(&mut self, address: IpAddr) -> Result<(), EndpointError> {
        let removed = self.endpoints.remove(&vip_key(address).words());
        removed.map_err(|source| EndpointError { address, source })?;
        self.known.remove(&address);
        Ok(())
    }

    fn learn(&mut self, address: IpAddr) -> Result<(), EndpointError> {
        let inserted = self.endpoints.insert(vip_key(address).words(), 1, 0);
        inserted.map_err(|source| EndpointError { address, source })?;
        self.known.insert(address);
        Ok(())
    }
}

impl Counters {
    /// Packets that came in by the interface of a row, the first of which is row 1, and had this outcome.
    pub fn read(&self, interface_row: u32, outcome: Outcome) -> Result<u64, TableError> {
        let place = interface_row * REASON_COUNTERS + outcome.counter();
        Ok(row(&self.0, "REASONS", place)?.into_iter().sum())
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Incomplete(name))
}

/// IPv4 mapped into IPv6 (RFC 4291, section 2.5.5.2).
const MAPPED: u32 = 96;

/// Lists `senders`: each with 1, and with 0 what is within a prefix but not of its family.
fn list(table: Map, senders: &[Prefix]) -> Result<(), MapError> {
    let mut table: LpmTrie<_, TrieWords, u32> = LpmTrie::try_from(table)?;
    // IPv4 is no part of IPv6: `::/0` does not list it.
    let ipv4 = Prefix::of(Ipv4Addr::UNSPECIFIED.into(), 0);
    table.insert(&key(ipv4), 0, 0)?;
    senders.iter().try_for_each(|sender| table.insert(&key(*sender), 1, 0))
}

fn key(prefix: Prefix) -> Key<TrieWords> {
    let before = if prefix.address().is_ipv4() { MAPPED } else { 0 };
    Key::new(TRIE_OFFSET + before + u32::from(prefix.length()), vip_key(prefix.address()).trie_words())
}
