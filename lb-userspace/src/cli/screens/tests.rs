use super::*;
use crate::model::{Action, Affinity, ForwardMode, Protocol, Weight};
use crate::view::{
    BackendSlots, CheckView, FlowCount, FlowLookup, FlowStage, FlowView, PlanView, ServiceSlots,
};
use crate::view::{BackendState, LimitedSource, OptionsView, SamplesView, SlotsView};

pub(in crate::cli) fn service(name: &str, serving: usize, packets: u64) -> ServiceView {
    ServiceView {
        name: name.to_owned(),
        vip: "192.0.2.10:80".to_owned(),
        protocol: Protocol::Tcp,
        mode: ForwardMode::DsrL2,
        limit: None,
        options: OptionsView::default(),
        table_size: 65_537,
        slots: SlotsView { settled: 65_530, moving: 7 },
        backends_serving: serving,
        backends_total: 3,
        packets,
        bytes: packets * 64,
        new_flows: packets / 10,
        limited: packets / 100,
        contended: 0,
    }
}

pub(in crate::cli) fn backend(
    address: &str,
    state: BackendState,
    health: HealthState,
    effective: u16,
) -> BackendView {
    BackendView {
        address: address.to_owned(),
        state,
        drain_seconds_left: None,
        health,
        weight: Weight(100),
        effective_weight: Weight(effective),
        share: 1.0 / 3.0,
        next_hop: "eth0 (02:00:00:00:00:01)".to_owned(),
        reachable: true,
        packets: 92_100,
        bytes: 12_345_678,
        since_seconds: Some(240),
        last_check: "connected in 0.4 ms".to_owned(),
    }
}

fn interface(name: &str, drops: &[(&str, u64)]) -> InterfaceView {
    InterfaceView::example(name, drops, &[("echo", 1_500)])
}

#[test]
fn status_shows_what_is_well_and_what_is_not() {
    let view = Status {
        version: "0.1.0".to_owned(),
        uptime_seconds: 273_600,
        generation: 42,
        config: ConfigStatus {
            origin: "file /etc/lb/lb.toml".to_owned(),
            time: 0,
            ..ConfigStatus::default()
        },
        interfaces: vec![
            interface("eth0", &[("truncated", 3), ("limited", 900)]),
            interface("eth1", &[("limited", 100)]),
        ],
        services: vec![service("web", 3, 3_810_000), service("api", 2, 0)],
        flows: FlowsView { remembered: 1_204, capacity: 1_048_576, ..FlowsView::default() },
        lists: ListsView { denied: 1_204, allowed: 3, capacity: 250_000 },
        limiter_samples: SamplesView::default(),
        warnings: vec!["service api: 1 of 3 backends down".to_owned()],
    };
    let expected = "\
lb 0.1.0  up 3d4h  generation 42 (file /etc/lb/lb.toml, 1970-01-01 00:00:00 UTC)  1 warning
XDP       eth0 native  eth1 native
SERVICES  1 well  1 degraded     BACKENDS 5 of 6 serving
SLOTS     131 060 settled  14 moving     FLOWS 1 204 / 1 048 576 remembered  0 evicted
PACKETS   3.81M for services  38.1k limited  381k new flows
PASSES    none
DROPS     limited 1k  truncated 3
ANSWERS   echo 3k
LISTS     1 204 prefixes denied  3 allowed  of 250 000 there is room for
! service api: 1 of 3 backends down
";
    assert_eq!(status(&view), expected);
}

#[test]
fn services_are_a_table() {
    let mut limited = service("api", 2, 1_000);
    limited.limit = Some("1000 packets/s per source, burst 200".to_owned());
    limited.options.affinity = Some(Affinity::Source);
    let expected = "\
SERVICE  VIP            PROTOCOL  MODE    BACKENDS  PACKETS  BYTES  NEW FLOWS  LIMITED  LIMIT                                 OPTIONS
web      192.0.2.10:80  tcp       dsr-l2       3/3    3.81M   244M       381k    38.1k  none                                  none
api      192.0.2.10:80  tcp       dsr-l2       2/3       1k    64k        100       10  1000 packets/s per source, burst 200  affinity=source
";
    assert_eq!(services(Look::default(), &[service("web", 3, 3_810_000), limited]), expected);
}

