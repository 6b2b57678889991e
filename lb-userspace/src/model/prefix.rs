//! Addresses that begin alike, as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::ipv4_mistake;

/// An address, or all those that have their first bits in common with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The first of the addresses.
    address: IpAddr,
    /// Bits that all of them have in common.
    length: u8,
}

/// Why a text is not a [`Prefix`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?}: {reason}; expected ADDRESS or ADDRESS/BITS such as 192.0.2.5, 192.0.2.0/24 or fd00:1::/64"
)]
pub struct PrefixError {
    text: String,
    reason: String,
}

impl Prefix {
    /// The prefix of that length to which `address` belongs; all of the address's bits if there are not so many.
    pub fn of(address: IpAddr, length: u8) -> Self {
        let length = length.min(bits(address));
        Self { address: Self { address, length }.first(), length }
    }

    /// The address that alone is meant, or the first.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Bits in common.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The first of the addresses that it stands for.
    pub fn first(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !free_v4(self.length)).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !free_v6(self.length)).into(),
        }
    }

    /// The last of the addresses that it stands for.
    pub fn last(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | free_v4(self.length)).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | free_v6(self.length)).into(),
        }
    }

    /// Whether it stands for this address too.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self::of(address, self.length) == self
    }

    /// Reads `ADDRESS` or `ADDRESS/BITS`, where as many bits may be given as `lengths` allows for the address's family.
    pub(super) fn parse(text: &str, lengths: impl Fn(IpAddr) -> RangeInclusive<u8>) -> Result<Self, String> {
        let (address, length) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = parse_address(address)?;
        let lengths = lengths(address);
        let length = match length {
            None => *lengths.end(),
            Some(bits) => parse_length(bits, &lengths)?,
        };
        let right = Self::of(address, length);
        if right.address == address {
            Ok(right)
        } else {
            Err(format!("bits behind the prefix are set: write {right}"))
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits behind a prefix.
fn free_v4(length: u8) -> u32 {
    u32::MAX.checked_shr(length.into()).unwrap_or(0)
}

/// The bits behind a prefix.
fn free_v6(length: u8) -> u128 {
    u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        /// What the longest prefix takes, and more.
        const LONGEST: usize = 64;
        if text.len() > LONGEST {
            let begins = &text[..text.floor_char_boundary(LONGEST)];
            return Err(PrefixError {
                text: format!("{begins}\u{2026}"),
                reason: "longer than any prefix".to_owned(),
            });
        }
        let parsed = Self::parse(text, |address| 0..=bits(address));
        parsed.map_err(|reason| PrefixError { text: text.to_owned(), reason })
    }
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    if text.starts_with('[') {
        return Err("there is no port here, so an IPv6 address stands without brackets".to_owned());
    }
    if !text.contains(':') {
        return text.parse().map(IpAddr::V4).map_err(|_| ipv4_mistake(text));
    }
    let address: Ipv6Addr = text.parse().map_err(|_| format!("{text:?} is not an IPv6 address"))?;
    match address.to_ipv4_mapped() {
        Some(v4) => Err(format!("{text} is IPv4 in IPv6 clothes: write {v4}")),
        None => Ok(address.into()),
    }
}

fn parse_length(text: &str, lengths: &RangeInclusive<u8>) -> Result<u8, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok().filter(|length| digits && lengths.contains(length));
    length.ok_or_else(|| {
        format!("prefix length {text:?} is not a number from {} to {}", lengths.start(), lengths.end())
    })
}

/// As it is written: an address, or a prefix if not every bit is given.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        if self.length == bits(self.address) { Ok(()) } else { write!(f, "/{}", self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_survive_a_round_trip() {
        for text in ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.7", "::/0", "2001:db8::/32", "fd00::5"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("192.0.2.7/32"), prefix("192.0.2.7"));
    }

    #[test]
    fn a_prefix_contains_its_addresses_and_no_others() {
        let contains = |text: &str, address: &str| prefix(text).contains(address.parse().unwrap());
        for (text, inside) in [
            ("0.0.0.0/0", "255.255.255.255"),
            ("192.0.2.0/24", "192.0.2.255"),
            ("192.0.2.7", "192.0.2.7"),
            ("::/0", "2001:db8::1"),
            ("fd00:1::/64", "fd00:1::ffff:ffff:ffff:ffff"),
        ] {
            assert!(contains(text, inside), "{text} {inside}");
        }
        for (text, outside) in [
            ("0.0.0.0/0", "::1"),
            ("::/0", "192.0.2.1"),
            ("192.0.2.0/24", "192.0.3.0"),
            ("192.0.2.7", "192.0.2.6"),
            ("fd00:1::/64", "fd00:1:0:1::"),
        ] {
            assert!(!contains(text, outside), "{text} {outside}");
        }
    }

    #[test]
    fn errors_name_the_mistake() {
        let reason = |text: &str| text.parse::<Prefix>().unwrap_err().reason;
        assert_eq!(reason("192.0.2.1/24"), "bits behind the prefix are set: write 192.0.2.0/24");
        assert_eq!(reason("192.0.2.0/33"), "prefix length \"33\" is not a number from 0 to 32");
        assert_eq!(reason("::/129"), "prefix length \"129\" is not a number from 0 to 128");
        assert_eq!(reason("balancer1"), "\"balancer1\" is not an IPv4 address (names are not resolved)");
    }
}
