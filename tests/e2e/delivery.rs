//! Packets arrive: every family, protocol and mode.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::{Config, Service};
use lb_tests::load::{self, Asker, KeepAlive, echoes_much};
use lb_tests::net::{BACKENDS, Namespace, Node, VIP4, VIP6};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::model::{ForwardMode, Protocol};
use lb_userspace::view::HealthState;

use crate::cases::{Case, FAMILIES, cases, ensure_only, ensure_spread, web};
use crate::ways::{Way, each_way, ways};

/// Enough that every backend of three gets some.
const REQUESTS: usize = 90;
/// Many full-size segments in both directions.
const BULK: usize = 300_000;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = each_way("delivery::tcp", tcp);
    cases.extend(each_way("delivery::udp", udp));
    cases.extend(cases!["delivery":
        any_port,
        both_families_at_once,
        a_backend_gets_a_new_mac_address,
        nat_with_every_port,
        nat_leaves_other_connections_alone,
    ]);
    cases
}

fn tcp(tools: Tools, way: Way) -> Result<()> {
    let site = way.serving(tools, vec![way.web(), way.tcp_echo()])?;
    let target = way.web().vip;
    ensure_spread(&load::requests(&site.client(1), target, REQUESTS)?)?;
    stays_with_its_backend(&site.client(2), target)?;
    echoes_much(&site.client(1), way.tcp_echo().vip, BULK)?;
    ensure_well(&site, &["web", "tcp-echo"])
}

fn udp(tools: Tools, way: Way) -> Result<()> {
    let site = way.serving(tools, vec![way.udp_echo()])?;
    let target = way.udp_echo().vip;
    ensure_spread(&Asker::requests(&site.client(1), target, REQUESTS)?)?;
    let asker = Asker::open(&site.client(2), target)?;
    let first = asker.ask("who is it?")?;
    for _ in 0..20 {
        let name = asker.ask("and now?")?;
        ensure!(name == first, "a flow moved from {first} to {name}");
    }
    // More than a frame holds: fragments both ways.
    for length in [1400, 4000, 20_000] {
        let name = asker.ask("x".repeat(length)).with_context(|| format!("{length} bytes"))?;
        ensure!(name == first, "a datagram of {length} bytes moved from {first} to {name}");
    }
    ensure_well(&site, &["udp-echo"])
}

/// All checks pass still.
fn ensure_well(site: &Site, services: &[&str]) -> Result<()> {
    for service in services {
        let backends = site.cli()?.backends(service)?;
        ensure!(backends.iter().all(|backend| backend.health == HealthState::Up), "{backends:?}");
    }
    Ok(())
}

fn stays_with_its_backend(client: &Namespace, target: SocketAddr) -> Result<()> {
    let mut connection = KeepAlive::open(client, target)?;
    let first = connection.ask()?;
    for _ in 0..20 {
        let name = connection.ask()?;
        ensure!(name == first, "a connection moved from {first} to {name}");
    }
    Ok(())
}

fn any_port(tools: Tools) -> Result<()> {
    let service = Service::new("all", SocketAddr::new(VIP4.into(), 0), Protocol::Tcp).checked();
    let site = Site::with_daemon(tools, &Config::new(vec![service]))?;
    ensure_spread(&load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), REQUESTS)?)?;
    echoes_much(&site.client(1), (VIP4, ECHO_PORT).into(), BULK)
}

fn both_families_at_once(tools: Tools) -> Result<()> {
    let mut six = web(VIP6);
    "web6".clone_into(&mut six.name);
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4).checked(), six.checked()]))?;
    for (_, vip) in FAMILIES {
        ensure_spread(&load::requests(&site.client(1), SocketAddr::new(vip, HTTP_PORT), REQUESTS)?)?;
    }
    Ok(())
}

/// The kernel learns the new address from the backend's own packets, the balancer from the kernel.
fn a_backend_gets_a_new_mac_address(tools: Tools) -> Result<()> {
    let (node, new) = (Node::Backend(2), "02:00:00:00:00:77");
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4).only(&[node])]))?;
    let target = (VIP4, HTTP_PORT).into();
    ensure_only(&load::requests(&site.client(1), target, 5)?, &[node])?;
    site.lab.ip(node, &[format!("link set dev eth0 address {new}")])?;
    let gateway = SocketAddr::new(node.gateway4().into(), 9);
    // Nobody listens there: what counts is that the backend has to ask for the gateway's MAC address.
    drop(site.lab.namespace(node).run(|| TcpStream::connect_timeout(&gateway, Duration::from_secs(1)))?);
    wait::until(Duration::from_secs(5), "the balancer knows the new MAC address", || {
        let backends = site.cli()?.backends("web")?;
        ensure!(backends.iter().all(|backend| backend.next_hop.contains(new)), "{backends:?}");
        Ok(())
    })?;
    ensure_only(&load::requests(&site.client(1), target, 5)?, &[node])
}

fn nat() -> impl Iterator<Item = Way> {
    ways().into_iter().filter(|way| way.mode == ForwardMode::Nat)
}

/// Both protocols and families at once. Replies are told apart by their source address alone.
fn nat_with_every_port(tools: Tools) -> Result<()> {
    let service = |way: Way, protocol| {
        let name = format!("{protocol}-{}", way.name);
        let service = way.service(&name, 0, protocol).at_port(0);
        service.checked()
    };
    let services = nat().flat_map(|way| [service(way, Protocol::Tcp), service(way, Protocol::Udp)]).collect();
    let [four, six] = <[Way; 2]>::try_from(nat().collect::<Vec<_>>()).expect("two families");
    let site = four.serving(tools, services)?;
    for vip in [four.vip, six.vip] {
        ensure_spread(&load::requests(&site.client(1), SocketAddr::new(vip, HTTP_PORT), REQUESTS)?)?;
        echoes_much(&site.client(1), SocketAddr::new(vip, ECHO_PORT), BULK)?;
        ensure_spread(&Asker::requests(&site.client(1), SocketAddr::new(vip, ECHO_PORT), REQUESTS)?)?;
    }
    Ok(())
}

/// To a port of a backend that no service uses, while a service uses another.
fn nat_leaves_other_connections_alone(tools: Tools) -> Result<()> {
    let services = nat().map(|way| Service { name: way.name.to_owned(), ..way.web() }).collect();
    let site = nat().next().context("a way")?.serving(tools, services)?;
    for node in BACKENDS {
        for way in nat() {
            let own = node.address_like(way.vip);
            ensure_only(&load::requests(&site.client(1), SocketAddr::new(own, HTTP_PORT), 3)?, &[node])?;
            echoes_much(&site.client(1), SocketAddr::new(own, ECHO_PORT), BULK)?;
            ensure_only(&Asker::requests(&site.client(2), SocketAddr::new(own, ECHO_PORT), 3)?, &[node])?;
        }
    }
    Ok(())
}
