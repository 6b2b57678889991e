//! Who owns a row of a table: what no packet asks, and a daemon needs that finds the tables filled by one before it.
//!
//! Names do not fit a table, so it holds digests of them: zero means that the row is nobody's. The program
//! never reads these tables. They are stored with the others, before a row comes into use and after it has gone out of use.

use bytemuck::{Pod, Zeroable};

use crate::layout::Forwarded;

/// The version of everything that two programs, or two daemons, have to agree on to go on with each other's tables: what
/// stands in them and what it means, flow hash and flow table included.
///
/// It is to be raised whenever anything of that changes. A test knows the layouts and some meanings of the last one.
pub const FORMAT: u32 = 1;

/// Whose row of backends it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BackendOwner {
    /// Digest of the service's name.
    pub service: u64,
    /// The backend's address, IPv4 mapped into IPv6: [`crate::layout::VipKey`], its lower half first.
    pub address: [u64; 2],
    /// The backend's port.
    pub port: u16,
    /// 1 if it is every port.
    pub any_port: u16,
    /// The row of the service's backend 0.
    pub base: u32,
    /// What other rows have counted for it before.
    pub carried: Forwarded,
}

/// Whose row of services' counters it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ServiceOwner {
    /// Digest of the service's name.
    pub name: u64,
    /// Rows that it has for backends.
    pub backends: u32,
    /// Places that it has for slots.
    pub slots: u32,
    /// What was forwarded to backends that are gone.
    pub retired: Forwarded,
}

/// Whose row of limiters' counters it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LimiterOwner {
    /// Digest of the names of its service and its own.
    pub name: u64,
    /// What its sources are hashed with.
    pub salt: u32,
    /// Digest of what its buckets mean, and in the lowest byte the number of its range of windows, counted from 1, if it
    /// has one.
    pub meaning: u32,
}

const _: () = assert!(size_of::<BackendOwner>() == 56 && size_of::<ServiceOwner>() == 40);
const _: () = assert!(size_of::<LimiterOwner>() == 16);
