//! The operator's commands: what they change, what they print, and their exit codes.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::daemon::Config;
use lb_tests::load;
use lb_tests::net::{Node, VIP4};
use lb_tests::servers::HTTP_PORT;
use lb_tests::site::{SERVING, Site};
use lb_tests::tools::Tools;
use lb_userspace::view::{Applied, BackendState};
use serde_json::{Map, Value};

use crate::cases::{Case, cases, echo, ensure_only, ensure_spread, web};

const OK: i32 = 0;
const NEGATIVE: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;
const REFUSED: i32 = 4;
const NOT_FOUND: i32 = 5;

pub(crate) fn cases() -> Vec<Case> {
    cases!["changes":
        backends_are_removed_and_added,
        services_are_removed_and_added,
        several_hands_change_a_service,
        a_backend_is_drained,
        weights_count,
        mistakes_have_exit_codes,
        tables_are_for_people,
        answers_come_in_other_forms,
        the_metrics_page_has_its_series,
        config_check,
    ]
}

fn backends_are_removed_and_added(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4).checked()]))?;
    let (cli, target) = (site.cli()?, (VIP4, HTTP_PORT).into());
    let address = web(VIP4).endpoint(Node::Backend(2));
    let before = site.status()?.generation;

    let removed: Applied = cli.ask(&["backend", "remove", "web", &address])?;
    ensure_moved_a_third(&removed)?;
    ensure!(removed.generation > before, "generation {} after {before}", removed.generation);
    cli.wait_serving("web", 2, SERVING)?;
    ensure_only(&load::requests(&site.client(1), target, 60)?, &[Node::Backend(1), Node::Backend(3)])?;

    let added: Applied = cli.ask(&["backend", "add", "web", &address])?;
    ensure!(added.generation > removed.generation, "{added:?} after {removed:?}");
    cli.wait_serving("web", 3, SERVING)?;
    ensure_spread(&load::requests(&site.client(1), target, 90)?)
}

/// Whatever a service is, it can be told in keys, and be made again from them.
fn services_are_removed_and_added(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let (cli, target) = (site.cli()?, (VIP4, HTTP_PORT).into());
    let shown = cli.succeed(&["service", "show", "web"])?;
    ensure!(shown.starts_with("[[service]]\nname = \"web\"\n"), "{shown}");
    let keys: Map<String, Value> = cli.ask(&["service", "show", "web"])?;
    ensure!(keys["backends"].as_array().is_some_and(|backends| backends.len() == 3), "{keys:?}");

    cli.succeed(&["service", "delete", "web"])?;
    ensure!(site.status()?.services.is_empty());
    let lost = load::requests(&site.client(1), target, 3)?;
    ensure!(lost.failed() == lost.total(), "a service that is gone was answered: {lost:?}");

    let inline = |backend: &Value| format!("{{ address = {} }}", backend["address"]);
    let backends: Vec<String> = keys["backends"].as_array().into_iter().flatten().map(inline).collect();
    let backends = format!("backends=[{}]", backends.join(", "));
    let vip = keys["vip"].as_str().context("a VIP that is no text")?;
    let again = ["service", "add", "web", vip, "protocol=tcp", "mode=dsr-l2", "table_size=251", &backends];
    let added: Applied = cli.ask(&again)?;
    ensure!(added.summary == format!("service web added: {vip} tcp dsr-l2"), "{added:?}");
    cli.wait_serving("web", 3, SERVING)?;
    ensure_spread(&load::requests(&site.client(1), target, 90)?)?;

    cli.succeed(&["service", "set", "web", "drain_timeout=90s", "table_size=65537"])?;
    let keys: Map<String, Value> = cli.ask(&["service", "show", "web"])?;
    ensure!(keys["drain_timeout"] == "90s" && keys["table_size"] == 65_537, "{keys:?}");
    cli.wait_serving("web", 3, SERVING)?;
    ensure_spread(&load::requests(&site.client(1), target, 90)?)?;

    let generation = site.status()?.generation;
    let mistakes: [(&[&str], i32, &str); 8] = [
        (&again, REFUSED, "service web is there already; `lb service set web` changes it"),
        (&["service", "add", "two", vip, "protocol=tcp", "mode=dsr-l2"], REFUSED, "belongs to service"),
        (&["service", "add", "two", "192.0.2.300:80", "protocol=tcp"], REFUSED, "vip: "),
        (&["service", "set", "web", "colour=red"], REFUSED, "colour: "),
        (&["service", "set", "web", "table_size=250"], REFUSED, "table_size: "),
        (&["service", "set", "wbe", "table_size=251"], NOT_FOUND, "did you mean web?"),
        (&["service", "delete", "mail"], NOT_FOUND, "there are: web"),
        (&["service", "set", "web"], USAGE, "KEY=VALUE"),
    ];
    for (arguments, code, words) in mistakes {
        let said = cli.run(arguments)?;
        ensure!(said.code == Some(code) && said.stderr.contains(words), "{arguments:?}: {said:?}");
    }
    ensure!(site.status()?.generation == generation, "a mistake has changed something");
    Ok(())
}

