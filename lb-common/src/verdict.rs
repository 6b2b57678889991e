//! What can happen to a packet, and the one table of reasons: counter, metric label and sentence for people.

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it to the host's stack, untouched.
    Pass(PassReason),
    /// Discard it.
    Drop(DropReason),
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

impl From<Refusal> for Verdict {
    #[inline(always)]
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Pass(reason) => Self::Pass(reason),
            Refusal::Drop(reason) => Self::Drop(reason),
        }
    }
}

/// Counters per interface: reasons of both kinds, with room for more.
pub const REASON_COUNTERS: u32 = 64;

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

            /// Index of its counter within an interface's [`REASON_COUNTERS`].
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

reasons! {
    /// Why a packet goes up the stack untouched.
    PassReason from 0 {
        NotIp "not_ip" "The frame carries neither IPv4 nor IPv6."
        NotForVip "not_for_vip" "The destination is not the address of a service."
        ShortFrame "short_frame" "The frame ends before its destination address."
        OtherProtocol "other_protocol" "It is for a VIP, but neither TCP nor UDP follows the IP header."
        NoService "no_service" "It is for a VIP, but no service has this port and protocol."
    }
}

reasons! {
    /// Why a packet for a VIP is discarded.
    DropReason from 32 {
        IpHeader "ip_header" "The IP version or the IPv4 header length is wrong."
        IpLength "ip_length" "The IP length is shorter than the headers or longer than the frame."
        Fragment "fragment" "It is a fragment, whose ports cannot be known."
        TransportHeader "transport_header" "The TCP or UDP header is cut off, or states a wrong length."
        Limited "limited" "The source has used up its token bucket."
        NoBackend "no_backend" "No backend of the service takes traffic."
        NoNeighbor "no_neighbor" "There is no route to the backend, or its MAC address is unknown."
        TooBig "too_big" "With its outer header it exceeds the MTU towards the backend."
        NoHeadroom "no_headroom" "The driver left no room for an outer header."
        Inconsistent "inconsistent" "A table names an entry that does not exist: please report it."
    }
}

const _: () = assert!(PassReason::ALL.len() <= 32 && DropReason::ALL.len() <= 32);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_and_counters_are_unique() {
        let passes = PassReason::ALL.iter().map(|r| (r.label(), r.counter()));
        let drops = DropReason::ALL.iter().map(|r| (r.label(), r.counter()));
        let all: std::vec::Vec<_> = passes.chain(drops).collect();
        let labels: BTreeSet<_> = all.iter().map(|(label, _)| label).collect();
        let counters: BTreeSet<_> = all.iter().map(|(_, counter)| counter).collect();
        assert_eq!(labels.len(), all.len());
        assert_eq!(counters.len(), all.len());
        assert!(counters.iter().all(|counter| **counter < REASON_COUNTERS));
    }
}
