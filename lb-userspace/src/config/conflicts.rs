//! What services must fulfil together. The API checks its changes by the same rules as the file.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::rules::{OuterSourceRuleError, check_outer_source};
use crate::model::{Endpoint, ForwardMode, Port, Protocol, Service};

/// Why a backend of a `nat` service does not go with the other services.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NatError {
    /// Its replies would look like packets of the VIP.
    #[error("{address} is the VIP of service {service}; a nat backend needs an address of its own")]
    IsVip {
        /// The backend's address.
        address: IpAddr,
        /// A service that has it as VIP.
        service: String,
    },
    /// Its replies would be taken for another service's.
    #[error(
        "{other} {protocol} is a backend of service {service} already, and which service a nat backend's \
         reply belongs to is told by its source alone: let it listen on another port for this service"
    )]
    Shared {
        /// The other service's backend, which may have every port.
        other: Endpoint,
        /// The protocol of both.
        protocol: Protocol,
        /// The other service.
        service: String,
    },
}

/// A backend of a `nat` service that does not go with the other services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatConflict {
    /// Index of its service.
    pub service: usize,
    /// Index among the backends of its service.
    pub backend: usize,
    /// What is wrong with it.
    pub error: NatError,
}

/// Every conflict of `nat` backends, each told of the service that comes later.
pub fn nat_conflicts(services: &[&Service]) -> Vec<NatConflict> {
    let mut sources = Sources::new(services);
    let mut conflicts = Vec::new();
    let nat = |(_, service): &(usize, &&Service)| service.mode == ForwardMode::Nat;
    for (index, service) in services.iter().enumerate().filter(nat) {
        for (backend, Endpoint { address, port }) in service.backends.iter().map(|b| b.endpoint).enumerate() {
            if let Err(error) = sources.claim(index, address, port) {
                conflicts.push(NatConflict { service: index, backend, error });
            }
        }
    }
    conflicts
}

/// Why the services cannot be as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TogetherError {
    /// Replies of a backend could be mistaken.
    #[error(transparent)]
    Nat(#[from] NatError),
    /// The outer headers' source goes with no backend.
    #[error("outer_source: {0}")]
    OuterSource(#[from] OuterSourceRuleError),
}

/// Checks what the backends of the service `changed` must fulfil together, and together with the other services, of which
/// nothing is new.
pub fn check_together<'s>(
    services: impl IntoIterator<Item = &'s Service>,
    changed: &str,
) -> Result<(), TogetherError> {
    let mut services: Vec<&Service> = services.into_iter().collect();
    services.sort_by_key(|service| service.name == changed);
    if let Some(conflict) = nat_conflicts(&services).into_iter().next() {
        return Err(conflict.error.into());
    }
    let changed = services.last().filter(|service| service.name == changed);
    if let Some((service, source)) = changed.and_then(|s| Some((s, s.options.outer_source?))) {
        check_outer_source(source, &service.backends)?;
    }
    Ok(())
}

/// What sources of replies mean.
struct Sources<'s> {
    services: &'s [&'s Service],
    /// Index of a service with this VIP.
    vips: HashMap<IpAddr, usize>,
    /// Index of the `nat` service whose backend has the port.
    claims: HashMap<(IpAddr, Protocol), BTreeMap<Port, usize>>,
}