#[test]
fn backends_are_a_table() {
    let mut lost = backend("[2001:db8::1]:80", BackendState::Ready, HealthState::Unchecked, 0);
    lost.reachable = false;
    lost.next_hop = "no route".to_owned();
    lost.since_seconds = None;
    lost.last_check = String::new();
    lost.share = 0.0;
    let drains = |seconds| {
        let backend = backend("10.0.1.2:80", BackendState::Drain, HealthState::Up, 0);
        BackendView { drain_seconds_left: seconds, ..backend }
    };
    let views = [
        backend("10.0.1.1:80", BackendState::Ready, HealthState::Up, 100),
        backend("10.0.1.1:80", BackendState::Ready, HealthState::Up, 19),
        drains(None),
        drains(Some(240)),
        drains(Some(0)),
        backend("10.0.1.3:80", BackendState::Ready, HealthState::Down, 0),
        backend("10.0.1.4:80", BackendState::Maintenance, HealthState::Up, 0),
        lost,
    ];
    let expected = "\
BACKEND           STATE          HEALTH     WEIGHT   SHARE  PACKETS  BYTES  SINCE  NEXT HOP                  LAST CHECK
10.0.1.1:80       ready          up            100  33.3 %    92.1k  12.3M  4m     eth0 (02:00:00:00:00:01)  connected in 0.4 ms
10.0.1.1:80       ready          up         19/100  33.3 %    92.1k  12.3M  4m     eth0 (02:00:00:00:00:01)  connected in 0.4 ms
10.0.1.2:80       drain          up          0/100  33.3 %    92.1k  12.3M  4m     eth0 (02:00:00:00:00:01)  connected in 0.4 ms
10.0.1.2:80       drain (4m)     up          0/100  33.3 %    92.1k  12.3M  4m     eth0 (02:00:00:00:00:01)  connected in 0.4 ms
10.0.1.2:80       drain (ended)  up          0/100  33.3 %    92.1k  12.3M  4m     eth0 (02:00:00:00:00:01)  connected in 0.4 ms
10.0.1.3:80       ready          down        0/100  33.3 %    92.1k  12.3M  4m     eth0 (02:00:00:00:00:01)  connected in 0.4 ms
10.0.1.4:80       maintenance    up          0/100  33.3 %    92.1k  12.3M  4m     eth0 (02:00:00:00:00:01)  connected in 0.4 ms
[2001:db8::1]:80  ready          unchecked   0/100   0.0 %    92.1k  12.3M  -      no route                  -
";
    assert_eq!(backends(Look::default(), &views), expected);
}

#[test]
fn who_is_limited_is_a_table_and_a_sum() {
    let one = |source: Option<&str>, service: Option<&str>, action| LimitedSource {
        source: source.map(str::to_owned),
        packets_per_second: 1_204.5,
        uncertainty: 20.25,
        service: service.map(str::to_owned),
        limiter: "flood".to_owned(),
        action,
    };
    let mut view = LimitedView {
        seconds: 15.2,
        packets_per_second: 92_100.0,
        samples: 1_000,
        samples_lost: 1_500,
        sources_total: 7,
        sources: vec![
            one(Some("198.51.100.7"), Some("web"), Action::Drop),
            one(Some("2001:db8:1::/48"), None, Action::Mark),
            one(None, Some("web"), Action::Shadow),
            one(None, None, Action::Drop),
        ],
    };
    let expected = "\
SOURCE              RATE   +/-  SERVICE  LIMITER  ACTION
198.51.100.7       1.21k  20.2  web      flood    drop
2001:db8:1::/48    1.21k  20.2  *        flood    mark
the whole service  1.21k  20.2  web      flood    shadow
all services       1.21k  20.2  *        flood    drop
92.1k packets/s over limits in the last 15 s; 3 more not shown
! 1 500 samples were lost: rates are higher than shown
";
    assert_eq!(limited(Look::default(), &view), expected);
    (view.samples_lost, view.sources) = (0, Vec::new());
    let expected = "92.1k packets/s over limits in the last 15 s, of so many sources that none stands out.\n";
    assert_eq!(limited(Look::default(), &view), expected);
    view.packets_per_second = 0.0;
    assert_eq!(limited(Look::default(), &view), "Nothing was over a limit in the last 15 s.\n");
}

#[test]
fn an_empty_table_is_its_header() {
    assert_eq!(backends(Look::default(), &[]).lines().count(), 1);
}

#[test]
fn a_change_tells_what_it_moved() {
    let mut change = Applied {
        generation: 3,
        summary: "web: backend 10.0.1.9:8080 added".to_owned(),
        slots_moved: 21_846,
        slots_least: 21_845,
        slots_total: 65_537,
    };
    let expected = "web: backend 10.0.1.9:8080 added (generation 3): 33.3 % of 65537 slots moved, the least possible is \
                    33.3 %\n";
    assert_eq!(applied(&change), expected);
    change.slots_total = 0;
    assert_eq!(applied(&change), "web: backend 10.0.1.9:8080 added (generation 3)\n");
}

#[test]
fn a_decapsulator_tells_what_happened_and_not_what_did_not() {
    let result = |reason: &str, meaning: &str, packets| ReasonCount {
        reason: reason.to_owned(),
        meaning: meaning.to_owned(),
        packets,
    };
    let report = InterfaceReport {
        name: "eth0".to_owned(),
        mode: "native".to_owned(),
        results: vec![result("unwrapped_gue", "It was.", 92_100), result("unlisted", "It came.", 0)],
    };
    let expected = "INTERFACE  RESULT         PACKETS  MEANING\neth0       unwrapped_gue    92.1k  It was.\n";
    assert_eq!(decap(Look::default(), &[report]), expected);
}

const NARROW: Look = Look { wide: false, columns: Some(40) };

