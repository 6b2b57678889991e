//! The keys of `health`.

use super::super::service::{COUNTS, DEFAULT_FALL, DEFAULT_INTERVAL, DEFAULT_RISE, INTERVALS, PORTS};
use super::{Fallback, Key, Kind, Table};

/// `health`.
pub static HEALTH: Table = Table {
    title: "health",
    path: "service.health",
    text: "",
    keys: &[
        Key {
            name: "kind",
            kind: Kind::Words(&["tcp"]),
            fallback: Fallback::Required,
            text: r#"
A TCP connection to the backend's own address is opened and closed. Services of protocol `udp` can be checked by it too if
something listens.

```toml
health = { kind = "tcp", port = 8080 }
```
"#,
            refused: "other words",
        },
        Key {
            name: "interval",
            kind: Kind::Duration(INTERVALS),
            fallback: Fallback::Duration(DEFAULT_INTERVAL),
            text: r#"
The time from the start of one check to the start of the next.

```toml
health = { kind = "tcp", interval = "5s" }
```
"#,
            refused: "durations outside of the range",
        },
        Key {
            name: "timeout",
            kind: Kind::Other("String, a duration up to `interval`"),
            fallback: Fallback::Other(r#"`"500ms"`, or `interval` if that is shorter"#),
            text: r#"
How long a check may take.

```toml
health = { kind = "tcp", interval = "5s", timeout = "2s" }
```
"#,
            refused: "zero, and what is longer than `interval`",
        },
        Key {
            name: "rise",
            kind: Kind::Integer(COUNTS),
            fallback: Fallback::Number(DEFAULT_RISE),
            text: r#"
Passed checks in a row that bring a backend up. The very first check decides alone.

```toml
health = { kind = "tcp", rise = 1 }
```
"#,
            refused: "what is outside of the range",
        },
        Key {
            name: "fall",
            kind: Kind::Integer(COUNTS),
            fallback: Fallback::Number(DEFAULT_FALL),
            text: r#"
Failed checks in a row that take a backend down.

```toml
health = { kind = "tcp", fall = 5 }
```
"#,
            refused: "what is outside of the range",
        },
        Key {
            name: "port",
            kind: Kind::Integer(PORTS),
            fallback: Fallback::Other("the backend's own. Required if the service has every port"),
            text: r#"
The port that is asked.

```toml
vip = "192.0.2.10:*"
health = { kind = "tcp", port = 80 }
backends = [{ address = "10.0.1.1:*" }]
```
"#,
            refused: "what is outside of the range; its absence where the backends have no port of their own",
        },
    ],
};
