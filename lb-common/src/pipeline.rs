//! A packet's way, from frame to verdict: what the kernel, the tests and the fuzzers run.
//!
//! ```text
//! parse -> VIP? -> check -> service? -> deny list? -> limiter -> slot -> [flow table, if it moves] -> backend -> encapsulate -> count -> send
//! ```
//!
//! There are two ways. [`usual`] takes nearly every packet: untagged, whole, TCP or UDP without options of IP. Whatever is
//! not quite that it leaves untouched to [`detour`], which takes any packet; the two never disagree. So the short way stays
//! short for the compiler, whatever the long way learns.

use core::mem::offset_of;

use crate::answer;
use crate::aside::aside;
use crate::deliver::{Load, Payload, deliver};
use crate::ecn;
use crate::flow::{FlowEvent, FlowSet, Passenger, PassengerKind, Tick, owner};
use crate::fragment::{self, Piece};
use crate::hash::{HashKey, scale};
use crate::icmp::{Message, Quote};
use crate::ip::{Datagram, Fragment, IpHeader, Part};
use crate::layout::{
    BY_SOURCE, BackendEntry, CLOSED, Features, InterfaceEntry, LISTED, LimiterEntry, MAX_LIMITERS, QUIC,
    Region, ServiceEntry, ServiceKey, USABLE, VipKey, VipSet,
};
use crate::limiter::meter::measure;
use crate::limiter::sample::{self, OverSample};
use crate::limiter::{Asker, BucketSet, ECN_CAPABLE, LimiterEvent, OPENS, Ruling, ask, ask_at_once};
use crate::link::Link;
use crate::lists::{Listed, listed};
use crate::packet::Packet;
use crate::slot::{BackendId, Slot};
use crate::transport::{Segment, is_quic_initial};
use crate::verdict::{DropReason, PassReason, Refusal, Verdict};
use crate::wire::{
    Be16, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ipv4Header, Ipv6Header, MACS_LENGTH, protocol,
};

/// A clock of the kernel. All count nanoseconds, monotonically, from moments of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The timer's ticks, 1 to 10 ms each, times their nominal length: one load.
    Jiffies,
    /// `CLOCK_MONOTONIC_COARSE`: to the tick as well, but the same moments for a process as for the program. A call.
    Coarse,
    /// To the nanosecond. The dearest.
    Exact,
}

