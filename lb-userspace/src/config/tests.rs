use super::*;
use crate::model::{
    AdminState, Affinity, Backend, ForwardMode, HealthCheck, Limit, Protocol, ServiceOptions, Weight,
};
use std::path::Path;

use proptest::strategy::Strategy as _;
use std::time::Duration;

mod admin;
mod lists;

const DAEMON: &str = "[daemon]\ninterfaces = [\"eth0\"]\n";

/// A service on lines 3 to 7, with `more` from line 8 on.
fn with_service(more: &str) -> String {
    let head =
        "[[service]]\nname = \"web\"\nvip = \"192.0.2.10:80\"\nprotocol = \"tcp\"\nmode = \"dsr-l2\"\n";
    format!("{DAEMON}{head}{more}\n")
}

fn read_ok(text: &str) -> Config {
    parse(text, Path::new("lb.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn mistakes(text: &str) -> String {
    match parse(text, Path::new("lb.toml")) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

fn backend(address: &str, weight: u16) -> Backend {
    Backend { endpoint: address.parse().unwrap(), weight: Weight(weight), admin: AdminState::Ready }
}

#[test]
fn a_full_configuration_is_read() {
    let config = read_ok(
        r#"
        [daemon]
        interfaces = ["eth0", "eth1"]
        metrics = "127.0.0.1:9441"
        socket = "/tmp/lb.sock"
        hash_key = "file:/etc/lb/hash.key"
        flows = 5000

        [[service]]
        name = "web"
        vip = "192.0.2.10:80"
        protocol = "tcp"
        mode = "dsr-l2"
        table_size = 251
        limit = [{ scope = "source", packets = "1k/s", burst = 200, action = "drop" }]
        health = { kind = "tcp", interval = "2s", timeout = "1s", rise = 4, fall = 5, port = 8080 }
        backends = [{ address = "10.0.1.1:80", weight = 50 }, { address = "10.0.1.2:80" }]

        [[service]]
        name = "dns"
        vip = "[2001:db8::53]:*"
        protocol = "udp"
        mode = "ipip"
        backends = [{ address = "10.0.1.1:*" }]
        "#,
    );
    assert_eq!(config.daemon.interfaces, ["eth0", "eth1"]);
    assert_eq!(config.daemon.metrics, Some("127.0.0.1:9441".parse().unwrap()));
    assert_eq!(config.daemon.socket, Path::new("/tmp/lb.sock"));
    assert_eq!(config.daemon.hash_key.as_deref(), Some(Path::new("/etc/lb/hash.key")));
    assert_eq!(config.daemon.flows, 5_000);
    let web = &config.services[0];
    assert_eq!((web.name.as_str(), web.table_size), ("web", 251));
    assert_eq!((web.protocol, web.mode), (Protocol::Tcp, ForwardMode::DsrL2));
    assert_eq!(web.limits, [Limit::try_new("source-packets", packets_per_source(1_000, 200)).unwrap()]);
    let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    let port = std::num::NonZeroU16::new(8080);
    assert_eq!(web.health, Some(HealthCheck { interval, timeout, rise: 4, fall: 5, port }));
    assert_eq!(web.backends, [backend("10.0.1.1:80", 50), backend("10.0.1.2:80", 100)]);
    let dns = &config.services[1];
    assert_eq!((dns.vip.to_string().as_str(), dns.mode), ("[2001:db8::53]:*", ForwardMode::Ipip));
}

#[test]
fn limits_of_every_kind_are_read() {
    let config = read_ok(&format!(
        "{}\n[[limit]]\nname = \"all\"\nscope = \"service\"\nbits = \"10Gbit/s\"\nburst = \"1Gbit\"\naction = \"shadow\"\n",
        with_service(
            r#"limit = [
            { scope = "prefix", prefix4 = 24, prefix6 = 48, new_connections = "200/s", burst = 400, action = "drop" },
            { scope = "source", packets = "1k/s", algorithm = "leaky-bucket", burst = 200, action = "drop" },
            { scope = "source", bits = "200Mbit/s", burst = "2Mbit", action = "mark" },
            { name = "w", scope = "service", packets = "1k/s", algorithm = "sliding-window", window = "2s", action = "drop" },
            ]"#
        )
    ));
    let told = |limit: &Limit| format!("{}: {}", limit.name(), limit.policy());
    let own: Vec<String> = config.services[0].limits.iter().map(told).collect();
    let expected = [
        "prefix-new-connections: 200 new connections/s per /24 or IPv6 /48, burst 400",
        "source-packets: 1000 packets/s per source, burst 200",
        "source-bits: 200Mbit/s per source, burst 2Mbit, marks",
        "w: 1000 packets/s in all, sliding window of 2s",
    ];
    assert_eq!(own, expected);
    assert_eq!(
        config.limits.iter().map(told).collect::<Vec<_>>(),
        ["all: 10Gbit/s in all, burst 1Gbit, counts only"]
    );
}

#[test]
fn limits_of_windows_are_bounded() {
    let window = |n| {
        format!(
            "{{ name = \"n{n}\", scope = \"source\", packets = \"1k/s\", algorithm = \"fixed-window\", window = \"1s\", action = \"drop\" }}"
        )
    };
    let windows = |range: std::ops::Range<u32>| range.map(window).collect::<Vec<_>>().join(", ");
    let text = with_service(&format!("limit = [{}]", windows(0..8)));
    read_ok(&text);
    let other = "[[service]]\nname = \"b\"\nvip = \"192.0.2.11:80\"\nprotocol = \"tcp\"\nmode = \"ipip\"\n";
    let more = format!("{text}{other}limit = [{}]\n", windows(8..9));
    let sentence = "lb.toml:1: limit: 9 limiters with windows are more than 8, the most of all services together; \
                    algorithm = \"token-bucket\" has no such bound";
    assert_eq!(mistakes(&more), sentence);
}

#[test]
fn a_limit_with_a_wrong_rate_and_a_wrong_burst_is_told_both() {
    for (keys, expected) in [
        (
            "packets = \"1k\", burst = 0",
            ["packets: \"1k\" is not a rate", "burst: 0 is not from 1 to 1000000000"],
        ),
        (
            "bits = \"1k/s\", burst = \"1k\"",
            ["bits: \"1k/s\" is not a rate of bits", "burst: \"1k\" is not a number of bits"],
        ),
    ] {
        let told = mistakes(&with_service(&format!(
            "limit = [{{ scope = \"source\", {keys}, action = \"drop\" }}]"
        )));
        assert!(expected.iter().all(|sentence| told.contains(sentence)), "{told}");
    }
}

#[test]
fn limits_of_new_connections_need_a_protocol_that_opens_any() {
    let text = with_service(
        "limit = [{ scope = \"source\", new_connections = \"1/s\", burst = 1, action = \"drop\" }]",
    );
    let udp = text.replace("protocol = \"tcp\"", "protocol = \"udp\"");
    let refused = mistakes(&udp);
    assert!(refused.contains("limit[0]: udp packets open no connection"), "{refused}");
    read_ok(&udp.replace("protocol = \"udp\"", "protocol = \"udp\"\nquic = true"));
}

#[test]
fn what_is_optional_has_defaults() {
    let config = read_ok(&with_service("health = { kind = \"tcp\" }"));
    assert_eq!(config.daemon.socket, Path::new("/run/lb/lb.sock"));
    assert_eq!((config.daemon.metrics, config.daemon.hash_key), (None, None));
    assert_eq!(config.daemon.flows, 1_048_576);
    let web = &config.services[0];
    assert_eq!((web.table_size, web.limits.len(), web.backends.len()), (65_537, 0, 0));
    let health = web.health.unwrap();
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(1), Duration::from_millis(500)));
    assert_eq!((health.rise, health.fall, health.port), (2, 3, None));
}

