//! A packet socket (packet(7)) that sends whole frames and receives none: the second place of the daemon with `unsafe`.

use std::os::fd::OwnedFd;
use std::ptr;

use rustix::io;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

/// Sends frames by any interface of its network namespace. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub(super) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens the socket for no protocol, so that the kernel hands it no packets.
    pub(super) fn open() -> io::Result<Self> {
        socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None).map(Self)
    }

    /// Sends a frame, Ethernet header included, by the interface with this index.
    pub(super) fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        sendto(&self.0, frame, SendFlags::empty(), &LinkAddress::of(ifindex)).map(drop)
    }
}

/// `struct sockaddr_ll` (`linux/if_packet.h`), of which a raw socket reads family and interface only.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    ifindex: u32,
    hardware_type: u16,
    packet_type: u8,
    address_length: u8,
    address: [u8; 8],
}

const _: () = assert!(size_of::<LinkAddress>() == 20);

impl LinkAddress {
    fn of(ifindex: u32) -> Self {
        Self {
            family: AddressFamily::PACKET.as_raw(),
            protocol: 0,
            ifindex,
            hardware_type: 0,
            packet_type: 0,
            address_length: 0,
            address: [0; 8],
        }
    }
}

// SAFETY: the pointer is to a whole `struct sockaddr_ll`, initialised and without padding, and the length is its size.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}