/// Something a service did with a packet other than forwarding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceEvent {
    /// Dropped by a limiter.
    Limited,
    /// Dropped for another reason.
    Dropped,
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
    /// What holds for all packets.
    fn features(&self) -> Features;
    /// The attached interface with this index.
    fn interface(&self, ingress: u32) -> Option<InterfaceEntry>;
    /// A set of the VIP directory.
    fn vip_set(&self, index: u32) -> Option<&VipSet>;
    /// An entry of the service table.
    fn service(&self, index: u32) -> Option<&ServiceEntry>;
    /// A slot.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// A backend.
    fn backend(&self, index: u32) -> Option<&BackendEntry>;
    /// What the deny and allow lists say of a source, by the longest prefix that it is in.
    fn listed(&self, source: VipKey) -> Listed;
    /// A limiter.
    fn limiter(&self, row: u32) -> Option<&LimiterEntry>;
    /// Sets of buckets that there are: [`crate::limiter::Sets`].
    fn bucket_sets(&self) -> u32;
    /// A set of buckets.
    fn buckets(&self, set: u32) -> Option<Self::Buckets<'_>>;
    /// A set of the meters' registers: [`crate::limiter::meter`].
    fn registers(&self, set: u32) -> Option<Self::Buckets<'_>>;
    /// The set of remembered flows for a flow's hash.
    fn flows(&self, hash: u64) -> Option<Self::Flows<'_>>;
    /// The set of remembered fragments for the hash of a fragmented datagram.
    fn fragments(&self, hash: u64) -> Option<Self::Flows<'_>>;
    /// Nanoseconds since an arbitrary moment.
    fn now(&self, clock: Clock) -> u64;

    // What follows is not to be implemented by ordinary tables. The kernel's program makes functions of it, which the verifier
    // follows once each and not in every place they are called from.

    /// [`ask`].
    fn ask(&self, row: u32, asker: &Asker) -> Ruling
    where
        Self: Sized,
    {
        ask(self, row, asker)
    }

    /// [`measure`].
    fn measure(&self, meter: u32, hash: u64, now: u64, units: u64)
    where
        Self: Sized,
    {
        measure(self, meter, hash, now, units);
    }

    /// [`sample::over`].
    fn over(&self, salt: u32, source: VipKey)
    where
        Self: Sized,
    {
        sample::over(self, salt, source);
    }

    /// [`in_motion`].
    fn in_motion(&self, passenger: &Passenger, slot: Slot, backend_base: u32) -> Option<BackendId>
    where
        Self: Sized,
    {
        in_motion(self, passenger, slot, backend_base)
    }

    /// [`fragment::remember`].
    fn remember_fragment(&self, hash: u64, piece: u32)
    where
        Self: Sized,
    {
        fragment::remember(self, hash, piece);
    }

    /// [`fragment::recall`].
    fn recall_fragment(&self, hash: u64) -> Option<u32>
    where
        Self: Sized,
    {
        fragment::recall(self, hash)
    }

    /// [`answer::affords`].
    fn affords(&self, source: u64) -> bool
    where
        Self: Sized,
    {
        answer::affords(self, source)
    }

    /// Counts a packet of `bytes` bytes forwarded to a backend, `opens` if it opens a connection.
    fn count_forwarded(&self, backend: u32, bytes: u64, opens: bool);
    /// Counts what a service did with a packet.
    fn count_service(&self, service: u32, event: ServiceEvent);
    /// Counts what a limiter said.
    fn count_limiter(&self, row: u32, event: LimiterEvent);
    /// Shows a packet over a limit to the sampler of a lane: [`sample::Sampler::meet`].
    fn meet_over(&self, lane: u32, period: u32) -> u32;
    /// Tells of a packet over a limit whoever fetches such samples, and counts that in the lane.
    fn tell_over(&self, lane: u32, sample: &OverSample);
    /// Counts what the flow table had to say.
    fn count_flow(&self, event: FlowEvent);
    /// Counts a packet that came in by interface `ingress` and was not forwarded.
    fn count_reason(&self, ingress: u32, counter: u32);
}

/// How far one of the ways took a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// To its end, counted.
    Decided(Verdict),
    /// Nowhere: nothing was changed or counted. [`detour`] knows more.
    Detour,
    /// Nowhere: it is not for a VIP, but [`aside`] may have a use for it.
    Aside,
    /// To a backend to whom not more than so many bytes of IP can be sent. [`tell_size`] tells the sender.
    TooBig(u16),
}

/// Decides what happens to a packet, changes it accordingly, and counts the outcome.
///
/// The kernel's program calls the four functions itself, all but the first out of line.
pub fn balance<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let passage = match usual(packet, tables) {
        Passage::Detour => detour(packet, tables),
        passage => passage,
    };
    match passage {
        Passage::Decided(verdict) => verdict,
        Passage::TooBig(room) => tell_size(packet, tables, room),
        Passage::Aside => aside(packet, tables),
        // Not to be had: `detour` has nowhere else to go.
        Passage::Detour => Verdict::Drop(DropReason::Inconsistent),
    }
}

/// The way of nearly every packet.
#[inline(always)]
pub fn usual<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Passage {
    let found = match packet.read::<Be16>(MACS_LENGTH) {
        Some(ETHERTYPE_IPV4) => Usual::recognize::<Ipv4Header, P, T>(packet, tables),
        Some(ETHERTYPE_IPV6) => Usual::recognize::<Ipv6Header, P, T>(packet, tables),
        _ => Usual::Else,
    };
    match found {
        Usual::Ours(region, datagram) => {
            usual_for_vip(packet, tables, region, &datagram).unwrap_or(Passage::Detour)
        }
        Usual::Bystander => Passage::Decided(refuse(packet.ingress(), tables, PassReason::NotForVip.into())),
        Usual::Else => Passage::Detour,
    }
}

/// What the usual way sees in a packet.
enum Usual {
    Ours(Region, Datagram),
    Bystander,
    Else,
}