#[test]
fn a_short_interval_shortens_the_default_timeout() {
    let config = read_ok(&with_service("health = { kind = \"tcp\", interval = \"200ms\" }"));
    assert_eq!(config.services[0].health.unwrap().timeout, Duration::from_millis(200));
}

#[test]
fn no_service_and_sections_in_any_order_are_fine() {
    assert!(read_ok(DAEMON).services.is_empty());
    let service = "[[service]]\nname = \"a\"\nvip = \"192.0.2.1:1\"\nprotocol = \"udp\"\nmode = \"ipip\"\n";
    assert_eq!(read_ok(&format!("{service}{DAEMON}")).services.len(), 1);
}

#[test]
fn one_port_and_any_port_of_a_vip_are_two_services() {
    let other = "[[service]]\nname = \"rest\"\nvip = \"192.0.2.10:*\"\nprotocol = \"tcp\"\nmode = \"ipip\"\n";
    assert_eq!(read_ok(&with_service(other)).services.len(), 2);
}

#[test]
fn mistakes_outside_services_are_refused() {
    for (text, expected) in OUTSIDE_SERVICES {
        assert_eq!(mistakes(text), *expected, "{text}");
    }
}

const OUTSIDE_SERVICES: &[(&str, &str)] = &[
    ("", "lb.toml:1: daemon: missing; expected [daemon] with interfaces = [\"eth0\"]"),
    ("[daemon]\n", "lb.toml:1: daemon.interfaces: missing; expected interfaces = [\"eth0\"]"),
    (
        "[daemon]\ninterfaces = []\n",
        "lb.toml:2: daemon.interfaces: 0 interfaces are named; expected from 1 to 15, such as [\"eth0\"]",
    ),
    (
        "[daemon]\ninterfaces = \"eth0\"\n",
        "lb.toml:2: daemon.interfaces: expected an array such as [\"eth0\"], found a string",
    ),
    (
        "[daemon]\ninterfaces = [\n\"eth0\",\n\"eth0\"]\n",
        "lb.toml:4: daemon.interfaces[1]: \"eth0\" is named twice",
    ),
    (
        "[daemon]\ninterfaces = [\"an interface\"]\n",
        "lb.toml:2: daemon.interfaces[0]: \"an interface\" is not an interface name; list them with: ip link",
    ),
    (
        "[daemon]\ninterfaces = [\"sixteen-letters-\"]\n",
        "lb.toml:2: daemon.interfaces[0]: \"sixteen-letters-\" is not an interface name; list them with: ip \
         link",
    ),
    (
        "[daemon]\ninterfaces = [1]\n",
        "lb.toml:2: daemon.interfaces[0]: expected a string in quotes, found an integer",
    ),
    (
        "[daemon]\ninterfaces = [\"eth0\"]\nmetrics = \"localhost\"\n",
        "lb.toml:3: daemon.metrics: \"localhost\" is not ADDRESS:PORT such as 127.0.0.1:9441 or [::1]:9441",
    ),
    (
        "[daemon]\ninterfaces = [\"eth0\"]\nhash_key = \"0011\"\n",
        "lb.toml:3: daemon.hash_key: \"0011\" is not file:PATH such as \"file:/etc/lb/hash.key\"",
    ),
    (
        "[daemon]\ninterfaces = [\"eth0\"]\nflows = 7\n",
        "lb.toml:3: daemon.flows: 7 is not from 8 to 67108864",
    ),
    (
        "[daemon]\ninterfaces = [\"eth0\"]\nflows = \"many\"\n",
        "lb.toml:3: daemon.flows: expected an integer, found a string",
    ),
    (
        "[daemon]\ninterfaces = [\"eth0\"]\nsocket = 5\n",
        "lb.toml:3: daemon.socket: expected a string in quotes, found an integer",
    ),
    (
        "[daemon]\ninterface = \"eth0\"\ninterfaces = [\"eth0\"]\n",
        "lb.toml:2: daemon.interface: unknown key; expected one of interfaces, metrics, socket, api, state, hash_key, flows, on_exit, pins",
    ),
    (
        "[daemon]\ninterfaces = [\"eth0\"]\n[[services]]\n",
        "lb.toml:3: services: unknown key; expected one of daemon, lists, limit, service",
    ),
    (
        "[daemon]\ninterfaces = [\"eth0\"]\n[service]\nname = \"web\"\n",
        "lb.toml:3: service: expected an array such as [[service]] sections, found a table",
    ),
    ("daemon = 1\n", "lb.toml:1: daemon: expected a table, found an integer"),
    ("[daemon]\ninterfaces = [\"eth0\"\n", "lb.toml:2: unclosed array, expected `]`"),
    ("[daemon]\n[daemon]\n", "lb.toml:2: duplicate key"),
];

