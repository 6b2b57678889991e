//! What a test is, and what several of them need.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Result, ensure};
use lb_tests::daemon::Service;
use lb_tests::load::Report;
use lb_tests::net::{BACKENDS, CLIENTS, Lab, Node, VIP4, VIP6};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT};
use lb_tests::tools::Tools;
use lb_userspace::model::Protocol;

/// What a test does.
pub(crate) type Test = Box<dyn FnOnce(Tools) -> Result<()> + Send>;

/// A test and its name.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) test: Test,
    /// Modules of the kernel without which it cannot be run.
    pub(crate) needs: Vec<&'static str>,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        test: impl FnOnce(Tools) -> Result<()> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), test: Box::new(test), needs: Vec::new() }
    }
}

impl Case {
    /// One that only kernels with these modules can run; others skip it, and say so.
    pub(crate) fn needing(self, modules: &[&'static str]) -> Self {
        Self { needs: modules.to_vec(), ..self }
    }

    /// What it needs and this kernel does not have.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let is_there = |module: &&str| Path::new("/sys/module").join(module).exists();
        self.needs.iter().copied().filter(|module| !is_there(module)).collect()
    }
}

/// Cases named after their functions, with the module in front.
macro_rules! cases {
    ($module:literal: $($test:ident),* $(,)?) => {
        vec![$($crate::cases::Case::new(concat!($module, "::", stringify!($test)), $test)),*]
    };
}
pub(crate) use cases;

/// The VIP of the family that a test is about.
pub(crate) const FAMILIES: [(&str, IpAddr); 2] = [("ipv4", IpAddr::V4(VIP4)), ("ipv6", IpAddr::V6(VIP6))];

/// The web service on a VIP.
pub(crate) fn web(vip: impl Into<IpAddr>) -> Service {
    Service::new("web", SocketAddr::new(vip.into(), HTTP_PORT), Protocol::Tcp)
}

/// The UDP echo service on a VIP.
pub(crate) fn echo(vip: impl Into<IpAddr>) -> Service {
    Service::new("echo", SocketAddr::new(vip.into(), ECHO_PORT), Protocol::Udp)
}

/// Every request was answered.
pub(crate) fn ensure_answered(report: &Report) -> Result<()> {
    let (total, failed) = (report.total(), report.failed());
    ensure!(total > 0 && failed == 0, "{failed} of {total} requests failed: {:?}", report.first_failure());
    Ok(())
}

/// Every request was answered, and every backend answered some.
pub(crate) fn ensure_spread(report: &Report) -> Result<()> {
    ensure_answered(report)?;
    let counts = report.by_backend();
    let even = BACKENDS
        .iter()
        .all(|node| counts.get(&node.to_string()).is_some_and(|count| *count >= report.total() / 10));
    ensure!(even, "the backends' shares are {counts:?}");
    Ok(())
}

/// Every request was answered by one of `nodes`.
pub(crate) fn ensure_only(report: &Report, nodes: &[Node]) -> Result<()> {
    ensure_answered(report)?;
    let counts = report.by_backend();
    let stray = counts.keys().any(|name| !nodes.iter().any(|node| node.to_string() == *name));
    ensure!(!stray, "only {nodes:?} should have answered, but these did: {counts:?}");
    Ok(())
}

/// No interface towards the clients has an XDP program.
pub(crate) fn ensure_detached(lab: &Lab) -> Result<()> {
    for node in CLIENTS {
        let interface = node.to_string();
        ensure!(!lab.has_xdp(Node::Balancer, &interface)?, "an XDP program is left on {interface}");
    }
    Ok(())
}
