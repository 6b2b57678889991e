//! What `lb run` refuses: one clear sentence, a non-zero exit, and nothing half-attached.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::{Config, METRICS, run_command};
use lb_tests::load;
use lb_tests::net::{Node, VIP4};
use lb_tests::process::{self, Finished};
use lb_tests::servers::HTTP_PORT;
use lb_tests::site::Site;
use lb_tests::tools::Tools;

use crate::cases::{Case, cases, ensure_detached, ensure_spread, web};

/// A refusal should not take long.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn cases() -> Vec<Case> {
    cases!["refusals":
        a_missing_interface,
        a_missing_file,
        a_wrong_file,
        a_metrics_port_in_use,
        a_second_daemon_on_the_interface,
        a_second_daemon_on_the_socket,
        an_old_kernel,
        missing_capabilities,
    ]
}

/// Runs `lb run` to its end with `text` as its configuration.
fn run(site: &Site, text: &str) -> Result<Finished> {
    let files = site.files("other");
    fs::write(&files.config, text)?;
    process::finish(run_command(site.lb(), &site.lab.namespace(Node::Balancer), &files), LIMIT)
}

/// Like [`run`], started by another program that takes something away.
fn run_under(site: &Site, wrapper: &[&str]) -> Result<Finished> {
    let files = site.files("other");
    fs::write(&files.config, config().render(&files.socket))?;
    let (program, arguments) = wrapper.split_first().context("no program")?;
    let mut command: Command = site.lab.namespace(Node::Balancer).command(program);
    command.args(arguments).arg(site.lb()).args(["run", "--config"]).arg(&files.config);
    process::finish(command, LIMIT)
}

fn config() -> Config {
    Config::new(vec![web(VIP4)])
}

/// It failed, with all of `words` in one line of at most a few.
pub(crate) fn ensure_refused(said: &Finished, words: &[&str]) -> Result<()> {
    ensure!(said.code.is_some_and(|code| code != 0), "it should fail: {said:?}");
    ensure!(!said.stderr.contains("panicked"), "it panicked: {}", said.stderr);
    ensure!(said.stderr.lines().count() <= 4, "that is more than a sentence:\n{}", said.stderr);
    for word in words {
        ensure!(said.stderr.contains(word), "the sentence should mention {word:?}: {}", said.stderr);
    }
    Ok(())
}

fn a_missing_interface(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let mut config = config();
    config.interfaces.push("eth9".to_owned());
    let files = site.files("other");
    ensure_refused(&run(&site, &config.render(&files.socket))?, &["eth9"])?;
    ensure!(!files.socket.exists(), "the socket is left");
    ensure_detached(&site.lab)
}

fn a_missing_file(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let said = process::finish(
        run_command(site.lb(), &site.lab.namespace(Node::Balancer), &site.files("nowhere")),
        LIMIT,
    )?;
    ensure_refused(&said, &["nowhere.toml"])
}

fn a_wrong_file(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let good = config().render(&site.files("other").socket);
    for (right, wrong, word) in [
        ("mode = \"dsr-l2\"", "mode = \"dsr\"", "dsr-l2"),
        ("protocol =", "protokol =", "protokol"),
        ("10.0.11.2:80", "10.0.11.2:81", "81"),
        ("10.0.12.2:80", "10.0.300.2:80", "300"),
    ] {
        let text = good.replace(right, wrong);
        let line = 1 + text.lines().position(|line| line.contains(wrong)).context("nothing was replaced")?;
        ensure_refused(&run(&site, &text)?, &[&format!("other.toml:{line}"), word])?;
    }
    ensure_detached(&site.lab)
}

fn a_metrics_port_in_use(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let taken = site.lab.namespace(Node::Balancer).run(|| TcpListener::bind(SocketAddr::from(METRICS)))??;
    let said = run(&site, &config().render(&site.files("other").socket))?;
    ensure_refused(&said, &["127.0.0.1:9441"])?;
    drop(taken);
    ensure!(!site.files("other").socket.exists(), "the socket is left");
    ensure_detached(&site.lab)
}

fn a_second_daemon_on_the_interface(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &config())?;
    let mut second = config();
    second.metrics = false;
    let said = run(&site, &second.render(&site.files("other").socket))?;
    ensure_refused(&said, &["client1"])?;
    ensure!(!site.files("other").socket.exists(), "the socket is left");
    ensure_unharmed(&site)
}

fn a_second_daemon_on_the_socket(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &config())?;
    let mut second = config();
    second.metrics = false;
    second.interfaces = vec!["backend1".to_owned()];
    let socket = site.files("lb").socket;
    let said = run(&site, &second.render(&socket))?;
    ensure_refused(&said, &[socket.to_str().context("a path that is not text")?])?;
    ensure!(!site.lab.has_xdp(Node::Balancer, "backend1")?, "a program is left on backend1");
    ensure_unharmed(&site)
}

/// The first daemon still answers and still forwards.
fn ensure_unharmed(site: &Site) -> Result<()> {
    site.status()?;
    ensure_spread(&load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), 60)?)
}

fn an_old_kernel(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let said = run_under(&site, &["setarch", "--uname-2.6"])?;
    ensure_refused(&said, &["6.1", "2.6."])?;
    ensure_detached(&site.lab)
}

fn missing_capabilities(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let said = run_under(&site, &["setpriv", "--bounding-set=-all", "--inh-caps=-all"])?;
    ensure_refused(&said, &["CAP_BPF", "CAP_NET_ADMIN"])?;
    ensure_detached(&site.lab)
}
