//! What `lb xdp` tells, with or without a daemon.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A pinned program and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpStatus {
    /// Where it is pinned.
    pub pins: PathBuf,
    /// The process of the daemon that looks after it, if one does.
    pub daemon: Option<u32>,
    /// The interfaces that it is on; none if nothing is pinned.
    pub interfaces: Vec<XdpInterface>,
}

/// The program on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpInterface {
    /// The interface's name.
    pub name: String,
    /// `native` or `generic`; absent if the interface is gone.
    pub mode: Option<String>,
    /// The number that the kernel gave the program.
    pub program: u32,
    /// Seconds since the program was loaded; absent if it is not pinned.
    pub since_seconds: Option<u64>,
}
