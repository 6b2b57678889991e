//! The keys of `limit`.

use super::super::limit::{DEFAULT_PREFIX4, DEFAULT_PREFIX6, MAX_BURST};
use super::{Fallback, Key, Kind, Table};
use crate::model::{MAX_BIT_RATE, MAX_UNIT_RATE, WINDOWS};

/// `limit`.
pub static LIMIT: Table = Table {
    title: "limit",
    path: "service.limit",
    text: r#"
A limiter tells who sends too much of something, and what is done about it. A service's packets are asked by all of its
limiters, in no order that matters: each counts what it sees, and the strictest decides (drop, then mark, then pass). A packet
that one of them drops has been charged to the others.

A `[[limit]]` section beside the services is a limiter of all services: what a source sends to all of them together.

```toml
limit = [
    { scope = "source", new_connections = "200/s", burst = 400, action = "drop" },
    { scope = "service", bits = "2Gbit/s", burst = "100Mbit", action = "mark" },
]

[[limit]]
name = "everything"
scope = "source"
packets = "50k/s"
burst = 10000
action = "shadow"
```

Buckets are kept when rate, burst or action change. They begin anew, full, when unit, scope, prefixes or window change, when a
bucket's clock changes (`lb limit show` tells it: coarse if the burst is worth 20 ms or more of the rate), and when a limiter
is removed and set again.

`lb limit top` names who is over: sources as far as the limiter tells them apart (an IPv4 address, an IPv6 /64, a prefix, or the
whole service), their packets over the limit in a second, how far the truth may be from that, and the limiter. Rates are means
over the last 10 to 20 seconds, from samples: they are exact while no more than about a hundred packets a second and CPU are over a
limit, and of 1 in n packets in a flood. A source that may be there by mere chance is not named, so of a flood from invented
sources only the sum is told. Sources stand in no metric: `lb_limiter_samples_total` counts the samples by `result`, `told` or `lost`.

```
$ lb limit top web --count 2
SOURCE          RATE   +/-  SERVICE  LIMITER         ACTION
198.51.100.7   38.2k  1.9k  web      source-packets  drop
2001:db8::/64    212     0  *        everything      shadow
38.6k packets/s over limits in the last 17 s; 1 more not shown
```
"#,
    keys: &[
        Key {
            name: "name",
            kind: Kind::Other("String, as a service's"),
            fallback: Fallback::Other("scope and unit, such as `source-packets`"),
            text: r#"
What it is called in commands and metrics.

```toml
limit = [{ name = "flood", scope = "source", packets = "10k/s", burst = 2000, action = "drop" }]
```
"#,
            refused: "what cannot be a name; the name of another limiter of the service, or of all services",
        },
        Key {
            name: "scope",
            kind: Kind::Words(&["source", "prefix", "service"]),
            fallback: Fallback::Required,
            text: r#"
Who is counted together: the packets of one IPv4 address or of one IPv6 /64, of one prefix, or all packets. In a `[[limit]]`
section `"service"` means the packets of all services.

```toml
limit = [{ scope = "service", packets = "10k/s", burst = 2000, action = "drop" }]
```
"#,
            refused: "other words",
        },
        Key {
            name: "prefix4",
            kind: Kind::Integer(1..=32),
            fallback: Fallback::Number(DEFAULT_PREFIX4 as u32),
            text: r#"
Bits of the source address that are counted together in IPv4. An IPv4 address in IPv6 clothes is an IPv6 address.

```toml
limit = [{ scope = "prefix", prefix4 = 24, packets = "10k/s", burst = 2000, action = "drop" }]
```
"#,
            refused: "scopes other than `\"prefix\"`; 0, which is `scope = \"service\"`",
        },
        Key {
            name: "prefix6",
            kind: Kind::Integer(1..=128),
            fallback: Fallback::Number(DEFAULT_PREFIX6 as u32),
            text: r#"
The same in IPv6.

```toml
limit = [{ scope = "prefix", prefix6 = 48, packets = "10k/s", burst = 2000, action = "drop" }]
```
"#,
            refused: "scopes other than `\"prefix\"`; 0, which is `scope = \"service\"`",
        },
        Key {
            name: "packets",
            kind: Kind::Rate(1..=MAX_UNIT_RATE),
            fallback: Fallback::Other(
                "none; exactly one of `packets`, `bits` and `new_connections` is there",
            ),
            text: r#"
How many packets a second are let through in the long run. The rate is never less than what is
written, and more by a part of rate / 10^9 at most: 0.1 % at 1M/s.

```toml
limit = [{ scope = "source", packets = "2M/s", burst = 100000, action = "drop" }]
```
"#,
            refused: "rates without `/s`, fractions, zero, and what is outside of the range; a second unit",
        },
        Key {
            name: "bits",
            kind: Kind::BitRate(8..=MAX_BIT_RATE),
            fallback: Fallback::Other("none; see `packets`"),
            text: r#"
How many bits a second are let through in the long run: 8 for each byte of the packet's IP length and of an Ethernet header of
14 bytes. Prefixes are `k`, `M`, `G` and `T`, each a thousand times the one before; bits that make no whole byte are cut off.
A later fragment follows its first one and is not counted.

```toml
limit = [{ scope = "source", bits = "200Mbit/s", burst = "2Mbit", action = "mark" }]
```
"#,
            refused: "rates without `bit/s`, fractions, and what is outside of the range; a second unit",
        },
        Key {
            name: "new_connections",
            kind: Kind::Rate(1..=MAX_UNIT_RATE),
            fallback: Fallback::Other("none; see `packets`"),
            text: r#"
How many connections a second may be opened in the long run: SYNs of TCP, and Initial packets of QUIC if the service says
`quic = true`. Other packets are not asked, so a storm of retries costs those who are connected nothing.

```toml
limit = [{ scope = "source", new_connections = "200/s", burst = 400, action = "drop" }]
```
"#,
            refused: "a `udp` service without `quic = true` (a limiter of all services does not concern it); a \
                  second unit",
        },
        Key {
            name: "burst",
            kind: Kind::Integer(1..=MAX_BURST),
            fallback: Fallback::Other("none; required by buckets"),
            text: r#"
How much may come at once after a pause. With `bits` it is a string such as `"2Mbit"`, at least `"12112bit"`: a packet that is
larger than the burst never passes, so one of 1514 bytes must fit.

```toml
limit = [{ scope = "source", packets = "1/s", burst = 68, action = "drop" }]
```
"#,
            refused: "zero; less than one packet; a burst that takes 69 seconds or more to refill at the rate; \
                  windows",
        },
        Key {
            name: "algorithm",
            kind: Kind::Words(&["token-bucket", "leaky-bucket", "fixed-window", "sliding-window"]),
            fallback: Fallback::Text("token-bucket"),
            text: r#"
How what comes is weighed. In any stretch of time `t`, a token bucket lets pass rate x t + burst at most, and everything that
keeps to it; a leaky bucket, as a meter, is the same under another name. A fixed window lets pass what the rate makes of its
length, up to twice as much around its end. A sliding window counts the window before, too, as far as it still is within one
length. A window keeps a source's word busy until it is over, and has 16384 of them (a bucket has 524288, with the exact clock
131072, and only those who sent more than their share of late are in it): what finds none passes and is counted as contended.

```toml
limit = [{ scope = "source", packets = "100/s", burst = 200, algorithm = "leaky-bucket", action = "drop" }]
```

```toml
limit = [{ scope = "source", packets = "100/s", algorithm = "sliding-window", window = "10s", action = "drop" }]
```
"#,
            refused: "other words; more than 8 limiters with windows in all services together",
        },
        Key {
            name: "window",
            kind: Kind::Duration(WINDOWS),
            fallback: Fallback::Other("none; required by windows"),
            text: r#"
How long a window is.

```toml
limit = [{ scope = "source", packets = "100/s", algorithm = "fixed-window", window = "1s", action = "drop" }]
```
"#,
            refused: "buckets; a window in which the rate admits nothing, or more than 4294967295 (fixed) or \
                  65535 (sliding) packets, connections or bytes",
        },
        Key {
            name: "action",
            kind: Kind::Words(&["drop", "mark", "shadow"]),
            fallback: Fallback::Required,
            text: r#"
What happens to what is too much. `drop`: it is dropped and counted as `limited`. `mark`: packets whose sender understands it get
the ECN mark "congestion experienced" (RFC 3168), so that TCP slows down and nothing is lost; others pass and are counted as
`unmarked`. `shadow`: it passes, and is counted as what would have been dropped.

```toml
limit = [{ scope = "source", packets = "500/s", burst = 1000, action = "shadow" }]
```

A `shadow` limiter of sources or prefixes also measures them, from when it is set or gets another unit or scope: how much each
sent in its busiest second. Its own rate does not matter for that. `lb limit suggest` makes a proposal of it:

```
$ lb limit set web probe scope=source packets=1k/s burst=2000 action=shadow
$ lb limit suggest web
LIMITER   web probe
MEASURED  about 12 304 sources in 10m
BUSIEST   second of each, at most: 50 %: 3/s  90 %: 11/s  99 %: 39/s  99.9 %: 319/s  100 %: 2.05k/s
PROPOSED  320 packets/s per source, burst 640 (99.9 %)
HITS      9 sources at most (0.1 %), the others never
COMMAND   lb limit set web probe packets=320/s burst=640 action=drop
```

`--quantile 99` leaves fewer alone. Rates are exact to a quarter, and rounded up. Sources are told to 1 % up to half a million;
a flood of spoofed addresses counts as so many sources, so measure in peace. Eight limiters can measure at a time; in one second
there is room for 16384 sources of each, and what found none is told. More than 34 Gbit/s of one source are 34 Gbit/s.
"#,
            refused: "other words; `\"mark\"` with `new_connections`, whose packets are not ECN-capable",
        },
    ],
};
