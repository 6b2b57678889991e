//! ICMP and `ICMPv6` for a VIP: errors about packets that backends sent, and echo requests.

use crate::hash::HashKey;
use crate::ip::{Datagram, Part};
use crate::link::Link;
use crate::packet::Packet;
use crate::verdict::DropReason;
use crate::wire::{
    Be16, ICMP_LENGTH, IPV4_LENGTH, IcmpHeader, Ipv4Header, Ipv6Header, Ports, icmp, icmpv6, protocol,
};

/// What a message is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks for an echo.
    Echo,
    /// Tells of a packet that did not arrive.
    Error,
    /// Anything else: the host's stack may know.
    Other,
}

impl Message {
    /// Reads the message of a whole datagram, if it is one of the family's ICMP.
    #[inline(always)]
    pub fn parse<P: Packet>(
        packet: &P,
        link: &Link,
        datagram: &Datagram,
    ) -> Result<Option<Self>, DropReason> {
        let expected = if datagram.is_ipv6 { protocol::ICMPV6 } else { protocol::ICMP };
        if datagram.protocol != expected {
            return Ok(None);
        }
        let header: IcmpHeader = packet.read(link.length + datagram.header).ok_or(DropReason::IcmpQuote)?;
        if datagram.length < datagram.header + ICMP_LENGTH {
            return Err(DropReason::IcmpQuote);
        }
        Ok(Some(if datagram.is_ipv6 { Self::v6(header.kind) } else { Self::v4(header.kind) }))
    }

    #[inline(always)]
    const fn v4(kind: u8) -> Self {
        match kind {
            icmp::ECHO => Self::Echo,
            icmp::UNREACHABLE | icmp::SOURCE_QUENCH | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM => {
                Self::Error
            }
            _ => Self::Other,
        }
    }

    #[inline(always)]
    const fn v6(kind: u8) -> Self {
        match kind {
            icmpv6::ECHO => Self::Echo,
            1..=icmpv6::PARAMETER_PROBLEM => Self::Error,
            _ => Self::Other,
        }
    }
}

/// The packet that an error quotes: one that a backend sent to a client, as seen from the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Bytes before the quoted transport header.
    pub header: usize,
    /// Its transport protocol.
    pub protocol: u8,
    /// Ports of a packet from the client: the client's is the source.
    pub ports: Ports,
    /// Both addresses of such a packet, hashed.
    pub addresses: u64,
}

impl Quote {
    /// Reads the quoted packet behind the message's header; eight bytes of its transport header are enough (RFC 792).
    ///
    /// It must be from the very VIP that the error was sent to, and have ports: only a first fragment has them.
    #[inline(always)]
    pub fn parse<P: Packet>(
        packet: &P,
        link: &Link,
        datagram: &Datagram,
        key: &HashKey,
    ) -> Result<Self, DropReason> {
        let start = link.length + datagram.header + ICMP_LENGTH;
        let end = link.length + datagram.length;
        let quote = if datagram.is_ipv6 {
            Self::v6(packet, link, start, key)
        } else {
            Self::v4(packet, link, start, key)
        };
        let quote = quote.ok_or(DropReason::IcmpQuote)?;
        let known = matches!(quote.protocol, protocol::TCP | protocol::UDP);
        // Eight bytes of the quoted payload must be inside the datagram, not in what pads the frame.
        if known && start + quote.header + 8 <= end { Ok(quote) } else { Err(DropReason::IcmpQuote) }
    }

    #[inline(always)]
    fn v4<P: Packet>(packet: &P, link: &Link, start: usize, key: &HashKey) -> Option<Self> {
        let outer: Ipv4Header = packet.read(link.length)?;
        let quoted: Ipv4Header = packet.read(start)?;
        let header = usize::from(quoted.version_ihl & 0x0f) * 4;
        let sound = quoted.version_ihl >> 4 == 4 && header >= IPV4_LENGTH;
        let first = quoted.fragment.and(Be16::new(0x1fff)) == Be16::new(0);
        if !sound || !first || quoted.source != outer.destination {
            return None;
        }
        let ports: Ports = packet.read(start + header)?;
        let addresses = key.ipv4(quoted.destination, quoted.source);
        Some(Self { header, protocol: quoted.protocol, ports: ports.reversed(), addresses })
    }

    #[inline(always)]
    fn v6<P: Packet>(packet: &P, link: &Link, start: usize, key: &HashKey) -> Option<Self> {
        let outer: Ipv6Header = packet.read(link.length)?;
        let quoted: Ipv6Header = packet.read(start)?;
        if quoted.version_class_flow.get() >> 28 != 6 || quoted.source != outer.destination {
            return None;
        }
        let extensions = packet.extensions(start, quoted.next_header)?;
        if extensions.fragment().part == Part::Later {
            return None;
        }
        let (header, protocol) = (extensions.header(), extensions.protocol());
        let ports: Ports = packet.read(start + header)?;
        let addresses = key.ipv6(quoted.destination, quoted.source);
        Some(Self { header, protocol, ports: ports.reversed(), addresses })
    }
}