impl Usual {
    #[inline(always)]
    fn recognize<H: IpHeader, P: Packet, T: Tables>(packet: &P, tables: &T) -> Self {
        let Some(header) = packet.read::<H>(ETHERNET_LENGTH) else { return Self::Else };
        match find(tables, header.destination_key()) {
            Some(region) => match header.usual(packet, tables.hash_key()) {
                Some(datagram) if region.is_vip() => Self::Ours(region, datagram),
                _ => Self::Else,
            },
            None if concerns_us(&header, tables) => Self::Else,
            None => Self::Bystander,
        }
    }
}

/// Whether [`aside`] may have a use for a packet that is not for a VIP: on most hosts, for next to none.
#[inline(always)]
fn concerns_us<H: IpHeader, T: Tables>(header: &H, tables: &T) -> bool {
    let features = tables.features();
    let asks = features.any(Features::ANNOUNCED) && header.may_ask_for_neighbor();
    asks || features.any(Features::REPLIES)
        && find(tables, header.source_key()).is_some_and(|of| !of.is_vip())
}

#[inline(always)]
fn usual_for_vip<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    region: Region,
    datagram: &Datagram,
) -> Option<Passage> {
    let segment = Segment::parse(packet, ETHERNET_LENGTH, datagram, true).ok()?;
    let service =
        find_service(tables, region, ServiceKey::new(datagram.protocol, segment.ports.destination())).ok()?;
    let load = load(&Link::UNTAGGED, datagram, Payload::Segment(segment.ports));
    let opens = opens(packet, service, &load, segment);
    let ingress = packet.ingress();
    let listed = if service.flags & LISTED == 0 {
        Listed::No
    } else {
        listed(packet, tables, ETHERNET_LENGTH, datagram.is_ipv6)
    };
    if listed == Listed::Denied {
        return Some(refused_by(service, ingress, tables, DropReason::Denied.into()));
    }
    check_open(service, opens).ok()?;
    Some(match serve(packet, tables, service, load, opens, listed) {
        Ok(Sent { egress, .. }) => Passage::Decided(sent(ingress, egress)),
        Err(refusal) => refused_by(service, ingress, tables, refusal),
    })
}

/// The way of any packet.
#[inline(always)]
pub fn detour<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Passage {
    let ingress = packet.ingress();
    match steer(packet, tables) {
        Ok(egress) => Passage::Decided(sent(ingress, egress)),
        Err(Halt { service: Some(service), refusal }) => refused_by(service, ingress, tables, refusal),
        Err(Halt { service: None, refusal: Refusal::Pass(reason) })
            if reason.is_of_bystander() && tables.features().any(Features::OF_BYSTANDERS) =>
        {
            Passage::Aside
        }
        Err(Halt { service: None, refusal }) => Passage::Decided(refuse(ingress, tables, refusal)),
    }
}

/// Tells the sender of a packet that it is too big, or drops it.
#[inline(always)]
pub fn tell_size<P: Packet, T: Tables>(packet: &mut P, tables: &T, room: u16) -> Verdict {
    let ingress = packet.ingress();
    let refusal = answer::too_big(packet, tables, room);
    refuse(ingress, tables, refusal)
}

#[inline(always)]
pub(crate) fn sent(ingress: u32, egress: u32) -> Verdict {
    if egress == ingress { Verdict::Transmit } else { Verdict::Redirect(egress) }
}

/// Counts a packet that is not forwarded.
#[inline(always)]
pub(crate) fn refuse<T: Tables>(ingress: u32, tables: &T, refusal: Refusal) -> Verdict {
    let (counter, verdict) = match refusal {
        Refusal::Pass(reason) => (reason.counter(), Verdict::Pass(reason)),
        Refusal::Drop(reason) => (reason.counter(), Verdict::Drop(reason)),
        Refusal::Answer(reason) => (reason.counter(), Verdict::Answer(reason)),
        Refusal::TooBig(_) => (DropReason::TooBig.counter(), Verdict::Drop(DropReason::TooBig)),
    };
    tables.count_reason(ingress, counter);
    verdict
}

