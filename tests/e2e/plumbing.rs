//! The lab itself, without the load balancer: what fails here is not the balancer's fault.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lb_tests::load::{self, Asker};
use lb_tests::net::{BACKENDS, Lab, Node, VIP4, VIP6};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT};
use lb_tests::site::Site;
use lb_tests::tools::Tools;

use crate::cases::{Case, cases, ensure_detached, ensure_only};

pub(crate) fn cases() -> Vec<Case> {
    cases!["plumbing": servers_answer_on_their_own_addresses, a_route_leads_to_the_vip, nothing_is_left]
}

fn servers_answer_on_their_own_addresses(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    for node in BACKENDS {
        for address in [IpAddr::from(node.ipv4()), node.ipv6().into()] {
            let report = load::requests(&site.client(1), SocketAddr::new(address, HTTP_PORT), 3)?;
            ensure_only(&report, &[node])?;
        }
    }
    ensure_detached(&site.lab)
}

/// Without the balancer the kernel can route the VIPs to one backend: shows that replies find their way.
fn a_route_leads_to_the_vip(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let node = Node::Backend(1);
    let routes = [(IpAddr::from(VIP4), IpAddr::from(node.ipv4())), (VIP6.into(), node.ipv6().into())];
    site.lab.ip(Node::Balancer, &routes.map(|(vip, gateway)| format!("route add {vip} via {gateway}")))?;
    for (vip, _) in routes {
        ensure_only(&load::requests(&site.client(2), SocketAddr::new(vip, HTTP_PORT), 3)?, &[node])?;
        ensure_only(&Asker::requests(&site.client(2), SocketAddr::new(vip, ECHO_PORT), 3)?, &[node])?;
    }
    Ok(())
}

fn nothing_is_left(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let traces = site.traces();
    ensure!(traces.left().len() == Node::all().count() + Node::edges().count() + 1, "unexpected: {traces:?}");
    drop(site);
    ensure!(traces.left().is_empty(), "left behind: {:?}", traces.left());
    let panicked = std::thread::spawn(|| {
        let lab = Lab::unique().expect("root may make namespaces");
        // A panic, but without the message that would puzzle the reader of the test's output.
        std::panic::resume_unwind(Box::new(lab.leftovers()));
    });
    let names = panicked.join().expect_err("it panics");
    let names = names.downcast_ref::<Vec<String>>().expect("it panics with names");
    let left: Vec<_> =
        names.iter().filter(|name| std::path::Path::new("/run/netns").join(name).exists()).collect();
    ensure!(left.is_empty(), "left behind after a panic: {left:?}");
    Ok(())
}
