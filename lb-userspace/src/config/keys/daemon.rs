//! The keys of `[daemon]`.

use super::super::{DEFAULT_FLOWS, DEFAULT_SOCKET, DEFAULT_STATE, FLOWS};
use super::{Fallback, Key, Kind, Table};
use crate::datapath::DEFAULT_PINS;

/// `[daemon]`.
pub static DAEMON: Table = Table {
    title: "[daemon]",
    path: "daemon",
    text: "",
    keys: &[
        Key {
            name: "interfaces",
            kind: Kind::Other("Array of strings"),
            fallback: Fallback::Required,
            text: r#"
The interfaces whose packets are looked at: those that clients' packets come in by, and with mode `nat` also those that
backends' replies come in by. The program is attached natively where the driver can, else generically with a warning.

```toml
interfaces = ["eth0", "eth1"]
```
"#,
            refused: "none, or more than 15; a name twice; what cannot be a name of an interface. `lb run` \
                  also refuses names that do not exist",
        },
        Key {
            name: "metrics",
            kind: Kind::Other("String, `ADDRESS:PORT`"),
            fallback: Fallback::Other("metrics are not served"),
            text: r#"
Where Prometheus finds `/metrics`.

```toml
interfaces = ["eth0"]
metrics = "127.0.0.1:9441"
```
"#,
            refused: "a name instead of an address; no port",
        },
        Key {
            name: "socket",
            kind: Kind::Other("String, a path"),
            fallback: Fallback::Text(DEFAULT_SOCKET),
            text: r#"
The Unix socket at which the daemon answers; the command line finds it with `--socket` if it is another one. It is for the
daemon's user and the group `lb`, see [the API](api.md#who-may-do-what).

```toml
interfaces = ["eth0"]
socket = "/run/lb/other.sock"
```
"#,
            refused: "anything but a string",
        },
        Key {
            name: "api",
            kind: Kind::Other("Table, see [`[daemon.api]`](#daemonapi)"),
            fallback: Fallback::Other("the API is served on the socket alone"),
            text: r#"
Serves the API over TLS, too, to [whoever has a token or a certificate](api.md#over-the-network).

```toml
interfaces = ["eth0"]
api = { listen = "192.0.2.5:9440", certificate = "/etc/lb/api.crt", key = "/etc/lb/api.key", tokens = "/etc/lb/tokens.toml" }
```
"#,
            refused: "a key that it does not know",
        },
        Key {
            name: "state",
            kind: Kind::Other("String, the path of a directory"),
            fallback: Fallback::Text(DEFAULT_STATE),
            text: r#"
Where generations are kept, the last ten of them: one file each, which is complete and durable before its change is made. It is
text, or, if that is longer than 256 KiB, an LZ4 frame of it, which `lz4cat` reads. The
directory is made, readable by its owner alone, if the one that it stands in exists. A daemon has it for itself. A file that
is damaged is kept with `.bad` behind its name, `lb status` names it, and the last good generation is in force.

```toml
interfaces = ["eth0"]
state = "/var/lib/lb"
```
"#,
            refused: "anything but a string; an empty one. `lb run` also refuses a directory that another \
                  daemon uses",
        },
        Key {
            name: "hash_key",
            kind: Kind::Other("String, `file:` and a path"),
            fallback: Fallback::Other("a key derived from the host's `/etc/machine-id`"),
            text: r#"
The file with the flow hash's key, 32 hexadecimal digits. Several balancers of one VIP need the same one, else they disagree
about a flow's backend. Whoever knows the key can choose flows that meet at one backend, so keep it secret.

```toml
interfaces = ["eth0"]
hash_key = "file:/etc/lb/hash.key"
```
"#,
            refused: "a value without `file:`. `lb run` also refuses a file that it cannot read or that holds \
                  something else",
        },
        Key {
            name: "flows",
            kind: Kind::Integer(FLOWS),
            fallback: Fallback::Number(DEFAULT_FLOWS),
            text: r#"
Flows that can be remembered while slots move, of all services together; rounded up to a power of two of sets of eight. One
takes 16 bytes. Only flows that send something while their slot is on its way from one backend to another are remembered.

```toml
interfaces = ["eth0"]
flows = 1048576
```
"#,
            refused: "what is outside of the range",
        },
        Key {
            name: "on_exit",
            kind: Kind::Words(&["keep", "detach"]),
            fallback: Fallback::Text("keep"),
            text: r#"
What becomes of the program when the daemon ends, however that happens: by SIGTERM, by a crash, by `kill -9`.

`keep`: it goes on forwarding, with everything it knows, and the next daemon goes on with it: with the same slots, flows, counters,
limits and lists, and from one packet to the next with a program of its own. Nobody watches over backends meanwhile.
`lb xdp status` shows such a program, `lb xdp detach` ends it.

`detach`: it goes with the daemon, and packets for a VIP reach the host's stack.

```toml
interfaces = ["eth0"]
on_exit = "detach"
```
"#,
            refused: "anything else",
        },
        Key {
            name: "pins",
            kind: Kind::Other("String, an absolute path on a BPF file system"),
            fallback: Fallback::Text(DEFAULT_PINS),
            text: r#"
Where maps, programs and links are pinned if they are to outlive the daemon. Two daemons on one host need two such directories.

```toml
interfaces = ["eth0"]
pins = "/sys/fs/bpf/lb-internal"
```
"#,
            refused: "a relative path. `lb run` also refuses one that is not on a BPF file system or cannot be \
                  written, one that another daemon uses, and one that holds maps which are not those of \
                  `lb`",
        },
    ],
};
