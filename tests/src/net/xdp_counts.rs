//! What a veth itself counts of the XDP program on it (`veth_get_ethtool_stats` of drivers/net/veth.c): a judge of what the
//! program says it did. Asked by ethtool's `ioctl`, so that the `ethtool` command need not be installed.

use std::io;
use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, SocketType, socket};

/// `SIOCETHTOOL` of include/uapi/linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GSTRINGS`, `ETHTOOL_GSTATS`, `ETHTOOL_GSSET_INFO` and `ETH_SS_STATS` of include/uapi/linux/ethtool.h.
const GET_STRINGS: u32 = 0x1b;
const GET_STATS: u32 = 0x1d;
const GET_SET_INFO: u32 = 0x37;
const STATS: u32 = 1;
/// `ETH_GSTRING_LEN` of the same.
const NAME_LENGTH: usize = 32;

/// What became of the packets that a veth showed to its program since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounts {
    /// Packets in all, also those for which there was no program.
    pub packets: u64,
    /// Dropped.
    pub drops: u64,
    /// Sent to another interface.
    pub redirects: u64,
    /// Sent back where they came from.
    pub returns: u64,
    /// Lost by the kernel, which could not do what the program said.
    pub failures: u64,
}

impl XdpCounts {
    /// Packets that the host's stack got.
    pub fn passed(&self) -> u64 {
        self.packets - self.drops - self.redirects - self.returns - self.failures
    }

    /// What has happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            drops: self.drops - earlier.drops,
            redirects: self.redirects - earlier.redirects,
            returns: self.returns - earlier.returns,
            failures: self.failures - earlier.failures,
        }
    }

    fn add(&mut self, name: &str, value: u64) {
        // Those of the sending side begin with `tx_queue_`, and are of frames that others sent here.
        let Some((_, what)) = name.strip_prefix("rx_queue_").and_then(|rest| rest.split_once('_')) else {
            return;
        };
        match what {
            "xdp_packets" => self.packets += value,
            "xdp_drops" => self.drops += value,
            "xdp_redirect" => self.redirects += value,
            "xdp_tx" => self.returns += value,
            "drops" | "xdp_tx_errors" => self.failures += value,
            _ => {}
        }
    }
}

/// The counts of a device in the namespace of the calling thread.
pub(super) fn read(device: &str) -> Result<XdpCounts> {
    // ethtool_sset_info: command, nothing, a mask in 64 bits, and a length for each bit.
    let mut info = [GET_SET_INFO, 0, 1 << STATS, 0, 0];
    ask(device, &mut info).context("cannot ask how many counters there are")?;
    let count = info[4] as usize;
    // ethtool_gstrings: command, which strings, how many; then the strings.
    let mut names = vec![0; 3 + count * NAME_LENGTH / 4];
    names[..3].copy_from_slice(&[GET_STRINGS, STATS, info[4]]);
    ask(device, &mut names).context("cannot ask for the names of counters")?;
    // ethtool_stats: command, how many; then 64 bits each.
    let mut values = vec![0; 2 + count * 2];
    values[..2].copy_from_slice(&[GET_STATS, info[4]]);
    ask(device, &mut values).context("cannot ask for counters")?;
    ensure!(names[2] == info[4] && values[1] == info[4], "{device} has other counters from moment to moment");

    let mut counts = XdpCounts::default();
    let names: &[u8] = bytemuck::cast_slice(&names[3..]);
    for (name, value) in names.chunks_exact(NAME_LENGTH).zip(values[2..].chunks_exact(2)) {
        let name: String = name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
        counts.add(&name, u64::from(value[1]) << 32 | u64::from(value[0]));
    }
    Ok(counts)
}

/// `struct ifreq` of include/uapi/linux/if.h, with a pointer in its union, which has 24 bytes.
#[repr(C)]
struct Request {
    name: [u8; 16],
    data: *mut u32,
    rest: [u64; 2],
}

fn ask(device: &str, words: &mut [u32]) -> Result<()> {
    let mut name = [0; 16];
    // One byte stays zero: the name ends there.
    name[..15].get_mut(..device.len()).context("too long a name")?.copy_from_slice(device.as_bytes());
    let mut request = Request { name, data: words.as_mut_ptr(), rest: [0; 2] };
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: the kernel reads the request and the words, and writes as many words as they say there is room for.
    let code = unsafe { libc::ioctl(any.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if code < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_receiving_side_counts() {
        let mut counts = XdpCounts::default();
        for (name, value) in [
            ("rx_queue_0_xdp_packets", 10),
            ("rx_queue_1_xdp_packets", 5),
            ("rx_queue_0_xdp_drops", 1),
            ("rx_queue_0_drops", 2),
            ("tx_queue_0_xdp_xmit", 100),
            ("peer_ifindex", 7),
        ] {
            counts.add(name, value);
        }
        assert_eq!(counts, XdpCounts { packets: 15, drops: 1, failures: 2, ..XdpCounts::default() });
        assert_eq!(counts.passed(), 12);
    }

    #[test]
    fn nobody_has_no_counters() {
        assert!(read("nobody0").is_err());
    }
}