#[test]
fn mistakes_in_a_service_are_refused() {
    for (more, expected) in IN_A_SERVICE {
        assert_eq!(mistakes(&with_service(more)), *expected, "{more}");
    }
}

/// Lines behind a valid service, that is from line 8 on.
const IN_A_SERVICE: &[(&str, &str)] = &[
    (
        "weight = 3",
        "lb.toml:8: service web: weight: unknown key; expected one of name, vip, protocol, mode, gue_port, \
         outer_source, affinity, quic, idle_timeout, drain_timeout, slow_start, announce, table_size, limit, health, backends",
    ),
    ("table_size = 65536", "lb.toml:8: service web: table_size: 65536 is not a prime; the next one is 65537"),
    (
        "table_size = 5000010",
        "lb.toml:8: service web: table_size: 5000010 is not a prime; the next one is 5000011",
    ),
    ("table_size = 1", "lb.toml:8: service web: table_size: 1 is not from 2 to 5000011"),
    ("table_size = 5000077", "lb.toml:8: service web: table_size: 5000077 is not from 2 to 5000011"),
    ("table_size = -7", "lb.toml:8: service web: table_size: -7 is not from 2 to 5000011"),
    ("table_size = \"251\"", "lb.toml:8: service web: table_size: expected an integer, found a string"),
    (
        "backends = [\n{ address = \"10.0.1.1:80\" },\n{ address = \"10.0.1.300:80\" }]",
        "lb.toml:10: service web: backends[1].address: \"10.0.1.300:80\": 300 is not a byte; expected \
         ADDRESS:PORT such as 10.0.1.30:8080 or [2001:db8::1]:8080",
    ),
    (
        "backends = [{ address = \"10.0.1.1:80\", weight = 65536 }]",
        "lb.toml:8: service web: backends[0].weight: 65536 is not from 0 to 65535",
    ),
    (
        "backends = [{ weight = 1 }]",
        "lb.toml:8: service web: backends[0].address: missing; expected address = \"10.0.1.1:80\"",
    ),
    ("backends = [\"10.0.1.1:80\"]", "lb.toml:8: service web: backends[0]: expected a table, found a string"),
    (
        "backends = [{ address = \"10.0.1.1:80\", wieght = 1 }]",
        "lb.toml:8: service web: backends[0].wieght: unknown key; expected one of address, weight, state, drain_timeout",
    ),
    (
        "backends = [{ address = \"10.0.1.1:80\" },\n{ address = \"10.0.1.1:80\" }]",
        "lb.toml:9: service web: backends[1].address: 10.0.1.1:80 is already a backend of the service, on \
         line 8",
    ),
    (
        "backends = [{ address = \"192.0.2.10:80\" }]",
        "lb.toml:8: service web: backends[0].address: 192.0.2.10 is the VIP itself; a backend needs an \
         address of its own",
    ),
    (
        "backends = [{ address = \"127.0.0.1:80\" }]",
        "lb.toml:8: service web: backends[0].address: 127.0.0.1 is a loopback address; a backend needs an \
         address of its own",
    ),
    (
        "backends = [{ address = \"[2001:db8::1]:80\" }]",
        "lb.toml:8: service web: backends[0].address: 2001:db8::1 is IPv6, the VIP 192.0.2.10 is IPv4; \
         dsr-l2 cannot cross families, mode = \"ipip\" can",
    ),
    (
        "backends = [{ address = \"10.0.1.1:8080\" }]",
        "lb.toml:8: service web: backends[0].address: port 8080 is not the VIP's port 80; dsr-l2 does not \
         rewrite ports: write 10.0.1.1:80",
    ),
    (
        "backends = [{ address = \"10.0.1.1:*\" }]",
        "lb.toml:8: service web: backends[0].address: port * is not the VIP's port 80; dsr-l2 does not \
         rewrite ports: write 10.0.1.1:80",
    ),
    (
        "limit = { scope = \"source\" }",
        "lb.toml:8: service web: limit: expected an array such as [{ scope = \"source\", packets = \
         \"1k/s\", burst = 200, action = \"drop\" }], found a table",
    ),
    (
        "limit = [{ scope = \"client\", packets = \"1k/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].scope: \"client\" is unknown; expected \"source\" or \"prefix\" or \"service\"",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1k/s\", burst = 1, action = \"accept\" }]",
        "lb.toml:8: service web: limit[0].action: \"accept\" is unknown; expected \"drop\" or \"mark\" or \"shadow\"",
    ),
    (
        "limit = [{ scope = \"source\", new_connections = \"1k/s\", packets = \"1/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].new_connections: a limiter counts one thing; there is packets already",
    ),
    (
        "limit = [{ scope = \"source\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].packets: missing; expected packets = \"1k/s\", bits = \"200Mbit/s\" or new_connections = \"200/s\"",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1k\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].packets: \"1k\" is not a rate; expected a whole number a second such as \"500/s\", \"10k/s\" or \"2M/s\"",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"0/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].packets: \"0/s\" is not from 1/s to 100M/s",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"101M/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].packets: \"101M/s\" is not from 1/s to 100M/s",
    ),
    (
        "limit = [{ scope = \"source\", packets = 1000, burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].packets: expected a string in quotes, found an integer",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1M/s\", burst = 0, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].burst: 0 is not from 1 to 1000000000",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1M/s\", burst = \"9k\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].burst: expected an integer, found a string",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1/s\", burst = 69, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].burst: 69 packets at 1/s take 69 s to refill, which must be less than 69 s; lower burst or raise packets",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1/s\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].burst: missing; expected burst = 200",
    ),
    (
        "limit = [{ scope = \"source\", bits = \"1M/s\", burst = \"2Mbit\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].bits: \"1M/s\" is not a rate of bits; expected a whole number such as \"512kbit/s\", \"200Mbit/s\" or \"10Gbit/s\"",
    ),
    (
        "limit = [{ scope = \"source\", bits = \"9Tbit/s\", burst = \"2Mbit\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].bits: \"9Tbit/s\" is not from 8bit/s to 8Tbit/s",
    ),
    (
        "limit = [{ scope = \"source\", bits = \"1Mbit/s\", burst = \"12111bit\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].burst: 12111bit is less than one packet of 1514 bytes; expected 12112bit or more",
    ),
    (
        "limit = [{ scope = \"source\", bits = \"1Mbit/s\", burst = 200, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].burst: expected a string in quotes, found an integer",
    ),
    (
        "limit = [{ scope = \"source\", bits = \"1Mbit/s\", burst = \"2MB\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].burst: \"2MB\" is not a number of bits; expected a whole number such as \"64kbit\", \"2Mbit\" or \"1Gbit\"",
    ),
    (
        "limit = [{ scope = \"source\", bits = \"1kbit/s\", burst = \"69kbit\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].burst: 69kbit at 1kbit/s take 69 s to refill, which must be less than 69 s; lower burst or raise bits",
    ),
    (
        "limit = [{ scope = \"source\", prefix4 = 24, packets = \"1/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].prefix4: only scope = \"prefix\" has a length of prefixes",
    ),
    (
        "limit = [{ scope = \"prefix\", prefix4 = 33, packets = \"1/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].prefix4: 33 is not from 1 to 32",
    ),
    (
        "limit = [{ scope = \"prefix\", prefix6 = 0, packets = \"1/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].prefix6: 0 is not from 1 to 128",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1/s\", window = \"1s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].window: a bucket has no window; expected burst, or algorithm = \"sliding-window\"",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1/s\", algorithm = \"fixed-window\", window = \"1s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].burst: a window has no burst: all that it admits may come at once",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1/s\", algorithm = \"fixed-window\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].window: missing; expected window = \"1s\"",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1k/s\", algorithm = \"fixed-window\", window = \"19ms\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].window: 19ms is not from 20ms to 68719ms",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"9/s\", algorithm = \"fixed-window\", window = \"100ms\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].packets: 9/s admits nothing in 100ms; lengthen window or raise packets",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"66k/s\", algorithm = \"sliding-window\", window = \"1s\", action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].window: 66000/s in 1s are more than the 65535 units that such a window counts; shorten window or lower packets",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1/s\", algorithm = \"red\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].algorithm: \"red\" is unknown; expected \"token-bucket\" or \"leaky-bucket\" or \"fixed-window\" or \"sliding-window\"",
    ),
    (
        "limit = [{ scope = \"source\", new_connections = \"1/s\", burst = 1, action = \"mark\" }]",
        "lb.toml:8: service web: limit[0].action: packets that open connections cannot be marked (RFC 3168, section 6.1.1); expected \"drop\" or \"shadow\"",
    ),
    (
        "limit = [{ name = \"a b\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[0].name: \"a b\" is not a name; expected a letter or digit, then letters, digits, '-', '_' or '.', at most 64 in all",
    ),
    (
        "limit = [{ scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" },\n{ scope = \"source\", packets = \"2/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:9: service web: limit[1]: two limiters are called source-packets; give one of them another name, such as name = \"second\"",
    ),
    (
        "limit = [{ name = \"n0\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }, { name = \"n1\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }, { name = \"n2\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }, { name = \"n3\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }, { name = \"n4\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }, { name = \"n5\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }, { name = \"n6\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }, { name = \"n7\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }, { name = \"n8\", scope = \"source\", packets = \"1/s\", burst = 1, action = \"drop\" }]",
        "lb.toml:8: service web: limit[8]: a service has at most 8 limiters, those of all services included",
    ),
    ("health = \"tcp\"", "lb.toml:8: service web: health: expected a table, found a string"),
    ("health = { }", "lb.toml:8: service web: health.kind: missing; expected kind = \"tcp\""),
    (
        "health = { kind = \"http\" }",
        "lb.toml:8: service web: health.kind: \"http\" is unknown; expected \"tcp\"",
    ),
    (
        "health = { kind = \"tcp\", path = \"/\" }",
        "lb.toml:8: service web: health.path: unknown key; expected one of kind, interval, timeout, rise, \
         fall, port",
    ),
    (
        "health = { kind = \"tcp\", interval = \"1d\" }",
        "lb.toml:8: service web: health.interval: \"1d\" is not a duration; expected a whole number with \
         ms, s, m or h, such as \"500ms\", \"1s\" or \"2m\"",
    ),
    (
        "health = { kind = \"tcp\", interval = \"99ms\" }",
        "lb.toml:8: service web: health.interval: 99ms is not from 100ms to 60m",
    ),
    (
        "health = { kind = \"tcp\", interval = \"61m\" }",
        "lb.toml:8: service web: health.interval: 3660s is not from 100ms to 60m",
    ),
    (
        "health = { kind = \"tcp\", interval = \"1s\", timeout = \"2s\" }",
        "lb.toml:8: service web: health.timeout: 2s is longer than the interval, 1s",
    ),
    (
        "health = { kind = \"tcp\", timeout = \"0s\" }",
        "lb.toml:8: service web: health.timeout: a check needs time; expected at least 1ms",
    ),
    ("health = { kind = \"tcp\", rise = 0 }", "lb.toml:8: service web: health.rise: 0 is not from 1 to 100"),
    (
        "health = { kind = \"tcp\", fall = 101 }",
        "lb.toml:8: service web: health.fall: 101 is not from 1 to 100",
    ),
    (
        "health = { kind = \"tcp\", port = 0 }",
        "lb.toml:8: service web: health.port: 0 is not from 1 to 65535",
    ),
    (
        "[[service]]\nname = \"web\"\nvip = \"192.0.2.11:80\"\nprotocol = \"tcp\"\nmode = \"ipip\"",
        "lb.toml:9: service web: name: the service on line 4 has the same name",
    ),
    (
        "[[service]]\nname = \"api\"\nvip = \"192.0.2.10:80\"\nprotocol = \"tcp\"\nmode = \"ipip\"",
        "lb.toml:10: service api: vip: 192.0.2.10:80 tcp belongs to service web on line 5",
    ),
    (
        "[[service]]\nname = \"a b\"\nvip = \"192.0.2.11:80\"\nprotocol = \"tcp\"\nmode = \"ipip\"",
        "lb.toml:9: service a b: name: \"a b\" is not a name; expected a letter or digit, then letters, \
         digits, '-', '_' or '.', at most 64 in all",
    ),
    (
        "[[service]]\nvip = \"192.0.2.11:80\"\nprotocol = \"tcp\"\nmode = \"ipip\"",
        "lb.toml:8: service[1]: name: missing; expected name = \"web\"",
    ),
    (
        "[[service]]\nname = \"api\"\nprotocol = \"tcp\"\nmode = \"ipip\"",
        "lb.toml:8: service api: vip: missing; expected vip = \"192.0.2.10:80\"",
    ),
    (
        "[[service]]\nname = \"api\"\nvip = \"192.0.2.11:80\"",
        "lb.toml:8: service api: protocol: missing; expected protocol = \"tcp\"\n\
         lb.toml:8: service api: mode: missing; expected mode = \"dsr-l2\"",
    ),
    (
        "[[service]]\nname = \"api\"\nvip = \"192.0.2.11:80\"\nprotocol = \"sctp\"\nmode = \"dr\"",
        "lb.toml:11: service api: protocol: \"sctp\" is unknown; expected \"tcp\" or \"udp\"\n\
         lb.toml:12: service api: mode: \"dr\" is unknown; expected \"dsr-l2\" or \"ipip\" or \"gue\" or \
         \"nat\"",
    ),
    (
        "[[service]]\nname = \"api\"\nvip = \"192.0.2.11:*\"\nprotocol = \"tcp\"\nmode = \"ipip\"\n\
         health = { kind = \"tcp\" }",
        "lb.toml:13: service api: health.port: missing; expected port = 80, since the service has no port \
         of its own",
    ),
    (
        "[[service]]\nname = \"api\"\nvip = \"192.0.2.11:*\"\nprotocol = \"tcp\"\nmode = \"ipip\"\n\
         backends = [{ address = \"10.0.1.1:80\" }]",
        "lb.toml:13: service api: backends[0].address: port 80 is not the VIP's port *; ipip does not \
         rewrite ports: write 10.0.1.1:*",
    ),
];

