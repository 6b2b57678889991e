//! States of backends, drains that end and weights that rise.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::{Config, Service};
use lb_tests::load::Held;
use lb_tests::net::{BACKENDS, Node, VIP4};
use lb_tests::servers::ECHO_PORT;
use lb_tests::site::{SERVING, Site};
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::model::Protocol;
use lb_userspace::view::{Applied, BackendState, BackendView, HealthState};

use crate::cases::{Case, cases};

/// Longer than any drain or slow start here.
const PATIENCE: Duration = Duration::from_secs(20);

const VICTIM: Node = Node::Backend(1);

pub(crate) fn cases() -> Vec<Case> {
    cases!["states":
        a_drain_keeps_connections_until_it_ends,
        maintenance_concerns_nobody_else,
        an_added_backend_rises,
        a_recovered_backend_rises,
        states_of_the_file,
        impossible_states_are_refused,
    ]
}

fn held() -> Service {
    Service::new("held", (VIP4, ECHO_PORT).into(), Protocol::Tcp)
}

fn view(site: &Site, node: Node) -> Result<BackendView> {
    let address = held().endpoint(node);
    let backends = site.cli()?.backends("held")?;
    backends.into_iter().find(|backend| backend.address == address).context("it is gone")
}

/// Connections of the victim, and those of others.
fn connected(site: &Site) -> Result<(Vec<Held>, Vec<Held>)> {
    let all = Held::open_many(&site.client(1), held().vip, 40)?;
    let parts: (Vec<_>, Vec<_>) = all.into_iter().partition(|held| held.backend() == VICTIM.to_string());
    ensure!(!parts.0.is_empty() && !parts.1.is_empty(), "{} of 40 connections", parts.0.len());
    Ok(parts)
}

fn ask_all(connections: &mut [Held], when: &str) -> Result<()> {
    connections.iter_mut().try_for_each(Held::ask).with_context(|| format!("a connection is broken {when}"))
}

fn ensure_gone(connections: &mut [Held]) -> Result<()> {
    let alive = connections.iter_mut().filter_map(|held| held.ask().ok()).count();
    ensure!(alive == 0, "{alive} connections to {VICTIM} are alive");
    Ok(())
}

/// A sample of the metrics page, if it is there.
fn sample(site: &Site, name: &str, node: Node, more: &str) -> Result<Option<u64>> {
    let series = format!("{name}{{backend=\"{}\",service=\"held\"{more}}} ", held().endpoint(node));
    let page = site.metrics()?;
    let value = page.lines().find_map(|line| line.strip_prefix(&series));
    value.map(|value| value.parse().context("not a number")).transpose()
}

fn a_drain_keeps_connections_until_it_ends(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![held()]))?;
    let (mut own, mut others) = connected(&site)?;
    let address = held().endpoint(VICTIM);
    let applied: Applied = site.cli()?.ask(&["backend", "drain", "held", &address, "--timeout", "3s"])?;
    ensure!(applied.summary == format!("held: backend {address} drains for 3s"), "{applied:?}");
    ask_all(&mut own, "after the drain has begun")?;
    let late = Held::open_many(&site.client(2), held().vip, 20)?;
    ensure!(
        late.iter().all(|held| held.backend() != VICTIM.to_string()),
        "a draining backend got a new flow"
    );
    let drains = view(&site, VICTIM)?;
    ensure!(drains.state == BackendState::Drain && drains.share == 0.0, "{drains:?}");
    wait::until(PATIENCE, "the drain has ended", || {
        let backend = view(&site, VICTIM)?;
        if backend.drain_seconds_left != Some(0) {
            // It may end between the look and the question.
            let asked = own.iter_mut().try_for_each(Held::ask);
            ensure!(
                asked.is_ok() || view(&site, VICTIM)?.drain_seconds_left == Some(0),
                "broken early: {asked:?}"
            );
        }
        ensure!(backend.drain_seconds_left == Some(0), "{backend:?}");
        Ok(())
    })?;
    ensure_gone(&mut own[..1])?;
    ask_all(&mut others, "after the drain has ended")?;
    let table = site.cli()?.succeed(&["backend", "list", "held"])?;
    ensure!(table.contains("drain (ended)") && table.contains("0/100"), "{table}");
    ensure!(view(&site, VICTIM)?.health == HealthState::Unchecked, "a drain is not health");
    let again = site.cli()?.run(&["backend", "add", "held", &address])?;
    ensure!(again.code == Some(4) && again.stderr.contains("lb backend ready held"), "{again:?}");
    site.cli()?.succeed(&["backend", "ready", "held", &address])?;
    site.cli()?.wait_serving("held", 3, SERVING)?;
    ask_all(&mut others, "after the backend is ready again")
}

fn maintenance_concerns_nobody_else(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![held().checked()]))?;
    let (mut own, mut others) = connected(&site)?;
    let address = held().endpoint(VICTIM);
    site.cli()?.succeed(&["backend", "maintenance", "held", &address])?;
    ensure_gone(&mut own[..1])?;
    ask_all(&mut others, "after another backend went into maintenance")?;
    let backend = view(&site, VICTIM)?;
    ensure!(
        backend.state == BackendState::Maintenance
            && backend.health == HealthState::Up
            && backend.share == 0.0,
        "{backend:?}"
    );
    ensure!(sample(&site, "lb_backend_up", VICTIM, "")? == Some(1), "health and state are two things");
    ensure!(sample(&site, "lb_backend_weight", VICTIM, "")? == Some(0), "it has a weight");
    let state = |word: &str| sample(&site, "lb_backend_state", VICTIM, &format!(",state=\"{word}\""));
    ensure!(state("maintenance")? == Some(1) && state("ready")?.is_none(), "{}", site.metrics()?);
    ensure!(site.status()?.warnings.is_empty(), "{:?}", site.status()?.warnings);
    site.cli()?.succeed(&["backend", "ready", "held", &address])?;
    site.cli()?.wait_serving("held", 3, SERVING)?;
    ask_all(&mut others, "after the backend is ready again")
}

