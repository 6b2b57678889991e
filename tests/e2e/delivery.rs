//! Packets arrive: every family, protocol and mode.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::daemon::{Config, Service};
use lb_tests::load::{self, Asker, KeepAlive};
use lb_tests::net::{Namespace, Node, VIP4, VIP6};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::model::Protocol;

use crate::cases::{Case, FAMILIES, cases, echo, ensure_only, ensure_spread, web};

/// Enough that every backend of three gets some.
const REQUESTS: usize = 90;
/// Many full-size segments in both directions.
const BULK: usize = 300_000;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, vip) in FAMILIES {
        cases.push(Case::new(format!("delivery::tcp_dsr_l2_{family}"), move |tools| tcp(tools, vip, None)));
        cases.push(Case::new(format!("delivery::udp_dsr_l2_{family}"), move |tools| udp(tools, vip, None)));
    }
    for (pairing, vip, outer) in pairings() {
        cases.push(Case::new(format!("delivery::tcp_ipip_{pairing}"), move |tools| {
            tcp(tools, vip, Some(outer))
        }));
        cases.push(Case::new(format!("delivery::udp_ipip_{pairing}"), move |tools| {
            udp(tools, vip, Some(outer))
        }));
    }
    cases.extend(cases!["delivery": any_port, both_families_at_once, a_backend_gets_a_new_mac_address]);
    cases
}

/// Inner in outer: the VIP's family in that of the backends' addresses.
fn pairings() -> [(&'static str, IpAddr, IpAddr); 4] {
    let (v4, v6) = (VIP4.into(), VIP6.into());
    [("4in4", v4, v4), ("6in6", v6, v6), ("4in6", v4, v6), ("6in4", v6, v4)]
}

/// A site with one service, through tunnels if `outer` says to which addresses.
fn site(tools: Tools, services: Vec<Service>, outer: Option<IpAddr>) -> Result<Site> {
    let mut site = Site::new(tools)?;
    let services = match outer {
        None => services,
        Some(like) => {
            site.decapsulate()?;
            services.into_iter().map(|service| service.tunnelled(like)).collect()
        }
    };
    site.serve(&Config::new(services))?;
    Ok(site)
}

fn tcp(tools: Tools, vip: IpAddr, outer: Option<IpAddr>) -> Result<()> {
    let bulk = Service::new("bulk", SocketAddr::new(vip, ECHO_PORT), Protocol::Tcp).checked();
    let site = site(tools, vec![web(vip).checked(), bulk.clone()], outer)?;
    let target = SocketAddr::new(vip, HTTP_PORT);
    ensure_spread(&load::requests(&site.client(1), target, REQUESTS)?)?;
    stays_with_its_backend(&site.client(2), target)?;
    echoes_much(&site.client(1), bulk.vip)
}

fn udp(tools: Tools, vip: IpAddr, outer: Option<IpAddr>) -> Result<()> {
    let site = site(tools, vec![echo(vip).checked()], outer)?;
    let target = SocketAddr::new(vip, ECHO_PORT);
    ensure_spread(&Asker::requests(&site.client(1), target, REQUESTS)?)?;
    let asker = Asker::open(&site.client(2), target)?;
    let first = asker.ask("who is it?")?;
    for _ in 0..20 {
        let name = asker.ask("and now?")?;
        ensure!(name == first, "a flow moved from {first} to {name}");
    }
    // The largest datagram that fits a frame; the answer, with a name in front, comes back in fragments.
    let name = asker.ask(&"x".repeat(1400)).context("a large datagram")?;
    ensure!(name == first, "a flow moved from {first} to {name}");
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

/// Sends much over one connection and gets all of it back.
fn echoes_much(client: &Namespace, target: SocketAddr) -> Result<()> {
    let limit = Duration::from_secs(5);
    let mut stream = client.run(|| TcpStream::connect_timeout(&target, limit))??;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let sent: Vec<u8> = (0..BULK).map(|number| (number % 251) as u8).collect();
    let mut received = Vec::new();
    thread::scope(|scope| {
        let mut writer = stream.try_clone()?;
        let writing = scope.spawn({
            let sent = &sent;
            move || writer.write_all(sent).and_then(|()| writer.shutdown(Shutdown::Write))
        });
        stream.read_to_end(&mut received).context("cannot read it back")?;
        writing.join().map_err(|_| anyhow!("the writer panicked"))?.context("cannot write it")
    })?;
    let name_length = received.iter().position(|byte| *byte == b'\n').context("no name")? + 1;
    ensure!(received[name_length..] == sent[..], "{} bytes came back wrong", received.len());
    Ok(())
}

fn any_port(tools: Tools) -> Result<()> {
    let service = Service::new("all", SocketAddr::new(VIP4.into(), 0), Protocol::Tcp).checked();
    let site = site(tools, vec![service], None)?;
    ensure_spread(&load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), REQUESTS)?)?;
    echoes_much(&site.client(1), (VIP4, ECHO_PORT).into())
}

fn both_families_at_once(tools: Tools) -> Result<()> {
    let mut six = web(VIP6);
    "web6".clone_into(&mut six.name);
    let site = site(tools, vec![web(VIP4).checked(), six.checked()], None)?;
    for (_, vip) in FAMILIES {
        ensure_spread(&load::requests(&site.client(1), SocketAddr::new(vip, HTTP_PORT), REQUESTS)?)?;
    }
    Ok(())
}

/// The kernel learns the new address from the backend's own packets, the balancer from the kernel.
fn a_backend_gets_a_new_mac_address(tools: Tools) -> Result<()> {
    let (node, new) = (Node::Backend(2), "02:00:00:00:00:77");
    let site = site(tools, vec![web(VIP4).only(&[node])], None)?;
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
