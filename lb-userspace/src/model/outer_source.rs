//! The source address of outer headers, as it is written in a configuration.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::Prefix;

/// The source address of outer headers: an address, or a prefix whose other bits come from the flow's hash, which spreads
/// one balancer's packets over a backend's receive queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterSource {
    /// The address; the bits behind the prefix are zero.
    pub address: IpAddr,
    /// Bits that every packet has alike: 8 to 32 for IPv4, 96 to 128 for IPv6.
    pub prefix: u8,
}

/// Why a text is not an [`OuterSource`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}; expected ADDRESS or ADDRESS/BITS such as 10.0.0.5, 10.99.0.0/16 or fd00:1::/96")]
pub struct OuterSourceError {
    text: String,
    reason: String,
}

impl OuterSource {
    /// The first of the addresses that it stands for.
    pub fn first(self) -> IpAddr {
        self.whole().first()
    }

    /// The last of the addresses that it stands for.
    pub fn last(self) -> IpAddr {
        self.whole().last()
    }

    fn whole(self) -> Prefix {
        Prefix::of(self.address, self.prefix)
    }

    /// How many bits of an address of this family a prefix may name.
    fn lengths(address: IpAddr) -> RangeInclusive<u8> {
        if address.is_ipv4() { 8..=32 } else { 96..=128 }
    }
}

impl FromStr for OuterSource {
    type Err = OuterSourceError;

    fn from_str(text: &str) -> Result<Self, OuterSourceError> {
        let parsed = Prefix::parse(text, Self::lengths);
        let prefix = parsed.map_err(|reason| OuterSourceError { text: text.to_owned(), reason })?;
        Ok(Self { address: prefix.address(), prefix: prefix.length() })
    }
}

/// As it is written: an address, or a prefix if not every bit is given.
impl fmt::Display for OuterSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.whole().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> OuterSource {
        text.parse().unwrap()
    }

    fn reason(text: &str) -> String {
        text.parse::<OuterSource>().unwrap_err().reason
    }

    #[test]
    fn sources_survive_a_round_trip() {
        for (text, prefix) in [
            ("10.0.0.5", 32),
            ("10.0.0.0/8", 8),
            ("10.99.0.0/16", 16),
            ("10.0.0.4/31", 31),
            ("fd00:1::", 128),
            ("fd00:1::/96", 96),
            ("fd00:1::2/127", 127),
        ] {
            assert_eq!((source(text).prefix, source(text).to_string().as_str()), (prefix, text));
        }
    }

    #[test]
    fn a_prefix_of_full_length_is_an_address() {
        assert_eq!(source("10.0.0.5/32"), source("10.0.0.5"));
        assert_eq!(source("fd00::5/128").to_string(), "fd00::5");
    }

    #[test]
    fn the_last_address_has_all_bits_behind_the_prefix() {
        for (text, last) in [
            ("10.99.0.0/16", "10.99.255.255"),
            ("10.0.0.5", "10.0.0.5"),
            ("fd00:1::/96", "fd00:1::ffff:ffff"),
            ("fd00:1::5", "fd00:1::5"),
        ] {
            assert_eq!(source(text).last(), last.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn errors_name_the_mistake() {
        assert_eq!(reason("10.0.300.0/16"), "300 is not a byte");
        assert_eq!(reason("10.99.0.0/7"), "prefix length \"7\" is not a number from 8 to 32");
        assert_eq!(reason("10.99.0.0/33"), "prefix length \"33\" is not a number from 8 to 32");
        assert_eq!(reason("10.99.0.0/+16"), "prefix length \"+16\" is not a number from 8 to 32");
        assert_eq!(reason("fd00::/95"), "prefix length \"95\" is not a number from 96 to 128");
        assert_eq!(reason("fd00::/129"), "prefix length \"129\" is not a number from 96 to 128");
        assert_eq!(reason("fd00::/"), "prefix length \"\" is not a number from 96 to 128");
        assert_eq!(reason("10.99.1.0/16"), "bits behind the prefix are set: write 10.99.0.0/16");
        assert_eq!(reason("fd00:1::9:0:1/96"), "bits behind the prefix are set: write fd00:1::9:0:0/96");
        assert_eq!(reason("[fd00::1]"), "there is no port here, so an IPv6 address stands without brackets");
        assert_eq!(reason("fd00::g"), "\"fd00::g\" is not an IPv6 address");
        assert_eq!(reason("::ffff:10.0.0.1"), "::ffff:10.0.0.1 is IPv4 in IPv6 clothes: write 10.0.0.1");
    }
}
