//! A packet's way, from frame to verdict: the one function that the kernel, the tests and the fuzzers run.
//!
//! ```text
//! parse -> VIP? -> check -> service? -> limiter -> slot -> backend -> encapsulate -> count -> transmit or redirect
//! ```

use crate::deliver::deliver;
use crate::flow::{FlowEvent, FlowSet, Passenger, Tick, owner};
use crate::hash::{HashKey, scale};
use crate::ip::{Datagram, IpHeader};
use crate::layout::{
    BackendEntry, EXACT_CLOCK, LIMITED, Region, ServiceEntry, ServiceKey, USABLE, VipKey, VipSet,
};
use crate::limiter::{Admission, BucketSet, charge};
use crate::packet::Packet;
use crate::slot::{BackendId, Slot};
use crate::transport::Segment;
use crate::verdict::{DropReason, PassReason, Refusal, Verdict};
use crate::wire::{ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, Ipv4Header, Ipv6Header};

/// Which clock a limiter reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// To the kernel's tick, 1 to 10 ms; costs next to nothing.
    Coarse,
    /// To the nanosecond.
    Exact,
}

/// Something a service did with a packet other than forwarding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceEvent {
    /// Dropped by the limiter.
    Limited,
    /// Dropped for another reason.
    Dropped,
    /// The limiter found no bucket and let it through.
    Contended,
}

/// The tables of [`crate::layout`], the clocks and the counters.
///
/// Every lookup is by index and fails only beyond the table's end. Counters are per CPU and never read here.
pub trait Tables {
    /// A set of token buckets.
    type Buckets<'a>: BucketSet
    where
        Self: 'a;
    /// A set of remembered flows.
    type Flows<'a>: FlowSet
    where
        Self: 'a;

    /// The key of the flow hash.
    fn hash_key(&self) -> &HashKey;
    /// A set of the VIP directory.
    fn vip_set(&self, index: u32) -> Option<&VipSet>;
    /// An entry of the service table.
    fn service(&self, index: u32) -> Option<&ServiceEntry>;
    /// A slot.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// A backend.
    fn backend(&self, index: u32) -> Option<&BackendEntry>;
    /// The set of token buckets for a source's hash.
    fn buckets(&self, hash: u64) -> Option<Self::Buckets<'_>>;
    /// The set of remembered flows for a flow's hash.
    fn flows(&self, hash: u64) -> Option<Self::Flows<'_>>;
    /// The set of remembered fragments for the hash of a fragmented datagram.
    fn fragments(&self, hash: u64) -> Option<Self::Flows<'_>>;
    /// Nanoseconds since an arbitrary moment.
    fn now(&self, clock: Clock) -> u64;

    /// Counts a packet of `bytes` bytes forwarded to a backend, `opens` if it opens a connection.
    fn count_forwarded(&self, backend: u32, bytes: u64, opens: bool);
    /// Counts what a service did with a packet.
    fn count_service(&self, service: u32, event: ServiceEvent);
    /// Counts what the flow table had to say.
    fn count_flow(&self, event: FlowEvent);
    /// Counts a packet that came in by interface `ingress` and was not forwarded.
    fn count_reason(&self, ingress: u32, counter: u32);
}

/// Decides what happens to a packet, changes it accordingly, and counts the outcome.
#[inline(always)]
pub fn balance<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let ingress = packet.ingress();
    match steer(packet, tables) {
        Ok(egress) if egress == ingress => Verdict::Transmit,
        Ok(egress) => Verdict::Redirect(egress),
        Err(refusal) => {
            tables.count_reason(
                ingress,
                match refusal {
                    Refusal::Pass(reason) => reason.counter(),
                    Refusal::Drop(reason) => reason.counter(),
                },
            );
            refusal.into()
        }
    }
}

/// Sends a packet to its backend: the index of the interface it leaves by.
#[inline(always)]
fn steer<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Result<u32, Refusal> {
    let ethernet: EthernetHeader = packet.read(0).ok_or(PassReason::ShortFrame)?;
    let (region, datagram) = match ethernet.ethertype {
        ETHERTYPE_IPV4 => recognize::<Ipv4Header, P, T>(packet, tables),
        ETHERTYPE_IPV6 => recognize::<Ipv6Header, P, T>(packet, tables),
        _ => Err(PassReason::NotIp.into()),
    }?;
    let segment = Segment::parse(packet, &datagram)?;
    let service = find_service(tables, region, &datagram, &segment)?;
    forward(packet, tables, service, &datagram, &segment).map_err(|reason| {
        tables.count_service(
            service.id,
            match reason {
                DropReason::Limited => ServiceEvent::Limited,
                _ => ServiceEvent::Dropped,
            },
        );
        reason.into()
    })
}

