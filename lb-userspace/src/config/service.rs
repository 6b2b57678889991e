//! The `[[service]]` sections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use lb_common::maglev::TableSize;

use super::admin::read_admin_state;
use super::conflicts::{NatConflict, nat_conflicts};
use super::document::{Node, Section};
use super::keys;
use super::limit::read_limits;
use super::options::{Context, read_options};
use super::rules::{
    LimitConflict, MAX_BACKENDS, check_backend, check_limits, check_name, check_table_size, check_vip,
};
use super::units::parse_duration;
use crate::model::{Backend, Endpoint, ForwardMode, HealthCheck, Limit, Port, Protocol, Service, Weight};

pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);
pub(super) const DEFAULT_RISE: u32 = 2;
pub(super) const DEFAULT_FALL: u32 = 3;

/// Shorter intervals load the backends more than they tell; longer ones are a typing mistake.
pub(super) const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);

/// Ports that somebody can listen at.
pub(super) const PORTS: RangeInclusive<u32> = 1..=65_535;
/// Checks in a row that decide.
pub(super) const COUNTS: RangeInclusive<u32> = 1..=100;
/// Shares of backends.
pub(super) const WEIGHTS: RangeInclusive<u32> = 0..=65_535;

const LIMIT_EXAMPLE: &str = "[{ scope = \"source\", packets = \"1k/s\", burst = 200, action = \"drop\" }]";

const MODES: [(&str, ForwardMode); 4] = [
    ("dsr-l2", ForwardMode::DsrL2),
    ("ipip", ForwardMode::Ipip),
    ("gue", ForwardMode::Gue),
    ("nat", ForwardMode::Nat),
];

/// The services of all files, each mistake noted.
pub(super) fn read_all(nodes: &[Node<'_>], shared: &[Limit]) -> Vec<Service> {
    let mut seen = Seen::default();
    let items = nodes.iter().flat_map(|node| node.items("[[service]] sections").unwrap_or_default());
    let read: Vec<Read<'_>> = items.filter_map(|item| read_service(item, shared, &mut seen)).collect();
    let services: Vec<&Service> = read.iter().map(|read| &read.service).collect();
    for NatConflict { service, backend, error } in nat_conflicts(&services) {
        read[service].addresses[backend].note(error.to_string());
    }
    read.into_iter().map(|read| read.service).collect()
}

/// A service, and where the document has the addresses of its backends.
struct Read<'d> {
    service: Service,
    addresses: Vec<Node<'d>>,
}

/// What must be unique among services, and where the document has it.
#[derive(Default)]
struct Seen<'d> {
    names: HashMap<&'d str, Node<'d>>,
    vips: HashMap<(Endpoint, Protocol), (&'d str, Node<'d>)>,
}

fn read_service<'d>(node: Node<'d>, shared: &[Limit], seen: &mut Seen<'d>) -> Option<Read<'d>> {
    let title = node.peek_text("name").map(|name| format!("service {name}"));
    let node = node.titled(title);
    let section = node.section(&keys::SERVICE.names())?;
    let name = read_name(&section, seen);
    let vip = read_vip(&section);
    let protocol = section.required("protocol", "protocol = \"tcp\"");
    let protocol = protocol.and_then(|node| node.word(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]));
    let mode = section.required("mode", "mode = \"dsr-l2\"").and_then(|node| node.word(&MODES));
    let table_size = read_table_size(&section);
    let limits =
        section.optional("limit").map(|node| read_limits(&node.items(LIMIT_EXAMPLE).unwrap_or_default()));
    let (limits, limit_nodes): (Vec<_>, Vec<_>) = limits.unwrap_or_default().into_iter().unzip();
    let health = section.optional("health").and_then(|node| read_health(&node, vip));
    let target = vip.zip(mode);
    let backends = section.optional("backends").map(|node| read_backends(&node, target)).unwrap_or_default();
    let (backends, addresses): (Vec<_>, Vec<_>) = backends.into_iter().unzip();
    let options = read_options(&section, &Context { protocol, mode, backends: &backends });
    let (name, vip, protocol, mode) = (name?, vip?, protocol?, mode?);
    claim_vip(&section, name, (vip, protocol), seen);
    let name = name.to_owned();
    let service = Service { name, vip, protocol, mode, table_size, limits, health, options, backends };
    for LimitConflict { limit, error } in check_limits(&service, shared) {
        limit_nodes[limit].note(error);
    }
    Some(Read { service, addresses })
}

fn read_name<'d>(section: &Section<'d>, seen: &mut Seen<'d>) -> Option<&'d str> {
    let node = section.required("name", "name = \"web\"")?;
    let name = node.text()?;
    if let Err(error) = check_name(name) {
        node.note(error.to_string());
    }
    match seen.names.entry(name) {
        Entry::Occupied(first) => {
            node.note(format!("the service on {} has the same name", node.place_of(first.get())));
        }
        Entry::Vacant(place) => {
            place.insert(node);
        }
    }
    Some(name)
}

