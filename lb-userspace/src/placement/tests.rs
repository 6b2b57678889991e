use super::*;
use crate::model::{AdminState, ForwardMode, ServiceOptions, Weight};
use proptest::prelude::*;

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
        limit: None,
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
        bucket_sets: 1,
        flow_sets: 16,
        fragment_sets: 16,
    }
}

fn empty() -> Placement {
    Placement::new(&capacity())
}

fn all(_: &Service, _: &Backend) -> bool {
    true
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
    assert_eq!((first.id, first.slots), (second.id, second.slots));
}

#[test]
fn tables_follow_who_takes_traffic() {
    let wanted = services([service("web", "192.0.2.1:80", [1, 2])]);
    let both = empty().next(&wanted, all).unwrap();
    assert_eq!(both.service("web").unwrap().owned_slots().values().sum::<u32>(), 251);
    let one = both.next(&wanted, |_, b| b.endpoint == backend(1).endpoint).unwrap();
    assert_eq!(one.service("web").unwrap().owned_slots()[&backend(2).endpoint], 0);
    let none = one.next(&wanted, |_, _| false).unwrap();
    assert!(none.service("web").unwrap().table().is_empty());
    let again = none.next(&wanted, all).unwrap();
    assert_eq!(again.service("web").unwrap().table(), both.service("web").unwrap().table());
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

proptest! {
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
