//! Deny and allow lists: what packets meet with while lists are changed, and when that fails.

use lb_common::lists::{Listed, Side};
use proptest::prelude::*;

use super::*;
use crate::controller::{ListAction, ListChange};
use crate::datapath::ListEntry;
use crate::datapath::double::Double;
use crate::model::{ListName, Lists, Prefix};
use crate::placement::vip_key;
use ListAction::{Add, Remove, Replace};
use ListName::{Allow, Deny};

fn listed(tables: &MemoryDatapath, address: &str) -> Listed {
    tables.listed(vip_key(address.parse().unwrap()))
}

fn change(list: ListName, action: ListAction, prefixes: &[&str]) -> ListChange {
    ListChange { list, action, prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect() }
}

/// Lets time pass until no slot moves any more.
fn come_to_rest(core: &mut Core<MemoryDatapath>) {
    let now = core.datapath().clock() + 3_600_000_000_000;
    core.datapath().set_now(now);
    core.sweep().unwrap();
    core.sweep().unwrap();
    assert!(!core.has_moving_slots());
}

#[test]
fn deny_and_allow_changes_reach_the_tables_and_are_told() {
    let mut core = core();
    let words = core.datapath().words();
    let applied = core.change_list(&change(Deny, Add, &["10.0.0.0/8", "2001:db8::/32"])).unwrap();
    assert_eq!((applied.generation, applied.slots_total), (2, 0));
    assert_eq!(applied.summary, "deny: 2 prefixes added, 2 on the list");
    core.change_list(&change(Allow, Add, &["10.1.0.0/16"])).unwrap();
    let seen = ["10.0.0.1", "10.1.0.1", "11.0.0.1", "2001:db8::1", "2001:db9::1"];
    let expected = [Listed::Denied, Listed::Allowed, Listed::No, Listed::Denied, Listed::No];
    assert_eq!(seen.map(|address| listed(core.datapath(), address)), expected);
    assert_eq!(core.list(Deny).prefixes, ["10.0.0.0/8", "2001:db8::/32"]);
    let status = core.status(&[]).unwrap();
    assert_eq!((status.lists.denied, status.lists.allowed, status.lists.capacity), (2, 1, 15));
    // Other changes leave the lists in force.
    core.change(add(3)).unwrap();
    come_to_rest(&mut core);
    assert_eq!(seen.map(|address| listed(core.datapath(), address)), expected);
    core.change(remove(3)).unwrap();
    come_to_rest(&mut core);
    core.change_list(&change(Deny, Replace, &[])).unwrap();
    core.change_list(&change(Allow, Remove, &["10.1.0.0/16"])).unwrap();
    core.tidy();
    assert!(core.datapath().words() == words, "without lists nothing asks for them");
}

#[test]
fn a_deny_change_that_changes_nothing_is_no_generation() {
    let mut core = core();
    let first = core.change_list(&change(Deny, Add, &["10.0.0.0/8"])).unwrap();
    let again = core.change_list(&change(Deny, Add, &["10.0.0.0/8"])).unwrap();
    assert_eq!(again.generation, first.generation);
    assert_eq!(again.summary, "deny: 0 prefixes added, 1 there already, 1 on the list");
}

