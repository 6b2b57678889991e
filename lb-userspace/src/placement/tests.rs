use super::*;
use crate::model::{AdminState, ForwardMode, ServiceOptions, Weight};
use crate::neighbors::NextHop;
use lb_common::layout::{CLOSED, USABLE};
use lb_common::slot::Slot;
use proptest::prelude::*;

const SERVING: Standing = Standing::Serving(Weight(100));

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

fn backend(number: usize) -> Backend {
    let endpoint = endpoint(&format!("10.{}.{}.1:80", number / 256, number % 256));
    Backend { endpoint, weight: Weight::default(), admin: AdminState::Ready }
}

fn service(name: &str, vip: &str, backends: impl IntoIterator<Item = usize>) -> Service {
    Service {
        name: name.to_owned(),
        vip: endpoint(vip),
        protocol: Protocol::Tcp,
        mode: ForwardMode::Ipip,
        table_size: 251,
        limits: Vec::new(),
        health: None,
        options: ServiceOptions::default(),
        backends: backends.into_iter().map(backend).collect(),
    }
}

fn services(some: impl IntoIterator<Item = Service>) -> Services {
    some.into_iter().map(|service| (service.name.clone(), service)).collect()
}

fn capacity() -> Capacity {
    Capacity {
        services: 8,
        service_entries: 64,
        slots: 16 * 256,
        backends: 256,
        limiters: 32,
        bucket_sets: 64,
        lists: 16,
        flow_sets: 16,
        fragment_sets: 16,
    }
}

fn empty() -> Placement {
    Placement::new(&capacity())
}

fn all(_: &Service, _: &Backend) -> Standing {
    SERVING
}

#[test]
fn backends_keep_their_ids_and_a_gone_id_rests_for_one_placement() {
    let first = empty().next(&services([service("web", "192.0.2.1:80", [1, 2, 3])]), all).unwrap();
    let ids = |placement: &Placement| placement.service("web").unwrap().ids.clone();
    let id = |placement: &Placement, number| ids(placement)[&backend(number).endpoint].number();
    assert_eq!([1, 2, 3].map(|n| id(&first, n)), [0, 1, 2]);
    let second = first.next(&services([service("web", "192.0.2.1:80", [3, 1, 4])]), all).unwrap();
    assert_eq!([1, 3, 4].map(|n| id(&second, n)), [0, 2, 3], "id 1 may still be under way in a packet");
    let third = second.next(&services([service("web", "192.0.2.1:80", [3, 1, 4, 5])]), all).unwrap();
    assert_eq!([1, 3, 4, 5].map(|n| id(&third, n)), [0, 2, 3, 1]);
}

#[test]
fn growing_out_of_its_rows_moves_a_service_and_keeps_its_slots() {
    let first = empty().next(&services([service("web", "192.0.2.1:80", 0..8)]), all).unwrap();
    let second = first.next(&services([service("web", "192.0.2.1:80", 0..40)]), all).unwrap();
    let (first, second) = (first.service("web").unwrap(), second.service("web").unwrap());
    assert_ne!(first.backends, second.backends);
    assert_eq!((first.id, first.range), (second.id, second.range));
}

#[test]
fn tables_follow_who_takes_traffic() {
    let wanted = services([service("web", "192.0.2.1:80", [1, 2])]);
    let both = empty().next(&wanted, all).unwrap();
    assert_eq!(both.service("web").unwrap().owned_slots().map(|(_, slots)| slots).sum::<u32>(), 251);
    let first = backend(1).endpoint;
    let one = both.next(&wanted, |_, b| if b.endpoint == first { SERVING } else { Standing::Dead }).unwrap();
    assert!(one.service("web").unwrap().owned_slots().any(|owned| owned == (&backend(2).endpoint, 0)));
    let none = one.next(&wanted, |_, _| Standing::Dead).unwrap();
    assert!(none.service("web").unwrap().table().is_empty());
    let again = none.next(&wanted, all).unwrap();
    assert_eq!(again.service("web").unwrap().table(), both.service("web").unwrap().table());
}

/// The backends 1, 2 and 3 of `web`, as they stand.
fn standings(standings: [Standing; 3]) -> impl Fn(&Service, &Backend) -> Standing {
    move |_, b| standings[(1..=3).position(|number| backend(number).endpoint == b.endpoint).unwrap()]
}