/// Tells whether the packet is for a VIP, and only then looks at the rest of its IP header.
#[inline(always)]
fn recognize<H: IpHeader, P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
) -> Result<(Region, Datagram), Refusal> {
    let header: H = packet.read(ETHERNET_LENGTH).ok_or(PassReason::ShortFrame)?;
    let region = find_vip(tables, header.vip()).ok_or(PassReason::NotForVip)?;
    Ok((region, header.datagram(packet, tables.hash_key())?))
}

#[inline(always)]
fn find_vip<T: Tables>(tables: &T, key: VipKey) -> Option<Region> {
    tables.vip_set(key.set())?.find(key)
}

/// The service of exactly this port, else the service of every port.
#[inline(always)]
fn find_service<'t, T: Tables>(
    tables: &'t T,
    region: Region,
    datagram: &Datagram,
    segment: &Segment,
) -> Result<&'t ServiceEntry, Refusal> {
    let key = ServiceKey::new(datagram.protocol, segment.ports.destination());
    let exact = tables.service(region.index(key)).ok_or(DropReason::Inconsistent)?;
    if exact.key == key {
        return Ok(exact);
    }
    let wildcard = tables.service(region.wildcard(key)).ok_or(DropReason::Inconsistent)?;
    if wildcard.key == key.any_port() { Ok(wildcard) } else { Err(PassReason::NoService.into()) }
}

#[inline(always)]
fn forward<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    service: &ServiceEntry,
    datagram: &Datagram,
    segment: &Segment,
) -> Result<u32, DropReason> {
    if service.flags & LIMITED != 0 {
        limit(tables, service, datagram)?;
    }
    let hash = tables.hash_key().flow(datagram.addresses, segment.ports, datagram.protocol);
    if service.slot_count == 0 {
        return Err(DropReason::NoBackend);
    }
    let slot_index = service.slot_base.wrapping_add(scale(hash, service.slot_count));
    let slot = tables.slot(slot_index).ok_or(DropReason::Inconsistent)?;
    let owner = if slot.is_moving() {
        owner_in_motion(
            tables,
            service,
            slot,
            &Passenger { hash, slot: slot_index, opens: segment.opens, now: tick(tables) },
        )?
    } else {
        slot.current()
    };
    let row = row_of(service, owner);
    let backend = tables.backend(row).ok_or(DropReason::Inconsistent)?;
    deliver(packet, datagram, backend)?;
    tables.count_forwarded(row, (ETHERNET_LENGTH + datagram.length) as u64, segment.opens);
    Ok(backend.ifindex)
}

#[inline(always)]
fn row_of(service: &ServiceEntry, backend: BackendId) -> u32 {
    service.backend_base.wrapping_add(u32::from(backend.number()))
}

#[inline(always)]
fn tick<T: Tables>(tables: &T) -> Tick {
    Tick::from_ns(tables.now(Clock::Coarse))
}

/// Asks the flow table, which only packets in moving slots do.
#[inline(always)]
fn owner_in_motion<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    slot: Slot,
    packet: &Passenger,
) -> Result<BackendId, DropReason> {
    let flows = tables.flows(packet.hash).ok_or(DropReason::Inconsistent)?;
    let usable = |id| tables.backend(row_of(service, id)).is_some_and(|backend| backend.flags & USABLE != 0);
    let (backend, event) = owner(&flows, slot, packet, usable);
    tables.count_flow(event);
    Ok(backend)
}

#[inline(always)]
fn limit<T: Tables>(tables: &T, service: &ServiceEntry, datagram: &Datagram) -> Result<(), DropReason> {
    let clock = if service.flags & EXACT_CLOCK != 0 { Clock::Exact } else { Clock::Coarse };
    let hash = tables.hash_key().source(datagram.source, service.id);
    let buckets = tables.buckets(hash).ok_or(DropReason::Inconsistent)?;
    match charge(&buckets, hash, tables.now(clock), &service.limit) {
        Admission::Admitted => Ok(()),
        Admission::Limited => Err(DropReason::Limited),
        Admission::Contended => {
            tables.count_service(service.id, ServiceEvent::Contended);
            Ok(())
        }
    }
}