#[test]
fn addresses_that_no_router_delivers_are_no_vips() {
    let cases = [
        ("0.0.0.0:80", "0.0.0.0 is the unspecified address"),
        ("[::]:80", ":: is the unspecified address"),
        ("127.0.0.1:80", "127.0.0.1 is a loopback address"),
        ("[::1]:80", "::1 is a loopback address"),
        ("224.0.0.1:80", "224.0.0.1 is a multicast address"),
        ("[ff02::1]:80", "ff02::1 is a multicast address"),
        ("255.255.255.255:80", "255.255.255.255 is the broadcast address"),
    ];
    for (vip, kind) in cases {
        let service =
            format!("[[service]]\nname = \"a\"\nvip = \"{vip}\"\nprotocol = \"tcp\"\nmode = \"ipip\"\n");
        let advice = "a VIP is an address that clients reach through a route";
        let expected = format!("lb.toml:5: service a: vip: {kind}; {advice}");
        assert_eq!(mistakes(&format!("{DAEMON}{service}")), expected);
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_in_the_order_of_their_lines() {
    let text = with_service("backends = [{ address = \"10.0.1.1\" }]\ntable_size = 4") + "[[servce]]\n";
    let expected = "\
lb.toml:8: service web: backends[0].address: \"10.0.1.1\": there is no port; expected ADDRESS:PORT such as \
10.0.1.30:8080 or [2001:db8::1]:8080
lb.toml:9: service web: table_size: 4 is not a prime; the next one is 5
lb.toml:10: servce: unknown key; expected one of daemon, lists, limit, service";
    assert_eq!(mistakes(&text), expected);
}

#[test]
fn more_backends_than_a_slot_can_name_are_refused() {
    let address = |index: usize| format!("{{ address = \"10.0.{}.{}:80\" }}", index / 256, index % 256);
    let backends = |count| (0..count).map(address).collect::<Vec<_>>().join(",");
    let fits = with_service(&format!("backends = [{}]", backends(MAX_BACKENDS)));
    assert_eq!(read_ok(&fits).services[0].backends.len(), MAX_BACKENDS);
    let too_many = with_service(&format!("backends = [{}]", backends(MAX_BACKENDS + 1)));
    let expected =
        "lb.toml:8: service web: backends: 32768 backends are more than 32767, the most of a service";
    assert_eq!(mistakes(&too_many), expected);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Path::new("/nonexistent/lb.toml")).unwrap_err().to_string();
    assert_eq!(error, "/nonexistent/lb.toml: cannot be read: No such file or directory (os error 2)");
}

/// A service of a mode, with `rest` from line 8 on; its VIP is of IPv4.
fn with_mode(mode: &str, protocol: &str, rest: &str) -> String {
    let service = format!(
        "[[service]]\nname = \"web\"\nvip = \"192.0.2.10:80\"\nprotocol = \"{protocol}\"\nmode = \"{mode}\"\n"
    );
    format!("{DAEMON}{service}{rest}\n")
}

#[test]
fn options_are_read() {
    let options = |mode, protocol, rest: &str| read_ok(&with_mode(mode, protocol, rest)).services[0].options;
    let default = ServiceOptions::default();
    for mode in ["dsr-l2", "ipip", "gue", "nat"] {
        assert_eq!(options(mode, "tcp", ""), default);
    }
    let gue_port = std::num::NonZeroU16::new(6081);
    assert_eq!(options("gue", "tcp", "gue_port = 6081"), ServiceOptions { gue_port, ..default });
    let source = ServiceOptions { affinity: Affinity::Source, ..default };
    assert_eq!(options("dsr-l2", "tcp", "affinity = \"source\""), source);
    assert_eq!(options("dsr-l2", "tcp", "affinity = \"flow\""), default);
    assert_eq!(options("dsr-l2", "udp", "quic = true"), ServiceOptions { quic: true, ..default });
    for protocol in ["udp", "tcp"] {
        assert_eq!(options("dsr-l2", protocol, "quic = false"), default);
    }
    let announced = ServiceOptions { announce: true, ..default };
    assert_eq!(options("dsr-l2", "tcp", "announce = \"l2\""), announced);
    for (text, seconds) in [("1s", 1), ("14m", 840), ("2h", 7_200)] {
        let idle_timeout = Some(Duration::from_secs(seconds));
        let rest = format!("idle_timeout = \"{text}\"");
        assert_eq!(options("dsr-l2", "tcp", &rest), ServiceOptions { idle_timeout, ..default });
    }
}

#[test]
fn the_idle_timeout_depends_on_the_protocol_unless_configured() {
    let timeout = |protocol, rest| read_ok(&with_mode("nat", protocol, rest)).services[0].idle_timeout();
    assert_eq!(timeout("tcp", ""), Duration::from_mins(15));
    assert_eq!(timeout("udp", ""), Duration::from_mins(2));
    assert_eq!(timeout("udp", "idle_timeout = \"30s\""), Duration::from_secs(30));
}

#[test]
fn an_outer_source_goes_with_some_backend() {
    let (v4, v6) = ("{ address = \"10.0.1.1:80\" }", "{ address = \"[2001:db8::1]:80\" }");
    for (source, backends) in [
        ("10.99.0.0/16", v4.to_owned()),
        ("10.99.0.0/16", format!("{v6}, {v4}")),
        ("10.0.0.5", String::new()),
        ("fd00:1::/96", v6.to_owned()),
        ("fd00:1::/96", format!("{v4}, {v6}")),
        ("fd00:1::5", String::new()),
    ] {
        for mode in ["ipip", "gue"] {
            let rest = format!("outer_source = \"{source}\"\nbackends = [{backends}]");
            let read = read_ok(&with_mode(mode, "tcp", &rest)).services[0].options.outer_source;
            assert_eq!(read.unwrap().to_string(), source);
        }
    }
}

#[test]
fn nat_backends_may_have_another_port() {
    let read = |vip: &str, backend: &str| {
        let text = with_mode("nat", "tcp", &format!("backends = [{{ address = \"{backend}\" }}]"));
        let config = read_ok(&text.replace("192.0.2.10:80", vip));
        (config.services[0].mode, config.services[0].backends[0].endpoint.to_string())
    };
    for (vip, backend) in [
        ("192.0.2.10:80", "10.0.1.1:8080"),
        ("192.0.2.10:80", "10.0.1.1:80"),
        ("192.0.2.10:*", "10.0.1.1:*"),
        ("[2001:db8::10]:80", "[2001:db8::1]:8080"),
    ] {
        assert_eq!(read(vip, backend), (ForwardMode::Nat, backend.to_owned()));
    }
}

#[test]
fn mistakes_in_options_are_refused() {
    for (mode, protocol, rest, expected) in OPTIONS {
        let expected = format!("lb.toml:8: service web: {expected}");
        assert_eq!(mistakes(&with_mode(mode, protocol, rest)), expected, "{rest}");
    }
}

/// Mode, protocol, the lines from line 8 on, and what stands behind the service's name.
const OPTIONS: &[(&str, &str, &str, &str)] = &[
    ("gue", "tcp", "gue_port = 0", "gue_port: 0 is not from 1 to 65535"),
    ("gue", "tcp", "gue_port = 65536", "gue_port: 65536 is not from 1 to 65535"),
    ("gue", "tcp", "gue_port = \"6080\"", "gue_port: expected an integer, found a string"),
    (
        "ipip",
        "tcp",
        "gue_port = 6080",
        "gue_port: mode ipip has no UDP tunnel; remove the key, or write mode = \"gue\"",
    ),
    (
        "nat",
        "tcp",
        "outer_source = \"10.0.0.5\"",
        "outer_source: mode nat has no outer header; remove the key, or write mode = \"ipip\" or \"gue\"",
    ),
    (
        "dsr-l2",
        "tcp",
        "outer_source = \"10.0.0.5\"",
        "outer_source: mode dsr-l2 has no outer header; remove the key, or write mode = \"ipip\" or \"gue\"",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"10.99.1.0/16\"",
        "outer_source: \"10.99.1.0/16\": bits behind the prefix are set: write 10.99.0.0/16; expected \
         ADDRESS or ADDRESS/BITS such as 10.0.0.5, 10.99.0.0/16 or fd00:1::/96",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"10.0.0.0/7\"",
        "outer_source: \"10.0.0.0/7\": prefix length \"7\" is not a number from 8 to 32; expected ADDRESS \
         or ADDRESS/BITS such as 10.0.0.5, 10.99.0.0/16 or fd00:1::/96",
    ),
    (
        "gue",
        "tcp",
        "outer_source = \"fd00::/64\"",
        "outer_source: \"fd00::/64\": prefix length \"64\" is not a number from 96 to 128; expected \
         ADDRESS or ADDRESS/BITS such as 10.0.0.5, 10.99.0.0/16 or fd00:1::/96",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"10.0.0.0/33\"",
        "outer_source: \"10.0.0.0/33\": prefix length \"33\" is not a number from 8 to 32; expected \
         ADDRESS or ADDRESS/BITS such as 10.0.0.5, 10.99.0.0/16 or fd00:1::/96",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"224.0.0.0/8\"",
        "outer_source: 224.0.0.0 is a multicast address; an outer header comes from an address that one \
         machine may have",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"127.0.0.1\"",
        "outer_source: 127.0.0.1 is a loopback address; an outer header comes from an address that one \
         machine may have",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"0.0.0.0/8\"",
        "outer_source: 0.0.0.0 is the unspecified address; an outer header comes from an address that one \
         machine may have",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"255.255.0.0/16\"",
        "outer_source: 255.255.255.255 is the broadcast address; an outer header comes from an address \
         that one machine may have",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"::/96\"",
        "outer_source: :: is the unspecified address; an outer header comes from an address that one \
         machine may have",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"ff02::/96\"",
        "outer_source: ff02:: is a multicast address; an outer header comes from an address that one \
         machine may have",
    ),
    (
        "ipip",
        "tcp",
        "outer_source = \"10.99.0.0/16\"\nbackends = [{ address = \"[2001:db8::1]:80\" }]",
        "outer_source: 10.99.0.0/16 is IPv4, but every backend of the service is IPv6, and so are the \
         outer headers towards them: write a prefix such as fd00:1::/96",
    ),
    (
        "gue",
        "tcp",
        "outer_source = \"fd00:1::5\"\nbackends = [{ address = \"10.0.1.1:80\" }]",
        "outer_source: fd00:1::5 is IPv6, but every backend of the service is IPv4, and so are the outer \
         headers towards them: write a prefix such as 10.99.0.0/16",
    ),
    ("dsr-l2", "tcp", "affinity = \"ip\"", "affinity: \"ip\" is unknown; expected \"flow\" or \"source\""),
    (
        "dsr-l2",
        "tcp",
        "quic = true",
        "quic: tcp does not carry QUIC; remove the key, or write protocol = \"udp\"",
    ),
    ("dsr-l2", "udp", "quic = \"yes\"", "quic: expected true or false, found a string"),
    ("dsr-l2", "tcp", "idle_timeout = \"999ms\"", "idle_timeout: 999ms is not from 1s to 2h"),
    ("dsr-l2", "tcp", "idle_timeout = \"121m\"", "idle_timeout: 7260s is not from 1s to 2h"),
    (
        "dsr-l2",
        "tcp",
        "idle_timeout = \"15\"",
        "idle_timeout: \"15\" is not a duration; expected a whole number with ms, s, m or h, such as \
         \"500ms\", \"1s\" or \"2m\"",
    ),
    ("dsr-l2", "tcp", "announce = \"bgp\"", "announce: \"bgp\" is unknown; expected \"l2\""),
    ("dsr-l2", "tcp", "announce = true", "announce: expected a string in quotes, found a boolean"),
    (
        "nat",
        "tcp",
        "backends = [{ address = \"[2001:db8::1]:80\" }]",
        "backends[0].address: 2001:db8::1 is IPv6, the VIP 192.0.2.10 is IPv4; nat cannot cross families, \
         mode = \"ipip\" can",
    ),
    (
        "nat",
        "tcp",
        "backends = [{ address = \"10.0.1.1:*\" }]",
        "backends[0].address: port * does not go with the VIP's port 80; nat translates one port to one \
         port or leaves every port as it is: write 10.0.1.1:80",
    ),
    (
        "nat",
        "tcp",
        "backends = [{ address = \"192.0.2.10:8080\" }]",
        "backends[0].address: 192.0.2.10 is the VIP itself; a backend needs an address of its own",
    ),
    (
        "gue",
        "tcp",
        "backends = [{ address = \"10.0.1.1:8080\" }]",
        "backends[0].address: port 8080 is not the VIP's port 80; gue does not rewrite ports: write \
         10.0.1.1:80",
    ),
];

/// A second service behind [`with_mode`]'s, on lines 9 to 13.
fn two_services(first: &str, second: &str) -> String {
    let other = "[[service]]\nname = \"api\"\nvip = \"192.0.2.11:80\"\nprotocol = \"tcp\"\nmode = \"nat\"\n";
    let backend = |address: &str| format!("backends = [{{ address = \"{address}\" }}]\n");
    with_mode("nat", "tcp", backend(first).trim_end()) + other + &backend(second)
}

#[test]
fn nat_services_share_no_backend() {
    let shared = "\
lb.toml:14: service api: backends[0].address: 10.0.1.1:8080 tcp is a backend of service web already, and \
which service a nat backend's reply belongs to is told by its source alone: let it listen on another port \
for this service";
    assert_eq!(mistakes(&two_services("10.0.1.1:8080", "10.0.1.1:8080")), shared);
    let any = two_services("10.0.1.1:8080", "10.0.1.1:*").replace("192.0.2.11:80", "192.0.2.11:*");
    assert_eq!(mistakes(&any), shared);
    assert_eq!(read_ok(&two_services("10.0.1.1:8080", "10.0.1.1:8081")).services.len(), 2);
    let other_protocol = two_services("10.0.1.1:80", "10.0.1.1:80").replacen("\"tcp\"", "\"udp\"", 1);
    assert_eq!(read_ok(&other_protocol).services.len(), 2);
    let other_mode = two_services("10.0.1.1:80", "10.0.1.1:80").replacen("\"nat\"", "\"ipip\"", 1);
    assert_eq!(read_ok(&other_mode).services.len(), 2);
}

#[test]
fn a_nat_backend_is_no_vip() {
    let expected = "\
lb.toml:8: service web: backends[0].address: 192.0.2.11 is the VIP of service api; a nat backend needs an \
address of its own";
    assert_eq!(mistakes(&two_services("192.0.2.11:8080", "10.0.1.1:80")), expected);
}

proptest::proptest! {
    /// Pieces of a configuration in any order: whatever comes of it, nothing panics and a refusal says why.
    #[test]
    fn any_text_is_accepted_or_refused_with_a_reason(pieces in proptest::collection::vec(piece(), 0..20)) {
        if let Err(error) = parse(&pieces.concat(), Path::new("lb.toml")) {
            proptest::prop_assert!(!error.mistakes.is_empty());
            proptest::prop_assert!(error.mistakes.iter().all(|mistake| mistake.line.is_some()));
        }
    }
}

fn piece() -> impl proptest::strategy::Strategy<Value = String> {
    const PIECES: &[&str] = &[
        DAEMON,
        "[[service]]\n",
        "[lists]\n",
        "deny = [",
        "allow = [",
        "\"10.0.0.0/8\"",
        "[daemon]\n",
        "name = ",
        "vip = ",
        "health = { kind = ",
        "backends = [",
        "limit = ",
        "{ address = ",
        "table_size = ",
        "outer_source = ",
        "gue_port = ",
        "mode = \"nat\"\n",
        "\"192.0.2.10:80\"",
        "\"a\"",
        "-9223372036854775808",
        "0x7f",
        "1e9",
        "true",
        "1979-05-27",
        "}",
        "]",
        ", ",
        "\n",
        "\u{e9}",
    ];
    proptest::sample::select(PIECES).prop_map(str::to_owned)
}