fn web() -> Services {
    services([service("web", "192.0.2.1:80", [1, 2, 3])])
}

/// The slots of `web`, each as current owner, fallback and whether it moves.
fn slots_of(placement: &Placement) -> Vec<(u16, u16, bool)> {
    let parts = |slot: &Slot| (slot.current().number(), slot.fallback().number(), slot.is_moving());
    placement.service("web").unwrap().slots().iter().map(parts).collect()
}

/// The entry of `web` when all next hops are known, and which of its three backends are usable.
fn rendered(placement: &Placement, wanted: &Services) -> (lb_common::layout::ServiceEntry, [bool; 3]) {
    let hop = NextHop {
        interface: "eth0".into(),
        ifindex: 2,
        gateway: None,
        source: IpAddr::from([10, 0, 0, 1]),
        source_mac: [2; 6],
        mac: [2; 6],
        mtu: 1500,
    };
    let image = render(placement, wanted, |_| Some(&hop));
    let base = image.services.values().next().unwrap().backend_base;
    let usable =
        [0, 1, 2].map(|id| image.backends.get(base + id).is_some_and(|entry| entry.flags & USABLE != 0));
    (*image.services.values().next().unwrap(), usable)
}

#[test]
fn slots_move_only_where_the_table_changes_and_keep_their_flows() {
    use Standing::{Dead, Draining};
    let first = empty().next(&web(), standings([SERVING, SERVING, Dead])).unwrap();
    assert!(!first.is_moving(), "there is no flow to keep");
    let second = first.next(&web(), standings([SERVING; 3])).unwrap();
    let (before, after) = (slots_of(&first), slots_of(&second));
    for ((was, ..), (is, fallback, moves)) in before.iter().zip(&after) {
        assert_eq!((*fallback, *moves), (*was, was != is));
    }
    let moved = after.iter().filter(|slot| slot.2).count();
    assert_eq!((moved, moved), (second.moves_since(&first).moved, second.service("web").unwrap().moving()));
    let third = second.next(&web(), standings([Draining, SERVING, SERVING])).unwrap();
    assert!(slots_of(&third).iter().all(|slot| slot.0 != 0), "a draining backend owns nothing");
    let oldest_stay =
        slots_of(&third).iter().zip(&before).all(|((.., fallback, _), (was, ..))| fallback == was);
    assert!(oldest_stay, "flows from before the first move");
    let fourth = third.next(&web(), standings([Dead, SERVING, SERVING])).unwrap();
    let named = |id| slots_of(&fourth).iter().any(|slot| slot.0 == id || slot.1 == id);
    assert!(!named(0), "nothing names the dead");
}

#[test]
fn nobody_for_new_flows_leaves_the_slots_as_they_are() {
    use Standing::{Dead, Draining};
    let open = empty().next(&web(), standings([SERVING, SERVING, Dead])).unwrap();
    assert_eq!(
        (rendered(&open, &web()).0.flags & CLOSED, rendered(&open, &web()).1),
        (0, [true, true, false])
    );
    let closed = open.next(&web(), standings([Draining, Draining, Dead])).unwrap();
    let (entry, usable) = rendered(&closed, &web());
    assert_eq!((slots_of(&closed), entry.slot_count, entry.flags & CLOSED), (slots_of(&open), 251, CLOSED));
    assert_eq!(usable, [true, true, false], "who drains is usable, who is dead is not");
    assert!(closed.service("web").unwrap().table().is_empty());
    assert_eq!(closed.moves_since(&open), Moves::default());
    let one = closed.next(&web(), standings([Draining, Dead, Dead])).unwrap();
    assert!(slots_of(&one).iter().all(|slot| slot.0 == 0 && slot.1 == 0));
    let again = one.next(&web(), standings([Draining, Dead, SERVING])).unwrap();
    assert!(slots_of(&again).iter().all(|slot| *slot == (2, 0, true)));
    let nobody = again.next(&web(), standings([Dead; 3])).unwrap();
    let (entry, _) = rendered(&nobody, &web());
    assert_eq!((slots_of(&nobody).len(), entry.slot_count, entry.flags & CLOSED), (0, 0, 0));
}

