//! The keys of `backends`.

use super::super::admin::DRAIN_TIMEOUTS;
use super::super::service::WEIGHTS;
use super::{Fallback, Key, Kind, Table};
use crate::model::Weight;

/// `backends`.
pub static BACKENDS: Table = Table {
    title: "backends",
    path: "service.backends",
    text: "",
    keys: &[
        Key {
            name: "address",
            kind: Kind::Other("String, an endpoint"),
            fallback: Fallback::Required,
            text: r#"
Where the backend listens; unique within the service. What goes with which mode:

| mode | family | port |
|---|---|---|
| `dsr-l2` | the VIP's | the VIP's |
| `ipip`, `gue` | either | the VIP's |
| `nat` | the VIP's | any one port; `*` if and only if the VIP has `*` |

The balancer translates a `nat` backend's replies back by their source alone and remembers nothing about the flow. So two
services of mode `nat` cannot share a backend's address, port and protocol (`*` overlaps every port), and the address cannot be
the VIP of any service.

Replies go on by the host's own routes, which takes `sysctl net.ipv4.ip_forward=1` or `net.ipv6.conf.all.forwarding=1`; a reply
whose next hop is not known yet is translated and left to the host's stack. ICMP errors find their way in both directions: those
about a reply quote the backend's own packet when they reach it, those of a backend the client's. What is for the host itself,
what the host has no route for, what has no hop left and what is too big to be sent on and must not be fragmented stays as it is.
On its way to the backend a packet loses no hop, as with the other modes: the balancer stands for the host that has the VIP.

```toml
mode = "nat"
backends = [{ address = "10.0.1.1:8080" }]
```
"#,
            refused: "what the table does not have; the VIP itself; loopback, multicast, broadcast and \
                  unspecified addresses; a backend of the service that is there already; with `nat`, a \
                  backend of another `nat` service and the VIP of any service",
        },
        Key {
            name: "weight",
            kind: Kind::Integer(WEIGHTS),
            fallback: Fallback::Number(Weight::DEFAULT.0 as u32),
            text: r#"
The backend's share relative to its siblings. Zero takes no traffic.

```toml
backends = [{ address = "10.0.1.1:80", weight = 50 }, { address = "10.0.1.2:80" }]
```
"#,
            refused: "what is outside of the range",
        },
        Key {
            name: "state",
            kind: Kind::Words(&["ready", "drain", "maintenance"]),
            fallback: Fallback::Text("ready"),
            text: r#"
What is asked of the backend, whatever its health; `lb backend ready`, `drain` and `maintenance` ask it while the daemon runs.

| state | new flows | flows it has |
|---|---|---|
| `ready` | while it is well and reachable | stay while it is |
| `drain` | none | stay while it is well and reachable, until the time-out ends if there is one |
| `maintenance` | none | given up, and go to others |

Checks go on in every state. A backend in maintenance, or whose drain has ended, is not warned of when it fails.

```toml
backends = [{ address = "10.0.1.1:80" }, { address = "10.0.1.2:80", state = "maintenance" }]
```
"#,
            refused: "other words",
        },
        Key {
            name: "drain_timeout",
            kind: Kind::Duration(DRAIN_TIMEOUTS),
            fallback: Fallback::Other("as the service has it"),
            text: r#"
How long this backend drains.

```toml
backends = [{ address = "10.0.1.1:80", state = "drain", drain_timeout = "5m" }]
```
"#,
            refused: "durations outside of 1s to 168h; a backend that does not drain",
        },
    ],
};
