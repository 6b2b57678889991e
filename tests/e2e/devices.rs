//! What the kernel has beside us: tunnel devices that unwrap what we wrap, bonds and VLANs that packets come in by.
//!
//! Not every kernel has all of it; `cargo xtask vm` runs these on kernels that do.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_tests::net::{BACKENDS, CLIENTS, Node};
use lb_tests::process;
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_userspace::model::ForwardMode;

use crate::cases::Case;
use crate::pages::{BACKENDS_PAGE, block};
use crate::ways::{Way, some_ways};

pub(crate) fn cases() -> Vec<Case> {
    let tunnels =
        some_ways("devices::tunnels_of_the_kernel_unwrap", Way::is_tunnel, tunnels_of_the_kernel_unwrap);
    let bonds = some_ways("devices::a_bond_is_balanced", |way| !way.is_tunnel(), a_bond_is_balanced);
    // Replies of `nat` leave by the VLAN's device, into which nothing can be redirected: docs/limits.md.
    let vlans =
        some_ways("devices::a_vlan_is_balanced", |way| way.mode == ForwardMode::DsrL2, a_vlan_is_balanced);
    let needing = |cases: Vec<Case>, modules: &'static [&'static str]| {
        cases.into_iter().map(move |case| case.needing(modules))
    };
    let tunnels = needing(tunnels, &["ipip", "sit", "ip6_tunnel", "fou", "fou6"]);
    tunnels.chain(needing(bonds, &["bonding"])).chain(needing(vlans, &["8021q"])).collect()
}

/// How a program is attached that the driver runs: `include/uapi/linux/if_link.h`.
const XDP_ATTACHED_DRV: u64 = 1;

/// Backends unwrap by the commands that our page has for them, as they stand there.
fn tunnels_of_the_kernel_unwrap(tools: Tools, way: Way) -> Result<()> {
    let mut site = Site::new(tools)?;
    let devices = block(BACKENDS_PAGE, "type sit")?;
    let loose = block(BACKENDS_PAGE, "lb6.rp_filter")?;
    let of_fou = block(BACKENDS_PAGE, "ip fou add")?;
    let in_v6 = "ip -6 fou add port 6080 gue";
    ensure!(BACKENDS_PAGE.contains(&format!("`{in_v6}`")), "the page does not say {in_v6}");
    let lines = match way.mode {
        ForwardMode::Ipip => [devices, loose].concat(),
        // The page's own block is of IPv4 in IPv4, the others are described.
        _ if way.name == "gue_4in4" => of_fou,
        _ => {
            let ports = of_fou.into_iter().filter(|line| line.starts_with("ip fou"));
            [ports.chain([in_v6]).collect(), devices, loose].concat()
        }
    };
    for node in BACKENDS {
        // The machine has loaded its modules already.
        let needed = lines.iter().filter(|line| !line.starts_with("modprobe "));
        let script = needed.copied().collect::<Vec<_>>().join("\n");
        let script = script.replace("fd00:1::1", &node.ipv6().to_string());
        let script = script.replace("10.0.1.1", &node.ipv4().to_string());
        let mut command = site.lab.namespace(node).command("sh");
        command.args(["-ec", &script]);
        process::succeed(command, Duration::from_secs(20))?;
    }
    site.serve(&way.config(vec![way.tcp_echo()]))?;
    way.ensure_connects(&site)
}

/// A bond gives its program to the devices that it is made of, and sends on what is redirected into it.
fn a_bond_is_balanced(tools: Tools, way: Way) -> Result<()> {
    let mut site = way.site(tools)?;
    let client = CLIENTS[0];
    site.lab.put_behind(
        client,
        "bond0",
        &[
            "link add bond0 type bond mode active-backup miimon 50".to_owned(),
            format!("link set {client} down"),
            format!("link set {client} master bond0"),
            format!("link set {client} up"),
        ],
    )?;
    let mut config = way.config(vec![way.tcp_echo()]);
    "bond0".clone_into(config.interfaces.first_mut().context("no interface")?);
    site.serve(&config)?;
    // The bond's driver puts it on the devices below, of which their own listing does not tell.
    let mode = site.lab.link(Node::Balancer, "bond0")?["xdp"]["mode"].as_u64();
    ensure!(mode == Some(XDP_ATTACHED_DRV), "the bond's program is attached as {mode:?}");
    way.ensure_connects(&site)
}

/// Frames of a VLAN have a tag when the device below it is the one that is looked at.
fn a_vlan_is_balanced(tools: Tools, way: Way) -> Result<()> {
    let mut site = way.site(tools)?;
    let client = CLIENTS[0];
    site.lab.put_behind(client, "vlan5", &[format!("link add link {client} name vlan5 type vlan id 5")])?;
    site.lab.ip(
        client,
        &[
            "address flush dev eth0".to_owned(),
            "link add link eth0 name vlan5 type vlan id 5".to_owned(),
            "link set vlan5 up".to_owned(),
            format!("address add {}/24 dev vlan5", client.ipv4()),
            format!("address add {}/64 dev vlan5 nodad", client.ipv6()),
            format!("route replace default via {} dev vlan5", client.gateway4()),
            format!("route replace default via {} dev vlan5", client.gateway6()),
        ],
    )?;
    site.serve(&way.config(vec![way.tcp_echo()]))?;
    way.ensure_connects(&site)
}