/// Counts a packet that its service did not forward.
#[inline(always)]
fn refused_by<T: Tables>(service: &ServiceEntry, ingress: u32, tables: &T, refusal: Refusal) -> Passage {
    let event = match refusal {
        Refusal::Drop(DropReason::Limited) => ServiceEvent::Limited,
        _ => ServiceEvent::Dropped,
    };
    tables.count_service(service.id, event);
    match refusal {
        Refusal::TooBig(room) => Passage::TooBig(room),
        refusal => Passage::Decided(refuse(ingress, tables, refusal)),
    }
}

/// A packet that goes no further, and the service that it is for, if that is known.
struct Halt<'t> {
    service: Option<&'t ServiceEntry>,
    refusal: Refusal,
}

impl<R: Into<Refusal>> From<R> for Halt<'_> {
    #[inline(always)]
    fn from(refusal: R) -> Self {
        Self { service: None, refusal: refusal.into() }
    }
}

/// A packet for a VIP or from a backend, its IP header checked.
pub(crate) struct Found {
    pub(crate) region: Region,
    pub(crate) datagram: Datagram,
    pub(crate) fragment: Fragment,
}

/// Sends a packet for a VIP where it belongs: the index of the interface it leaves by.
#[inline(always)]
fn steer<'t, P: Packet, T: Tables>(packet: &mut P, tables: &'t T) -> Result<u32, Halt<'t>> {
    let (length, ethertype) = packet.link().ok_or(PassReason::ShortFrame)?;
    let link = Link::of(packet, length);
    let found = match ethertype {
        ETHERTYPE_IPV4 => recognize::<Ipv4Header, P, T>(packet, tables, &link),
        ETHERTYPE_IPV6 => recognize::<Ipv6Header, P, T>(packet, tables, &link),
        _ => Err(PassReason::NotIp.into()),
    }?;
    for_vip(packet, tables, &link, &found)
}

/// Tells whether the packet is for a VIP, and only then looks at the rest of its header.
#[inline(always)]
fn recognize<H: IpHeader, P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    link: &Link,
) -> Result<Found, Refusal> {
    let header: H = packet.read(link.length).ok_or(PassReason::ShortFrame)?;
    let region = find(tables, header.destination_key()).filter(|region| region.is_vip());
    let region = region.ok_or(PassReason::NotForVip)?;
    let (datagram, fragment) = header.any(packet, link.length, tables.hash_key())?;
    Ok(Found { region, datagram, fragment })
}

/// The region of an address.
#[inline(always)]
pub(crate) fn find<T: Tables>(tables: &T, key: VipKey) -> Option<Region> {
    tables.vip_set(key.set())?.find(key)
}

/// The service of exactly this port, else the service of every port.
#[inline(always)]
fn find_service<T: Tables>(tables: &T, region: Region, key: ServiceKey) -> Result<&ServiceEntry, Refusal> {
    let exact = tables.service(region.index(key)).ok_or(DropReason::Inconsistent)?;
    if exact.key == key {
        return Ok(exact);
    }
    let wildcard = tables.service(region.wildcard(key)).ok_or(DropReason::Inconsistent)?;
    if wildcard.key == key.any_port() { Ok(wildcard) } else { Err(PassReason::NoService.into()) }
}

