//! What is told of the deny and the allow list.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How full the lists are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListsView {
    /// Prefixes on the deny list.
    pub denied: u64,
    /// Prefixes on the allow list.
    pub allowed: u64,
    /// Prefixes that both lists together have room for.
    pub capacity: u64,
}

/// One list: the answer to `GET /v1/deny` and `GET /v1/allow`; and the body of `POST`, which adds to it, of `DELETE`, which
/// takes from it, and of `PUT`, which replaces it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixList {
    /// Prefixes such as `198.51.100.0/24` or `2001:db8::/32`; told in the order of addresses.
    pub prefixes: Vec<String>,
}
