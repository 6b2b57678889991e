//! What the operator wants, as types that cannot hold nonsense: services, backends, limits and health checks.
//!
//! Configuration, API and CLI all parse into these types; placement and reconciliation read nothing else.

mod admin;
mod desired;
pub mod diff;
mod limit;
mod lists;
mod outer_source;
mod prefix;
mod services;
mod slow_start;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::admin::AdminState;
pub use self::desired::Desired;
pub use self::limit::{
    Action, LEAST_BITS, Limit, LimitError, MAX_BIT_RATE, MAX_UNIT_RATE, Policy, Scope, Shape, Unit, WINDOWS,
};
pub use self::lists::{ListName, Lists, OnBothLists};
pub use self::outer_source::{OuterSource, OuterSourceError};
pub use self::prefix::{Prefix, PrefixError};
pub use self::services::{LimiterKey, Services};
pub use self::slow_start::{effective_weight, next_step};

/// The port of an endpoint: one number, or every port (`*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// Every port of the address.
    Any,
    /// One port.
    Number(NonZeroU16),
}

impl Port {
    /// The number, or `None` for every port.
    pub fn number(self) -> Option<u16> {
        match self {
            Self::Any => None,
            Self::Number(number) => Some(number.get()),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// An address and a port: `192.0.2.10:80`, `[2001:db8::1]:80`, `192.0.2.10:*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The IPv4 or IPv6 address; never an IPv4-mapped IPv6 address.
    pub address: IpAddr,
    /// The port, or every port.
    pub port: Port,
}

/// Why a text is not an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}; expected ADDRESS:PORT such as 10.0.1.30:8080 or [2001:db8::1]:8080")]
pub struct EndpointError {
    text: String,
    reason: String,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fail = |reason: String| EndpointError { text: text.to_owned(), reason };
        let (address, port) = text.rsplit_once(':').ok_or_else(|| fail("there is no port".to_owned()))?;
        let address = parse_address(address).map_err(fail)?;
        let port = parse_port(port).map_err(fail)?;
        Ok(Self { address, port })
    }
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inside.parse().map_err(|_| format!("{inside:?} is not an IPv6 address"))?;
        return match address.to_ipv4_mapped() {
            Some(v4) => Err(format!("{inside} is IPv4 in IPv6 clothes: write {v4}")),
            None => Ok(address.into()),
        };
    }
    if text.contains(':') {
        return Err("an IPv6 address stands in brackets".to_owned());
    }
    text.parse().map(IpAddr::V4).map_err(|_| ipv4_mistake(text))
}

/// Says which part of a dotted quad is wrong: "300 is not a byte" helps more than "invalid syntax".
fn ipv4_mistake(text: &str) -> String {
    let parts: Vec<&str> = text.split('.').collect();
    let numeric = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let four = parts.len() == 4 && parts.iter().all(numeric);
    if let Some(part) = parts.iter().find(|part| four && part.parse::<u8>().is_err()) {
        return format!("{part} is not a byte");
    }
    format!("{text:?} is not an IPv4 address (names are not resolved)")
}

fn parse_port(text: &str) -> Result<Port, String> {
    if text == "*" {
        return Ok(Port::Any);
    }
    let number: NonZeroU16 =
        text.parse().map_err(|_| format!("port {text:?} is not a number from 1 to 65535"))?;
    Ok(Port::Number(number))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// A backend's share relative to its siblings. Zero takes no new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Weight(pub u16);

impl Weight {
    /// What a backend has unless told otherwise.
    pub const DEFAULT: Self = Self(100);
}

impl Default for Weight {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol, RFC 9293.
    Tcp,
    /// User Datagram Protocol, RFC 768.
    Udp,
}

impl Protocol {
    /// The idle time-out of a service that names none: IPVS's for TCP (15 minutes) and netfilter's for UDP streams
    /// (2 minutes).
    pub fn idle_timeout(self) -> Duration {
        match self {
            Self::Tcp => Duration::from_mins(15),
            Self::Udp => Duration::from_mins(2),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// How a packet travels from the balancer to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardMode {
    /// Rewrite the MAC addresses; the backend shares a link with the balancer and holds the VIP.
    DsrL2,
    /// Wrap the packet in IP (RFC 2003, RFC 2473, RFC 4213); the backend unwraps it and holds the VIP.
    Ipip,
    /// Wrap the packet in UDP (GUE variant 1, draft-ietf-intarea-gue-09); the backend unwraps it and holds the VIP.
    Gue,
    /// Rewrite the destination to the backend's own address and port; its replies return through the balancer.
    Nat,
}

impl fmt::Display for ForwardMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DsrL2 => "dsr-l2",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Nat => "nat",
        })
    }
}

