//! The ways to the backends: each mode of delivery with each family.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use lb_tests::daemon::{Config, Service};
use lb_tests::load::Held;
use lb_tests::net::{BACKENDS, CLIENTS, Node, VIP4, VIP6};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT, NAT_OFFSET};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_userspace::model::{ForwardMode, Protocol};

use crate::cases::Case;

/// A check of the very port that the service uses.
const OWN_HEALTH: &str = r#"{ kind = "tcp", interval = "200ms", timeout = "200ms", rise = 2, fall = 2 }"#;

/// How packets get to the backends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// For the names of tests.
    pub(crate) name: &'static str,
    /// The mode.
    pub(crate) mode: ForwardMode,
    /// The services' address.
    pub(crate) vip: IpAddr,
    /// An address of the family in which the backends are addressed.
    like: IpAddr,
    /// Bytes in front of a packet on that way.
    pub(crate) overhead: u32,
}

/// Every way.
pub(crate) fn ways() -> Vec<Way> {
    use ForwardMode::{DsrL2, Gue, Ipip, Nat};
    let (v4, v6) = (IpAddr::from(VIP4), IpAddr::from(VIP6));
    let way = |name, mode, vip, like, overhead| Way { name, mode, vip, like, overhead };
    vec![
        way("dsr_l2_ipv4", DsrL2, v4, v4, 0),
        way("dsr_l2_ipv6", DsrL2, v6, v6, 0),
        way("nat_ipv4", Nat, v4, v4, 0),
        way("nat_ipv6", Nat, v6, v6, 0),
        // Inner in outer: the VIP's family in that of the backends' addresses.
        way("ipip_4in4", Ipip, v4, v4, 20),
        way("ipip_6in6", Ipip, v6, v6, 40),
        way("ipip_4in6", Ipip, v4, v6, 40),
        way("ipip_6in4", Ipip, v6, v4, 20),
        way("gue_4in4", Gue, v4, v4, 28),
        way("gue_6in6", Gue, v6, v6, 48),
        way("gue_4in6", Gue, v4, v6, 48),
        way("gue_6in4", Gue, v6, v4, 28),
    ]
}

/// A case for each way, named after what it tests and the way.
pub(crate) fn each_way(what: &str, test: fn(Tools, Way) -> Result<()>) -> Vec<Case> {
    some_ways(what, |_| true, test)
}

/// The same for some of the ways.
pub(crate) fn some_ways(
    what: &str,
    keep: impl Fn(&Way) -> bool,
    test: fn(Tools, Way) -> Result<()>,
) -> Vec<Case> {
    let case = |way: Way| Case::new(format!("{what}_{}", way.name), move |tools| test(tools, way));
    ways().into_iter().filter(keep).map(case).collect()
}

impl Way {
    /// A service of all backends this way, checked at the port that it uses.
    pub(crate) fn service(self, name: &str, port: u16, protocol: Protocol) -> Service {
        let service = Service::new(name, SocketAddr::new(self.vip, port), protocol).by(self.mode, self.like);
        let service = Service { health: Some(OWN_HEALTH.to_owned()), ..service };
        if self.mode == ForwardMode::Nat { service.at_port(port + NAT_OFFSET) } else { service }
    }

    /// The web service.
    pub(crate) fn web(self) -> Service {
        self.service("web", HTTP_PORT, Protocol::Tcp)
    }

    /// The echo over TCP.
    pub(crate) fn tcp_echo(self) -> Service {
        self.service("tcp-echo", ECHO_PORT, Protocol::Tcp)
    }

    /// The echo over UDP.
    pub(crate) fn udp_echo(self) -> Service {
        self.service("udp-echo", ECHO_PORT, Protocol::Udp)
    }

    /// Whether packets travel inside others.
    pub(crate) const fn is_tunnel(&self) -> bool {
        matches!(self.mode, ForwardMode::Ipip | ForwardMode::Gue)
    }

    /// Connections from the first client to [`Self::tcp_echo`] reach its backends, and are answered.
    pub(crate) fn ensure_connects(self, site: &Site) -> Result<()> {
        let mut connections = Held::open_many(&site.client(1), self.tcp_echo().vip, 30)?;
        Ok(connections.iter_mut().try_for_each(Held::ask)?)
    }

    /// A network and servers that are ready for packets on this way.
    pub(crate) fn site(self, tools: Tools) -> Result<Site> {
        let mut site = Site::new(tools)?;
        self.prepare(&mut site)?;
        Ok(site)
    }

    /// Makes the backends ready. Those of mode `nat` lose the VIPs, which they need not have.
    pub(crate) fn prepare(self, site: &mut Site) -> Result<()> {
        match self.mode {
            ForwardMode::DsrL2 => Ok(()),
            ForwardMode::Ipip | ForwardMode::Gue => site.decapsulate(),
            ForwardMode::Nat => BACKENDS.iter().try_for_each(|node| {
                let vips = [format!("{VIP4}/32"), format!("{VIP6}/128")];
                site.lab.ip(*node, &vips.map(|vip| format!("address delete {vip} dev lo")))
            }),
        }
    }

    /// A configuration with these services. Replies of `nat` backends have to meet the program, too.
    pub(crate) fn config(self, services: Vec<Service>) -> Config {
        let backends: &[Node] = if self.mode == ForwardMode::Nat { &BACKENDS } else { &[] };
        let interfaces = CLIENTS.iter().chain(backends).map(Node::to_string).collect();
        Config { interfaces, ..Config::new(services) }
    }

    /// A site at which all backends of the services serve.
    pub(crate) fn serving(self, tools: Tools, services: Vec<Service>) -> Result<Site> {
        let mut site = self.site(tools)?;
        site.serve(&self.config(services))?;
        Ok(site)
    }
}