#[test]
fn another_table_size_is_another_table() {
    let first = empty().next(&web(), all).unwrap();
    for size in [241, 509] {
        let mut wanted = web();
        wanted.get_mut("web").unwrap().table_size = size;
        let second = first.next(&wanted, all).unwrap();
        assert_eq!((slots_of(&second).len(), second.is_moving()), (size as usize, false));
    }
}

#[test]
fn slots_age_settle_and_wait_for_dissenters() {
    use Standing::Dead;
    let first = empty().next(&web(), standings([SERVING, SERVING, Dead])).unwrap();
    let mut moved = first.next(&web(), standings([SERVING; 3])).unwrap();
    let (second, minute) = (Duration::from_secs(1), 60_000_000_000);
    let agree = |_| false;
    assert!(moved.calmed(agree, second, u64::MAX - 1).is_none(), "the tables do not hold it yet");
    moved.publish(minute);
    let deadline = minute * 16 + 1_000_000_000;
    assert!(moved.calmed(agree, second, deadline - 1).is_none());
    let aged = moved.calmed(agree, second, deadline).unwrap();
    let (moving, aging) = (moved.service("web").unwrap().moving(), aged.service("web").unwrap().moving());
    assert_eq!(moving, aging);
    assert!(slots_of(&aged).iter().all(|(current, fallback, _)| current == fallback));
    let stubborn = slots_of(&aged).iter().position(|slot| slot.2).unwrap() as u32;
    let settled = aged.calmed(|slot| slot == stubborn, second, deadline).unwrap();
    assert_eq!(settled.service("web").unwrap().moving(), 1);
    assert!(settled.calmed(|slot| slot == stubborn, second, deadline).is_none());
    assert!(!settled.calmed(agree, second, deadline).unwrap().is_moving());
    assert!(!moved.settled().is_moving());
}

#[test]
fn a_slot_that_moves_on_has_moved_since_its_first_move() {
    use Standing::{Dead, Draining};
    let first = empty().next(&web(), standings([SERVING, Dead, Dead])).unwrap();
    let mut second = first.next(&web(), standings([Draining, SERVING, Dead])).unwrap();
    second.publish(1);
    let mut third = second.next(&web(), standings([Draining, Draining, SERVING])).unwrap();
    third.publish(800_000_000_000);
    let aged = third.calmed(|_| true, Duration::ZERO, 900_000_000_001).unwrap();
    assert!(slots_of(&aged).iter().all(|slot| *slot == (2, 2, true)));
}

#[test]
fn what_leaves_flows_behind() {
    use Standing::Dead;
    let first = empty().next(&web(), standings([SERVING, SERVING, Dead])).unwrap();
    let without = services([service("web", "192.0.2.1:80", [1, 2])]);
    assert!(!first.leaves_flows(&first.next(&without, all).unwrap()), "no slot moves, nothing is remembered");
    let moving = first.next(&web(), all).unwrap();
    let next = |wanted: &Services| moving.leaves_flows(&moving.next(wanted, all).unwrap());
    assert!(!next(&web()));
    assert!(!next(&services([service("web", "192.0.2.1:80", [1, 2, 3, 4])])));
    assert!(next(&without));
    assert!(next(&services([])));
    assert!(next(&services([Service { table_size: 241, ..service("web", "192.0.2.1:80", [1, 2, 3]) }])));
    let nobody = moving.next(&web(), standings([Dead; 3])).unwrap();
    assert!(moving.leaves_flows(&nobody));
}

#[test]
fn a_full_table_is_named() {
    let many = services((0..9).map(|n| service(&format!("s{n}"), &format!("192.0.2.{}:80", n + 1), [1])));
    let error = empty().next(&many, all).unwrap_err();
    assert_eq!(
        error.to_string(),
        "service s8: the table of services is full (8 in all); remove something first"
    );
    let large = services([service("large", "192.0.2.1:80", 0..200)]);
    let error = empty().next(&large, all).unwrap_err();
    assert_eq!(
        error.to_string(),
        "service large: the table of backends is full (256 in all); remove something first"
    );
}

#[test]
fn backends_are_the_same_on_every_balancer() {
    // A promise to balancers of other versions; the numbers were computed by another SipHash-2-4.
    assert_eq!(identity(endpoint("10.0.1.1:80")), [0x2923_e6a1_6591_475d, 0x6d6c_b92d_48ae_cc27]);
    assert_eq!(identity(endpoint("[2001:db8::1]:443")), [0xff18_084d_29f6_233f, 0xe400_577a_2d89_aef1]);
}