/// One server behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens; unique within its service.
    pub endpoint: Endpoint,
    /// Its share relative to its siblings.
    pub weight: Weight,
    /// What the operator asked of it.
    pub admin: AdminState,
}

/// How a backend is asked whether it is well: a TCP connection that is opened and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// How long a check may take; at most `interval`.
    pub timeout: Duration,
    /// Passed checks in a row that bring a backend up.
    pub rise: u32,
    /// Failed checks in a row that take a backend down.
    pub fall: u32,
    /// The port that is asked; the backend's own if absent.
    pub port: Option<NonZeroU16>,
}

/// What of a flow decides about its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// Addresses, ports and protocol: every flow by itself.
    #[default]
    Flow,
    /// The source address alone: all flows of a client meet at one backend.
    Source,
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flow => "flow",
            Self::Source => "source",
        })
    }
}

/// The port that GUE tunnels end at unless told otherwise (IANA, service name `gue`).
pub const GUE_PORT: NonZeroU16 = NonZeroU16::new(6080).unwrap();

/// What a service does in a way of its own; the default is what most services want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceOptions {
    /// What of a flow decides about its backend.
    pub affinity: Affinity,
    /// Whether UDP packets are QUIC: then long-header Initial packets open a flow (RFC 9000, section 17.2.2).
    pub quic: bool,
    /// After how long without a packet a flow counts as gone; see [`Service::idle_timeout`], whose default is never spelt out.
    pub idle_timeout: Option<Duration>,
    /// How long backends drain; for ever if absent. See [`Service::drain_timeout`].
    pub drain_timeout: Option<Duration>,
    /// How long the weight of a backend that came into service rises; see [`effective_weight`]. At once if absent.
    pub slow_start: Option<Duration>,
    /// Whether the balancer answers ARP requests and neighbour solicitations for the VIP on its interfaces.
    pub announce: bool,
    /// Source of outer headers; the kernel's preferred source towards the backend if absent.
    pub outer_source: Option<OuterSource>,
    /// UDP port of GUE tunnels; [`GUE_PORT`] if absent, which is never spelt out.
    pub gue_port: Option<NonZeroU16>,
}

/// A VIP, port and protocol, with the policy for its packets and the backends that serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique among services; letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The virtual address and port.
    pub vip: Endpoint,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How packets travel to the backends.
    pub mode: ForwardMode,
    /// Slots of its Maglev table: a prime.
    pub table_size: u32,
    /// What may be sent to it, by whom: all are asked, and the strictest decides.
    pub limits: Vec<Limit>,
    /// How its backends are checked; `None` believes them all.
    pub health: Option<HealthCheck>,
    /// What it does in a way of its own.
    pub options: ServiceOptions,
    /// Its servers, in the order they were given.
    pub backends: Vec<Backend>,
}

impl Service {
    /// A flow that sends nothing for this long may be forgotten, and with it where its packets went.
    pub fn idle_timeout(&self) -> Duration {
        self.options.idle_timeout.unwrap_or(self.protocol.idle_timeout())
    }

    /// How long a backend in this state keeps its flows while it drains: as was said with the drain, else as the service
    /// has it. `None` if it does not drain, or for ever.
    pub fn drain_timeout(&self, admin: AdminState) -> Option<Duration> {
        match admin {
            AdminState::Drain { timeout } => timeout.or(self.options.drain_timeout),
            AdminState::Ready | AdminState::Maintenance => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        text.parse::<Endpoint>().unwrap_err().reason
    }

    #[test]
    fn endpoints_survive_a_round_trip() {
        for text in ["192.0.2.10:80", "[2001:db8::1]:443", "192.0.2.10:*", "[2001:db8::1]:*"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn endpoint_errors_name_the_mistake() {
        assert_eq!(reason("10.0.1.300:8080"), "300 is not a byte");
        assert_eq!(reason("10.0.1.3"), "there is no port");
        assert_eq!(reason("2001:db8::1:80"), "an IPv6 address stands in brackets");
        assert_eq!(reason("[::ffff:10.0.0.1]:80"), "::ffff:10.0.0.1 is IPv4 in IPv6 clothes: write 10.0.0.1");
        assert_eq!(reason("10.0.0.1:0"), "port \"0\" is not a number from 1 to 65535");
        assert_eq!(
            reason("web.example:80"),
            "\"web.example\" is not an IPv4 address (names are not resolved)"
        );
    }
}
