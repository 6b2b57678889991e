//! A packet or two through a loaded program before any other gets there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};

use super::LoadError;

/// Why a program is not let at packets.
#[derive(Debug, thiserror::Error)]
pub enum SmokeError {
    /// There is none.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It cannot be run.
    #[error("the new program could not be tried, so it was not attached: {0}")]
    NotRun(#[from] ProgramError),
    /// It does something else than it should.
    #[error(
        "the new program was not attached: it says {action} to {packet}, where it should say {expected}; please report it"
    )]
    Wrong {
        /// What it was given.
        packet: String,
        /// What it said.
        action: u32,
        /// What it should say.
        expected: u32,
    },
}

/// Actions of `enum xdp_action` (include/uapi/linux/bpf.h).
const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

/// Tries the program on a packet that is not for us and on an echo request for each of some VIPs, which it answers itself
/// beyond the first tail call. With a `denying` list the latter may be dropped.
///
/// No interface counts these packets.
pub(super) fn try_out(
    program: &Xdp,
    vips: impl Iterator<Item = IpAddr>,
    denying: bool,
) -> Result<(), SmokeError> {
    let stranger = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 0x88, 0xb5], &[0; 50]].concat();
    expect(program, "a packet that is not for us", &stranger, PASS, PASS)?;
    for vip in vips {
        let also = if denying { DROP } else { TX };
        expect(program, &format!("an echo request to {vip}"), &echo_request(vip), TX, also)?;
    }
    Ok(())
}

fn expect(program: &Xdp, packet: &str, frame: &[u8], expected: u32, also: u32) -> Result<(), SmokeError> {
    let options = TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::default() };
    let action = program.test_run(options)?.return_value;
    if action == expected || action == also {
        return Ok(());
    }
    Err(SmokeError::Wrong { packet: packet.to_owned(), action, expected })
}

/// An echo request from an address for measurements (RFC 2544, RFC 5180).
fn echo_request(vip: IpAddr) -> Vec<u8> {
    let ethernet = |kind: [u8; 2]| [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &kind].concat();
    match vip {
        IpAddr::V4(vip) => {
            let mut ip = [0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 1, 0, 0].to_vec();
            ip.extend(Ipv4Addr::new(198, 18, 0, 1).octets());
            ip.extend(vip.octets());
            let sum = checksum(&ip);
            ip[10..12].copy_from_slice(&sum);
            [ethernet([0x08, 0]), ip, echo(8, &[])].concat()
        }
        IpAddr::V6(vip) => {
            let addresses = [Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1).octets(), vip.octets()].concat();
            let message = echo(128, &[&addresses[..], &[0, 0, 0, 8, 0, 0, 0, 58]].concat());
            [ethernet([0x86, 0xdd]), vec![0x60, 0, 0, 0, 0, 8, 58, 64], addresses, message].concat()
        }
    }
}

/// An echo request of this type, whose checksum is also over a pseudo header.
fn echo(kind: u8, pseudo: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1];
    let sum = checksum(&[pseudo, &message].concat());
    message[2..4].copy_from_slice(&sum);
    message
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}
