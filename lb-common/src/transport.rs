//! TCP and UDP headers: ports, and whether the packet opens a flow.

use crate::ip::Datagram;
use crate::packet::Packet;
use crate::verdict::{DropReason, PassReason, Refusal};
use crate::wire::{Be32, Ports, TCP_ACK, TCP_LENGTH, TCP_SYN, TcpStart, UDP_LENGTH, UdpHeader, protocol};

/// What the pipeline needs of a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source and destination port.
    pub ports: Ports,
    /// Whether it opens a connection: a SYN without ACK. Always false for UDP, which has no such mark.
    pub opens: bool,
}

impl Segment {
    /// Reads and checks the header that follows the IP header, which begins at `start`.
    ///
    /// `whole` is false of a first fragment, in which the header must be but not all that it counts.
    #[inline(always)]
    pub fn parse<P: Packet>(
        packet: &P,
        start: usize,
        datagram: &Datagram,
        whole: bool,
    ) -> Result<Self, Refusal> {
        // The datagram's length covers its header: this cannot be negative.
        let available = datagram.length.wrapping_sub(datagram.header);
        let at = start + datagram.header;
        match datagram.protocol {
            protocol::TCP => Ok(Self::tcp(packet, at, available)?),
            protocol::UDP => Ok(Self::udp(packet, at, available, whole)?),
            _ => Err(PassReason::OtherProtocol.into()),
        }
    }

    #[inline(always)]
    fn tcp<P: Packet>(packet: &P, at: usize, available: usize) -> Result<Self, DropReason> {
        let header: TcpStart = packet.read(at).ok_or(DropReason::TransportHeader)?;
        // RFC 9293, section 3.1: at least five words, all of them inside the datagram. A first fragment that ends before
        // is the tiny fragment of RFC 1858.
        let length = usize::from(header.data_offset >> 4) * 4;
        if length < TCP_LENGTH || length > available {
            return Err(DropReason::TransportHeader);
        }
        Ok(Self { ports: header.ports, opens: header.flags & (TCP_SYN | TCP_ACK) == TCP_SYN })
    }

    #[inline(always)]
    fn udp<P: Packet>(packet: &P, at: usize, available: usize, whole: bool) -> Result<Self, DropReason> {
        let header: UdpHeader = packet.read(at).ok_or(DropReason::TransportHeader)?;
        // RFC 768: the length counts the header too. What follows it inside the datagram is padding.
        let length = usize::from(header.length.get());
        if length < UDP_LENGTH || available < UDP_LENGTH || (whole && length > available) {
            return Err(DropReason::TransportHeader);
        }
        Ok(Self { ports: header.ports, opens: false })
    }
}

/// Bytes of a QUIC packet that tell what it is: its first, and its version.
const QUIC_START: usize = 5;

/// Whether a UDP datagram begins with a QUIC Initial packet, by which clients open connections. Its IP header begins at
/// `start`.
///
/// A long header's first bits are 11; the kind in the next two is 0 in version 1 (RFC 9000, section 17.2.2) and 1 in
/// version 2 (RFC 9369, section 3.2).
#[inline(always)]
pub fn is_quic_initial<P: Packet>(packet: &P, start: usize, datagram: &Datagram) -> bool {
    let at = datagram.header + UDP_LENGTH;
    if datagram.length < at + QUIC_START {
        return false;
    }
    let at = start + at;
    let (Some(first), Some(version)) = (packet.read::<u8>(at), packet.read::<Be32>(at + 1)) else {
        return false;
    };
    match version.get() {
        1 => first >> 4 == 0b1100,
        0x6b33_43cf => first >> 4 == 0b1101,
        _ => false,
    }
}
