//! What can happen to a packet at the end of a tunnel: counters, metric labels and sentences.

use crate::verdict::{REASON_COUNTERS, reasons};

reasons! {
    /// Which headers were taken off a packet that goes up the stack.
    Unwrapped from 0 {
        Ipip "unwrapped_ipip" "An outer IP header was taken off."
        Gue "unwrapped_gue" "An outer IP header and a UDP header (GUE) were taken off."
    }
}

reasons! {
    /// Why a packet goes up the stack untouched.
    DecapPass from 32 {
        NotIp "not_ip" "The frame carries neither IPv4 nor IPv6."
        Malformed "malformed" "Its IP header is cut off or wrong: the host's stack judges it."
        NotTunnel "not_tunnel" "It is no tunnel packet: neither IP nor UDP to the GUE port follows the IP header."
        NotForHost "not_for_host" "It is a tunnel packet for an address that is not this host's."
        Fragment "fragment" "It is a fragment of a tunnel packet, or a later one of UDP: the host's stack puts it together."
        GueVariant "gue_variant" "It is a GUE packet whose payload begins with a header of GUE's own (variant 0), or of an unknown variant."
    }
}

reasons! {
    /// Why a tunnel packet for this host is discarded.
    DecapDrop from 64 {
        Unlisted "unlisted" "Its outer source is not among the balancers."
        OuterChecksum "outer_checksum" "The checksum of its outer IPv4 header is wrong."
        UdpLength "udp_length" "The length of its outer UDP header is wrong."
        UdpChecksum "udp_checksum" "The checksum of its outer UDP header is wrong."
        NoUdpChecksum "no_udp_checksum" "Its outer UDP header over IPv6 has no checksum (RFC 8200, section 8.1)."
        InnerHeader "inner_header" "The inner IP header is cut off, or its version or header length is wrong."
        InnerLength "inner_length" "The inner packet is longer than the outer one has room for."
        Congestion "congestion" "A router marked it as it would have dropped it, and the inner packet cannot carry the mark (RFC 6040)."
        Inconsistent "inconsistent" "The driver did not let its headers be taken off: please report it."
    }
}

const _: () = assert!(
    Unwrapped::ALL.len() <= 32
        && DecapPass::ALL.len() <= 32
        && DecapDrop::ALL.len() <= 32
        && REASON_COUNTERS >= 96
);

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It goes up the stack without its outer headers.
    Unwrapped(Unwrapped),
    /// It goes up the stack untouched.
    Pass(DecapPass),
    /// It is discarded.
    Drop(DecapDrop),
}

impl Outcome {
    /// Every outcome.
    pub fn all() -> impl Iterator<Item = Self> {
        let unwrapped = Unwrapped::ALL.iter().copied().map(Self::Unwrapped);
        let passes = DecapPass::ALL.iter().copied().map(Self::Pass);
        unwrapped.chain(passes).chain(DecapDrop::ALL.iter().copied().map(Self::Drop))
    }

    /// Index of its counter within an interface's [`REASON_COUNTERS`].
    #[inline(always)]
    pub const fn counter(self) -> u32 {
        match self {
            Self::Unwrapped(which) => which.counter(),
            Self::Pass(reason) => reason.counter(),
            Self::Drop(reason) => reason.counter(),
        }
    }

    /// Its name in metrics, different from that of every other outcome.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unwrapped(which) => which.label(),
            Self::Pass(reason) => reason.label(),
            Self::Drop(reason) => reason.label(),
        }
    }

    /// What it means, a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Unwrapped(which) => which.meaning(),
            Self::Pass(reason) => reason.meaning(),
            Self::Drop(reason) => reason.meaning(),
        }
    }
}

impl From<DecapPass> for Outcome {
    #[inline(always)]
    fn from(reason: DecapPass) -> Self {
        Self::Pass(reason)
    }
}

impl From<DecapDrop> for Outcome {
    #[inline(always)]
    fn from(reason: DecapDrop) -> Self {
        Self::Drop(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_and_counters_are_unique() {
        let labels: BTreeSet<_> = Outcome::all().map(Outcome::label).collect();
        let counters: BTreeSet<_> = Outcome::all().map(Outcome::counter).collect();
        assert_eq!((labels.len(), counters.len()), (Outcome::all().count(), Outcome::all().count()));
        assert!(counters.iter().all(|counter| *counter < REASON_COUNTERS));
    }
}
