//! Packets of all sizes: links that carry less than others, and jumbo frames.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::Config;
use lb_tests::load::{Asker, echoes_much};
use lb_tests::net::{BACKENDS, Beyond, Node};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::model::ForwardMode;

use crate::cases::Case;
use crate::ways::{Way, each_way, ways};

/// Many full-size segments in both directions.
const BULK: usize = 300_000;
/// What the narrowest link carries in most of these tests.
const NARROW: u32 = 1400;
/// What jumbo frames carry.
const JUMBO: u32 = 9000;
/// How long a host may take to learn what fits.
const LEARNT: Duration = Duration::from_secs(5);

pub(crate) fn cases() -> Vec<Case> {
    let each = [
        each_way("sizes::narrow_way_in", narrow_way_in),
        each_way("sizes::narrow_way_out", narrow_way_out),
        each_way("sizes::jumbo", jumbo),
    ];
    let some = ["dsr_l2_ipv6", "nat_ipv4", "ipip_4in6", "gue_6in6"];
    let generic = ways().into_iter().filter(|way| some.contains(&way.name));
    let generic = generic.map(|way| {
        let name = format!("sizes::narrow_way_in_generic_mode_{}", way.name);
        Case::new(name, move |tools| narrow_way_in_generic(tools, way))
    });
    let nat = ways().into_iter().filter(|way| way.mode == ForwardMode::Nat);
    let nat = nat.map(|way| {
        Case::new(format!("sizes::narrow_link_of_a_client_{}", way.name), move |tools| {
            narrow_client(tools, way)
        })
    });
    each.into_iter().flatten().chain(generic).chain(nat).collect()
}

/// What the clients send does not fit the way to the backends: they learn from the balancer how much does.
fn narrow_way_in(tools: Tools, way: Way) -> Result<()> {
    clients_learn(way.site(tools)?, way, |_| {})
}

/// The same on devices that have no XDP of their own: the kernel runs the program on its own packets. What another device's driver
/// redirects to such a device is lost, so all are alike.
fn narrow_way_in_generic(tools: Tools, way: Way) -> Result<()> {
    let site = way.site(tools)?;
    for interface in way.config(Vec::new()).interfaces {
        site.lab.put_behind_bridge(interface.parse()?, &bridge(&interface))?;
    }
    clients_learn(site, way, |config| config.interfaces.iter_mut().for_each(|name| *name = bridge(name)))
}

fn bridge(port: &str) -> String {
    format!("br-{port}")
}

fn clients_learn(mut site: Site, way: Way, change: fn(&mut Config)) -> Result<()> {
    let link = if way.overhead == 0 { NARROW } else { 1500 };
    BACKENDS.iter().try_for_each(|node| site.lab.narrow(*node, link))?;
    let mut config = way.config(vec![way.tcp_echo(), way.udp_echo()]);
    change(&mut config);
    site.serve(&config)?;
    let fits = u64::from(link - way.overhead);
    ensure!(told(&site, Node::Client(1), way.vip)? == Some(1500), "the client knows already");
    echoes_much(&site.client(1), way.tcp_echo().vip, BULK)?;
    ensure_told(&site, Node::Client(1), way.vip, fits)?;
    let asker = Asker::open(&site.client(2), way.udp_echo().vip)?;
    let first = asker.ask("who?")?;
    let answer = wait::until(LEARNT, "a large datagram is echoed", || Ok(asker.ask("x".repeat(4000))?))?;
    ensure!(answer == first, "a flow moved from {first} to {answer}");
    ensure_told(&site, Node::Client(2), way.vip, fits)
}

fn told(site: &Site, node: Node, way_to: IpAddr) -> Result<Option<u64>> {
    site.lab.path_mtu(node, way_to)
}

fn ensure_told(site: &Site, node: Node, vip: IpAddr, fits: u64) -> Result<()> {
    let told = told(site, node, vip)?;
    ensure!(told == Some(fits), "{node} should know that {fits} bytes fit, but knows {told:?}");
    Ok(())
}

/// What the backends send does not fit the way to a client: they learn it from a router that speaks to the VIP.
fn narrow_way_out(tools: Tools, way: Way) -> Result<()> {
    let site = way.serving(tools, vec![way.tcp_echo(), way.udp_echo()])?;
    let far = Beyond::new(&site.lab, Node::Client(2), NARROW)?;
    for number in 0..4 {
        echoes_much(&far.namespace(), way.tcp_echo().vip, BULK / 3)
            .with_context(|| format!("connection {number}"))?;
    }
    let told: Vec<_> =
        BACKENDS.iter().map(|node| site.lab.path_mtu(*node, far.address_like(way.vip))).collect();
    let told = told.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(told.contains(&Some(u64::from(NARROW))), "no backend was told: {told:?}");
    let asker = Asker::open(&far.namespace(), way.udp_echo().vip)?;
    wait::until(LEARNT, "a large datagram is echoed", || Ok(asker.ask("x".repeat(4000))?)).map(drop)
}

/// What `nat` backends send does not fit the next link behind the balancer, which is their router and has to tell them.
fn narrow_client(tools: Tools, way: Way) -> Result<()> {
    let node = Node::Client(1);
    let mut site = way.site(tools)?;
    site.lab.narrow(node, NARROW)?;
    site.serve(&way.config(vec![way.tcp_echo(), way.udp_echo()]))?;
    // Each backend in turn, most likely.
    for number in 0..6 {
        echoes_much(&site.lab.namespace(node), way.tcp_echo().vip, BULK / 3)
            .with_context(|| format!("connection {number}"))?;
    }
    let told = BACKENDS.iter().map(|backend| told(&site, *backend, node.address_like(way.vip)));
    let told = told.collect::<Result<Vec<_>>>()?;
    ensure!(told.contains(&Some(u64::from(NARROW))), "no backend was told: {told:?}");
    let asker = Asker::open(&site.lab.namespace(node), way.udp_echo().vip)?;
    wait::until(LEARNT, "a large datagram is echoed", || Ok(asker.ask("x".repeat(4000))?)).map(drop)
}

fn jumbo(tools: Tools, way: Way) -> Result<()> {
    let mut site = Site::new(tools)?;
    site.lab.set_mtu(JUMBO)?;
    way.prepare(&mut site)?;
    site.serve(&way.config(vec![way.tcp_echo(), way.udp_echo()]))?;
    let status = site.status()?;
    ensure!(status.interfaces.iter().all(|interface| interface.mode == "native"), "{status:?}");
    echoes_much(&site.client(1), way.tcp_echo().vip, 10 * BULK)?;
    let asker = Asker::open(&site.client(2), way.udp_echo().vip)?;
    let first = asker.ask("who?")?;
    for length in [8000, 40_000] {
        let answer = asker.ask("x".repeat(length)).with_context(|| format!("{length} bytes"))?;
        ensure!(answer == first, "a flow moved from {first} to {answer}");
    }
    Ok(())
}
