//! The keys of `[lists]`.

use super::{Fallback, Key, Kind, Table};

/// `[lists]`.
pub static LISTS: Table = Table {
    title: "[lists]",
    path: "lists",
    text: r"
Sources whose packets for a VIP are dropped, and sources whose packets no limit concerns. What is not for a VIP is never
dropped, whoever sends it. A source is judged by the longest prefix that it is in, whichever list that is on: a network can be
denied, a part of it allowed, and a part of that denied again. On one list a prefix may stand twice; it counts once. Lists are
changed at run time by `lb deny` and `lb allow`.

A prefix is written `198.51.100.0/24` or `2001:db8::/32`; an address alone is a prefix of all its bits. `0.0.0.0/0` is all of
IPv4, `::/0` all of IPv6 and nothing of IPv4. An IPv4 prefix in IPv6 clothes (`::ffff:198.51.100.0/120`) is refused: write the
IPv4 prefix, which also judges packets over IPv6 whose source is such an address. Both lists together have room for 250000
prefixes.

Denied are TCP and UDP packets for a VIP, also for a port that no service has, echo requests and ICMP errors; they are counted
as `denied`. Later fragments follow the first one. Neither limits nor backends hear of what is denied. Other protocols, ARP and
neighbour discovery are left to the host's stack as ever.
",
    keys: &[
        Key {
            name: "deny",
            kind: Kind::Other("Array of strings, prefixes"),
            fallback: Fallback::Other("nobody is denied"),
            text: r#"
```toml
deny = ["198.51.100.0/24", "2001:db8:bad::/48"]
```
"#,
            refused: "bits set behind the prefix, which are usually a typing mistake; IPv4 in IPv6 clothes; a \
                  prefix that is on the other list too; more prefixes than there is room for",
        },
        Key {
            name: "deny_file",
            kind: Kind::Other("String, a path that begins at the configuration's folder if it is relative"),
            fallback: Fallback::Other("no file"),
            text: r#"
A file with further prefixes to deny, one a line. `#` and what follows is a comment.

```toml
deny_file = "/etc/lb/deny.txt"
```
"#,
            refused: "a file that cannot be read; in it, what is refused in `deny`, each with its line",
        },
        Key {
            name: "allow",
            kind: Kind::Other("Array of strings, prefixes"),
            fallback: Fallback::Other("nobody is exempt"),
            text: r#"
Their packets pass every limit, and are not denied.

```toml
deny = ["0.0.0.0/0"]
allow = ["203.0.113.0/24"]
```
"#,
            refused: "as for `deny`",
        },
        Key {
            name: "allow_file",
            kind: Kind::Other("String, a path that begins at the configuration's folder if it is relative"),
            fallback: Fallback::Other("no file"),
            text: r#"
```toml
allow_file = "allow.txt"
```
"#,
            refused: "as for `deny_file`",
        },
    ],
};
