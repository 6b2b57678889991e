//! What the daemon, if one answers, knows to be wrong, and what its VIPs are to this host.

use std::net::IpAddr;

use super::Finding;
use crate::model::Endpoint;
use crate::view::Status;

/// What of a daemon's services matters, on a host that has these addresses on these interfaces.
pub fn services(status: &Status, addresses: &[(IpAddr, String)]) -> Vec<Finding> {
    let mut found = vec![Finding::well(
        "daemon",
        format!(
            "lb {}, generation {}, {} services",
            status.version,
            status.generation,
            status.services.len()
        ),
    )];
    let generic = status.interfaces.iter().filter(|one| one.mode != "native");
    found.extend(generic.map(|one| {
        Finding::note(
            format!("{} mode", one.name),
            one.mode.clone(),
            "the program runs behind the kernel's allocation of each packet, at a fraction of the speed, and cannot grow packets \
             of several buffers; its driver does not run XDP natively, or something about it keeps it from that (its MTU, LRO)",
        )
    }));
    for service in &status.services {
        let Ok(vip) = service.vip.parse::<Endpoint>() else { continue };
        if let Some((address, interface)) = addresses.iter().find(|(address, _)| *address == vip.address) {
            found.push(
                Finding::bad(
                    format!("service {}", service.name),
                    format!("its VIP {address} is an address of this host, on {interface}"),
                    "probes and the host's own traffic to it reach the host itself; a VIP belongs on the backends only",
                )
                .mended_by(format!("ip address del {address} dev {interface}")),
            );
        }
    }
    let warnings = status.warnings.iter();
    found.extend(warnings.map(|warning| Finding::bad("daemon", "is not well", warning.clone())));
    found
}