/// Each key that somebody sets stays set, whatever others set at the same time.
fn several_hands_change_a_service(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let cli = site.cli()?;
    let hand = |key: &'static str| {
        let cli = cli.clone();
        move || -> Result<()> {
            (1..=8).try_for_each(|value| {
                cli.succeed(&["service", "set", "web", &format!("{key}={value}s")]).map(drop)
            })
        }
    };
    let hands = ["slow_start", "drain_timeout", "idle_timeout"].map(hand);
    std::thread::scope(|scope| {
        let hands = hands.map(|work| scope.spawn(work));
        hands.into_iter().try_for_each(|hand| hand.join().map_err(|_| anyhow!("a hand panicked"))?)
    })?;
    let keys: Map<String, Value> = cli.ask(&["service", "show", "web"])?;
    for key in ["slow_start", "drain_timeout", "idle_timeout"] {
        ensure!(keys[key] == "8s", "{key} is lost: {keys:?}");
    }
    Ok(())
}

/// About a third of the slots belonged to the backend, and Maglev moves few others.
fn ensure_moved_a_third(applied: &Applied) -> Result<()> {
    let Applied { slots_moved, slots_least, slots_total, .. } = *applied;
    ensure!(slots_total == 65_537 && slots_least > slots_total / 4, "{applied:?}");
    ensure!((slots_least..slots_total * 2 / 5).contains(&slots_moved), "{applied:?}");
    Ok(())
}

fn a_backend_is_drained(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let address = web(VIP4).endpoint(Node::Backend(1));
    let drained: Applied = site.cli()?.ask(&["backend", "drain", "web", &address])?;
    ensure_moved_a_third(&drained)?;
    let backends = site.cli()?.backends("web")?;
    let backend = backends.iter().find(|backend| backend.address == address).context("it is gone")?;
    ensure!(backend.state == BackendState::Drain && backend.share == 0.0, "{backend:?}");
    let report = load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), 60)?;
    ensure_only(&report, &[Node::Backend(2), Node::Backend(3)])
}

fn weights_count(tools: Tools) -> Result<()> {
    let site =
        Site::with_daemon(tools, &Config::new(vec![web(VIP4).only(&[Node::Backend(1), Node::Backend(2)])]))?;
    let address = web(VIP4).endpoint(Node::Backend(3));
    site.cli()?.succeed(&["backend", "add", "web", &address, "--weight", "200"])?;
    site.cli()?.wait_serving("web", 3, SERVING)?;
    let backends = site.cli()?.backends("web")?;
    let share = backends.iter().find(|backend| backend.address == address).context("it is gone")?.share;
    ensure!((share - 0.5).abs() < 0.01, "weight 200 of 400 has a share of {share}");
    Ok(())
}

fn mistakes_have_exit_codes(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let (here, elsewhere) = (web(VIP4).endpoint(Node::Backend(1)), "10.0.99.2:80");
    let nobody = site.directory().join("nobody.sock");
    let nobody = nobody.to_str().context("a path that is not text")?;
    let mistakes: [(&[&str], i32, &str); 9] = [
        (&["backend", "remove", "web", elsewhere], NOT_FOUND, elsewhere),
        (&["backend", "drain", "web", elsewhere], NOT_FOUND, elsewhere),
        (&["backend", "list", "wed"], NOT_FOUND, "wed"),
        (&["backend", "add", "wed", elsewhere], NOT_FOUND, "wed"),
        (&["backend", "add", "web", &here], REFUSED, &here),
        (&["backend", "add", "web", "10.0.12.2:81"], REFUSED, "port"),
        (&["backend", "add", "web", "10.0.1.300:80"], REFUSED, "300 is not a byte"),
        (&["backend", "add", "web"], USAGE, "ADDRESS"),
        (&["--socket", nobody, "status"], UNREACHABLE, nobody),
    ];
    for (arguments, code, word) in mistakes {
        let said = site.cli()?.run(arguments)?;
        ensure!(said.code == Some(code), "lb {arguments:?} should exit with {code}: {said:?}");
        ensure!(said.stderr.contains(word), "lb {arguments:?} should mention {word:?}: {said:?}");
        ensure!(said.stdout.is_empty(), "an error belongs on standard error: {said:?}");
    }
    ensure!(site.status()?.generation == 1, "a refused change made a generation");
    Ok(())
}

