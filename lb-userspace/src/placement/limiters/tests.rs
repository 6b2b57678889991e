use std::net::IpAddr;

use super::*;
use crate::config::{LimitKeys, Scalar, read_limit};
use crate::model::{Endpoint, ForwardMode, Protocol, ServiceOptions};

fn limit(keys: &str) -> Limit {
    let scalar = |value: &str| value.parse().map_or_else(|_| Scalar::Text(value.to_owned()), Scalar::Integer);
    let pairs = keys.split_whitespace().filter_map(|pair| pair.split_once('='));
    let keys: LimitKeys = pairs.map(|(key, value)| (key.to_owned(), scalar(value))).collect();
    read_limit(&keys).unwrap()
}

fn packets(name: &str, rest: &str) -> Limit {
    limit(&format!("name={name} scope=source action=drop {rest}"))
}

fn service(name: &str, vip: &str, limits: Vec<Limit>) -> (String, Service) {
    let vip: Endpoint = vip.parse().unwrap();
    let service = Service {
        name: name.to_owned(),
        vip,
        protocol: Protocol::Tcp,
        mode: ForwardMode::Ipip,
        table_size: 251,
        limits,
        health: None,
        options: ServiceOptions::default(),
        backends: Vec::new(),
    };
    (name.to_owned(), service)
}

fn web(limits: Vec<Limit>) -> Services {
    Services::from([service("web", "192.0.2.1:80", limits)])
}

fn none() -> Limiters {
    Limiters::new(&Capacity { limiters: 8, bucket_sets: 1 << 10, ..Capacity::default() })
}

fn entries(limiters: &Limiters, services: &Services, name: &str) -> Vec<(u32, LimiterEntry)> {
    limiters.render(services, services.get(name).unwrap()).collect()
}

/// What a change of limiters leaves as it was: the salt, and the rows of the table.
fn kept(before: &str, after: &str) -> (bool, bool) {
    let [before, after] = [before, after].map(|rest| web(vec![packets("a", rest)]));
    let first = none().next(&before).unwrap();
    let second = first.next(&after).unwrap();
    let key = LimiterKey { service: Some("web".to_owned()), name: "a".to_owned() };
    assert_eq!(first.counters(&key), second.counters(&key), "a name keeps its counters");
    (first.salt(&key) == second.salt(&key), first.rows("web") == second.rows("web"))
}

#[test]
fn limiters_keep_their_buckets_while_these_mean_the_same() {
    let before = "packets=1k/s burst=200";
    assert_eq!(kept(before, "packets=2k/s burst=100"), (true, true));
    assert_eq!(kept(before, "packets=1k/s burst=200 algorithm=leaky-bucket"), (true, true));
    for other in [
        "new_connections=1k/s burst=200",
        "packets=1k/s algorithm=fixed-window window=1s",
        // Not worth two ticks: the exact clock.
        "packets=1k/s burst=19",
    ] {
        assert_eq!(kept(before, other), (false, false), "{other}");
    }
    let window = "packets=1k/s algorithm=fixed-window window=1s";
    assert_eq!(kept(window, "packets=2k/s algorithm=fixed-window window=1s"), (true, true));
    assert_eq!(kept(window, "packets=1k/s algorithm=fixed-window window=2s"), (false, false));
    assert_eq!(kept(window, "packets=1k/s algorithm=sliding-window window=1s"), (false, false));
}

#[test]
fn a_limiter_beside_others_moves_the_rows_and_keeps_the_buckets() {
    let (a, b) = (packets("a", "packets=1k/s burst=200"), packets("b", "packets=1k/s burst=200"));
    let first = none().next(&web(vec![a.clone()])).unwrap();
    let services = web(vec![b, a]);
    let second = first.next(&services).unwrap();
    let old = entries(&first, &web(vec![packets("a", "packets=1k/s burst=200")]), "web");
    let new = entries(&second, &services, "web");
    assert_eq!(new.len(), 2);
    assert_eq!(old[0].1, new[1].1, "the same entry in another row");
    assert!(new.iter().all(|(row, _)| *row != old[0].0), "packets may still be reading the old row");
    let third = second.next(&web(Vec::new())).unwrap();
    assert_eq!(third.rows("web"), LimiterRows { first: 0, count: 0 });
    // Everything was given back.
    let eight: Vec<Limit> = (0..8).map(|n| packets(&format!("n{n}"), "packets=1k/s burst=200")).collect();
    let fourth = third.next(&web(eight)).unwrap();
    assert_eq!(fourth.rows("web").count, 8);
}

#[test]
fn limiters_of_all_services_are_copies_with_one_salt() {
    let mut services = Services::from([
        service("four", "192.0.2.1:80", vec![packets("own", "packets=1k/s burst=200")]),
        service("six", "[2001:db8::1]:80", Vec::new()),
    ]);
    services.limits =
        vec![limit("name=all scope=prefix prefix4=24 prefix6=48 packets=1k/s burst=200 action=drop")];
    let placed = none().next(&services).unwrap();
    let (four, six) = (entries(&placed, &services, "four"), entries(&placed, &services, "six"));
    assert_eq!((four.len(), six.len()), (2, 1));
    let (four, six) = (four[1].1, six[0].1);
    assert_ne!(four.mask, six.mask);
    assert_eq!(LimiterEntry { mask: six.mask, ..four }, six);
}

#[test]
fn windows_have_ranges_of_their_own_as_long_as_there_are_any() {
    let window = |n: usize, length: usize| {
        packets(&format!("n{n}"), &format!("packets=1k/s algorithm=fixed-window window={length}s"))
    };
    let services = web((0..8).map(|n| window(n, 1)).collect());
    let first = none().next(&services).unwrap();
    let mut starts: Vec<u32> = entries(&first, &services, "web").iter().map(|(_, e)| e.first_set).collect();
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts.len(), 8);
    assert!(starts[0] >= (1 << 10) / 4 * 3);
}

#[test]
fn masks_keep_the_bits_of_a_prefix() {
    let apply = |scope, address: &str| {
        let address: IpAddr = address.parse().unwrap();
        let key = super::super::vip_key(address);
        let [high, low] = mask(scope, address.is_ipv4());
        (key.high & high, key.low & low)
    };
    let prefix = Scope::Prefix { v4: 20, v6: 52 };
    for (scope, one, same, other) in [
        (prefix, "198.51.96.1", "198.51.111.255", "198.51.112.1"),
        (prefix, "2001:db8:0:1fff::1", "2001:db8:0:1000:5::", "2001:db8:0:2000::1"),
        (Scope::Source, "198.51.96.1", "198.51.96.1", "198.51.96.2"),
        (Scope::Source, "2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"),
        (Scope::Prefix { v4: 1, v6: 128 }, "1.2.3.4", "127.0.0.1", "128.0.0.1"),
        (Scope::Prefix { v4: 1, v6: 128 }, "2001:db8::1", "2001:db8::1", "2001:db8::2"),
    ] {
        assert_eq!(apply(scope, one), apply(scope, same), "{scope:?} {one}");
        assert_ne!(apply(scope, one), apply(scope, other), "{scope:?} {one}");
    }
    assert_eq!(apply(Scope::Service, "1.2.3.4"), apply(Scope::Service, "2001:db8::1"));
}
