//! What a value must fulfil beyond its syntax. The API checks its changes by the same rules as the file.

use std::net::IpAddr;

use lb_common::layout::{MAX_ATTACHED, MAX_LIMITERS};
use lb_common::limiter::WINDOW_RANGES;
use lb_common::maglev::TableSize;
use lb_common::slot::BackendId;

use crate::model::{Backend, Endpoint, ForwardMode, Limit, OuterSource, Port, Service, Shape};

/// The most backends of one service: what a slot can name, less one id that stays free for a change.
pub const MAX_BACKENDS: usize = BackendId::LIMIT - 1;

/// Why an address cannot be a VIP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind} address; a VIP is an address that clients reach through a route")]
pub struct VipError {
    address: IpAddr,
    kind: &'static str,
}

/// Refuses addresses that no router delivers.
pub fn check_vip(vip: Endpoint) -> Result<(), VipError> {
    undeliverable(vip.address).map_or(Ok(()), |kind| Err(VipError { address: vip.address, kind }))
}

/// Why a backend does not fit its service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Its address is none that a packet can be sent to.
    #[error("{address} is {kind} address; a backend needs an address of its own")]
    Undeliverable {
        /// The address.
        address: IpAddr,
        /// What kind of address it is, with an article.
        kind: &'static str,
    },
    /// It would send the service's packets back to the balancer.
    #[error("{address} is the VIP itself; a backend needs an address of its own")]
    IsVip {
        /// The address.
        address: IpAddr,
    },
    /// Direct server return leaves the packet's ports alone.
    #[error("port {port} is not the VIP's port {vip}; {mode} does not rewrite ports: write {expected}")]
    OtherPort {
        /// The backend's port.
        port: Port,
        /// The VIP's port.
        vip: Port,
        /// The service's mode.
        mode: ForwardMode,
        /// The backend with the VIP's port.
        expected: Endpoint,
    },
    /// An address is translated to an address and a port to a port, or every port to itself.
    #[error(
        "port {port} does not go with the VIP's port {vip}; nat translates one port to one port or leaves \
         every port as it is: write {expected}"
    )]
    OtherPorts {
        /// The backend's port.
        port: Port,
        /// The VIP's port.
        vip: Port,
        /// The backend with the VIP's port.
        expected: Endpoint,
    },
    /// `dsr-l2` leaves the IP header alone, and `nat` leaves it its length.
    #[error(
        "{backend} is {}, the VIP {vip} is {}; {mode} cannot cross families, mode = \"ipip\" can",
        family(*backend), family(*vip)
    )]
    OtherFamily {
        /// The backend's address.
        backend: IpAddr,
        /// The VIP's address.
        vip: IpAddr,
        /// The service's mode.
        mode: ForwardMode,
    },
}

/// Checks whether packets for `vip` can be delivered to `backend`.
pub fn check_backend(vip: Endpoint, mode: ForwardMode, backend: Endpoint) -> Result<(), BackendError> {
    let address = backend.address;
    if let Some(kind) = undeliverable(address) {
        return Err(BackendError::Undeliverable { address, kind });
    }
    if address == vip.address {
        return Err(BackendError::IsVip { address });
    }
    let tunnel = matches!(mode, ForwardMode::Ipip | ForwardMode::Gue);
    if !tunnel && address.is_ipv4() != vip.address.is_ipv4() {
        return Err(BackendError::OtherFamily { backend: address, vip: vip.address, mode });
    }
    check_port(vip.port, mode, backend)
}

fn check_port(vip: Port, mode: ForwardMode, backend: Endpoint) -> Result<(), BackendError> {
    let Endpoint { address, port } = backend;
    let expected = Endpoint { address, port: vip };
    let one_to_one = port != Port::Any && vip != Port::Any;
    match mode {
        _ if port == vip => Ok(()),
        ForwardMode::Nat if one_to_one => Ok(()),
        ForwardMode::Nat => Err(BackendError::OtherPorts { port, vip, expected }),
        ForwardMode::DsrL2 | ForwardMode::Ipip | ForwardMode::Gue => {
            Err(BackendError::OtherPort { port, vip, mode, expected })
        }
    }
}