impl<'s> Sources<'s> {
    fn new(services: &'s [&'s Service]) -> Self {
        let vips = services.iter().enumerate().map(|(index, service)| (service.vip.address, index));
        Self { services, vips: vips.collect(), claims: HashMap::new() }
    }

    /// Takes a backend of a service in, or says why its replies could be mistaken.
    ///
    /// What is wrong with the service by itself, its own VIP as backend or the same backend twice, is not told again.
    fn claim(&mut self, index: usize, address: IpAddr, port: Port) -> Result<(), NatError> {
        let service = self.services[index];
        if let Some(owner) = self.vips.get(&address).filter(|_| address != service.vip.address) {
            return Err(NatError::IsVip { address, service: self.services[*owner].name.clone() });
        }
        let protocol = service.protocol;
        let claimed = self.claims.entry((address, protocol)).or_default();
        let overlapping = match port {
            Port::Any => claimed.iter().find(|(_, owner)| **owner != index),
            Port::Number(_) => claimed.get_key_value(&port).or_else(|| claimed.get_key_value(&Port::Any)),
        };
        if let Some((port, owner)) = overlapping.filter(|(_, owner)| **owner != index) {
            let other = Endpoint { address, port: *port };
            return Err(NatError::Shared { other, protocol, service: self.services[*owner].name.clone() });
        }
        claimed.insert(port, index);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AdminState, Backend, ServiceOptions, Weight};

    fn service(name: &str, vip: &str, protocol: Protocol, mode: ForwardMode, backends: &[&str]) -> Service {
        let backend = |endpoint: &&str| Backend {
            endpoint: endpoint.parse().unwrap(),
            weight: Weight::default(),
            admin: AdminState::Ready,
        };
        Service {
            name: name.to_owned(),
            vip: vip.parse().unwrap(),
            protocol,
            mode,
            table_size: 251,
            limits: Vec::new(),
            health: None,
            options: ServiceOptions::default(),
            backends: backends.iter().map(backend).collect(),
        }
    }

    fn nat(name: &str, vip: &str, backends: &[&str]) -> Service {
        service(name, vip, Protocol::Tcp, ForwardMode::Nat, backends)
    }

    /// Index of service and backend, and the sentence.
    fn conflicts(services: &[Service]) -> Vec<(usize, usize, String)> {
        let services: Vec<&Service> = services.iter().collect();
        let told = |conflict: NatConflict| (conflict.service, conflict.backend, conflict.error.to_string());
        nat_conflicts(&services).into_iter().map(told).collect()
    }

    fn shared(other: &str, service: &str) -> String {
        format!(
            "{other} tcp is a backend of service {service} already, and which service a nat backend's reply \
             belongs to is told by its source alone: let it listen on another port for this service"
        )
    }

    #[test]
    fn one_endpoint_serves_one_nat_service() {
        let web = nat("web", "192.0.2.10:80", &["10.0.1.1:80", "10.0.1.2:80"]);
        let api = nat("api", "192.0.2.11:80", &["10.0.1.3:80", "10.0.1.2:80"]);
        assert_eq!(conflicts(&[web.clone(), api]), [(1, 1, shared("10.0.1.2:80", "web"))]);
        let other_port = nat("api", "192.0.2.11:80", &["10.0.1.2:8080"]);
        assert_eq!(conflicts(&[web.clone(), other_port]), []);
        let other_protocol =
            service("dns", "192.0.2.10:53", Protocol::Udp, ForwardMode::Nat, &["10.0.1.1:80"]);
        assert_eq!(conflicts(&[web.clone(), other_protocol]), []);
        let other_mode =
            service("tunnel", "192.0.2.11:80", Protocol::Tcp, ForwardMode::Ipip, &["10.0.1.1:80"]);
        assert_eq!(conflicts(&[web, other_mode]), [], "replies of the others carry the VIP");
    }

    #[test]
    fn every_port_overlaps_each_port() {
        let web = nat("web", "192.0.2.10:80", &["10.0.1.1:80", "10.0.1.1:81"]);
        let rest = nat("rest", "192.0.2.11:*", &["10.0.1.2:*", "10.0.1.1:*"]);
        assert_eq!(conflicts(&[web.clone(), rest.clone()]), [(1, 1, shared("10.0.1.1:80", "web"))]);
        let both = [(1, 0, shared("10.0.1.1:*", "rest")), (1, 1, shared("10.0.1.1:*", "rest"))];
        assert_eq!(conflicts(&[rest.clone(), web]), both);
        let again = nat("again", "192.0.2.12:*", &["10.0.1.1:*"]);
        assert_eq!(conflicts(&[rest, again]), [(1, 0, shared("10.0.1.1:*", "rest"))]);
    }

    #[test]
    fn a_vip_is_no_nat_backend() {
        let web = nat("web", "192.0.2.10:80", &["192.0.2.11:80"]);
        let api = service("api", "192.0.2.11:443", Protocol::Udp, ForwardMode::DsrL2, &[]);
        let sentence = "192.0.2.11 is the VIP of service api; a nat backend needs an address of its own";
        assert_eq!(conflicts(&[web.clone(), api.clone()]), [(0, 0, sentence.to_owned())]);
        assert_eq!(conflicts(&[api, web]), [(1, 0, sentence.to_owned())]);
    }

    #[test]
    fn what_a_service_has_wrong_by_itself_is_told_elsewhere() {
        let own_vip = nat("web", "192.0.2.10:80", &["192.0.2.10:80"]);
        let twice = nat("api", "192.0.2.11:80", &["10.0.1.1:80", "10.0.1.1:80"]);
        assert_eq!(conflicts(&[own_vip, twice]), []);
    }

    #[test]
    fn a_changed_service_is_the_one_that_is_told_of() {
        let (web, api) =
            (nat("web", "192.0.2.10:80", &["10.0.1.1:80"]), nat("api", "192.0.2.11:80", &["10.0.1.1:80"]));
        let told = |changed: &str| check_together([&web, &api], changed).unwrap_err().to_string();
        assert_eq!(told("web"), shared("10.0.1.1:80", "api"));
        assert_eq!(told("api"), shared("10.0.1.1:80", "web"));
        assert_eq!(check_together([&web], "web"), Ok(()));
    }
}