#[inline(always)]
fn for_vip<'t, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &'t T,
    link: &Link,
    Found { region, datagram, fragment }: &Found,
) -> Result<u32, Halt<'t>> {
    if fragment.part == Part::Later {
        return Ok(follow(packet, tables, link, datagram, fragment)?);
    }
    let listed = if tables.features().any(Features::LISTS) {
        listed(packet, tables, link.length, datagram.is_ipv6)
    } else {
        Listed::No
    };
    let denied = listed == Listed::Denied;
    let whole = fragment.part == Part::Whole;
    let message = if whole { Message::parse(packet, link, datagram)? } else { None };
    let (payload, carried, segment) = match message {
        Some(Message::Echo) if denied => return Err(DropReason::Denied.into()),
        Some(Message::Echo) => return Err(answer::echo(packet, link, datagram).into()),
        Some(Message::Other) => return Err(PassReason::OtherProtocol.into()),
        Some(Message::Error) => {
            let quote = Quote::parse(packet, link, datagram, tables.hash_key())?;
            (Payload::Error(quote), quote.protocol, Segment { ports: quote.ports, opens: false })
        }
        None => {
            let segment = Segment::parse(packet, link.length, datagram, whole)?;
            let payload =
                if whole { Payload::Segment(segment.ports) } else { Payload::FirstPiece(segment.ports) };
            (payload, datagram.protocol, segment)
        }
    };
    let key = ServiceKey::new(carried, segment.ports.destination());
    if denied {
        let service = find_service(tables, *region, key).ok();
        return Err(Halt { service, refusal: DropReason::Denied.into() });
    }
    let service = find_service(tables, *region, key)?;
    let halt = |refusal| Halt { service: Some(service), refusal };
    let load = load(link, datagram, payload);
    let opens = opens(packet, service, &load, segment);
    check_open(service, opens).map_err(|reason| halt(reason.into()))?;
    let Sent { egress, row } = serve(packet, tables, service, load, opens, listed).map_err(halt)?;
    if fragment.part == Part::First {
        tables.remember_fragment(
            datagram.fragments(tables.hash_key(), fragment.identification),
            Piece::ToBackend(row).word(),
        );
    }
    Ok(egress)
}

#[inline(always)]
fn load<'d>(link: &'d Link, datagram: &'d Datagram, payload: Payload) -> Load<'d> {
    Load { link, datagram, payload, hash: 0 }
}

/// Whether a packet opens a flow of the service.
#[inline(always)]
fn opens<P: Packet>(packet: &P, service: &ServiceEntry, load: &Load<'_>, segment: Segment) -> bool {
    let is_quic = service.flags & QUIC != 0 && load.datagram.protocol == protocol::UDP;
    segment.opens || is_quic && is_quic_initial(packet, load.link.length, load.datagram)
}

/// Whether the service has backends for the packet.
#[inline(always)]
fn check_open(service: &ServiceEntry, opens: bool) -> Result<(), DropReason> {
    let closed = service.flags & CLOSED != 0 && opens;
    if service.slot_count == 0 || closed { Err(DropReason::NoBackend) } else { Ok(()) }
}

/// Where a packet went.
struct Sent {
    egress: u32,
    row: u32,
}

#[inline(always)]
fn serve<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    service: &ServiceEntry,
    load: Load<'_>,
    opens: bool,
    listed: Listed,
) -> Result<Sent, Refusal> {
    let ports = match load.payload {
        Payload::Segment(ports) | Payload::FirstPiece(ports) => ports,
        Payload::Error(quote) => quote.ports,
        Payload::LaterPiece => return Err(DropReason::Inconsistent.into()),
    };
    let (addresses, carried) = match load.payload {
        Payload::Error(quote) => (quote.addresses, quote.protocol),
        _ => (load.datagram.addresses, load.datagram.protocol),
    };
    let hash = tables.hash_key().flow(addresses, ports, carried);
    let chooser = if service.flags & BY_SOURCE == 0 { hash } else { tables.hash_key().affinity(addresses) };
    let index = service.slot_base.wrapping_add(scale(chooser, service.slot_count));
    // Before the limiters: no load overtakes an atomic instruction.
    let slot = tables.slot(index).ok_or(DropReason::Inconsistent)?;
    let mark = service.limiters.count != 0
        && listed != Listed::Allowed
        && limit(packet, tables, service, &load, opens)? == Ruling::Mark;
    let id = if slot.is_moving() {
        let kind = match load.payload {
            Payload::Error(_) => PassengerKind::Speaks,
            _ if opens => PassengerKind::Opens,
            _ => PassengerKind::Goes,
        };
        let passenger = Passenger { hash, slot: index, kind };
        tables.in_motion(&passenger, slot, service.backend_base).ok_or(DropReason::Inconsistent)?
    } else {
        slot.current()
    };
    let row = row_of(service.backend_base, id);
    let backend = tables.backend(row).ok_or(DropReason::Inconsistent)?;
    let mut datagram = *load.datagram;
    if mark {
        // In the packet itself: an outer header copies it.
        ecn::mark(packet, load.link.length, &mut datagram).ok_or(DropReason::Inconsistent)?;
    }
    deliver(packet, &Load { hash, datagram: &datagram, ..load }, backend)?;
    tables.count_forwarded(row, (ETHERNET_LENGTH + load.datagram.length) as u64, opens);
    Ok(Sent { egress: backend.ifindex, row })
}

