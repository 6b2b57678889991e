//! The keys of `[daemon.api]`.

use super::{Fallback, Key, Kind, Table};

/// `[daemon.api]`.
pub static API: Table = Table {
    title: "[daemon.api]",
    path: "daemon.api",
    text: r"
The files are read again when they change, within a second: a renewed certificate and a token taken away need no restart. What
cannot be used is told in the log, and what was in force before stays.
",
    keys: &[
        Key {
            name: "listen",
            kind: Kind::Other("String, `ADDRESS:PORT`"),
            fallback: Fallback::Required,
            text: r#"
Where HTTPS is spoken, with TLS 1.2 or 1.3. Choose an address of the management network.

```toml
listen = "192.0.2.5:9440"
certificate = "/etc/lb/api.crt"
key = "/etc/lb/api.key"
tokens = "/etc/lb/tokens.toml"
```
"#,
            refused: "a name instead of an address; no port. `lb run` also refuses an address that it cannot \
                  bind",
        },
        Key {
            name: "certificate",
            kind: Kind::Other("String, the absolute path of a PEM file"),
            fallback: Fallback::Required,
            text: r#"
The daemon's certificate, and after it those between it and its authority.

```toml
listen = "192.0.2.5:9440"
certificate = "/etc/lb/api.crt"
key = "/etc/lb/api.key"
tokens = "/etc/lb/tokens.toml"
```
"#,
            refused: "a relative path. `lb run` also refuses a file that it cannot read or that holds no \
                  certificate",
        },
        Key {
            name: "key",
            kind: Kind::Other("String, the absolute path of a PEM file"),
            fallback: Fallback::Required,
            text: r#"
The private key of the certificate. Only the daemon's user needs to be able to read it.

```toml
listen = "192.0.2.5:9440"
certificate = "/etc/lb/api.crt"
key = "/etc/lb/api.key"
tokens = "/etc/lb/tokens.toml"
```
"#,
            refused: "a relative path. `lb run` also refuses a key that does not belong to the certificate",
        },
        Key {
            name: "tokens",
            kind: Kind::Other("String, the absolute path of a file"),
            fallback: Fallback::Other("no token is good"),
            text: r#"
The [tokens](api.md#tokens) that are good, as their digests. One of `tokens`, `writers` and `readers` is needed.

```toml
listen = "192.0.2.5:9440"
certificate = "/etc/lb/api.crt"
key = "/etc/lb/api.key"
tokens = "/etc/lb/tokens.toml"
```
"#,
            refused: "a relative path; neither this nor `writers` nor `readers`. `lb run` also refuses a file \
                  with mistakes",
        },
        Key {
            name: "writers",
            kind: Kind::Other("String, the absolute path of a PEM file"),
            fallback: Fallback::Other("no client's certificate makes a writer of it"),
            text: r#"
The certificates of authorities. Whoever has a client's certificate of one of them may change everything.

```toml
listen = "192.0.2.5:9440"
certificate = "/etc/lb/api.crt"
key = "/etc/lb/api.key"
writers = "/etc/lb/operators-ca.pem"
```
"#,
            refused: "a relative path. `lb run` also refuses a file that holds no certificate",
        },
        Key {
            name: "readers",
            kind: Kind::Other("String, the absolute path of a PEM file"),
            fallback: Fallback::Other("no client's certificate makes a reader of it"),
            text: r#"
As `writers`, but they may only read. Who has a certificate by an authority of both may write.

```toml
listen = "192.0.2.5:9440"
certificate = "/etc/lb/api.crt"
key = "/etc/lb/api.key"
readers = "/etc/lb/monitoring-ca.pem"
```
"#,
            refused: "a relative path. `lb run` also refuses a file that holds no certificate",
        },
    ],
};