/// Why addresses cannot be the source of outer headers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OuterSourceRuleError {
    /// Nobody accepts packets from there.
    #[error("{address} is {kind} address; an outer header comes from an address that one machine may have")]
    Undeliverable {
        /// The first or the last of the addresses.
        address: IpAddr,
        /// What kind of address it is, with an article.
        kind: &'static str,
    },
    /// It would never be used: an outer header has the family of the backend it goes to.
    #[error(
        "{prefix} is {}, but every backend of the service is {}, and so are the outer headers towards \
         them: write a prefix such as {}",
        family(prefix.address),
        if prefix.address.is_ipv4() { "IPv6" } else { "IPv4" },
        if prefix.address.is_ipv4() { "fd00:1::/96" } else { "10.99.0.0/16" },
    )]
    OtherFamily {
        /// The source.
        prefix: OuterSource,
    },
}

/// Checks whether packets from `source` arrive at some of `backends`. A service without backends may get them later.
pub fn check_outer_source(source: OuterSource, backends: &[Backend]) -> Result<(), OuterSourceRuleError> {
    for address in [source.first(), source.last()] {
        if let Some(kind) = undeliverable(address) {
            return Err(OuterSourceRuleError::Undeliverable { address, kind });
        }
    }
    let same_family = |backend: &Backend| backend.endpoint.address.is_ipv4() == source.address.is_ipv4();
    if backends.is_empty() || backends.iter().any(same_family) {
        Ok(())
    } else {
        Err(OuterSourceRuleError::OtherFamily { prefix: source })
    }
}

fn undeliverable(address: IpAddr) -> Option<&'static str> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let kinds = [
        (address.is_unspecified(), "the unspecified"),
        (address.is_loopback(), "a loopback"),
        (address.is_multicast(), "a multicast"),
        (broadcast, "the broadcast"),
    ];
    kinds.into_iter().find(|(applies, _)| *applies).map(|(_, kind)| kind)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Why a name cannot be a service's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name; expected a letter or digit, then letters, digits, '-', '_' or '.', at most 64 in \
     all"
)]
pub struct NameError(String);

/// Names stand in URLs, metric labels and messages.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if starts_well && name.len() <= 64 && name.bytes().all(plain) {
        Ok(())
    } else {
        Err(NameError(name.to_owned()))
    }
}

/// Why a number cannot be the size of a Maglev table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{size} is not a prime; the next one is {next}")]
pub struct TableSizeError {
    size: u32,
    next: u32,
}

/// Refuses sizes that are no prime; those above [`TableSize::MAX`] have no next one.
pub fn check_table_size(size: u32) -> Result<(), TableSizeError> {
    if TableSize::try_new(size).is_some() {
        return Ok(());
    }
    let next = TableSize::at_least(size).map_or(TableSize::MAX, TableSize::slots);
    Err(TableSizeError { size, next })
}

/// The most window limiters, of all services together: half of the ranges of buckets for them, so that each can be replaced by
/// one with another window.
pub const MAX_WINDOWS: usize = WINDOW_RANGES as usize / 2;

/// A limiter of a service that does not go with the others or with the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitConflict {
    /// Which of the service's own.
    pub limit: usize,
    /// A sentence.
    pub error: String,
}

/// Checks the limiters of a service, which also meets those of all services, `shared`.
pub fn check_limits(service: &Service, shared: &[Limit]) -> Vec<LimitConflict> {
    let own = &service.limits;
    let room = (MAX_LIMITERS as usize).saturating_sub(shared.len());
    let check = |(index, limit): (usize, &Limit)| {
        let error = if !limit.concerns(service) {
            "udp packets open no connection that can be told (unless quic = true); expected packets or bits"
                .to_owned()
        } else if own[..index].iter().any(|other| other.name() == limit.name()) {
            named_twice(limit)
        } else if index >= room {
            format!("a service has at most {MAX_LIMITERS} limiters, those of all services included")
        } else {
            return None;
        };
        Some(LimitConflict { limit: index, error })
    };
    own.iter().enumerate().filter_map(check).collect()
}

