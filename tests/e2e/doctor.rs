//! `lb doctor`, before there is a daemon and beside one.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::Config;
use lb_tests::load::Held;
use lb_tests::mounts::BpfFs;
use lb_tests::net::{BACKENDS, Node, VIP4};
use lb_tests::process::{self, Finished, Process};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::model::ForwardMode;
use serde_json::Value;

use crate::cases::{Case, cases, web};
use crate::ways::{Way, each_way};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases!["doctor": it_finds_what_stands_in_the_way];
    cases.extend(each_way("doctor::it_says_what_makes_a_backend", it_says_what_makes_a_backend));
    cases
}

/// The findings about something, as `severity: found`.
fn findings(text: &str, check: &str) -> Result<Vec<String>> {
    let all: Vec<Value> = serde_json::from_str(text).with_context(|| format!("no JSON but {text:?}"))?;
    let of = all.iter().filter(|one| one["check"] == check);
    Ok(of
        .map(|one| {
            format!("{}: {}", one["severity"].as_str().unwrap_or(""), one["found"].as_str().unwrap_or(""))
        })
        .collect())
}

/// `lb doctor` with the interfaces of the balancer in its `/sys`, as they are on a host.
fn doctor(site: &Site, socket: &Path, arguments: &[&str]) -> Result<Finished> {
    let mut command = site.lab.namespace(Node::Balancer).command("unshare");
    command.args(["--mount", "sh", "-c", "mount -t sysfs sysfs /sys && exec \"$@\"", "sh"]);
    command.arg(site.lb()).arg("--socket").arg(socket).arg("doctor").args(arguments);
    process::finish(command, Duration::from_secs(20))
}

fn it_finds_what_stands_in_the_way(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    let bpffs = BpfFs::mount(site.directory())?;
    let (pins, socket) = (bpffs.path().join("lb"), site.files("lb").socket);
    let (pins, elsewhere) = (pins.to_string_lossy().into_owned(), bpffs.path().join("other"));
    let before = doctor(&site, &socket, &["client1", "--pins", &pins, "-o", "json"])?;
    ensure!(before.code == Some(0), "{before:?}");
    ensure!(findings(&before.stdout, "client1 xdp")? == ["well: no program"], "{}", before.stdout);
    // From Linux 6.3 on the driver says more.
    let driver = findings(&before.stdout, "client1 driver")?;
    ensure!(driver.len() == 1 && driver[0].starts_with("well: none, since it is not hardware"), "{driver:?}");
    ensure!(findings(&before.stdout, "daemon")?.is_empty(), "{}", before.stdout);
    let nowhere = doctor(&site, &socket, &["nonsense0", "--pins", &pins])?;
    ensure!(
        nowhere.code == Some(5) && nowhere.stderr.contains("there is no interface nonsense0"),
        "{nowhere:?}"
    );

    site.serve(&Config::new(vec![web(VIP4)]).pinned(Path::new(&pins)))?;
    let well = doctor(&site, &socket, &["--pins", &pins])?;
    ensure!(well.code == Some(0) && well.stdout.contains("ok    daemon: lb "), "{well:?}");

    // To whom knows of other pins the program is somebody else's.
    let elsewhere = elsewhere.to_string_lossy();
    let strange = ["client1", "--pins", &elsewhere, "-o", "json"];
    let strange = doctor(&site, Path::new("/nonexistent"), &strange)?;
    ensure!(strange.code == Some(1), "{strange:?}");
    let found = findings(&strange.stdout, "client1 xdp")?;
    ensure!(
        found.len() == 1 && found[0].starts_with("bad: program ") && found[0].contains("not pinned below"),
        "{found:?}"
    );

    site.lab.ip(Node::Balancer, &[format!("address add {VIP4}/32 dev lo")])?;
    site.cli()?.succeed(&["backend", "add", "web", "10.77.77.77:80"])?;
    let ill = doctor(&site, &socket, &["--pins", &pins])?;
    ensure!(ill.code == Some(1), "{ill:?}");
    let words = [
        format!("BAD   service web: its VIP {VIP4} is an address of this host, on lo\n"),
        format!("      -> ip address del {VIP4} dev lo\n"),
        "BAD   daemon: is not well\n".to_owned(),
        "backend 10.77.77.77:80".to_owned(),
    ];
    for words in words {
        ensure!(ill.stdout.contains(&words), "no {words:?} in {}", ill.stdout);
    }
    Ok(())
}

/// What makes a host of the lab a backend is taken away from it.
fn forget(site: &Site, node: Node, way: Way) -> Result<()> {
    let (bits, balancer): (_, IpAddr) = match way.vip {
        IpAddr::V4(_) => (32, node.gateway4().into()),
        IpAddr::V6(_) => (128, node.gateway6().into()),
    };
    let vip = format!("address delete {}/{bits} dev lo", way.vip);
    let route = (way.mode == ForwardMode::Nat).then(|| format!("route delete default via {balancer}"));
    let lines: Vec<String> = [Some(vip), route].into_iter().flatten().collect();
    site.lab.ip(node, &lines)
}

/// The echo, balanced to hosts that lack everything that makes them backends.
pub(crate) fn site_of_bare_hosts(tools: Tools, way: Way) -> Result<Site> {
    let echo = way.tcp_echo();
    let target = echo.vip;
    let site = Site::with_daemon(tools, &way.config(vec![echo]))?;
    BACKENDS.into_iter().try_for_each(|node| forget(&site, node, way))?;
    ensure!(Held::open(&site.client(1), target).is_err(), "the lab's hosts are backends without any doing");
    Ok(site)
}

/// Hosts that lack everything become backends by exactly the commands that are printed.
fn it_says_what_makes_a_backend(tools: Tools, way: Way) -> Result<()> {
    let echo = way.tcp_echo();
    let site = site_of_bare_hosts(tools, way)?;
    let steps: Vec<Value> = site.cli()?.ask(&["doctor", "--backend-setup", &echo.name])?;
    let path =
        format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", site.lb().parent().context("lb is nowhere")?.display());
    let mut decapsulators = Vec::new();
    for node in BACKENDS {
        let endpoint = echo.endpoint(node);
        let of_node = |step: &&Value| {
            let backends = step["backends"].as_array();
            backends.is_none_or(|backends| backends.iter().any(|one| one == endpoint.as_str()))
        };
        let needed = steps.iter().filter(|step| step["optional"] != true).filter(of_node);
        let script: Vec<&str> = needed.filter_map(|step| step["command"].as_str()).collect();
        ensure!(!script.is_empty(), "nothing is to be done on {node}: {steps:?}");
        let mut command = site.lab.namespace(node).command("sh");
        command.env("PATH", &path).args(["-ec", &script.join("\n")]);
        if !way.is_tunnel() {
            process::succeed(command, Duration::from_secs(10))?;
            continue;
        }
        let log = site.directory().join(format!("{node}-setup.log"));
        let process = Process::spawn_logged("the backend's set-up", command, &log)?;
        wait::until(Duration::from_secs(20), "it unwraps", || {
            ensure!(process.log().contains("decapsulating on "), "{}", process.log());
            Ok(())
        })?;
        decapsulators.push(process);
    }
    way.ensure_connects(&site)
}