#[inline(always)]
fn row_of(base: u32, backend: BackendId) -> u32 {
    base.wrapping_add(u32::from(backend.number()))
}

#[inline(always)]
pub(crate) fn tick<T: Tables>(tables: &T) -> Tick {
    Tick::from_ns(tables.now(Clock::Coarse))
}

/// Asks the flow table, which only packets in moving slots do. `backend_base` is the row of the service's backend 0.
#[inline(always)]
pub fn in_motion<T: Tables>(
    tables: &T,
    passenger: &Passenger,
    slot: Slot,
    backend_base: u32,
) -> Option<BackendId> {
    let flows = tables.flows(passenger.hash)?;
    let usable =
        |id| tables.backend(row_of(backend_base, id)).is_some_and(|backend| backend.flags & USABLE != 0);
    let (backend, event) = owner(&flows, slot, passenger, tick(tables), usable);
    if let Some(event) = event {
        tables.count_flow(event);
    }
    Some(backend)
}

/// Where a packet comes from, whose IP header, already judged, begins at `start`.
#[inline(always)]
pub(crate) fn source_of<P: Packet>(packet: &P, start: usize, is_ipv6: bool) -> Option<VipKey> {
    Some(if is_ipv6 {
        VipKey::v6(packet.read(start + offset_of!(Ipv6Header, source))?)
    } else {
        VipKey::v4(packet.read(start + offset_of!(Ipv4Header, source))?)
    })
}

/// Asks all limiters of the service, for each is to count what it sees; the strictest ruling holds.
#[inline(always)]
fn limit<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    service: &ServiceEntry,
    load: &Load<'_>,
    opens: bool,
) -> Result<Ruling, DropReason> {
    let datagram = load.datagram;
    let opens = if opens { OPENS } else { 0 };
    let capable = if ecn::is_capable(datagram.tos) { ECN_CAPABLE } else { 0 };
    let source = source_of(packet, load.link.length, datagram.is_ipv6).ok_or(DropReason::Inconsistent)?;
    let asker = Asker { source, bytes: (ETHERNET_LENGTH + datagram.length) as u32, traits: opens | capable };
    let mut strictest = ask_at_once(tables, service.limiters.first, &asker);
    for at in 1..MAX_LIMITERS {
        if at >= service.limiters.count {
            break;
        }
        strictest = strictest.max(tables.ask(service.limiters.first.wrapping_add(at), &asker));
    }
    match strictest {
        Ruling::Drop => Err(DropReason::Limited),
        Ruling::Inconsistent => Err(DropReason::Inconsistent),
        passed => Ok(passed),
    }
}

/// Sends a later fragment where the first one went.
#[inline(always)]
fn follow<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    link: &Link,
    datagram: &Datagram,
    fragment: &Fragment,
) -> Result<u32, Refusal> {
    // RFC 3128: the second piece must not be able to overwrite flags and ports that were judged in the first.
    if datagram.protocol == protocol::TCP && fragment.offset == 8 {
        return Err(DropReason::FragmentOverlap.into());
    }
    let hash = datagram.fragments(tables.hash_key(), fragment.identification);
    let Some(Piece::ToBackend(row)) = tables.recall_fragment(hash).map(Piece::from_word) else {
        let unknown = datagram.may_have_ports();
        return Err(if unknown {
            DropReason::FragmentUnknown.into()
        } else {
            // Its first fragment is the stack's too.
            PassReason::OtherProtocol.into()
        });
    };
    let backend = tables.backend(row).ok_or(DropReason::Inconsistent)?;
    let load = Load {
        hash: tables.hash_key().affinity(datagram.addresses),
        ..load(link, datagram, Payload::LaterPiece)
    };
    deliver(packet, &load, backend)?;
    tables.count_forwarded(row, (ETHERNET_LENGTH + datagram.length) as u64, false);
    Ok(backend.ifindex)
}
