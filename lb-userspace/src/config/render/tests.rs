use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::ApiSettings;
use crate::config::{OnExit, parse_text};
use crate::model::{
    Action, Endpoint, ForwardMode, GUE_PORT, Policy, Port, Prefix, Protocol, Scope, Services, Shape, Unit,
    Weight,
};

fn policy() -> impl Strategy<Value = Policy> {
    let unit = prop::sample::select(vec![Unit::Packets, Unit::Bits, Unit::NewConnections]);
    let scope = prop_oneof![
        Just(Scope::Source),
        Just(Scope::Service),
        (1u8..=32, 1u8..=128).prop_map(|(v4, v6)| Scope::Prefix { v4, v6 }),
    ];
    let shape = prop_oneof![
        (20_000u64..100_000, any::<bool>()).prop_map(|(burst, leaks)| Shape::Bucket { burst, leaks }),
        (any::<bool>(), 100u64..5_000)
            .prop_map(|(slides, ms)| Shape::Window { slides, length: Duration::from_millis(ms) }),
    ];
    let action = prop::sample::select(vec![Action::Drop, Action::Mark, Action::Shadow]);
    (unit, 1_000u64..10_000, scope, shape, action).prop_map(|(unit, rate, scope, shape, action)| Policy {
        unit,
        rate,
        scope,
        shape,
        action,
    })
}

/// Limiters that can be, with names of their own.
fn limits() -> impl Strategy<Value = Vec<Limit>> {
    prop::collection::vec((policy(), any::<bool>()), 0..3).prop_map(|policies| {
        let named = |(index, (policy, plain)): (usize, (Policy, bool))| {
            let name = if plain && index == 0 { policy.default_name() } else { format!("limit-{index}") };
            Limit::try_new(name, policy).ok()
        };
        policies.into_iter().enumerate().filter_map(named).collect()
    })
}

fn health() -> impl Strategy<Value = HealthCheck> {
    (100u64..5_000, 1u64..=100, 1u32..=100, 1u32..=100, 1u16..).prop_map(
        |(interval, part, rise, fall, port)| HealthCheck {
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis((interval * part / 100).max(1)),
            rise,
            fall,
            port: NonZeroU16::new(port),
        },
    )
}

fn time() -> impl Strategy<Value = Option<Duration>> {
    prop::option::of((1u64..7_200).prop_map(Duration::from_secs))
}

fn options() -> impl Strategy<Value = ServiceOptions> {
    let times = [time().boxed(), time().boxed(), time().boxed()];
    (any::<bool>(), any::<bool>(), times, any::<bool>(), any::<bool>(), prop::option::of(1u16..)).prop_map(
        |(by_source, quic, [idle_timeout, drain_timeout, slow_start], announce, outer, port)| {
            ServiceOptions {
                affinity: if by_source { Affinity::Source } else { Affinity::Flow },
                quic,
                idle_timeout,
                drain_timeout,
                slow_start,
                announce,
                outer_source: outer.then(|| "10.99.0.0/16".parse().unwrap()),
                gue_port: port.and_then(NonZeroU16::new),
            }
        },
    )
}

fn admin() -> impl Strategy<Value = AdminState> {
    let drain = time().prop_map(|timeout| AdminState::Drain { timeout });
    prop_oneof![Just(AdminState::Ready), drain, Just(AdminState::Maintenance)]
}

fn backends() -> impl Strategy<Value = Vec<(u8, u16, AdminState)>> {
    prop::collection::btree_map(1u8..=30, (any::<u16>(), admin()), 0..6)
        .prop_map(|map| map.into_iter().map(|(last, (weight, admin))| (last, weight, admin)).collect())
        .prop_shuffle()
}

/// The service of a number, which makes its VIP and its backends its own.
fn service(number: u8) -> impl Strategy<Value = Service> {
    let mode =
        prop::sample::select(vec![ForwardMode::DsrL2, ForwardMode::Ipip, ForwardMode::Gue, ForwardMode::Nat]);
    let shape = (any::<bool>(), any::<bool>(), mode, any::<bool>(), any::<bool>());
    (shape, limits(), health(), any::<bool>(), options(), backends()).prop_map(
        move |((v6, udp, mode, large, any_port), limits, health, checked, options, backends)| {
            let port = if any_port { Port::Any } else { Port::Number(NonZeroU16::new(80).unwrap()) };
            let address = |network: &str, last: u8| -> IpAddr {
                let text = if v6 {
                    format!("fd00:{network}:{number}::{last}")
                } else {
                    format!("{network}.0.{number}.{last}")
                };
                text.parse().unwrap()
            };
            let backends = backends.into_iter().map(|(last, weight, admin)| Backend {
                endpoint: Endpoint { address: address("10", last), port },
                weight: Weight(weight),
                admin,
            });
            let mut service = Service {
                name: format!("s{number}"),
                vip: Endpoint { address: address("20", 1), port },
                protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                mode,
                table_size: if large { 1021 } else { 251 },
                limits: Vec::new(),
                health: checked.then_some(health),
                options,
                backends: backends.collect(),
            };
            tidy(&mut service, limits);
            service
        },
    )
}

/// Takes away what a service of this kind cannot have.
fn tidy(service: &mut Service, limits: Vec<Limit>) {
    let options = &mut service.options;
    options.quic &= service.protocol == Protocol::Udp;
    options.gue_port = options.gue_port.filter(|port| service.mode == ForwardMode::Gue && *port != GUE_PORT);
    options.idle_timeout = options.idle_timeout.filter(|timeout| *timeout != service.protocol.idle_timeout());
    let tunnel = matches!(service.mode, ForwardMode::Gue | ForwardMode::Ipip);
    if !tunnel || service.vip.address.is_ipv6() {
        options.outer_source = None;
    }
    service.limits = limits.into_iter().filter(|limit| limit.concerns(service)).collect();
}

