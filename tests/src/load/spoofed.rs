//! A flood of datagrams whose sources are invented, as fast as one thread sends them and not a moment longer.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use lb_common::wire::{Be16, Ipv4Address, Ipv4Header, Ports, UdpHeader, protocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::interrupt;
use crate::net::Namespace;

/// Datagrams between two looks at the clock.
const BATCH: u32 = 64;

/// A flood from all addresses of a prefix, in an order that looks random.
#[derive(Clone, Copy, Debug)]
pub struct SpoofedFlood {
    /// Whom it hits.
    pub target: SocketAddrV4,
    /// The first address, and how many bits after its prefix are invented: 1 to 31.
    pub sources: (Ipv4Addr, u32),
    /// How long.
    pub duration: Duration,
}

/// A flood that is going on.
#[derive(Debug)]
pub struct RunningSpoof(JoinHandle<Result<Result<u64>>>);

impl SpoofedFlood {
    /// Starts the flood from inside a namespace.
    pub fn start(self, namespace: &Namespace) -> RunningSpoof {
        RunningSpoof(namespace.spawn(move || self.run()))
    }

    /// The datagrams that were sent.
    fn run(self) -> Result<u64> {
        // This protocol says that the IP header comes with the data; the kernel fills in its checksum (raw(7)).
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))
            .context("cannot open the flood's socket")?;
        let (first, bits) = self.sources;
        let (mut sent, mut state) = (0, 1_u32);
        let begun = Instant::now();
        while begun.elapsed() < self.duration {
            interrupt::check()?;
            for _ in 0..BATCH {
                // Numerical Recipes' generator: every number once in 2^32.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let source = Ipv4Addr::from_bits(first.to_bits() | state >> (32 - bits));
                match sendto(&raw, &self.datagram(source), SendFlags::empty(), &self.target) {
                    Ok(_) => sent += 1,
                    Err(Errno::NOBUFS | Errno::AGAIN) => {}
                    Err(error) => return Err(error).context("cannot send"),
                }
            }
        }
        Ok(sent)
    }

    fn datagram(&self, source: Ipv4Addr) -> [u8; 28] {
        let ip = Ipv4Header {
            version_ihl: 0x45,
            tos: 0,
            total_length: Be16::new(28),
            identification: Be16::new(0),
            fragment: Be16::new(0),
            ttl: 64,
            protocol: protocol::UDP,
            checksum: Be16::new(0),
            source: Ipv4Address::new(source.octets()),
            destination: Ipv4Address::new(self.target.ip().octets()),
        };
        let ports = Ports::new(40_000, self.target.port());
        let udp = UdpHeader { ports, length: Be16::new(8), checksum: Be16::new(0) };
        let mut datagram = [0; 28];
        datagram[..20].copy_from_slice(bytemuck::bytes_of(&ip));
        datagram[20..].copy_from_slice(bytemuck::bytes_of(&udp));
        datagram
    }
}

impl RunningSpoof {
    /// Waits for the flood's end, which it knows itself.
    pub fn finish(self) -> Result<u64> {
        self.0.join().map_err(|_| anyhow!("the flood panicked"))??
    }
}
