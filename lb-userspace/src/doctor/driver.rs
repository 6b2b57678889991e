//! What the driver of a network card can do, and what it does to packets before the kernel sees them.

use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use rtnetlink::packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _, NlasIterator,
    Parseable as _, ParseableParametrized,
};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::ioctl::{Opcode, Updater, ioctl};
use rustix::net::{AddressFamily, SocketType, socket};

use super::Finding;
use crate::datapath::attach::interface_index;

/// Drivers whose kernels run XDP natively (`ndo_bpf` in drivers/net of Linux 6.1), and those that are no hardware:
/// who is asked where the kernel does not tell, before 6.3.
const NATIVE: [&str; 30] = [
    "atlantic",
    "bnxt_en",
    "bonding",
    "ena",
    "enetc",
    "fsl_dpa",
    "fsl_dpaa2_eth",
    "fun",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "lan966x",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "nfp",
    "nicvf",
    "qede",
    "sfc",
    "stmmac",
    "tsnep",
    "veth",
    "virtio_net",
];

/// What a driver tells of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Whether it joins packets as it receives them; `None` if it does not tell.
    pub large_receive: Option<bool>,
    /// What it can do with XDP, `enum netdev_xdp_act` of include/uapi/linux/netdev.h; `None` before Linux 6.3.
    pub xdp_features: Option<u64>,
}

impl Told {
    /// What the driver of this interface tells.
    pub fn by(interface: &str) -> Self {
        Self { large_receive: large_receive(interface), xdp_features: xdp_features(interface) }
    }
}

/// `NETDEV_XDP_ACT_BASIC`: the program runs in the driver, and may pass, drop and send back packets.
const BASIC: u64 = 1;
/// `NETDEV_XDP_ACT_REDIRECT`: it may send packets out by other interfaces.
const REDIRECT: u64 = 2;

/// What the driver's abilities mean for the program.
pub(super) fn native(name: &str, driver: Option<String>, features: Option<u64>) -> Finding {
    let check = format!("{name} driver");
    let listed = driver.as_ref().map(|driver| NATIVE.contains(&driver.as_str()));
    let driver = driver.unwrap_or_else(|| "none, since it is not hardware".to_owned());
    let generic = "then the program is attached generically: it works, behind the kernel's allocation of each packet, at a fraction of the \
                   speed; `lb status` tells which it is";
    match (features, listed) {
        (Some(features), _) if features & (BASIC | REDIRECT) == BASIC | REDIRECT => {
            Finding::well(check, format!("{driver}; it says that it runs XDP natively and redirects"))
        }
        (Some(features), _) if features & BASIC != 0 => Finding::note(
            check,
            format!("{driver}; it says that it runs XDP natively but does not redirect"),
            "then packets leave by the interface that they came in by, and those for other interfaces are dropped",
        ),
        (Some(_), _) => Finding::note(check, format!("{driver}; it says that it does not run XDP"), generic),
        (None, None) => Finding::well(check, driver),
        (None, Some(true)) => Finding::well(check, format!("{driver}, which runs XDP natively")),
        (None, Some(false)) => {
            Finding::note(check, format!("{driver}, which may not run XDP natively"), generic)
        }
    }
}

/// Commands and attributes of the family `netdev` (include/uapi/linux/netdev.h).
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// A message of the family `netdev` about a device.
#[derive(Clone, Debug)]
struct Device(Vec<DefaultNla>);

impl GenlFamily for Device {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        NETDEV_CMD_DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Device {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Device {
    fn parse_with_param(buffer: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        NlasIterator::new(buffer).map(|nla| DefaultNla::parse(&nla?)).collect::<Result<_, _>>().map(Self)
    }
}

/// What an interface's driver can do with XDP; `None` if the kernel does not tell.
fn xdp_features(name: &str) -> Option<u64> {
    let mut generic = Socket::new(NETLINK_GENERIC).ok()?;
    generic.bind_auto().ok()?;
    generic.connect(&SocketAddr::new(0, 0)).ok()?;
    let family = vec![GenlCtrlAttrs::FamilyName(Device::family_name().to_owned())];
    let family =
        ask(&generic, GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: family }))?;
    let id = family.nlas.iter().find_map(|nla| match nla {
        GenlCtrlAttrs::FamilyId(id) => Some(*id),
        _ => None,
    })?;
    let index = interface_index(name)?;
    let device = Device(vec![DefaultNla::new(NETDEV_A_DEV_IFINDEX, index.to_ne_bytes().to_vec())]);
    let mut message = GenlMessage::from_payload(device);
    message.set_resolved_family_id(id);
    let told = ask(&generic, message)?;
    let features = told.0.iter().find(|nla| nla.kind() == NETDEV_A_DEV_XDP_FEATURES)?;
    let mut value = [0; 8];
    (features.value_len() == value.len()).then(|| features.emit_value(&mut value))?;
    Some(u64::from_ne_bytes(value))
}

/// What the kernel answers; `None` where it refuses.
fn ask<F>(kernel: &Socket, mut message: GenlMessage<F>) -> Option<F>
where
    F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Clone + std::fmt::Debug,
{
    message.finalize();
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    kernel.send(&bytes, 0).ok()?;
    let (answer, _) = kernel.recv_from_full().ok()?;
    match NetlinkMessage::<GenlMessage<F>>::deserialize(&answer).ok()?.payload {
        NetlinkPayload::InnerMessage(message) => Some(message.into_parts().1),
        _ => None,
    }
}

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
fn large_receive(name: &str) -> Option<bool> {
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
    fn the_kernel_tells_what_drivers_can() {
        // Loopback runs no XDP in its driver; whether the kernel tells that depends on its age.
        let tells = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = tells.split(['.', '-']).map_while(|number| number.trim().parse::<u32>().ok());
        let is_new = (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 3);
        assert_eq!(xdp_features("lo"), is_new.then_some(0), "Linux {tells}");
        assert_eq!(xdp_features("nobody0"), None);
    }

    #[test]
    fn a_driver_is_believed_before_a_list() {
        let found = |driver: Option<&str>, features| native("eth0", driver.map(str::to_owned), features);
        assert_eq!(found(Some("e1000"), Some(BASIC | REDIRECT)).severity, Severity::Well);
        assert_eq!(found(Some("mlx5_core"), Some(0)).severity, Severity::Note);
        assert_eq!(found(Some("mlx5_core"), None).severity, Severity::Well);
        assert_eq!(found(Some("e1000"), None).severity, Severity::Note);
        assert_eq!(found(None, None).severity, Severity::Well);
        let halting = found(Some("tsnep"), Some(BASIC));
        assert_eq!(halting.found, "tsnep; it says that it runs XDP natively but does not redirect");
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
