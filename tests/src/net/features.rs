//! Device features such as checksum offload, switched over ethtool's generic netlink family, so that the `ethtool`
//! command need not be installed. Numbers: `linux/{netlink,genetlink,ethtool_netlink_generated}.h`.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, bind, netlink, recv, send, socket};

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 2;
const NESTED: u16 = 1 << 15;

const CONTROL_FAMILY: u16 = 16;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;

const ETHTOOL_SET_FEATURES: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const HEADER_DEVICE: u16 = 2;
const BITSET_BITS: u16 = 3;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// nlmsghdr and genlmsghdr.
const HEADERS: usize = 16 + 4;

/// Switches features of a device in the namespace of the calling thread.
pub(super) fn set(device: &str, features: &[(&str, bool)]) -> Result<()> {
    let kernel = Kernel::connect().context("cannot open a netlink socket")?;
    let family = kernel.family("ethtool").context("the kernel has no ethtool netlink")?;
    let bits: Vec<u8> = features.iter().flat_map(|(name, on)| feature(name, *on)).collect();
    let body = [
        attribute(FEATURES_HEADER | NESTED, &attribute(HEADER_DEVICE, &text(device))),
        attribute(FEATURES_WANTED | NESTED, &attribute(BITSET_BITS | NESTED, &bits)),
    ];
    kernel
        .ask(family, ETHTOOL_SET_FEATURES, &body.concat())
        .with_context(|| format!("cannot set {features:?} on {device}"))?;
    Ok(())
}

fn feature(name: &str, on: bool) -> Vec<u8> {
    let mut bit = attribute(BIT_NAME, &text(name));
    if on {
        bit.extend(attribute(BIT_VALUE, &[]));
    }
    attribute(BITS_BIT | NESTED, &bit)
}

struct Kernel(OwnedFd);

impl Kernel {
    fn connect() -> rustix::io::Result<Self> {
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::GENERIC))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// The number the kernel gave a generic netlink family.
    fn family(&self, name: &str) -> Result<u16> {
        let answer =
            self.ask(CONTROL_FAMILY, CONTROL_GET_FAMILY, &attribute(CONTROL_FAMILY_NAME, &text(name)))?;
        let id = attributes(&answer).find(|(kind, _)| *kind == CONTROL_FAMILY_ID);
        let (_, value) = id.context("the family has no number")?;
        Ok(u16::from_ne_bytes(value.try_into().context("the family's number is not 16 bits")?))
    }

    /// Sends a request and returns the attributes of the answer, or nothing if there is only an acknowledgement.
    fn ask(&self, family: u16, command: u8, body: &[u8]) -> Result<Vec<u8>> {
        send(&self.0, &message(family, command, body), SendFlags::empty())?;
        let mut answer = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let (length, _) = recv(&self.0, &mut buffer, RecvFlags::empty())?;
            for (kind, payload) in messages(&buffer[..length]) {
                if kind != ERROR {
                    payload.get(4..).unwrap_or_default().clone_into(&mut answer);
                    continue;
                }
                return acknowledged(payload).map(|()| answer);
            }
        }
    }
}

fn acknowledged(payload: &[u8]) -> Result<()> {
    let code = payload.first_chunk().context("a truncated acknowledgement")?;
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => bail!(std::io::Error::from_raw_os_error(-code)),
    }
}

fn message(family: u16, command: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADERS + body.len()) as u32;
    let mut bytes = Vec::from(length.to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend((REQUEST | ACKNOWLEDGE).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), &[0]].concat()
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The messages in what was received: type and payload.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let payload = bytes.get(16..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The attributes in a payload: type and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let bytes = [attribute(1, &text("eth0")), attribute(2, &[7, 0])].concat();
        assert_eq!(bytes.len(), 12 + 8);
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(1, &b"eth0\0"[..]), (2, &[7, 0][..])]);
    }

    #[test]
    fn truncated_messages_are_not_read() {
        let bytes = message(16, 3, &attribute(2, &text("ethtool")));
        assert_eq!(messages(&bytes).count(), 1);
        assert_eq!(messages(&bytes[..bytes.len() - 1]).count(), 0);
    }
}
