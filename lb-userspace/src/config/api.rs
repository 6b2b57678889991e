//! `[daemon.api]`: the API over the network.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::document::Node;
use super::keys;
use super::{parse_absolute, parse_listener};

/// The `[daemon.api]` section: where the API is served over TLS, and to whom. All paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiSettings {
    /// The address.
    pub listen: SocketAddr,
    /// The daemon's certificate and those between it and its authority, as PEM.
    pub certificate: PathBuf,
    /// The certificate's private key, as PEM.
    pub key: PathBuf,
    /// The file of bearer tokens, see [`read_tokens`](super::read_tokens).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<PathBuf>,
    /// Authorities whose clients may change things, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writers: Option<PathBuf>,
    /// Authorities whose clients may only read, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<PathBuf>,
}

pub(super) fn read_api(node: &Node<'_>) -> Option<ApiSettings> {
    let section = node.section(&keys::API.names())?;
    let path = |node: Node<'_>| node.read_with(parse_absolute("/etc/lb/api.pem"));
    let listen = section.required("listen", "listen = \"192.0.2.5:9440\"");
    let certificate = section.required("certificate", "certificate = \"/etc/lb/api.crt\"").and_then(path);
    let key = section.required("key", "key = \"/etc/lb/api.key\"").and_then(path);
    let [tokens, writers, readers] = ["tokens", "writers", "readers"].map(|key| section.optional(key));
    if [&tokens, &writers, &readers].iter().all(|key| key.is_none()) {
        section.note_missing(
            "tokens",
            "tokens, writers or readers: without one of them nobody could ask anything",
        );
    }
    Some(ApiSettings {
        listen: listen.and_then(|node| node.read_with(parse_listener))?,
        certificate: certificate?,
        key: key?,
        tokens: tokens.and_then(path),
        writers: writers.and_then(path),
        readers: readers.and_then(path),
    })
}
