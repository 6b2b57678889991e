//! What the balancer was told, as the one who told it remembers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use lb_tests::daemon::{Config, Service};
use lb_tests::net::{BACKENDS, CLIENTS, Node, VIP4, VIP6};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT, NAT_OFFSET};
use lb_userspace::model::{ForwardMode, Protocol};

/// Patient with a machine that is busy, and quick with a port that nobody listens on.
const HEALTH: &str =
    r#"{ kind = "tcp", interval = "300ms", timeout = "300ms", rise = 2, fall = 3, port = 80 }"#;
/// So that every slot is looked at in a moment.
const TABLE_SIZE: &str = "table_size = 4099";
/// Where the service of mode `nat` is.
const MAPPED_PORT: u16 = 7007;

/// The services that there always are.
pub(super) const FLOOD: &str = "flood";
pub(super) const HELD: &str = "held";
pub(super) const MAPPED: &str = "mapped";
pub(super) const WEB: &str = "web";
pub(super) const SHIELD: &str = "shield";

/// One backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) weight: u16,
    pub(super) drains: bool,
}

/// One service.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) service: Service,
    pub(super) members: BTreeMap<Node, Member>,
}

/// Every service.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) services: Vec<Kept>,
}

impl Kept {
    fn new(service: Service, nodes: &[Node]) -> Self {
        let members = nodes.iter().map(|node| (*node, Member { weight: 100, drains: false }));
        Self { service: service.with(TABLE_SIZE), members: members.collect() }
    }

    /// Further services come and go, and nobody asks them.
    pub(super) fn extra(number: u16, nodes: &[Node]) -> Self {
        let vip = SocketAddr::from((VIP6, 7100 + number));
        Self::new(Service::new(&format!("extra{number}"), vip, Protocol::Tcp), nodes)
    }

    pub(super) fn name(&self) -> &str {
        &self.service.name
    }

    pub(super) fn is_checked(&self) -> bool {
        self.service.health.is_some()
    }

    /// As it stands in a file.
    fn rendered(&self) -> Service {
        let nodes: Vec<Node> = self.members.keys().copied().collect();
        let service = self.service.clone().only(&nodes);
        self.members.iter().fold(service, |service, (node, member)| {
            let state = if member.drains { "drain" } else { "ready" };
            service.asking(*node, &format!("weight = {}, state = \"{state}\"", member.weight))
        })
    }

    /// Each backend's share of new flows, if these are the living.
    pub(super) fn shares(&self, lives: impl Fn(Node) -> bool) -> BTreeMap<Node, f64> {
        let serving = self.members.iter().filter(|(node, member)| !member.drains && lives(**node));
        let weights: BTreeMap<Node, f64> =
            serving.map(|(node, member)| (*node, f64::from(member.weight))).collect();
        let sum: f64 = weights.values().sum();
        weights.into_iter().map(|(node, weight)| (node, weight / sum)).collect()
    }
}

impl Wanted {
    /// A service for each thing that must not happen to anybody's packets.
    pub(super) fn at_first() -> Self {
        let [first, second, _] = BACKENDS;
        let checked = |service: Service| Service { health: Some(HEALTH.to_owned()), ..service };
        let service = |name, vip, protocol| Service::new(name, vip, protocol);
        // Each packet is counted where it leaves and arrives: by backends that nothing happens to.
        let flood = service(FLOOD, (VIP4, HTTP_PORT).into(), Protocol::Udp);
        let held = checked(service(HELD, (VIP6, ECHO_PORT).into(), Protocol::Tcp));
        let mapped = service(MAPPED, (VIP4, MAPPED_PORT).into(), Protocol::Tcp);
        let mapped = checked(mapped.by(ForwardMode::Nat, VIP4.into()).at_port(ECHO_PORT + NAT_OFFSET));
        let web = checked(service(WEB, (VIP4, HTTP_PORT).into(), Protocol::Tcp));
        let shield = service(SHIELD, (VIP4, ECHO_PORT).into(), Protocol::Udp).limited(500, 100);
        let services = vec![
            Kept::new(flood, &[first, second]),
            Kept::new(held, &BACKENDS),
            Kept::new(mapped, &BACKENDS),
            Kept::new(web, &BACKENDS),
            Kept::new(shield, &[first, second]),
        ];
        Self { services }
    }

    /// The file that says so. The replies of mode `nat` have to meet the program, too.
    pub(super) fn config(&self, pins: &Path) -> Config {
        let services = self.services.iter().map(Kept::rendered).collect();
        let interfaces = CLIENTS.iter().chain(&BACKENDS).map(Node::to_string).collect();
        Config { interfaces, ..Config::new(services) }.pinned(pins)
    }

    /// The service of this name.
    pub(super) fn service(&self, name: &str) -> Option<&Kept> {
        self.services.iter().find(|kept| kept.name() == name)
    }

    pub(super) fn members(&self) -> usize {
        self.services.iter().map(|kept| kept.members.len()).sum()
    }
}
