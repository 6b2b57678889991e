//! `lb doctor --backend-setup`: the commands that make hosts backends of a service, for a shell on each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::model::{Endpoint, ForwardMode};
use crate::view::{BackendView, ServiceView};

/// One command, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Why, a sentence.
    pub why: String,
    /// The command, for a POSIX shell as root.
    pub command: String,
    /// The backends that it is for; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<String>,
    /// Whether it is needed only in some networks, as `why` says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

impl Step {
    fn new(why: impl Into<String>, command: impl Into<String>) -> Self {
        Self { why: why.into(), command: command.into(), backends: Vec::new(), optional: false }
    }
}

/// What makes hosts backends of `service`, in the order in which it is to be done, seen from a balancer with these addresses on
/// these interfaces.
///
/// The error is a sentence: that the balancer's addresses towards the backends are not known.
pub fn backend_setup(
    service: &ServiceView,
    backends: &[BackendView],
    addresses: &[(IpAddr, String)],
) -> Result<Vec<Step>, String> {
    let vip: Endpoint = service.vip.parse().map_err(|error| format!("service {}: {error}", service.name))?;
    let towards = towards(backends, addresses);
    if towards.is_empty() && service.mode != ForwardMode::DsrL2 {
        return Err(format!(
            "it is not known by which address this balancer reaches backends of {}: none can be reached; lb backend list {} \
             tells why",
            service.name, service.name
        ));
    }
    Ok(match service.mode {
        ForwardMode::DsrL2 => holding(vip.address),
        ForwardMode::Ipip | ForwardMode::Gue => {
            let mut steps = holding(vip.address);
            steps.push(shorter_segments(service, vip.address, &towards));
            steps.push(unwrapping(service, &towards));
            steps
        }
        ForwardMode::Nat => returning(&towards),
    })
}

/// The addresses by which the balancer reaches backends, and which backends.
fn towards(backends: &[BackendView], addresses: &[(IpAddr, String)]) -> BTreeMap<IpAddr, Vec<String>> {
    let mut towards = BTreeMap::<IpAddr, Vec<String>>::new();
    for backend in backends.iter().filter(|backend| backend.reachable) {
        let Ok(endpoint) = backend.address.parse::<Endpoint>() else { continue };
        // `eth0 via 10.0.0.1 (..)`
        let interface = backend.next_hop.split(' ').next().unwrap_or_default();
        let fits = |(address, on): &&(IpAddr, String)| {
            let same_family = address.is_ipv4() == endpoint.address.is_ipv4();
            let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
            on == interface && same_family && !link_local
        };
        if let Some((address, _)) = addresses.iter().find(fits) {
            towards.entry(*address).or_default().push(backend.address.clone());
        }
    }
    towards
}

/// The VIP on `lo`, and nothing that tells neighbours of it.
fn holding(vip: IpAddr) -> Vec<Step> {
    let why = "The server answers from the VIP, so it must have it.";
    if vip.is_ipv6() {
        return vec![Step::new(why, format!("ip address replace {vip}/128 dev lo preferred_lft 0"))];
    }
    vec![
        Step::new(
            "Before it has the VIP: nobody on its link may be told that it does, or packets go past the balancer.",
            "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
        ),
        Step::new(why, format!("ip address replace {vip}/32 dev lo")),
    ]
}

fn unwrapping(service: &ServiceView, towards: &BTreeMap<IpAddr, Vec<String>>) -> Step {
    let senders: BTreeSet<String> = match &service.options.outer_source {
        Some(source) => [source.clone()].into(),
        None => towards.keys().map(ToString::to_string).collect(),
    };
    let from: Vec<String> = senders.iter().map(|sender| format!(" --from {sender}")).collect();
    let port = service.options.gue_port.filter(|_| service.mode == ForwardMode::Gue);
    let port = port.map(|port| format!(" --gue-port {port}")).unwrap_or_default();
    // There is a first one: it has been asked for.
    let balancer = towards.keys().next().map(ToString::to_string).unwrap_or_default();
    let interface = format!("$(ip -o route get {balancer} | sed 's/.* dev \\([^ ]*\\).*/\\1/')");
    Step::new(
        "Unwraps what the balancers send, until it is ended: let the init system keep it running.",
        format!("exec lb decap --interface \"{interface}\"{}{port}", from.concat()),
    )
}

/// Bytes of the outer headers, and of TCP's and the inner IP's.
fn shorter_segments(service: &ServiceView, vip: IpAddr, towards: &BTreeMap<IpAddr, Vec<String>>) -> Step {
    let outer_ipv6 = towards.keys().any(IpAddr::is_ipv6);
    let outer = if outer_ipv6 { 40 } else { 20 } + if service.mode == ForwardMode::Gue { 8 } else { 0 };
    let (inner, family) = if vip.is_ipv6() { (60, "-6") } else { (40, "-4") };
    let mss = 1500 - outer - inner;
    let why = format!(
        "Only if the path from the balancer carries no packets of {} bytes: asks clients for shorter segments.",
        1500 + outer
    );
    let route =
        format!("ip {family} route change $(ip {family} -o route show default | head -n 1) advmss {mss}");
    Step { optional: true, ..Step::new(why, route) }
}