fn tables_are_for_people(tools: Tools) -> Result<()> {
    let services = vec![web(VIP4).checked(), echo(VIP4).limited(500, 100)];
    let site = Site::with_daemon(tools, &Config::new(services))?;
    let wanted: [(&[&str], &[&str]); 3] = [
        (&["status"], &["client1", "native"]),
        (&["service", "list"], &["web", "echo", "192.0.2.10:80", "dsr-l2"]),
        (&["backend", "list", "web"], &["10.0.11.2:80", "10.0.12.2:80", "33.3"]),
    ];
    for (arguments, words) in wanted {
        let said = site.cli()?.run(arguments)?;
        ensure!(said.code == Some(OK) && said.stderr.is_empty(), "{said:?}");
        for word in words {
            ensure!(said.stdout.contains(word), "lb {arguments:?} should show {word:?}:\n{}", said.stdout);
        }
    }
    Ok(())
}

/// As names for scripts, as YAML, and again and again.
fn answers_come_in_other_forms(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let cli = site.cli()?;
    let names = cli.succeed(&["backend", "list", "web", "-o", "name"])?;
    let expected = [1, 2, 3].map(|number| web(VIP4).endpoint(Node::Backend(number)) + "\n").concat();
    ensure!(names == expected, "{names}");
    let yaml = cli.succeed(&["service", "list", "-o", "yaml"])?;
    ensure!(yaml.starts_with("- name: web\n"), "{yaml}");
    let refused = cli.run(&["backend", "remove", "web", "10.0.0.1:80", "--watch"])?;
    ensure!(refused.code == Some(USAGE) && refused.stderr.contains("--watch goes with"), "{refused:?}");

    let mut command = Command::new(site.lb());
    command.args(["--socket"]).arg(site.files("lb").socket).args([
        "service",
        "list",
        "-o",
        "name",
        "--watch=100ms",
    ]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines().take(3);
    let lines = lines.collect::<std::io::Result<Vec<_>>>();
    child.kill()?;
    child.wait()?;
    ensure!(lines? == ["web"; 3]);
    Ok(())
}

fn the_metrics_page_has_its_series(tools: Tools) -> Result<()> {
    let services = vec![web(VIP4).checked(), echo(VIP4).limited(500, 100)];
    let site = Site::with_daemon(tools, &Config::new(services))?;
    ensure_spread(&load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), 30)?)?;
    let page = site.metrics()?;
    let names = [
        "lb_build_info{",
        "lb_config_generation ",
        "lb_service_packets_total{",
        "lb_service_bytes_total{",
        "lb_service_new_flows_total{",
        "lb_backend_packets_total{",
        "lb_backend_bytes_total{",
        "lb_backend_up{",
        "lb_backend_weight{",
        "lb_limiter_packets_total{",
        "lb_xdp_attached{",
    ];
    let lines: Vec<&str> = page.lines().collect();
    for name in names {
        ensure!(lines.iter().any(|line| line.starts_with(name)), "{name} is missing:\n{page}");
    }
    let flows =
        lines.iter().find(|line| line.starts_with("lb_service_new_flows_total{") && line.contains("web"));
    let flows = flows.context("no flows of web")?.rsplit(' ').next().unwrap_or_default();
    ensure!(flows == "30", "30 connections were counted as {flows}");
    Ok(())
}

fn config_check(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    let config = Config::new(vec![web(VIP4)]);
    site.start_daemon(&config)?;
    let good = site.files("lb").config;
    let bad = site.files("bad").config;
    let text = config.render(&site.files("bad").socket).replace("protocol = ", "protocoll = ");
    let line = 1 + text.lines().position(|line| line.starts_with("protocoll")).context("no such line")?;
    std::fs::write(&bad, text)?;
    let check =
        |path: &std::path::Path| site.cli()?.run(&["config", "check", path.to_str().unwrap_or_default()]);
    let said = check(&good)?;
    ensure!(said.code == Some(OK), "{said:?}");
    let said = check(&bad)?;
    let place = format!("bad.toml:{line}");
    ensure!(said.code == Some(NEGATIVE) && said.stderr.contains(&place), "should name {place}: {said:?}");
    ensure!(said.stderr.contains("protocoll"), "should name the field: {said:?}");
    Ok(())
}
