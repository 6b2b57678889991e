//! What can happen to a packet, and the one table of reasons: counter, metric label and sentence for people.

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it to the host's stack, untouched.
    Pass(PassReason),
    /// Discard it.
    Drop(DropReason),
    /// Send the answer that it became out of the interface it came in by.
    Answer(AnswerReason),
    /// Send it out of the interface it came in by.
    Transmit,
    /// Send it out of the interface with this index.
    Redirect(u32),
}

/// A packet that is not forwarded, and why: the early return of every step of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not ours, or not ours to judge.
    Pass(PassReason),
    /// It is ours and cannot or must not be delivered.
    Drop(DropReason),
    /// It is ours, and more than this many bytes of IP, which is what fits the way to its backend.
    TooBig(u16),
    /// It became an answer.
    Answer(AnswerReason),
}

impl From<PassReason> for Refusal {
    #[inline(always)]
    fn from(reason: PassReason) -> Self {
        Self::Pass(reason)
    }
}

impl From<DropReason> for Refusal {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl PassReason {
    /// Whether it is said of packets that are not for a VIP.
    #[inline(always)]
    pub const fn is_of_bystander(self) -> bool {
        matches!(self, Self::NotIp | Self::NotForVip | Self::OtherProtocol)
    }
}

/// Counters per interface: reasons of all kinds, with room for more.
pub const REASON_COUNTERS: u32 = 96;

/// An enum of reasons, each with its metric label and its sentence, counted from `$first` on.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident from $first:literal { $($variant:ident $label:literal $meaning:literal)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name {
            $(#[doc = $meaning] $variant,)*
        }

        impl $name {
            /// Every reason, in the order of its counter.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Index of its counter within an interface's [`REASON_COUNTERS`](crate::verdict::REASON_COUNTERS).
            #[inline(always)]
            pub const fn counter(self) -> u32 {
                self as u32 + $first
            }

            /// Its name in metrics and in JSON.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// What it means, a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

pub(crate) use reasons;

reasons! {
    /// Why a packet goes up the stack untouched.
    PassReason from 0 {
        NotIp "not_ip" "The frame carries neither IPv4 nor IPv6."
        NotForVip "not_for_vip" "The destination is not the address of a service."
        ShortFrame "short_frame" "The frame ends before its destination address."
        OtherProtocol "other_protocol" "It is for a VIP, but neither TCP nor UDP follows the IP header."
        NoService "no_service" "It is for a VIP, but no service has this port and protocol."
        Reply "reply" "A backend's reply, translated back; the host's stack routes it on, since its next hop is not known."
        Unanswered "unanswered" "It asks for an announced VIP's MAC address more often than is answered."
    }
}

reasons! {
    /// Why a packet for a VIP is discarded.
    DropReason from 32 {
        IpHeader "ip_header" "The IP version or the IPv4 header length is wrong."
        IpLength "ip_length" "The IP length is shorter than the headers or longer than the frame."
        ExtensionHeader "extension_header" "Its IPv6 extension headers are cut off, or more than eight."
        FragmentUnknown "fragment_unknown" "It is a later fragment, and the first has not come yet, or was not forwarded."
        FragmentOverlap "fragment_overlap" "It is a fragment made to overwrite the TCP header (RFC 3128)."
        TransportHeader "transport_header" "The TCP or UDP header is cut off, or states a wrong length."
        Limited "limited" "The source has used up its token bucket."
        NoBackend "no_backend" "No backend of the service takes traffic."
        NoNeighbor "no_neighbor" "There is no route to the backend, or its MAC address is unknown."
        IcmpQuote "icmp_quote" "It is an ICMP error that does not quote a packet from the VIP, or is itself cut off."
        TooBig "too_big" "With its outer header it exceeds the MTU towards the backend, and its sender cannot be told or was told just before."
        NoHeadroom "no_headroom" "The driver left no room for an outer header."
        Inconsistent "inconsistent" "A table names an entry that does not exist: please report it."
    }
}

reasons! {
    /// What the program sends back by itself.
    AnswerReason from 64 {
        Echo "echo" "An echo request for a VIP was answered."
        TooBig "too_big" "The sender of a packet that is too big for the way to its backend was told so."
        Arp "arp" "An ARP request for an announced VIP was answered."
        Neighbor "neighbor" "A neighbour solicitation for an announced VIP was answered."
        Reply "reply" "A backend's reply was translated back and sent on to the client."
    }
}

const _: () =
    assert!(PassReason::ALL.len() <= 32 && DropReason::ALL.len() <= 32 && AnswerReason::ALL.len() <= 32);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_and_counters_are_unique() {
        let passes = PassReason::ALL.iter().map(|r| (r.label(), r.counter()));
        let drops = DropReason::ALL.iter().map(|r| (r.label(), r.counter()));
        let answers = AnswerReason::ALL.iter().map(|r| (r.label(), r.counter()));
        let all: std::vec::Vec<_> = passes.chain(drops).chain(answers).collect();
        let counters: BTreeSet<_> = all.iter().map(|(_, counter)| counter).collect();
        let labels = |labels: &[&str]| labels.iter().collect::<BTreeSet<_>>().len() == labels.len();
        assert!(labels(&PassReason::ALL.iter().map(|r| r.label()).collect::<std::vec::Vec<_>>()));
        assert!(labels(&DropReason::ALL.iter().map(|r| r.label()).collect::<std::vec::Vec<_>>()));
        assert_eq!(counters.len(), all.len());
        assert!(counters.iter().all(|counter| **counter < REASON_COUNTERS));
    }
}