fn without_windows(limits: &mut Vec<Limit>) {
    limits.retain(|limit| matches!(limit.policy().shape, Shape::Bucket { .. }));
}

fn lists() -> impl Strategy<Value = Lists> {
    let entry = (any::<u32>(), 0u8..=32, any::<bool>(), any::<bool>());
    prop::collection::vec(entry, 0..8).prop_map(|entries| {
        let mut lists = Lists::default();
        for (bits, length, v6, denied) in entries {
            let address: IpAddr = if v6 {
                std::net::Ipv6Addr::from_bits(u128::from(bits) << 96).into()
            } else {
                std::net::Ipv4Addr::from_bits(bits).into()
            };
            // What is on the other list already stays there.
            let list = if denied { ListName::Deny } else { ListName::Allow };
            let _ = lists.add(list, Prefix::of(address, length));
        }
        lists
    })
}

/// What can be wanted: services 1 to 5, or some of them.
pub(crate) fn desired() -> impl Strategy<Value = Desired> {
    let services = (1u8..=5).map(|number| prop::option::of(service(number)).boxed()).collect::<Vec<_>>();
    (services, limits(), lists()).prop_map(|(services, mut limits, lists)| {
        let mut services: Vec<Service> = services.into_iter().flatten().collect();
        // Few limiters can have windows: the first service's.
        services.iter_mut().skip(1).for_each(|service| without_windows(&mut service.limits));
        without_windows(&mut limits);
        let mut services: Services =
            services.into_iter().map(|service| (service.name.clone(), service)).collect();
        services.limits = limits;
        Desired { services, lists: lists.into() }
    })
}

proptest! {
    #[test]
    fn what_is_rendered_is_read_back(desired in desired()) {
        let text = render(&desired);
        let read = parse_text(&text, Path::new("text")).map_err(|error| {
            TestCaseError::fail(format!("{error}\nin:\n{text}"))
        })?;
        prop_assert_eq!(&read.desired, &desired, "{}", text);
        prop_assert_eq!(read.daemon, None);
        prop_assert_eq!(render(&read.desired), text);
    }
}

fn settings() -> DaemonSettings {
    DaemonSettings {
        interfaces: vec!["eth0".to_owned(), "a\"b\\".to_owned()],
        metrics: Some("[::1]:9441".parse().unwrap()),
        socket: "/run/lb/lb.sock".into(),
        api: Some(ApiSettings {
            listen: "[::]:9440".parse().unwrap(),
            certificate: "/etc/lb/\"api\".crt".into(),
            key: "/etc/lb/api.key".into(),
            tokens: Some("/etc/lb/tokens.toml".into()),
            writers: None,
            readers: Some("/etc/lb/readers.pem".into()),
        }),
        state: "/var/lib/lb".into(),
        hash_key: Some("/etc/lb/hash.key".into()),
        flows: 5_000,
        on_exit: OnExit::Detach,
        pins: "/sys/fs/bpf/lb".into(),
    }
}

#[test]
fn settings_are_rendered_and_read_back() {
    let full = settings();
    for daemon in [full.clone(), DaemonSettings { metrics: None, api: None, hash_key: None, ..full }] {
        let text = render_settings(&daemon);
        assert_eq!(parse_text(&text, Path::new("text")).unwrap().daemon, Some(daemon), "{text}");
    }
}

#[test]
fn changed_settings_are_named() {
    let before = settings();
    let after = DaemonSettings { hash_key: None, flows: 6_000, api: None, ..before.clone() };
    assert_eq!(changed_settings(&before, &after), ["api", "hash_key", "flows"]);
    assert_eq!(changed_settings(&before, &before), [""; 0]);
}

const EXAMPLE: &str = r#"[lists]
deny = [
    "198.51.100.0/24",
]

[[limit]]
name = "source-bits"
scope = "source"
bits = "1Mbit/s"
burst = "1Mbit"
action = "drop"

[[service]]
name = "web"
vip = "192.0.2.10:80"
protocol = "udp"
mode = "gue"
gue_port = 6081
outer_source = "10.99.0.0/16"
affinity = "source"
quic = true
idle_timeout = "90s"
announce = "l2"
table_size = 251
limit = [
    { name = "a", scope = "service", packets = "1k/s", burst = 400, action = "shadow" },
]
health = { kind = "tcp", interval = "1s", timeout = "500ms", rise = 2, fall = 3, port = 80 }
backends = [
    { address = "10.0.1.1:80", weight = 100 },
    { address = "10.0.1.2:80", weight = 50, state = "drain" },
]

"#;

#[test]
fn the_canonical_form_is_what_people_write() {
    let read = parse_text(EXAMPLE, Path::new("text")).unwrap();
    assert_eq!(render(&read.desired), EXAMPLE);
}

/// If this fails, whoever changes to this version loses what was changed by command since the files were read: new keys
/// are to be rendered only where they say something.
#[test]
fn the_digest_of_a_configuration_stays_the_same_over_versions() {
    let read = parse_text(EXAMPLE, Path::new("text")).unwrap();
    let digest = digest(&read.desired);
    assert_eq!(digest.to_string(), "ca816a34d5d232a43d405af54f0c9444");
    assert_eq!(digest.to_string().parse(), Ok(digest));
    for text in ["", "+0000000000000000000000000000000", "0123"] {
        assert_eq!(text.parse::<Digest>(), Err(DigestError(text.to_owned())));
    }
}