/// Replies by way of the balancer.
fn returning(towards: &BTreeMap<IpAddr, Vec<String>>) -> Vec<Step> {
    let steps = towards.iter().map(|(balancer, backends)| {
        let why = "Replies have to pass the balancer, which writes the VIP back into them.";
        Step {
            backends: backends.clone(),
            ..Step::new(why, format!("ip route replace default via {balancer}"))
        }
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::view::{BackendState, HealthState, OptionsView, SlotsView};

    fn service(vip: &str, mode: ForwardMode) -> ServiceView {
        ServiceView {
            name: "web".to_owned(),
            vip: vip.to_owned(),
            protocol: Protocol::Tcp,
            mode,
            limit: None,
            options: OptionsView::default(),
            table_size: 251,
            slots: SlotsView::default(),
            backends_serving: 0,
            backends_total: 0,
            packets: 0,
            bytes: 0,
            new_flows: 0,
            limited: 0,
            contended: 0,
        }
    }

    fn backend(address: &str, next_hop: &str) -> BackendView {
        BackendView {
            address: address.to_owned(),
            state: BackendState::Ready,
            drain_seconds_left: None,
            health: HealthState::Up,
            weight: crate::model::Weight(1),
            effective_weight: crate::model::Weight(1),
            share: 0.0,
            next_hop: next_hop.to_owned(),
            reachable: next_hop.contains('('),
            packets: 0,
            bytes: 0,
            since_seconds: None,
            last_check: String::new(),
        }
    }

    fn commands(service: &ServiceView) -> Vec<String> {
        let backends = [
            backend("10.0.1.1:80", "eth1 (02:00:00:00:00:01)"),
            backend("[fd00:1::1]:80", "eth1 (02:00:00:00:00:01)"),
            backend("10.0.2.1:80", "eth2 via 10.0.9.1 (02:00:00:00:00:02)"),
            backend("10.0.3.1:80", "no route to 10.0.3.1"),
        ];
        let addresses =
            [("fe80::1", "eth1"), ("10.0.1.254", "eth1"), ("fd00:1::254", "eth1"), ("10.0.9.254", "eth2")]
                .map(|(address, interface)| (address.parse().unwrap(), interface.to_owned()));
        let steps = backend_setup(service, &backends, &addresses).unwrap();
        steps
            .into_iter()
            .map(|step| [step.backends.join(" "), step.command].join(" ").trim().to_owned())
            .collect()
    }

    #[test]
    fn each_mode_has_its_commands() {
        let [arp, vip] = [
            "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
            "ip address replace 192.0.2.10/32 dev lo",
        ];
        assert_eq!(commands(&service("192.0.2.10:80", ForwardMode::DsrL2)), [arp, vip]);
        let held = commands(&service("[2001:db8::10]:80", ForwardMode::DsrL2));
        assert_eq!(held, ["ip address replace 2001:db8::10/128 dev lo preferred_lft 0"]);
        let mut gue = service("192.0.2.10:80", ForwardMode::Gue);
        gue.options.gue_port = std::num::NonZeroU16::new(6081);
        let decap = "exec lb decap --interface \"$(ip -o route get 10.0.1.254 | sed 's/.* dev \\([^ ]*\\).*/\\1/')\" \
            --from 10.0.1.254 --from 10.0.9.254 --from fd00:1::254 --gue-port 6081";
        let mss = "ip -4 route change $(ip -4 -o route show default | head -n 1) advmss 1412";
        assert_eq!(commands(&gue), [arp, vip, mss, decap]);
        gue.options.outer_source = Some("10.99.0.0/16".to_owned());
        assert!(commands(&gue)[3].contains("\" --from 10.99.0.0/16 --gue-port"), "{:?}", commands(&gue));
        let nat = commands(&service("192.0.2.10:80", ForwardMode::Nat));
        assert_eq!(
            nat,
            [
                "10.0.1.1:80 ip route replace default via 10.0.1.254",
                "10.0.2.1:80 ip route replace default via 10.0.9.254",
                "[fd00:1::1]:80 ip route replace default via fd00:1::254"
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let unreachable = [backend("10.0.3.1:80", "no route to 10.0.3.1")];
        let error =
            backend_setup(&service("192.0.2.10:80", ForwardMode::Ipip), &unreachable, &[]).unwrap_err();
        assert!(error.ends_with("none can be reached; lb backend list web tells why"), "{error}");
        assert!(backend_setup(&service("192.0.2.10:80", ForwardMode::DsrL2), &[], &[]).is_ok());
    }
}
