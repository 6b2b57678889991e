//! What the tests and the demonstration share: networks of namespaces, servers, load and the daemon under test.
//!
//! Everything here makes its own network namespaces, touches nothing else, waits with deadlines and removes what it made.

pub mod bench;

pub mod cli;
pub mod daemon;
pub mod demo;
pub mod interrupt;
pub mod load;
pub mod mounts;
pub mod net;
pub mod playground;
pub mod process;
pub mod servers;
pub mod site;
pub mod tools;
pub mod traffic;
pub mod wait;

#[cfg(test)]
mod documents;