#[test]
fn flows_are_listed_and_looked_up() {
    let flow = FlowView {
        hash: "00c0ffee00c0ffee".to_owned(),
        service: "web".to_owned(),
        slot: 7,
        backend: Some("10.0.1.1:80".to_owned()),
        stage: FlowStage::Confirmed,
        idle_seconds: 3,
    };
    let expected = "\
HASH              SERVICE  SLOT  BACKEND      STAGE      IDLE
00c0ffee00c0ffee  web         7  10.0.1.1:80  confirmed    3s
There are more (--limit shows them).
";
    assert_eq!(flows(Look::default(), std::slice::from_ref(&flow), true), expected);
    assert!(flows(NARROW, std::slice::from_ref(&flow), false).starts_with("HASH    00c0ffee00c0ffee\n"));
    assert!(flows(Look::default(), &[], false).starts_with("No flow is remembered"));
    let found = FlowLookup {
        service: "web".to_owned(),
        hash: flow.hash.clone(),
        slot: Some(7),
        moving: true,
        backend: flow.backend.clone(),
        opens_at: Some("10.0.1.2:80".to_owned()),
        remembered: Some(flow),
        reason: "its slot moves, and the flow is remembered".to_owned(),
    };
    let expected = "\
BACKEND  10.0.1.1:80
WHY      its slot moves, and the flow is remembered
OPENING  a packet that opens it anew goes to 10.0.1.2:80
SERVICE  web
SLOT     7, moving
HASH     00c0ffee00c0ffee
KNOWN    confirmed, idle for 3s
";
    assert_eq!(lookup(Look::default(), &found), expected);
    let settled =
        FlowLookup { moving: false, opens_at: found.backend.clone(), remembered: None, ..found.clone() };
    assert!(!lookup(Look::default(), &settled).contains("OPENING"));
    let nowhere = FlowLookup { slot: None, backend: None, opens_at: None, remembered: None, ..found };
    assert!(lookup(Look::default(), &nowhere).starts_with("BACKEND  none\n"));
}

#[test]
fn remembered_flows_are_counted_by_backend() {
    let one = |backend: Option<&str>, fresh, confirmed| FlowCount {
        service: "web".to_owned(),
        backend: backend.map(str::to_owned),
        fresh,
        confirmed,
    };
    let expected = "\
SERVICE  BACKEND      FLOWS  FRESH  CONFIRMED
web      removed          1      1          0
web      10.0.1.1:80  1 202      2      1 200
1 203 flows remembered
";
    let counts = [one(None, 1, 0), one(Some("10.0.1.1:80"), 2, 1_200)];
    assert_eq!(flow_counts(Look::default(), &counts), expected);
    assert_eq!(flow_counts(Look::default(), &[]), "0 flows remembered\n");
}

#[test]
fn slots_are_shared_out() {
    let one = |address: &str, owned, arriving, leaving| BackendSlots {
        address: address.to_owned(),
        owned,
        share: f64::from(owned) / 251.0,
        wanted_share: 0.5,
        arriving,
        leaving,
    };
    let backends = vec![one("10.0.1.1:80", 125, 0, 3), one("10.0.1.2:80", 126, 3, 0)];
    let view = ServiceSlots { table_size: 251, settled: 248, moving: 3, backends };
    let expected = "\
BACKEND      SLOTS   SHARE  WANTED  ARRIVING  LEAVING
10.0.1.1:80    125  49.8 %  50.0 %         0        3
10.0.1.2:80    126  50.2 %  50.0 %         3        0
251 slots: 248 settled, 3 moving
";
    assert_eq!(slots(Look::default(), &view), expected);
    let plan = PlanView { tables: 1, slots_moved: 48, slots_least: 39, slots_total: 1_000, flows: 1 };
    let words = "48 of 1 000 slots would move (4.8 %; 3.9 % is the least possible); 1 flow remembered in them. \
                 Nothing was changed.\n";
    assert_eq!(disruption(Look::default(), &plan), words);
    let plan = PlanView { slots_total: 0, ..plan };
    assert_eq!(disruption(Look::default(), &plan), "No slot would move. Nothing was changed.\n");
}

#[test]
fn wide_tables_have_more_columns_and_narrow_terminals_paragraphs() {
    let check = CheckView {
        service: "web".to_owned(),
        backend: "10.0.1.1:80".to_owned(),
        target: "10.0.1.1:8080".to_owned(),
        health: HealthState::Down,
        since_seconds: None,
        interval_ms: 1_000,
        rise: 2,
        fall: 3,
        last_check: "connection refused".to_owned(),
    };
    let view = std::slice::from_ref(&check);
    assert!(!checks(Look::default(), view).contains("RISE"));
    assert!(checks(Look { wide: true, columns: None }, view).contains("RISE"));
    let narrow = checks(NARROW, view);
    assert!(narrow.lines().all(|line| line.len() <= 40), "{narrow}");
    assert!(narrow.contains("LAST CHECK connection refused\n"), "{narrow}");
    let narrow = services(NARROW, &[service("web", 3, 3_810_000)]);
    assert!(narrow.lines().all(|line| line.len() <= 40), "{narrow}");
}
