//! Everything that is wanted.

use std::sync::Arc;

use super::{Lists, Services};

/// All that a configuration says but for `[daemon]`, and all that can change while the daemon runs. Changes make a new one
/// of it, which takes the place of the one before whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The services, and the limiters that all of them have.
    pub services: Services,
    /// Which sources are denied, and which are not limited.
    pub lists: Arc<Lists>,
}
