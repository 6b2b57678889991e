//! The keys of `[[service]]`.

use std::time::Duration;

use lb_common::maglev::TableSize;

use super::super::admin::{DRAIN_TIMEOUTS, SLOW_STARTS};
use super::super::options::IDLE_TIMEOUTS;
use super::super::service::PORTS;
use super::{Fallback, Key, Kind, Table};
use crate::model::GUE_PORT;

/// `[[service]]`.
pub static SERVICE: Table = Table {
    title: "[[service]]",
    path: "service",
    text: "",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Other("String"),
            fallback: Fallback::Required,
            text: r#"
What messages, metrics and the command line call the service.

```toml
name = "web"
```
"#,
            refused: "anything but a letter or digit, then letters, digits, `-`, `_` or `.`, at most 64 in \
                  all; the name of another service",
        },
        Key {
            name: "vip",
            kind: Kind::Other("String, an endpoint"),
            fallback: Fallback::Required,
            text: r#"
The address and port that clients know. `*` takes every port that no other service of the address and protocol has. The
address belongs to the backends (or, with mode `nat`, to nobody) and never to the balancer itself.

```toml
vip = "[2001:db8::10]:*"
```
"#,
            refused: "loopback, multicast, broadcast and unspecified addresses; an endpoint that another \
                  service has with the same protocol",
        },
        Key {
            name: "protocol",
            kind: Kind::Words(&["tcp", "udp"]),
            fallback: Fallback::Required,
            text: r#"
```toml
protocol = "udp"
```
"#,
            refused: "other protocols. Their packets are handed to the host's stack",
        },
        Key {
            name: "mode",
            kind: Kind::Words(&["dsr-l2", "ipip", "gue", "nat"]),
            fallback: Fallback::Required,
            text: r#"
How packets travel to the backends:

| mode | packet | backends | replies |
|---|---|---|---|
| `dsr-l2` | new MAC addresses, nothing else | on a link of the balancer, hold the VIP | straight to the client |
| `ipip` | inside an IPv4 or IPv6 packet (RFC 2003, RFC 2473, RFC 4213) | anywhere; unwrap, hold the VIP | straight to the client |
| `gue` | inside a UDP datagram (GUE variant 1) | anywhere; unwrap, hold the VIP | straight to the client |
| `nat` | new destination address and port | anywhere; need no set-up, but their route to the clients leads through the balancer | through the balancer, which translates them back |

`gue` costs 28 bytes (over IPv4) or 48 bytes (over IPv6) of MTU, `ipip` 20 or 40. The UDP source port of a `gue` packet comes
from its flow, so routers and network cards on the way spread flows as they spread any others.
[Setting up backends](backends.md) has the commands for each mode.

```toml
mode = "ipip"
```
"#,
            refused: "a mode that a backend cannot be reached by; see [`address`](#address)",
        },
        Key {
            name: "gue_port",
            kind: Kind::Integer(PORTS),
            fallback: Fallback::Number(GUE_PORT.get() as u32),
            text: r#"
The UDP port at which the backends unwrap; the default is the one that IANA has assigned to GUE.

```toml
mode = "gue"
gue_port = 6081
```
"#,
            refused: "with a mode other than `gue`",
        },
        Key {
            name: "outer_source",
            kind: Kind::Other("String, an address or a prefix"),
            fallback: Fallback::Other("the address that the kernel would send from to the backend"),
            text: r#"
The source of outer headers. With a prefix the remaining bits come from the flow, which spreads the packets of one balancer
over a backend's receive queues where its network card looks at addresses only. An address is for networks that drop packets
from sources they do not know. Every backend of the source's family gets it; the others get the default.

```toml
mode = "ipip"
outer_source = "10.99.0.0/16"
backends = [{ address = "10.0.1.1:80" }]
```

```toml
mode = "gue"
outer_source = "fd00:1::/96"
backends = [{ address = "[2001:db8::1]:80" }]
```
"#,
            refused: "with a mode other than `ipip` or `gue`; IPv4 prefixes outside of 8 to 32 bits, IPv6 \
                  prefixes outside of 96 to 128; bits behind the prefix that are not zero; loopback, \
                  multicast, broadcast and unspecified addresses; a family that no backend of the service \
                  has, because outer headers have the family of the backend. A service without backends \
                  may have either",
        },
        Key {
            name: "affinity",
            kind: Kind::Words(&["flow", "source"]),
            fallback: Fallback::Text("flow"),
            text: r#"
What decides about a packet's backend: addresses, ports and protocol, or the client's address alone, so that all connections
of a client meet at one backend. Many clients behind one address then meet there too.

```toml
affinity = "source"
```
"#,
            refused: "other words",
        },
        Key {
            name: "quic",
            kind: Kind::Other("`true` or `false`"),
            fallback: Fallback::Other("`false`"),
            text: r#"
Says that the service's packets are QUIC. A UDP packet does not tell whether it opens a flow; a QUIC Initial packet (RFC 9000,
section 17.2.2) does, so that new flows need not wait for the idle time-out after a change of backends.

