//! What limiters propose that only count, and when they begin anew.

use lb_common::layout::VipKey;
use lb_common::limiter::Asker;
use lb_common::limiter::meter::METERS;
use lb_common::wire::Ipv4Address;

use super::*;
use crate::config::{Scalar, read_limit};
use crate::controller::SuggestionQuery;
use crate::suggestion::Quantile;
use crate::view::Suggestion;

fn set<D: Datapath>(core: &mut Core<D>, service: Option<&str>, keys: &str) {
    let scalar = |value: &str| value.parse().map_or_else(|_| Scalar::Text(value.to_owned()), Scalar::Integer);
    let pairs = keys.split_whitespace().filter_map(|pair| pair.split_once('='));
    let limit = read_limit(&pairs.map(|(key, value)| (key.to_owned(), scalar(value))).collect()).unwrap();
    core.change(Change::SetLimit { service: service.map(str::to_owned), limit }).unwrap();
}

/// Tables in which sources do not get into each other's way.
fn roomy() -> Core<MemoryDatapath> {
    let random = std::array::from_fn(|n| (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let capacity = Capacity { bucket_sets: 1 << 13, ..tables().capacity() };
    core_of(MemoryDatapath::new(HashKey::from_random(random), capacity, &[]))
}

fn probing() -> Core<MemoryDatapath> {
    let mut core = roomy();
    set(&mut core, Some("web"), PROBE);
    core
}

const PROBE: &str = "name=probe scope=source packets=1k/s burst=2000 action=shadow";

/// In one second, so many packets each of sources that nobody else is.
fn send(core: &mut Core<MemoryDatapath>, seconds: u64, packets: &[u32]) {
    let row = *core.image.limiters.keys().next().unwrap();
    core.datapath.set_now(seconds * 1_000_000_000);
    for (last, count) in packets.iter().enumerate() {
        let source = VipKey::v4(Ipv4Address::new([198, 51, 100, last as u8]));
        for _ in 0..*count {
            let _ = core.datapath.ask(row, &Asker { source, bytes: 100, traits: 0 });
        }
    }
}

fn ask(
    core: &Core<MemoryDatapath>,
    service: Option<&str>,
    limiter: Option<&str>,
    percent: &str,
) -> Result<Vec<Suggestion>, ChangeError> {
    let quantile: Quantile = percent.parse().unwrap();
    core.suggestions(&SuggestionQuery {
        service: service.map(str::to_owned),
        limiter: limiter.map(str::to_owned),
        quantile,
    })
}

fn sources(core: &Core<MemoryDatapath>) -> u64 {
    ask(core, Some("web"), None, "99.9").map_or(0, |found| found[0].sources)
}

#[test]
fn a_suggestion_leaves_alone_whom_it_is_to_leave_alone() {
    let mut core = probing();
    // In its busiest second each sends what is told by its place, whatever it does in others.
    send(&mut core, 5, &[3, 3, 3, 1, 1, 1, 1, 1, 1, 300]);
    send(&mut core, 6, &[1, 1, 1, 3, 3, 3, 3, 3, 41, 2]);
    let found = ask(&core, Some("web"), None, "90").unwrap();
    let [Suggestion { sources, hits, words, command, quantile, busiest, .. }] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!((*sources, *hits, *quantile), (10, 1, 90.0));
    // 41 is of the level that ends with 47.
    assert_eq!(words, "47 packets/s per source, burst 94");
    assert_eq!(command, "lb limit set web probe packets=47/s burst=94 action=drop");
    let rates: Vec<u64> = busiest.iter().map(|one| one.rate).collect();
    assert_eq!(rates, [3, 47, 319, 319, 319]);
    assert_eq!(ask(&core, Some("web"), Some("probe"), "100").unwrap()[0].hits, 0);
}

#[test]
fn a_meter_begins_anew_with_what_it_measures_and_not_with_rate_and_burst() {
    let mut core = probing();
    send(&mut core, 5, &[3, 3]);
    set(&mut core, Some("web"), &PROBE.replace("1k/s", "5k/s"));
    assert_eq!(sources(&core), 2);
    set(&mut core, Some("web"), &PROBE.replace("packets=1k/s burst=2000", "bits=1Mbit/s burst=1Mbit"));
    assert_eq!(sources(&core), 0);
    send(&mut core, 6, &[1, 2, 4]);
    let found = ask(&core, Some("web"), None, "100").unwrap();
    assert_eq!((found[0].sources, found[0].words.as_str()), (3, "3600bit/s per source, burst 12112bit"));
    // Without a meter for a while, and with one that others had before.
    for _ in 0..2 * METERS {
        set(&mut core, Some("web"), &PROBE.replace("shadow", "drop"));
        assert!(matches!(ask(&core, Some("web"), Some("probe"), "99"), Err(ChangeError::Refused(_))));
        set(&mut core, Some("web"), PROBE);
        assert_eq!(sources(&core), 0);
        send(&mut core, 7, &[9]);
        assert_eq!(sources(&core), 1);
    }
}

#[test]
fn the_command_takes_away_what_the_proposal_has_not() {
    let mut core = roomy();
    set(&mut core, None, "name=all scope=prefix packets=9/s algorithm=fixed-window window=10s action=shadow");
    send(&mut core, 5, &[3, 7]);
    let expected = "lb limit set '*' all packets=7/s burst=14 algorithm= window= action=drop";
    for service in [None, Some("web")] {
        assert_eq!(ask(&core, service, None, "99").unwrap()[0].command, expected);
    }
}

#[test]
fn what_cannot_be_suggested_is_refused_with_a_way_out() {
    let mut core = core();
    let sentence = |result: Result<Vec<Suggestion>, ChangeError>| match result {
        Err(ChangeError::NotFound(sentence)) => sentence,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        sentence(ask(&core, Some("wbe"), None, "99")),
        "there is no service \"wbe\"; did you mean web?"
    );
    let way_out = |owner| {
        format!(
            "`lb limit set {owner} probe scope=source packets=1k/s burst=2000 action=shadow` adds one, which drops nothing"
        )
    };
    set(&mut core, Some("web"), "name=whole scope=service packets=1k/s burst=2000 action=shadow");
    let expected = format!("service web has no limiter that measures sources; {}", way_out("web"));
    assert_eq!(sentence(ask(&core, Some("web"), None, "99")), expected);
    let expected = format!("there is no limiter that measures sources; {}", way_out("'*'"));
    assert_eq!(sentence(ask(&core, None, None, "99")), expected);
    let expected = "there is no limiter \"none\"; see `lb limit list web`";
    assert_eq!(sentence(ask(&core, Some("web"), Some("none"), "99")), expected);
    let refused = ask(&core, Some("web"), Some("whole"), "99").unwrap_err().to_string();
    assert!(
        refused.starts_with("limiter whole measures nothing: only those do that have action = \"shadow\""),
        "{refused}"
    );
    set(&mut core, Some("web"), PROBE);
    let expected = "limiter probe has not seen a source yet, for 0 s; ask again when there were some";
    assert_eq!(sentence(ask(&core, Some("web"), None, "99")), expected);
}

#[test]
fn without_a_meter_left_a_limiter_says_so_and_gets_the_next() {
    let mut core = core();
    let mut services = web([1, 2]);
    let api = Service {
        name: "api".to_owned(),
        vip: "192.0.2.11:80".parse().unwrap(),
        ..services.get("web").unwrap().clone()
    };
    services.insert(api.name.clone(), api);
    core.set_services(services).unwrap();
    let probe = |number: u32| PROBE.replace("probe", &format!("n{number}"));
    for number in 0..=METERS {
        set(&mut core, Some(if number < METERS / 2 { "api" } else { "web" }), &probe(number));
    }
    let told =
        |core: &Core<MemoryDatapath>| ask(core, Some("web"), Some("n8"), "99").unwrap_err().to_string();
    assert!(told(&core).starts_with("limiter n8 measures nothing: all meters"), "{}", told(&core));
    core.change(Change::RemoveLimit { service: Some("api".to_owned()), name: "n0".to_owned() }).unwrap();
    // What was given up is free from the next change on.
    set(&mut core, Some("web"), &probe(7));
    assert!(told(&core).starts_with("limiter n8 has not seen a source"), "{}", told(&core));
}