/// Where a packet for this VIP and port ends up, by the tables alone.
fn entry_for<'a>(
    image: &'a crate::datapath::Image,
    vip: &str,
) -> Option<&'a lb_common::layout::ServiceEntry> {
    let vip = endpoint(vip);
    let key = vip_key(vip.address);
    let region = image.vips.get(&key.set())?.find(key)?;
    let wanted = ServiceKey::new(protocol::TCP, vip.port.number().unwrap_or(0));
    let exact = image.services.get(&region.index(wanted)).filter(|entry| entry.key == wanted);
    exact.or_else(|| {
        image.services.get(&region.wildcard(wanted)).filter(|entry| entry.key == wanted.any_port())
    })
}

fn standing() -> impl Strategy<Value = Standing> {
    let serving = (0u16..3).prop_map(|weight| Standing::Serving(Weight(weight)));
    prop_oneof![1 => Just(Standing::Dead), 1 => Just(Standing::Draining), 2 => serving]
}

proptest! {
    /// Through any history of standings and weights, slots are owned as the table says, and name nobody who is dead.
    #[test]
    fn slots_name_the_living(
        history in prop::collection::vec(prop::collection::vec(standing(), 5..=5), 1..8)
    ) {
        let mut placement = empty();
        for present in history {
            let wanted = services([service("web", "192.0.2.1:80", 0..5)]);
            let of = |b: &Backend| present[(0..5).position(|n| backend(n).endpoint == b.endpoint).unwrap()];
            placement = placement.next(&wanted, |_, b| of(b)).unwrap();
            let placed = placement.service("web").unwrap();
            let owners: Vec<_> = placed.slots().iter().map(|slot| slot.current()).collect();
            prop_assert!(placed.table().is_empty() || placed.table() == owners);
            for slot in placed.slots() {
                for id in [slot.current(), slot.fallback()] {
                    prop_assert_ne!(present[usize::from(id.number())], Standing::Dead);
                }
            }
            let serves = |standing: &Standing| matches!(standing, Standing::Serving(weight) if weight.0 > 0);
            prop_assert_eq!(placed.table().is_empty(), !present.iter().any(serves));
        }
    }

    /// Through any history of VIPs and ports, every service is found, and no two stand on each other's toes.
    #[test]
    fn every_service_is_found(history in prop::collection::vec(prop::collection::btree_set((0u8..3, 0u16..6), 0..8), 1..6)) {
        // Old and new stand side by side during a change.
        let mut placement = Placement::new(&Capacity { services: 16, slots: 16 * 256, ..capacity() });
        for present in history {
            let vip = |(host, port): &(u8, u16)| match port {
                0 => format!("192.0.2.{host}:*"),
                port => format!("192.0.2.{host}:{}", port * 111),
            };
            let wanted = services(present.iter().map(|at| service(&vip(at), &vip(at), [1, 2])));
            placement = placement.next(&wanted, all).unwrap();
            let image = render(&placement, &wanted, |_| None);
            let mut bases = BTreeSet::new();
            for at in &present {
                let entry = entry_for(&image, &vip(at)).expect("found");
                prop_assert_eq!(entry.id, placement.service(&vip(at)).unwrap().row());
                prop_assert!(bases.insert(entry.slot_base));
            }
            let wildcard = |host: u8| present.contains(&(host, 0));
            let strangers = (0..3).filter(|host| !wildcard(*host));
            for host in strangers {
                let stranger = entry_for(&image, &format!("192.0.2.{host}:9999"));
                prop_assert!(stranger.is_none());
            }
        }
    }
}

#[test]
fn many_ports_on_one_vip_hash_without_collision() {
    let keys: BTreeSet<_> = (1..=500).map(|port| ServiceKey::new(protocol::TCP, port * 7)).collect();
    let (bits, seed) = perfect_hash(&keys).unwrap();
    assert!(is_injective(&keys.iter().copied().collect::<Vec<_>>(), Region::new(0, bits, seed)));
    assert!(bits <= 15, "{bits} bits for 500 ports");
}