/// Every weight that the metrics tell, until it is the whole; each is higher than the one before.
fn watch_rise(site: &Site, connections: &mut [Held]) -> Result<Vec<u64>> {
    let mut weights = Vec::new();
    wait::until(PATIENCE, "the weight has risen", || {
        let weight = sample(site, "lb_backend_weight", VICTIM, "")?.context("no weight")?;
        if weights.last() != Some(&weight) {
            weights.push(weight);
            ask_all(connections, &format!("at weight {weight}"))?;
        }
        ensure!(weight == 100, "{weights:?}");
        Ok(())
    })?;
    Ok(weights)
}

fn ensure_rising(weights: &[u64]) -> Result<()> {
    let steps = [10, 19, 28, 37, 46, 55, 64, 73, 82, 91, 100];
    ensure!(weights.is_sorted() && weights.len() > 3, "{weights:?}");
    ensure!(weights.iter().all(|weight| steps.contains(weight)), "{weights:?}");
    Ok(())
}

fn an_added_backend_rises(tools: Tools) -> Result<()> {
    let service = held().only(&BACKENDS[1..]).with("slow_start = \"3s\"");
    let site = Site::with_daemon(tools, &Config::new(vec![service]))?;
    let others = &BACKENDS[1..];
    for node in others {
        ensure!(sample(&site, "lb_backend_weight", *node, "")? == Some(100), "{node} rises from the start");
    }
    let mut connections = Held::open_many(&site.client(1), held().vip, 40)?;
    site.cli()?.succeed(&["backend", "add", "held", &held().endpoint(VICTIM)])?;
    let first = view(&site, VICTIM)?;
    let weight = f64::from(first.effective_weight.0);
    ensure!(first.effective_weight.0 < 60 && first.weight.0 == 100, "{first:?}");
    ensure!((first.share - weight / (200.0 + weight)).abs() < 0.01, "{first:?}");
    ensure_rising(&watch_rise(&site, &mut connections)?)?;
    let last = view(&site, VICTIM)?;
    ensure!((last.share - 1.0 / 3.0).abs() < 0.01, "{last:?}");
    ask_all(&mut connections, "in the end")
}

fn a_recovered_backend_rises(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    for node in BACKENDS {
        site.start_pulse(node)?;
    }
    site.serve(&Config::new(vec![held().pulsed().with("slow_start = \"3s\"")]))?;
    site.stop_pulse(VICTIM)?;
    site.cli()?.wait_serving("held", 2, PATIENCE)?;
    let mut connections = Held::open_many(&site.client(1), held().vip, 40)?;
    site.start_pulse(VICTIM)?;
    site.cli()?.wait_serving("held", 3, PATIENCE)?;
    ensure_rising(&watch_rise(&site, &mut connections)?)?;
    ask_all(&mut connections, "in the end")
}

/// A file may say it, too; its drains begin with the daemon.
fn states_of_the_file(tools: Tools) -> Result<()> {
    let service = held()
        .asking(BACKENDS[0], "state = \"drain\", drain_timeout = \"1h\"")
        .asking(BACKENDS[1], "state = \"maintenance\"");
    let mut site = Site::new(tools)?;
    site.start_daemon(&Config::new(vec![service]))?;
    site.cli()?.wait_serving("held", 1, SERVING)?;
    let states = BACKENDS.map(|node| view(&site, node).map(|view| (view.state, view.drain_seconds_left)));
    let [one, two, three] = states;
    ensure!(matches!(one?, (BackendState::Drain, Some(3_500..=3_600))), "{:?}", view(&site, BACKENDS[0]));
    ensure!(two? == (BackendState::Maintenance, None), "{:?}", view(&site, BACKENDS[1]));
    ensure!(three? == (BackendState::Ready, None), "{:?}", view(&site, BACKENDS[2]));
    Ok(())
}

fn impossible_states_are_refused(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![held()]))?;
    let (here, elsewhere) = (held().endpoint(VICTIM), "10.0.99.2:7");
    let mistakes: [(&[&str], i32, &str); 8] = [
        (&["maintenance", "held", elsewhere], 5, elsewhere),
        (&["ready", "held", elsewhere], 5, elsewhere),
        (&["drain", "wed", &here, "--timeout", "5s"], 5, "wed"),
        (&["drain", "held", &here, "--timeout", "0s"], 2, "1s to 168h"),
        (&["drain", "held", &here, "--timeout", "1000000h"], 2, "1s to 168h"),
        (&["set", "held", &here, "--weight", "65536"], 2, "65535"),
        (&["set", "held", &here, "--weight=-1"], 2, "65535"),
        (&["maintenance", "held", "10.0.1.300:7"], 4, "300 is not a byte"),
    ];
    for (arguments, code, word) in mistakes {
        let said = site.cli()?.run(&[&["backend"], arguments].concat())?;
        ensure!(said.code == Some(code), "lb backend {arguments:?} should exit with {code}: {said:?}");
        ensure!(said.stderr.contains(word), "lb backend {arguments:?} should mention {word:?}: {said:?}");
    }
    ensure!(site.status()?.generation == 1, "a refused change made a generation");
    Ok(())
}
