//! Who owns a row of a table: what no packet asks, and a daemon needs that finds the tables filled by one before it.
//!
//! Names do not fit a table, so it holds digests of them: zero means that the row is nobody's. The program
//! never reads these tables. They are stored with the others, before a row comes into use and after it has gone out of use.

use bytemuck::{Pod, Zeroable};

use crate::layout::Forwarded;

/// The version of everything that two programs, or two daemons, have to agree on to go on with each other's tables: what
/// stands in them and what it means, flow hash and flow table included.
///
/// It is to be raised whenever anything of that changes. A test knows the layouts and some meanings of the last one.
pub const FORMAT: u32 = 1;

/// Whose row of backends it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BackendOwner {
    /// Digest of the service's name.
    pub service: u64,
    /// The backend's address, IPv4 mapped into IPv6: [`crate::layout::VipKey`], its lower half first.
    pub address: [u64; 2],
    /// The backend's port.
    pub port: u16,
    /// 1 if it is every port.
    pub any_port: u16,
    /// The row of the service's backend 0.
    pub base: u32,
    /// What other rows have counted for it before.
    pub carried: Forwarded,
}

/// Whose row of services' counters it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ServiceOwner {
    /// Digest of the service's name.
    pub name: u64,
    /// Rows that it has for backends.
    pub backends: u32,
    /// Places that it has for slots.
    pub slots: u32,
    /// What was forwarded to backends that are gone.
    pub retired: Forwarded,
}

/// Whose row of limiters' counters it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LimiterOwner {
    /// Digest of the names of its service and its own.
    pub name: u64,
    /// What its sources are hashed with.
    pub salt: u32,
    /// Digest of what its buckets mean, and in the lowest byte the number of its range of windows, counted from 1, if it
    /// has one.
    pub meaning: u32,
}

const _: () = assert!(size_of::<BackendOwner>() == 56 && size_of::<ServiceOwner>() == 40);
const _: () = assert!(size_of::<LimiterOwner>() == 16);

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::flow::{Entry, FlowLines, Stage, Tick, set_of};
    use crate::hash::{HashKey, scale};
    use crate::layout::*;
    use crate::limiter::rule::Rule;
    use crate::limiter::sample::Sampler;
    use crate::slot::{BackendId, Slot};
    use crate::verdict::{AnswerReason, DropReason, PassReason};
    use crate::wire::{Ipv4Address, Ports};

    /// Where the fields of a type are, which have to be all of them.
    macro_rules! layout {
        ($type:ident { $($field:ident),* $(,)? }) => {{
            let $type { $($field: _),* } = $type::zeroed();
            let fields = [$(format!("{}@{}", stringify!($field), core::mem::offset_of!($type, $field))),*];
            format!("{} {}: {}\n", stringify!($type), size_of::<$type>(), fields.join(" "))
        }};
    }

    fn layouts() -> String {
        let lines = [
            layout!(VipSet { low, high, region }),
            layout!(ServiceEntry {
                key,
                id,
                slot_base,
                slot_count,
                backend_base,
                flags,
                limiters,
                spare,
                vip,
                vip_port,
                reserved
            }),
            layout!(LimiterRows { first, count }),
            layout!(LimiterEntry { rule, mask, first_set, set_count, salt, counters, flags, meter }),
            layout!(BackendEntry { macs, flags, mtu, ifindex, outer_sum, outer, entropy, port, reserved }),
            layout!(InterfaceEntry { mac, known, index, reserved }),
            layout!(Forwarded { packets, bytes, new_flows }),
            layout!(Withheld { limited, dropped }),
            layout!(LimiterCounts { admitted, over, unmarked, contended }),
            layout!(FlowCounts { known, added, evicted, contended }),
            layout!(BackendOwner { service, address, port, any_port, base, carried }),
            layout!(ServiceOwner { name, backends, slots, retired }),
            layout!(LimiterOwner { name, salt, meaning }),
        ];
        let [rule, flows] = [size_of::<Rule>(), size_of::<FlowLines>()];
        let [buckets, sampler] = [size_of::<BucketWords>(), size_of::<Sampler>()];
        lines.concat() + &format!("Rule {rule} FlowLines {flows} BucketWords {buckets} Sampler {sampler}\n")
    }

    /// What some words mean, by example.
    fn meanings() -> String {
        let [one, two] = [1, 2].map(|number| BackendId::try_new(number).unwrap());
        let key = HashKey::from_random(
            [1, 2, 3, 4, 5, 6, 7, 8].map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        );
        let addresses = key.ipv4(Ipv4Address::new([192, 0, 2, 1]), Ipv4Address::new([192, 0, 2, 2]));
        let hash = key.flow(addresses, Ports::new(1024, 80), 6);
        let entry = Entry::new(hash, Stage::Confirmed, two, Tick::from_ns(5 << 30)).word();
        let region = Region::new(64, 3, 9).announced();
        let words = vec![
            u64::from(Slot::moving(one, two).word()),
            hash,
            u64::from(scale(hash, 65_537)),
            u64::from(set_of(hash, 1 << 17)),
            entry,
            region.word(),
            u64::from(region.index(ServiceKey::new(6, 443))),
            u64::from(VipKey::v4(Ipv4Address::new([192, 0, 2, 1])).set()),
            key.source([1, 2], 3),
        ];
        let lines: Vec<String> = words.iter().map(|word| format!("{word:x}\n")).collect();
        lines.concat()
    }

    /// The counters of reasons, in their order.
    fn reasons() -> String {
        let passes = PassReason::ALL.iter().map(|reason| (reason.counter(), reason.label()));
        let drops = DropReason::ALL.iter().map(|reason| (reason.counter(), reason.label()));
        let answers = AnswerReason::ALL.iter().map(|reason| (reason.counter(), reason.label()));
        let reasons = passes.chain(drops).chain(answers);
        let lines: Vec<String> = reasons.map(|(counter, label)| format!("{counter} {label}\n")).collect();
        lines.concat()
    }

    /// A daemon may find the tables of any other of the same format: they have to mean the same to both.
    #[test]
    fn another_layout_is_another_format() {
        let known = include_str!("owner/format.txt");
        let now = format!("format {FORMAT}\n{}{}{}", layouts(), meanings(), reasons());
        assert!(now == known, "raise FORMAT, and then let owner/format.txt say:\n{now}");
    }
}
