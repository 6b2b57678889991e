//! What has to be true of everything that is wanted, whoever wants it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use crate::config::{
    MAX_BACKENDS, check_backend, check_limits, check_name, check_outer_source, check_shared_limits,
    check_table_size, check_vip, check_windows, nat_conflicts,
};
use crate::model::{Desired, Service};

/// Checks what is new in `to`, and all of it together: the rules of the configuration, without lines.
pub(super) fn check(from: &Desired, to: &Desired) -> Result<(), String> {
    for service in to.services.values().filter(|service| !from.services.agree_on(&to.services, &service.name))
    {
        check_service(service).map_err(|error| format!("service {}: {error}", service.name))?;
    }
    check_vips_differ(to)?;
    check_all_limits(to)?;
    let services: Vec<&Service> = to.services.values().collect();
    match nat_conflicts(&services).into_iter().next() {
        None => Ok(()),
        Some(conflict) => Err(format!("service {}: {}", services[conflict.service].name, conflict.error)),
    }
}

/// The rules for one service by itself.
fn check_service(service: &Service) -> Result<(), String> {
    let Service { name, vip, mode, table_size, options, backends, .. } = service;
    check_name(name).map_err(|error| error.to_string())?;
    check_vip(*vip).map_err(|error| error.to_string())?;
    check_table_size(*table_size).map_err(|error| error.to_string())?;
    if backends.len() > MAX_BACKENDS {
        return Err(format!(
            "{} backends are more than {MAX_BACKENDS}, the most of a service",
            backends.len()
        ));
    }
    let mut seen = HashSet::with_capacity(backends.len());
    for backend in backends {
        let endpoint = backend.endpoint;
        check_backend(*vip, *mode, endpoint).map_err(|error| format!("backend {endpoint}: {error}"))?;
        if !seen.insert(endpoint) {
            return Err(format!("backend {endpoint} is there twice"));
        }
    }
    let source = options.outer_source.map_or(Ok(()), |source| check_outer_source(source, backends));
    source.map_err(|error| format!("outer_source: {error}"))
}

fn check_vips_differ(desired: &Desired) -> Result<(), String> {
    let mut seen = HashMap::new();
    for service in desired.services.values() {
        if let Some(other) = seen.insert((service.vip, service.protocol), &service.name) {
            let Service { name, vip, protocol, .. } = service;
            return Err(format!("service {name}: {vip} {protocol} belongs to service {other}"));
        }
    }
    Ok(())
}

fn check_all_limits(desired: &Desired) -> Result<(), String> {
    let services = &desired.services;
    let shared = check_shared_limits(&services.limits).into_iter().next();
    shared.map_or(Ok(()), |conflict| Err(conflict.error))?;
    for service in services.values() {
        let conflict = check_limits(service, &services.limits).into_iter().next();
        conflict.map_or(Ok(()), |conflict| Err(format!("service {}: {}", service.name, conflict.error)))?;
    }
    check_windows(services.limiters().map(|(_, limit)| limit)).map_err(|error| error.to_string())
}

/// VIPs that were none before, each with a service that has it.
pub(super) fn new_vips(from: &Desired, to: &Desired) -> BTreeMap<IpAddr, String> {
    let known: HashSet<IpAddr> = from.services.values().map(|service| service.vip.address).collect();
    vips(to).into_iter().filter(|(address, _)| !known.contains(address)).collect()
}

/// The VIPs, each with a service that has it.
fn vips(desired: &Desired) -> BTreeMap<IpAddr, String> {
    desired.services.values().map(|service| (service.vip.address, service.name.clone())).collect()
}

/// A VIP that the host itself has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "service {service}: VIP {address} is an address of this host, on {interface}: probes and the host's own traffic to it \
     would reach the host itself; a VIP belongs on the backends only, so remove it here (ip address del {address} dev \
     {interface}) or choose another VIP"
)]
pub struct LocalVip {
    service: String,
    address: IpAddr,
    interface: String,
}

/// Refuses VIPs (each with a service that has it) that are among the host's addresses.
pub fn check_local_vips(
    vips: &BTreeMap<IpAddr, String>,
    addresses: &[(IpAddr, String)],
) -> Result<(), LocalVip> {
    let local = addresses.iter().find_map(|(address, interface)| {
        let (address, interface) = (*address, interface.clone());
        vips.get(&address).map(|service| LocalVip { service: service.clone(), address, interface })
    });
    local.map_or(Ok(()), Err)
}

/// As [`check_local_vips`], for everything that is wanted.
pub fn check_no_local_vip(desired: &Desired, addresses: &[(IpAddr, String)]) -> Result<(), LocalVip> {
    check_local_vips(&vips(desired), addresses)
}
