//! TCP and UDP headers: ports, and whether the packet opens a connection.

use crate::ip::Datagram;
use crate::packet::Packet;
use crate::verdict::{DropReason, PassReason, Refusal};
use crate::wire::{
    ETHERNET_LENGTH, Ports, TCP_ACK, TCP_LENGTH, TCP_SYN, TcpStart, UDP_LENGTH, UdpHeader, protocol,
};

/// What the pipeline needs of a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source and destination port.
    pub ports: Ports,
    /// Whether it opens a connection: a SYN without ACK. Always false for UDP, which has no such mark.
    pub opens: bool,
}

impl Segment {
    /// Reads and checks the header that follows the datagram's IP header.
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P, datagram: &Datagram) -> Result<Self, Refusal> {
        // The datagram's length covers its header, and the frame covers the datagram: this cannot be negative.
        let available = (ETHERNET_LENGTH + datagram.length).wrapping_sub(datagram.transport);
        match datagram.protocol {
            protocol::TCP => Ok(Self::tcp(packet, datagram.transport, available)?),
            protocol::UDP => Ok(Self::udp(packet, datagram.transport, available)?),
            _ => Err(PassReason::OtherProtocol.into()),
        }
    }

    #[inline(always)]
    fn tcp<P: Packet>(packet: &P, at: usize, available: usize) -> Result<Self, DropReason> {
        let header: TcpStart = packet.read(at).ok_or(DropReason::TransportHeader)?;
        // RFC 9293, section 3.1: at least five words, all of them inside the datagram.
        let length = usize::from(header.data_offset >> 4) * 4;
        if length < TCP_LENGTH || length > available {
            return Err(DropReason::TransportHeader);
        }
        Ok(Self { ports: header.ports, opens: header.flags & (TCP_SYN | TCP_ACK) == TCP_SYN })
    }

    #[inline(always)]
    fn udp<P: Packet>(packet: &P, at: usize, available: usize) -> Result<Self, DropReason> {
        let header: UdpHeader = packet.read(at).ok_or(DropReason::TransportHeader)?;
        // RFC 768: the length counts the header too. What follows it inside the datagram is padding.
        let length = usize::from(header.length.get());
        if length < UDP_LENGTH || length > available {
            return Err(DropReason::TransportHeader);
        }
        Ok(Self { ports: header.ports, opens: false })
    }
}
