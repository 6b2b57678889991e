//! What a network card does to packets before the kernel sees them.

use rustix::ioctl::{Opcode, Updater, ioctl};
use rustix::net::{AddressFamily, SocketType, socket};

use super::Finding;

/// `SIOCETHTOOL` of include/uapi/linux/sockios.h.
const SIOCETHTOOL: Opcode = 0x8946;
/// `ETHTOOL_GFLAGS` and `ETH_FLAG_LRO` of include/uapi/linux/ethtool.h.
const GET_FLAGS: u32 = 0x25;
/// As [`GET_FLAGS`].
const LRO: u32 = 1 << 15;

/// `struct ethtool_value` of include/uapi/linux/ethtool.h.
#[repr(C)]
struct Flags {
    command: u32,
    flags: u32,
}

/// `struct ifreq` of include/uapi/linux/if.h, with a pointer in its union, which has 24 bytes.
#[repr(C)]
struct Request {
    name: [u8; 16],
    data: *mut Flags,
    rest: [u64; 2],
}

/// Whether an interface joins packets as it receives them; `None` if it does not tell.
pub fn large_receive(name: &str) -> Option<bool> {
    let mut flags = Flags { command: GET_FLAGS, flags: 0 };
    let mut request = Request { name: [0; 16], data: &raw mut flags, rest: [0; 2] };
    // One byte stays zero: the name ends there.
    request.name[..15].get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    // SAFETY: the request is what this ioctl takes.
    let asked = unsafe { Updater::<SIOCETHTOOL, Request>::new(&mut request) };
    // SAFETY: the kernel reads the name and the command, and writes the flags behind the pointer, which outlive the call.
    unsafe { ioctl(any, asked) }.ok()?;
    Some(flags.flags & LRO != 0)
}

/// What follows from it for packets that are to be forwarded.
pub(super) fn joined(name: &str, is_on: Option<bool>) -> Finding {
    let check = format!("{name} lro");
    match is_on {
        Some(true) => Finding::note(
            check,
            "on",
            "the card joins packets before anybody sees them: drivers turn that off for XDP or refuse the program, and joined packets \
             that are forwarded fit no link",
        )
        .mended_by(format!("ethtool -K {name} lro off")),
        Some(false) => Finding::well(check, "off"),
        None => Finding::well(check, "not told"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn loopback_joins_nothing_and_others_are_not_there() {
        assert_eq!(large_receive("lo"), Some(false));
        assert_eq!(large_receive("nobody0"), None);
        assert_eq!(large_receive("a-name-that-is-longer-than-any"), None);
    }

    #[test]
    fn what_is_joined_is_to_be_turned_off() {
        let found = joined("eth0", Some(true));
        assert_eq!(
            (found.severity, found.mend.as_deref()),
            (Severity::Note, Some("ethtool -K eth0 lro off"))
        );
        assert_eq!(joined("eth0", Some(false)).severity, Severity::Well);
        assert_eq!(joined("eth0", None).found, "not told");
    }
}