/// Checks the limiters of all services among themselves.
pub fn check_shared_limits(shared: &[Limit]) -> Vec<LimitConflict> {
    let check = |(index, limit): (usize, &Limit)| {
        let twice = shared[..index].iter().any(|other| other.name() == limit.name());
        let error = match index < MAX_LIMITERS as usize {
            _ if twice => named_twice(limit),
            true => return None,
            false => format!("at most {MAX_LIMITERS} limiters can be of all services"),
        };
        Some(LimitConflict { limit: index, error })
    };
    shared.iter().enumerate().filter_map(check).collect()
}

fn named_twice(limit: &Limit) -> String {
    format!(
        "two limiters are called {}; give one of them another name, such as name = \"second\"",
        limit.name()
    )
}

/// Why there are too many window limiters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} limiters with windows are more than {MAX_WINDOWS}, the most of all services together; \
     algorithm = \"token-bucket\" has no such bound"
)]
pub struct WindowsError(usize);

/// Each window limiter needs buckets of its own, of which there are not many.
pub fn check_windows<'l>(all: impl IntoIterator<Item = &'l Limit>) -> Result<(), WindowsError> {
    let has_window = |limit: &&Limit| matches!(limit.policy().shape, Shape::Window { .. });
    let windows = all.into_iter().filter(has_window).count();
    if windows > MAX_WINDOWS { Err(WindowsError(windows)) } else { Ok(()) }
}

/// Why so many interfaces cannot be attached to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} interfaces are named; expected from 1 to {MAX_ATTACHED}, such as [\"eth0\"]")]
pub struct InterfacesError(usize);

/// Each interface has its own counters, of which the program has a fixed number.
pub fn check_interfaces(number: usize) -> Result<(), InterfacesError> {
    if (1..=MAX_ATTACHED).contains(&number) { Ok(()) } else { Err(InterfacesError(number)) }
}

/// Why a name cannot be an interface's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an interface name; list them with: ip link")]
pub struct InterfaceError(String);

/// The kernel's rule, `dev_valid_name` in net/core/dev.c, of which IFNAMSIZ is 16 with the closing zero.
pub fn check_interface(name: &str) -> Result<(), InterfaceError> {
    let plain = |byte: u8| !byte.is_ascii_whitespace() && byte != 0x0b && !b"/:\0".contains(&byte);
    let valid = (1..16).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(plain);
    if valid { Ok(()) } else { Err(InterfaceError(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vip: &str, mode: ForwardMode, backend: &str) -> Result<(), BackendError> {
        check_backend(vip.parse().unwrap(), mode, backend.parse().unwrap())
    }

    #[test]
    fn tunnels_cross_families_and_the_other_modes_do_not() {
        for mode in [ForwardMode::Ipip, ForwardMode::Gue] {
            assert_eq!(check("192.0.2.10:80", mode, "[2001:db8::1]:80"), Ok(()));
        }
        for mode in [ForwardMode::DsrL2, ForwardMode::Nat] {
            let error = check("192.0.2.10:80", mode, "[2001:db8::1]:80").unwrap_err();
            assert!(matches!(error, BackendError::OtherFamily { mode: named, .. } if named == mode));
        }
    }

    #[test]
    fn only_nat_changes_the_port_and_only_one_to_one() {
        for mode in [ForwardMode::DsrL2, ForwardMode::Ipip, ForwardMode::Gue] {
            let error = check("192.0.2.10:80", mode, "10.0.1.1:8080").unwrap_err();
            assert!(matches!(error, BackendError::OtherPort { mode: named, .. } if named == mode));
            assert_eq!(check("192.0.2.10:80", mode, "10.0.1.1:80"), Ok(()));
        }
        for (vip, backend) in [("192.0.2.10:80", "10.0.1.1:8080"), ("192.0.2.10:*", "10.0.1.1:*")] {
            assert_eq!(check(vip, ForwardMode::Nat, backend), Ok(()));
        }
        for (vip, backend) in [("192.0.2.10:80", "10.0.1.1:*"), ("192.0.2.10:*", "10.0.1.1:80")] {
            let error = check(vip, ForwardMode::Nat, backend).unwrap_err();
            assert!(matches!(error, BackendError::OtherPorts { .. }), "{vip} {backend}");
        }
    }
}