#[test]
fn deny_lists_beyond_the_tables_are_refused() {
    let mut core = core();
    let many: Vec<String> = (0..16).map(|n| format!("10.0.0.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = core.change_list(&change(Deny, Add, &many)).unwrap_err();
    let expected = "there is room for 15 prefixes on the deny and the allow list together, and not for 16";
    assert_eq!(error, ChangeError::Refused(expected.to_owned()));
    core.change_list(&change(Deny, Add, &many[..15])).unwrap();
    assert!(core.change_list(&change(Allow, Add, &["::/0"])).is_err());
    assert_eq!(listed(core.datapath(), "10.0.0.14"), Listed::Denied);
}

/// Whatever store or filling is refused, the lists before stay in force, and the next change succeeds.
#[test]
fn a_failed_deny_change_leaves_the_lists_in_force_untouched() {
    let mut failures = 0;
    for (before, after) in [(&["10.0.0.0/8"][..], &["11.0.0.0/8", "12.0.0.0/8"][..]), (&[], &["11.0.0.0/8"])]
    {
        for nth in 1.. {
            let mut core = core_of(Faulty::new(tables(), 0));
            core.change_list(&change(Deny, Replace, before)).unwrap();
            let words = core.datapath().tables().words();
            let generation = core.status(&[]).unwrap().generation;
            let to_come = change(Deny, Replace, after);
            core.datapath().refuse(nth);
            let result = core.change_list(&to_come);
            let denied = |core: &mut Core<Faulty>, address| {
                listed(core.datapath().tables(), address) == Listed::Denied
            };
            let result = if let Err(error) = result {
                failures += 1;
                assert!(matches!(error, ChangeError::Refused(_)), "{error}");
                assert_eq!(core.datapath().tables().words(), words, "at {nth}");
                assert_eq!(core.status(&[]).unwrap().generation, generation);
                assert_eq!(core.list(Deny).prefixes, before);
                assert_eq!(
                    [denied(&mut core, "10.0.0.1"), denied(&mut core, "11.0.0.1")],
                    [!before.is_empty(), false]
                );
                core.change_list(&to_come)
            } else {
                result
            };
            result.unwrap();
            assert_eq!([denied(&mut core, "10.0.0.1"), denied(&mut core, "11.0.0.1")], [false, true]);
            let untouched = core.datapath().is_unspent();
            if untouched {
                break;
            }
        }
    }
    assert!(failures >= 4, "only {failures} changes failed");
}

/// Tables in which, at each moment at which something can be seen, one source is denied.
struct Watched {
    inner: MemoryDatapath,
    looks: usize,
    /// The table that packets under way may still be asking.
    left: Option<Side>,
}

impl Watched {
    fn look(&mut self) {
        assert_eq!(listed(&self.inner, "192.0.2.1"), Listed::Denied, "the list is empty for a moment");
        let asked = self.inner.service_flags().all(|flags| flags & lb_common::layout::LISTED != 0);
        assert!(asked, "nobody asks for a moment");
        self.looks += 1;
    }
}

impl Double for Watched {
    fn inner(&self) -> &MemoryDatapath {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut MemoryDatapath {
        &mut self.inner
    }

    fn on_store(&mut self, store: Store) -> Result<(), TableError> {
        let before = self.inner.features().lists();
        let result = self.inner.store(store);
        if self.inner.features().lists() != before {
            self.left = before;
        }
        if self.looks > 0 {
            self.look();
        }
        result
    }

    fn on_settle(&mut self) {
        self.left = None;
    }

    fn on_fill_list(&mut self, side: Side, entries: &[ListEntry]) -> Result<(), TableError> {
        assert_ne!(self.left, Some(side), "packets may still be asking this table");
        // Half of it first: what fills a table is no single store.
        self.inner.fill_list(side, &entries[..entries.len() / 2])?;
        if self.looks > 0 {
            self.look();
        }
        self.inner.fill_list(side, entries)
    }
}

#[test]
fn a_replaced_deny_list_is_never_empty() {
    let mut core = core_of(Watched { inner: tables(), looks: 0, left: None });
    core.change_list(&change(Deny, Add, &["192.0.2.0/24"])).unwrap();
    core.datapath().look();
    for round in 0..4 {
        let other = format!("10.0.0.{round}");
        core.change_list(&change(Deny, Replace, &["192.0.2.0/24", &other, "::/0"])).unwrap();
        core.change_list(&change(Allow, Replace, &["2001:db8::/32"])).unwrap();
        core.change(add(3)).unwrap();
        core.change(remove(3)).unwrap();
    }
    assert!(core.datapath().looks > 40, "{} looks", core.datapath().looks);
}

/// Prefixes that contain one another, and addresses in and beside them: few bits differ.
fn address() -> impl Strategy<Value = IpAddr> {
    let bits = prop::sample::select(vec![0u128, 1, 2, 1 << 30, 1 << 31, 1 << 62, 1 << 63, 1 << 96, 1 << 127]);
    let address = prop::collection::vec(bits, 0..4).prop_map(|bits| bits.into_iter().fold(0, |a, b| a ^ b));
    (address, any::<bool>()).prop_map(|(bits, is_ipv4)| {
        if is_ipv4 {
            Ipv4Addr::from_bits(bits as u32).into()
        } else {
            std::net::Ipv6Addr::from_bits(bits).into()
        }
    })
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), prop::sample::select(vec![0u8, 1, 2, 8, 31, 32, 63, 64, 80, 96, 127, 128]))
        .prop_map(|(address, length)| Prefix::of(address, length))
}

/// The slow and obvious way.
fn scanned(lists: &Lists, address: IpAddr) -> Listed {
    let of = |list, listed| lists.of(list).iter().map(move |prefix| (*prefix, listed));
    let all = of(Deny, Listed::Denied).chain(of(Allow, Listed::Allowed));
    let matching = all.filter(|(prefix, _)| prefix.contains(address));
    matching.max_by_key(|(prefix, _)| prefix.length()).map_or(Listed::No, |(_, listed)| listed)
}

proptest! {
    #[test]
    fn deny_and_allow_entries_say_what_a_scan_says(
        entries in prop::collection::vec((prefix(), any::<bool>()), 0..12),
        addresses in prop::collection::vec(address(), 1..20),
    ) {
        let mut lists = Lists::default();
        for (prefix, denied) in entries {
            // What is on the other list already stays there.
            let _ = lists.add(if denied { Deny } else { Allow }, prefix);
        }
        let mut core = core();
        core.set_lists(lists.clone()).unwrap();
        for address in addresses {
            let key = vip_key(address);
            prop_assert_eq!(core.datapath().listed(key), scanned(&lists, address), "{}", address);
        }
    }
}