```toml
protocol = "udp"
quic = true
```
"#,
            refused: "`true` with protocol `tcp`",
        },
        Key {
            name: "idle_timeout",
            kind: Kind::Duration(IDLE_TIMEOUTS),
            fallback: Fallback::Other(r#"`"15m"` with protocol `tcp`, `"2m"` with `udp`"#),
            text: r#"
A flow that sends nothing for this long counts as gone: it may be forgotten, and after a change of backends its next packet may
go to another backend. A change has settled when every flow from before has ended or been silent for this long.

```toml
idle_timeout = "5m"
```
"#,
            refused: "durations outside of 1s to 2h",
        },
        Key {
            name: "drain_timeout",
            kind: Kind::Duration(DRAIN_TIMEOUTS),
            fallback: Fallback::Other("drains have no end"),
            text: r#"
How long a backend that drains keeps the flows it has. When it is over the backend is out of service: its flows are given up, it
stays listed as `drain (ended)`, and is put back to work by `lb backend ready`. `lb backend drain --timeout` says otherwise for
one backend. It counts from the beginning of the drain; the drain begins anew when it gets another time-out, and when the
daemon restarts.

```toml
drain_timeout = "5m"
```
"#,
            refused: "durations outside of 1s to 168h",
        },
        Key {
            name: "slow_start",
            kind: Kind::Duration(SLOW_STARTS),
            fallback: Fallback::Duration(Duration::ZERO),
            text: r#"
How long the weight of a backend rises that comes into service: one that was added, that is well or reachable again, that has
drained or was in maintenance. It begins with a tenth of its weight, at least 1, and rises in ten equal steps. What is there when
the daemon starts, or when the service is new, does not rise. With `"0s"` nothing does. Weights are relative: backends that
rise together share all there is.

```toml
slow_start = "30s"
```
"#,
            refused: "durations outside of 1s to 24h, but for `\"0s\"`",
        },
        Key {
            name: "announce",
            kind: Kind::Words(&["l2"]),
            fallback: Fallback::Other("the VIP is not announced"),
            text: r#"
For networks without a router that could be told where the VIP is. The balancer answers ARP requests and neighbour
solicitations for the VIP on its interfaces, and announces it to its neighbours when it takes it. It suffices that one of the
services of a VIP says so. Only one balancer of a link can have the VIP this way, and backends on that link must not answer
for it.

Announcing needs `CAP_NET_RAW`, and under systemd `AF_PACKET` in `RestrictAddressFamilies`. Without either the daemon warns
and goes on: requests are still answered, but neighbours that remember another machine for the VIP learn of the balancer only
when they ask again.

```toml
announce = "l2"
```
"#,
            refused: "other words",
        },
        Key {
            name: "table_size",
            kind: Kind::Prime(2..=TableSize::MAX),
            fallback: Fallback::Number(TableSize::DEFAULT.slots()),
            text: r"
Slots of the Maglev table. A hundred times the number of backends keeps their shares within about one percent. Several
balancers of one VIP need the same size.

```toml
table_size = 251
```
",
            refused: "numbers that are not prime; the next prime is told",
        },
        Key {
            name: "limit",
            kind: Kind::Other("Array of tables"),
            fallback: Fallback::Other("no limit"),
            text: r#"
What may be sent to the service, and by whom; see [limit](#limit-1). `lb limit` lists, sets and removes limiters while the
daemon runs, by the same rules.

```toml
limit = [{ scope = "source", packets = "1k/s", burst = 200, action = "drop" }]
```
"#,
            refused: "more than 8, those of all services included; two of one name; more than 8 with windows \
                  in all services together",
        },
        Key {
            name: "health",
            kind: Kind::Other("Table"),
            fallback: Fallback::Other("backends are not checked and believed well"),
            text: r#"
How backends are asked whether they are well; see [health](#health-1).

```toml
health = { kind = "tcp" }
```
"#,
            refused: "what is not a table",
        },
        Key {
            name: "backends",
            kind: Kind::Other("Array of tables"),
            fallback: Fallback::Other("none, the service drops its packets"),
            text: r#"
The servers; see [backends](#backends-1). `lb backend` adds, weights, drains and
removes them while the daemon runs, by the same rules.

```toml
backends = [{ address = "10.0.1.1:80" }, { address = "10.0.1.2:80", weight = 50 }]
```
"#,
            refused: "more than 32767",
        },
    ],
};
