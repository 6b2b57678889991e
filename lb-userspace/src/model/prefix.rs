//! Prefixes of source addresses, as deny and allow lists name them; and what every text with a prefix is read by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::ipv4_mistake;

/// All addresses that begin alike: `198.51.100.0/24`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is not a [`Prefix`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}; expected ADDRESS or ADDRESS/BITS such as 198.51.100.0/24 or 2001:db8::/32")]
pub struct PrefixError {
    text: String,
    reason: String,
}

impl Prefix {
    /// All of IPv4.
    pub const IPV4: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };

    /// The addresses that have the first `length` bits of one.
    #[cfg(test)]
    pub(crate) fn around(address: IpAddr, length: u8) -> Self {
        unmapped(Self { address: first(address, length), length })
    }

    /// The first of the addresses, whose bits behind the prefix are zero. Never an IPv4-mapped IPv6 address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Bits that all addresses have alike: 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether an address, which is not an IPv4-mapped one, begins so.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && first(address, self.length) == self.address
    }
}

/// The first address of a prefix.
pub(super) fn first(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !free_v4(length)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !free_v6(length)).into(),
    }
}

/// The last address of a prefix.
pub(super) fn last(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | free_v4(length)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | free_v6(length)).into(),
    }
}

/// The bits behind a prefix.
fn free_v4(length: u8) -> u32 {
    u32::MAX.checked_shr(length.into()).unwrap_or(0)
}

/// The bits behind a prefix.
fn free_v6(length: u8) -> u128 {
    u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

/// The address, and the text of the prefix length if there is one.
pub(super) fn split(text: &str) -> Result<(IpAddr, Option<&str>), String> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    Ok((parse_address(address)?, length))
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    if text.starts_with('[') {
        return Err("there is no port here, so an IPv6 address stands without brackets".to_owned());
    }
    if !text.contains(':') {
        return text.parse().map(IpAddr::V4).map_err(|_| ipv4_mistake(text));
    }
    text.parse().map(IpAddr::V6).map_err(|_| format!("{text:?} is not an IPv6 address"))
}

/// A prefix length: that of an address if absent.
pub(super) fn parse_length(text: Option<&str>, lengths: &RangeInclusive<u8>) -> Result<u8, String> {
    let Some(text) = text else { return Ok(*lengths.end()) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok().filter(|length| digits && lengths.contains(length));
    length.ok_or_else(|| {
        format!("prefix length {text:?} is not a number from {} to {}", lengths.start(), lengths.end())
    })
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        parse(text).map_err(|reason| PrefixError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Prefix, String> {
    let (address, length) = split(text)?;
    let length = parse_length(length, &(0..=if address.is_ipv4() { 32 } else { 128 }))?;
    let right = unmapped(Prefix { address: first(address, length), length });
    if first(address, length) == address {
        Ok(right)
    } else {
        Err(format!("bits behind the prefix are set: write {right}"))
    }
}

/// IPv4 addresses in IPv6 clothes are IPv4 addresses.
fn unmapped(prefix: Prefix) -> Prefix {
    let IpAddr::V6(address) = prefix.address else { return prefix };
    match (address.to_ipv4_mapped(), prefix.length.checked_sub(96)) {
        (Some(address), Some(length)) => Prefix { address: address.into(), length },
        _ => prefix,
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        text.parse::<Prefix>().map_or_else(|error| error.reason, |prefix| prefix.to_string())
    }

    #[test]
    fn deny_and_allow_prefixes_are_read_as_they_are_written() {
        for text in ["198.51.100.0/24", "0.0.0.0/0", "::/0", "10.0.0.1/32", "2001:db8::/32", "::1/128"] {
            assert_eq!(read(text), text);
        }
        assert_eq!(read("10.0.0.1"), "10.0.0.1/32");
        assert_eq!(read("2001:db8::1"), "2001:db8::1/128");
    }

    #[test]
    fn deny_and_allow_prefixes_in_ipv6_clothes_are_ipv4() {
        assert_eq!(read("::ffff:198.51.100.0/120"), "198.51.100.0/24");
        assert_eq!(read("::ffff:198.51.100.7"), "198.51.100.7/32");
        assert_eq!(read("::ffff:0:0/96"), "0.0.0.0/0");
        assert_eq!(read("::/80"), "::/80", "it does not say IPv4");
    }

    #[test]
    fn mistakes_in_deny_and_allow_prefixes_are_named() {
        let set = |right: &str| format!("bits behind the prefix are set: write {right}");
        for (text, expected) in [
            ("198.51.100.7/24", set("198.51.100.0/24")),
            ("2001:db8::1/64", set("2001:db8::/64")),
            ("::ffff:198.51.100.7/120", set("198.51.100.0/24")),
            ("10.0.0.0/33", "prefix length \"33\" is not a number from 0 to 32".to_owned()),
            ("::/129", "prefix length \"129\" is not a number from 0 to 128".to_owned()),
            ("10.0.0.0/", "prefix length \"\" is not a number from 0 to 32".to_owned()),
            ("10.0.0.0/+8", "prefix length \"+8\" is not a number from 0 to 32".to_owned()),
            ("10.0.0.256", "256 is not a byte".to_owned()),
            ("10.0.0.0/255.0.0.0", "prefix length \"255.0.0.0\" is not a number from 0 to 32".to_owned()),
            ("2001:db8:::/32", "\"2001:db8:::\" is not an IPv6 address".to_owned()),
        ] {
            assert_eq!(read(text), expected);
        }
    }

    proptest! {
        #[test]
        fn a_prefix_contains_what_begins_like_it(address: u128, length in 0u8..=128, flip in 0u32..128) {
            let address = Ipv6Addr::from_bits(address);
            prop_assume!(address.to_ipv4_mapped().is_none());
            let prefix = Prefix { address: first(address.into(), length), length };
            let other = Ipv6Addr::from_bits(address.to_bits() ^ 1 << (127 - flip));
            prop_assert!(prefix.contains(address.into()));
            prop_assert_eq!(prefix.contains(other.into()), flip >= length.into());
        }
    }
}