fn read_vip(section: &Section<'_>) -> Option<Endpoint> {
    let node = section.required("vip", "vip = \"192.0.2.10:80\"")?;
    let vip = node.parsed()?;
    check_vip(vip).map_err(|error| node.note(error.to_string())).ok()?;
    Some(vip)
}

fn claim_vip<'d>(section: &Section<'d>, name: &'d str, key: (Endpoint, Protocol), seen: &mut Seen<'d>) {
    let Some(node) = section.optional("vip") else { return };
    match seen.vips.entry(key) {
        Entry::Occupied(first) => {
            let (vip, protocol) = key;
            let (other, first) = first.get();
            node.note(format!("{vip} {protocol} belongs to service {other} on {}", node.place_of(first)));
        }
        Entry::Vacant(place) => {
            place.insert((name, node));
        }
    }
}

fn read_table_size(section: &Section<'_>) -> u32 {
    let Some(node) = section.optional("table_size") else { return TableSize::DEFAULT.slots() };
    let Some(size) = node.integer(2..=TableSize::MAX) else { return TableSize::DEFAULT.slots() };
    if let Err(error) = check_table_size(size) {
        node.note(error.to_string());
    }
    size
}

fn read_health(node: &Node<'_>, vip: Option<Endpoint>) -> Option<HealthCheck> {
    let section = node.section(&keys::HEALTH.names())?;
    let kind = section.required("kind", "kind = \"tcp\"").and_then(|node| node.word(&[("tcp", ())]));
    let interval = section.optional("interval").map_or(Some(DEFAULT_INTERVAL), |node| read_interval(&node));
    let timeout = read_timeout(&section, interval);
    let count = |key, default| section.optional(key).map_or(Some(default), |node| node.integer(COUNTS));
    let (rise, fall) = (count("rise", DEFAULT_RISE), count("fall", DEFAULT_FALL));
    let port = section.optional("port");
    if port.is_none() && vip.is_some_and(|vip| vip.port == Port::Any) {
        section.note_missing("port", "port = 80, since the service has no port of its own");
    }
    let port = port.and_then(|node| read_port(&node));
    let () = kind?;
    Some(HealthCheck { interval: interval?, timeout: timeout?, rise: rise?, fall: fall?, port })
}

pub(super) fn read_port(node: &Node<'_>) -> Option<NonZeroU16> {
    node.integer(PORTS).and_then(|port| NonZeroU16::new(port as u16))
}

fn read_interval(node: &Node<'_>) -> Option<Duration> {
    let interval = node.read_with(parse_duration)?;
    if !INTERVALS.contains(&interval) {
        node.note(format!("{interval:?} is not from 100ms to 60m"));
        return None;
    }
    Some(interval)
}

/// Without a time-out of its own a short interval shortens it.
fn read_timeout(section: &Section<'_>, interval: Option<Duration>) -> Option<Duration> {
    let Some(node) = section.optional("timeout") else {
        return interval.map(|interval| interval.min(DEFAULT_TIMEOUT));
    };
    let timeout = node.read_with(parse_duration)?;
    if timeout.is_zero() {
        node.note("a check needs time; expected at least 1ms");
    }
    if interval.is_some_and(|interval| timeout > interval) {
        node.note(format!("{timeout:?} is longer than the interval, {:?}", interval.unwrap_or_default()));
    }
    Some(timeout)
}

/// The backends, each with its address in the document. `target` is absent when VIP or mode are wrong: then what depends on them cannot be judged.
fn read_backends<'d>(node: &Node<'d>, target: Option<(Endpoint, ForwardMode)>) -> Vec<(Backend, Node<'d>)> {
    let items = node.items("[{ address = \"10.0.1.1:80\" }]").unwrap_or_default();
    if items.len() > MAX_BACKENDS {
        node.note(format!("{} backends are more than {MAX_BACKENDS}, the most of a service", items.len()));
    }
    let mut seen = HashMap::new();
    items.iter().filter_map(|item| read_backend(item, target, &mut seen)).collect()
}

fn read_backend<'d>(
    node: &Node<'d>,
    target: Option<(Endpoint, ForwardMode)>,
    seen: &mut HashMap<Endpoint, Node<'d>>,
) -> Option<(Backend, Node<'d>)> {
    let section = node.section(&keys::BACKENDS.names())?;
    let weight = section.optional("weight").and_then(|node| node.integer(WEIGHTS));
    let weight = weight.map_or_else(Weight::default, |weight| Weight(weight as u16));
    let admin = read_admin_state(&section);
    let address = section.required("address", "address = \"10.0.1.1:80\"")?;
    let endpoint = address.parsed()?;
    if let Some(Err(error)) = target.map(|(vip, mode)| check_backend(vip, mode, endpoint)) {
        address.note(error.to_string());
    }
    if let Some(first) = seen.insert(endpoint, address.clone()) {
        let first = address.place_of(&first);
        address.note(format!("{endpoint} is already a backend of the service, on {first}"));
    }
    Some((Backend { endpoint, weight, admin }, address))
}
