//! From the lists to the entries of a table, and to what makes packets ask it.

use std::net::Ipv4Addr;

use lb_common::layout::{Features, LISTED, REPLIES};
use lb_common::lists::{ListKey, Listed, Side};

use super::vip_key;
use crate::datapath::{Datapath, Image, ListEntry, TableError, apply};
use crate::model::{ListName, Lists, Prefix};

/// The entries for both lists, among which the longest prefix decides.
///
/// A prefix of IPv6 says nothing about IPv4, though IPv4 is mapped into IPv6: where nothing else is said of all of IPv4,
/// an entry says so.
pub fn list_entries(lists: &Lists) -> Vec<ListEntry> {
    let of = |list, listed| lists.of(list).iter().map(move |prefix| ListEntry { key: key(*prefix), listed });
    let ipv4 = ListEntry { key: key(Prefix::of(Ipv4Addr::UNSPECIFIED.into(), 0)), listed: Listed::No };
    let mut entries: Vec<ListEntry> =
        of(ListName::Deny, Listed::Denied).chain(of(ListName::Allow, Listed::Allowed)).collect();
    if !entries.is_empty() && entries.iter().all(|entry| entry.key != ipv4.key) {
        entries.push(ipv4);
    }
    entries
}

fn key(prefix: Prefix) -> ListKey {
    let before = if prefix.address().is_ipv4() { ListKey::MAPPED } else { 0 };
    ListKey { length: before + u32::from(prefix.length()), ..ListKey::of(vip_key(prefix.address())) }
}

/// Makes packets ask the lists of this side; of none, as if there were no lists.
pub fn ask_lists(image: &mut Image, side: Option<Side>) {
    for entry in image.services.values_mut().filter(|entry| entry.flags & REPLIES == 0) {
        entry.flags &= !LISTED;
        entry.flags |= side.map_or(0, |_| LISTED);
    }
    let Features(others) = image.features.remove(&0).unwrap_or_default();
    let features = others & !Side::B.features() | side.map_or(0, Side::features);
    image.features.extend((features != 0).then_some((0, Features(features))));
}

/// What [`replace_lists`] leaves behind.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// What the tables hold now.
    pub image: Image,
    /// The table that packets ask now, if there is anything on the lists.
    pub side: Option<Side>,
}

/// Makes `lists` the ones in force, whole or not at all. `image` is what the tables hold, and `before` the table that packets
/// have asked so far.
///
/// The other table is filled, packets are made to ask it, and only when none can still be asking the one before, that is
/// emptied.
pub fn replace_lists<D: Datapath + ?Sized>(
    datapath: &mut D,
    image: &Image,
    before: Option<Side>,
    lists: &Lists,
) -> Result<Replaced, TableError> {
    let side = fill_lists(datapath, before, lists)?;
    let mut replaced = Replaced { image: image.clone(), side };
    ask_lists(&mut replaced.image, side);
    apply(datapath, image, &replaced.image).inspect_err(|_| empty_list(datapath, side))?;
    retire_lists(datapath, before);
    Ok(replaced)
}

/// Fills the table that packets have not asked so far, and says which; none if the lists say nothing. If that fails, it is
/// empty again.
pub fn fill_lists<D: Datapath + ?Sized>(
    datapath: &mut D,
    before: Option<Side>,
    lists: &Lists,
) -> Result<Option<Side>, TableError> {
    let side = (!lists.is_empty()).then(|| before.map_or(Side::A, Side::other));
    if let Some(side) = side {
        datapath.fill_list(side, &list_entries(lists)).inspect_err(|_| empty_list(datapath, Some(side)))?;
    }
    Ok(side)
}

/// Empties the table that packets asked before, once none is under way that may still ask it.
pub fn retire_lists<D: Datapath + ?Sized>(datapath: &mut D, before: Option<Side>) {
    if before.is_some() {
        datapath.settle();
    }
    empty_list(datapath, before);
}

/// Empties a table that no packet asks. If that fails it takes up memory until it is filled again, nothing worse.
pub fn empty_list<D: Datapath + ?Sized>(datapath: &mut D, side: Option<Side>) {
    if let Some(Err(error)) = side.map(|side| datapath.fill_list(side, &[])) {
        tracing::warn!("a list that is not in force stays in memory: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;
    use lb_common::layout::{QUIC, ServiceEntry};

    fn lists(denied: &[&str], allowed: &[&str]) -> Lists {
        let mut lists = Lists::default();
        for (list, prefixes) in [(ListName::Deny, denied), (ListName::Allow, allowed)] {
            for prefix in prefixes {
                lists.add(list, prefix.parse().unwrap()).unwrap();
            }
        }
        lists
    }

    fn lengths(lists: &Lists) -> Vec<(u32, Listed)> {
        list_entries(lists).iter().map(|entry| (entry.key.length, entry.listed)).collect()
    }

    #[test]
    fn deny_entries_of_ipv6_leave_ipv4_alone() {
        assert_eq!(lengths(&Lists::default()), []);
        assert_eq!(lengths(&lists(&["::/0"], &[])), [(0, Listed::Denied), (96, Listed::No)]);
        assert_eq!(lengths(&lists(&["0.0.0.0/0"], &[])), [(96, Listed::Denied)]);
        let both = lists(&["10.0.0.0/8"], &["2001:db8::/32"]);
        assert_eq!(lengths(&both), [(104, Listed::Denied), (32, Listed::Allowed), (96, Listed::No)]);
    }

    #[test]
    fn services_ask_the_deny_list_while_there_is_one() {
        let service = ServiceEntry { flags: QUIC, ..ServiceEntry::zeroed() };
        let reply = ServiceEntry { flags: REPLIES, ..ServiceEntry::zeroed() };
        let features = [(0, Features(Features::REPLIES))].into();
        let plain = Image { services: [(1, service), (2, reply)].into(), features, ..Image::default() };
        let mut image = plain.clone();
        for side in [Side::A, Side::B] {
            ask_lists(&mut image, Some(side));
            assert_eq!([image.services[&1].flags, image.services[&2].flags], [QUIC | LISTED, REPLIES]);
            assert_eq!(image.features[&0].lists(), Some(side));
            assert!(image.features[&0].any(Features::REPLIES));
        }
        ask_lists(&mut image, None);
        assert_eq!(image, plain);
        let mut empty = Image::default();
        ask_lists(&mut empty, None);
        assert_eq!(empty, Image::default());
    }
}
