//! Configurations: reloaded, applied, undone and remembered, while packets flow.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::{Cli, Config, Files, run_command};
use lb_tests::net::{Node, VIP4};
use lb_tests::process::{self, Finished, Process};
use lb_tests::servers::HTTP_PORT;
use lb_tests::site::{SERVING, Site};
use lb_tests::tools::Tools;
use lb_tests::{load, wait};
use lb_userspace::view::{ConfigApplied, ConfigDiff, GenerationView};
use rustix::process::Signal;

use crate::cases::{Case, cases, echo, ensure_detached, ensure_only, ensure_spread, web};
use crate::refusals::ensure_refused;

pub(crate) fn cases() -> Vec<Case> {
    cases!["config":
        commands_survive_sigterm_and_kill,
        sighup_puts_the_files_in_force,
        a_wrong_reload_changes_nothing,
        what_is_applied_is_confirmed_or_undone,
        what_a_killed_daemon_left_unconfirmed_is_undone_by_the_next,
        rollback_brings_a_backend_back,
        a_full_disk_refuses_changes,
        a_read_only_state_directory_refuses_changes,
        a_damaged_generation_is_kept_aside,
        a_state_directory_belongs_to_one_daemon,
        a_vip_of_the_host_is_refused,
        a_daemon_killed_within_a_change_has_made_it_or_not,
    ]
}

const LIMIT: Duration = Duration::from_secs(10);

const FIRST: Node = Node::Backend(1);
const SECOND: Node = Node::Backend(2);

fn config() -> Config {
    Config::new(vec![web(VIP4)])
}

/// The web service with these backends only.
fn only(nodes: &[Node]) -> Config {
    Config::new(vec![web(VIP4).only(nodes)])
}

fn served(tools: Tools) -> Result<Site> {
    Site::with_daemon(tools, &config())
}

fn write(file: &Path, config: &Config, files: &Files) -> Result<()> {
    fs::write(file, config.render(&files.socket)).with_context(|| format!("cannot write {}", file.display()))
}

fn wait_generation(cli: &Cli, generation: u64) -> Result<()> {
    wait::until(LIMIT, &format!("generation {generation} is in force"), || {
        let status = cli.status()?;
        ensure!(status.generation == generation, "it is {}", status.generation);
        Ok(())
    })
}

fn ensure_answered_by(site: &Site, nodes: &[Node]) -> Result<()> {
    let report = load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), 60)?;
    if nodes.len() == 3 { ensure_spread(&report) } else { ensure_only(&report, nodes) }
}

fn ensure_text(said: &Finished, code: i32, words: &str) -> Result<()> {
    let text = format!("{}{}", said.stdout, said.stderr);
    ensure!(said.code == Some(code) && text.contains(words), "not {code} with {words:?}: {said:?}");
    Ok(())
}

fn commands_survive_sigterm_and_kill(tools: Tools) -> Result<()> {
    let mut site = served(tools)?;
    let endpoint = web(VIP4).endpoint(FIRST);
    site.cli()?.succeed(&["backend", "remove", "web", &endpoint])?;
    site.cli()?.succeed(&["deny", "add", "203.0.113.0/24"])?;
    for kill in [false, true, false] {
        let before = site.cli()?.succeed(&["config", "show"])?;
        if kill {
            site.daemon()?.process.kill()?;
        } else {
            site.take_daemon()?.stop()?;
        }
        site.start_daemon(&config())?;
        let cli = site.cli()?;
        cli.wait_serving("web", 2, SERVING)?;
        ensure!(cli.succeed(&["config", "show"])? == before && cli.status()?.generation == 3);
        ensure_answered_by(&site, &[SECOND, Node::Backend(3)])?;
    }
    let drift = site.cli()?.run(&["config", "diff"])?;
    ensure_text(&drift, 1, &format!("+ service web: backend {endpoint} weight 100"))?;
    ensure_text(&drift, 1, "- deny: 203.0.113.0/24")?;
    site.cli()?.succeed(&["config", "apply"])?;
    let same: ConfigDiff = site.cli()?.ask(&["config", "diff"])?;
    ensure!(same.is_empty(), "{same:?}");
    site.cli()?.wait_serving("web", 3, SERVING)?;
    ensure_answered_by(&site, &[FIRST, SECOND, Node::Backend(3)])
}

fn sighup_puts_the_files_in_force(tools: Tools) -> Result<()> {
    let mut site = served(tools)?;
    let files = site.files("lb");
    site.cli()?.succeed(&["deny", "add", "203.0.113.0/24"])?;
    let folder = site.directory().join("conf.d");
    fs::create_dir(&folder)?;
    let part = Config::new(vec![echo(VIP4)]).render(&files.socket);
    let service = part.find("[[service]]").context("no service")?;
    fs::write(folder.join("echo.toml"), &part[service..])?;
    fs::write(folder.join(".hidden.toml"), "nonsense")?;
    fs::write(folder.join("old.toml.bak"), "nonsense")?;
    write(&files.config, &only(&[FIRST, SECOND]), &files)?;
    site.daemon()?.process.signal(Signal::HUP)?;
    let cli = site.cli()?;
    wait_generation(cli, 3)?;
    cli.wait_serving("web", 2, SERVING)?;
    cli.wait_serving("echo", 3, SERVING)?;
    ensure_answered_by(&site, &[FIRST, SECOND])?;
    let log = site.daemon()?.process.log();
    for words in ["reload: - deny: 203.0.113.0/24", "reload: + service echo: 192.0.2.10:"] {
        ensure!(log.contains(words), "{words:?} is not in:\n{log}");
    }
    let metrics = site.metrics()?;
    for line in ["lb_config_generation 3\n", "lb_config_last_reload_success 1\n"] {
        ensure!(metrics.contains(line), "{line:?} is not in:\n{metrics}");
    }
    Ok(())
}

fn a_wrong_reload_changes_nothing(tools: Tools) -> Result<()> {
    let mut site = served(tools)?;
    let files = site.files("lb");
    let good = config().render(&files.socket);
    for (text, words) in [
        (good.replace("mode = \"dsr-l2\"", "mode = \"dsr\""), "lb.toml:"),
        (
            good.replace("[daemon]\n", "[daemon]\nflows = 8\n"),
            "[daemon] flows cannot change while the daemon runs",
        ),
    ] {
        fs::write(&files.config, text)?;
        site.daemon()?.process.signal(Signal::HUP)?;
        let cli = site.cli()?;
        wait::until(LIMIT, "the status warns", || {
            let warnings = cli.status()?.warnings;
            ensure!(warnings.iter().any(|warning| warning.contains(words)), "{warnings:?}");
            Ok(())
        })?;
        ensure_text(&cli.run(&["config", "apply"])?, 4, words)?;
        ensure!(cli.status()?.generation == 1);
        ensure!(site.metrics()?.contains("lb_config_last_reload_success 0\n"));
        ensure_answered_by(&site, &[FIRST, SECOND, Node::Backend(3)])?;
    }
    fs::write(&files.config, good)?;
    site.daemon()?.process.signal(Signal::HUP)?;
    let cli = site.cli()?;
    wait::until(LIMIT, "the warning is gone", || {
        let warnings = cli.status()?.warnings;
        ensure!(warnings.is_empty(), "{warnings:?}");
        Ok(())
    })
}

fn what_is_applied_is_confirmed_or_undone(tools: Tools) -> Result<()> {
    let site = served(tools)?;
    let (cli, files) = (site.cli()?, site.files("lb"));
    let new = site.directory().join("new.toml");
    write(&new, &only(&[FIRST]), &files)?;
    let path = new.to_str().context("a path that is not text")?;
    let diff = cli.run(&["config", "diff", path])?;
    ensure_text(
        &diff,
        1,
        "  plan: 2 changes, 1 table, 66.7 % of its slots move (66.7 % is the least possible)\n",
    )?;

    let applied: ConfigApplied = cli.ask(&["config", "apply", path, "--confirm-within", "2s"])?;
    ensure!(applied.changes.len() == 2 && applied.confirm_by.is_some(), "{applied:?}");
    ensure_text(&cli.run(&["deny", "add", "203.0.113.0/24"])?, 4, "lb config confirm")?;
    ensure_answered_by(&site, &[FIRST])?;
    wait_generation(cli, 3)?;
    cli.wait_serving("web", 3, SERVING)?;
    ensure_answered_by(&site, &[FIRST, SECOND, Node::Backend(3)])?;

    cli.succeed(&["config", "apply", path, "--confirm-within", "1m"])?;
    cli.succeed(&["config", "confirm"])?;
    cli.succeed(&["deny", "add", "203.0.113.0/24"])?;
    ensure_answered_by(&site, &[FIRST])?;
    let history: Vec<GenerationView> = cli.ask(&["config", "history"])?;
    let origins: Vec<&str> = history.iter().skip(1).map(|view| view.origin.as_str()).collect();
    ensure!(origins == ["command", "not confirmed, back to 1", "command", "command"], "{origins:?}");
    Ok(())
}

/// Whoever has cut himself off by a change cannot count on the daemon's living until it is undone.
fn what_a_killed_daemon_left_unconfirmed_is_undone_by_the_next(tools: Tools) -> Result<()> {
    let mut site = served(tools)?;
    let new = site.directory().join("new.toml");
    write(&new, &only(&[FIRST]), &site.files("lb"))?;
    let path = new.to_str().context("a path that is not text")?;
    site.cli()?.succeed(&["config", "apply", path, "--confirm-within", "3s"])?;
    site.daemon()?.process.kill()?;
    site.start_daemon(&config())?;
    let cli = site.cli()?;
    wait_generation(cli, 3)?;
    cli.wait_serving("web", 3, SERVING)?;
    let history: Vec<GenerationView> = cli.ask(&["config", "history"])?;
    let newest = history.last().context("no history")?;
    ensure!(newest.origin == "not confirmed, back to 1", "{newest:?}");
    ensure_answered_by(&site, &[FIRST, SECOND, Node::Backend(3)])
}

fn rollback_brings_a_backend_back(tools: Tools) -> Result<()> {
    let site = served(tools)?;
    let cli = site.cli()?;
    cli.succeed(&["backend", "remove", "web", &web(VIP4).endpoint(FIRST)])?;
    ensure_answered_by(&site, &[SECOND, Node::Backend(3)])?;
    let back: ConfigApplied = cli.ask(&["config", "rollback"])?;
    ensure!(back.applied.generation == 3 && back.changes.len() == 2, "{back:?}");
    cli.wait_serving("web", 3, SERVING)?;
    ensure_answered_by(&site, &[FIRST, SECOND, Node::Backend(3)])?;
    ensure_text(&cli.run(&["config", "rollback", "77"])?, 5, "generation 77 is not kept")?;
    ensure_text(&cli.run(&["config", "history"])?, 0, "* 3")
}

/// A daemon that sees its state directory as `mount`, a line of shell, leaves it. Nobody else does.
pub(crate) fn start_with_mount(site: &Site, mount: &str) -> Result<(Process, Cli)> {
    let files = site.files("lb");
    write(&files.config, &config(), &files)?;
    let plain = run_command(site.lb(), &site.lab.namespace(Node::Balancer), &files);
    let words = std::iter::once(plain.get_program()).chain(plain.get_args());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    fs::create_dir_all(&files.state)?;
    let mut command = std::process::Command::new("unshare");
    let script =
        format!("{} && exec {}", mount.replace("DIR", &files.state.to_string_lossy()), words.join(" "));
    command.args(["--mount", "sh", "-c", &script]);
    let process = Process::spawn("lb run", command, &files.log)?;
    let cli = Cli::new(site.lb(), &files, &site.lab.namespace(Node::Balancer));
    wait::until(Duration::from_secs(20), "the daemon answers", || {
        cli.status().map(drop).map_err(|error| error.context(process.failure("does not answer")))
    })?;
    cli.wait_serving("web", 3, SERVING)?;
    Ok((process, cli))
}

pub(crate) const NOT_KEPT: &str = "nothing was changed, since it could not be kept over a restart";

fn a_full_disk_refuses_changes(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let (_process, cli) = start_with_mount(&site, "mount -t tmpfs -o size=12k tmpfs DIR")?;
    let mut refused = None;
    for last in 1..=10 {
        let said = cli.run(&["deny", "add", &format!("203.0.113.{last}")])?;
        if said.code != Some(0) {
            refused = Some((last, said));
            break;
        }
    }
    let (last, said) = refused.context("the disk is never full")?;
    ensure_text(&said, 4, NOT_KEPT)?;
    ensure_text(&said, 4, "No space left on device")?;
    ensure!(last > 1, "not even the first change fitted");
    let kept = cli.succeed(&["deny", "list"])?;
    ensure!(kept.lines().count() == last - 1, "{kept}");
    ensure_answered_by(&site, &[FIRST, SECOND, Node::Backend(3)])?;
    let again = cli.run(&["backend", "remove", "web", &web(VIP4).endpoint(FIRST)])?;
    ensure_text(&again, 4, NOT_KEPT)?;
    ensure_answered_by(&site, &[FIRST, SECOND, Node::Backend(3)])
}

fn a_read_only_state_directory_refuses_changes(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let (_process, cli) = start_with_mount(&site, "mount --bind DIR DIR && mount -o remount,bind,ro DIR")?;
    let status = cli.status()?;
    let warned = status.warnings.iter().any(|warning| warning.contains("no change is taken"));
    ensure!(warned, "{:?}", status.warnings);
    let said = cli.run(&["backend", "remove", "web", &web(VIP4).endpoint(FIRST)])?;
    ensure_text(&said, 4, NOT_KEPT)?;
    ensure_text(&said, 4, "Read-only file system")?;
    ensure_answered_by(&site, &[FIRST, SECOND, Node::Backend(3)])
}

fn a_damaged_generation_is_kept_aside(tools: Tools) -> Result<()> {
    let mut site = served(tools)?;
    let files = site.files("lb");
    for last in [7, 8] {
        site.cli()?.succeed(&["deny", "add", &format!("203.0.113.{last}")])?;
    }
    site.daemon()?.process.kill()?;
    let newest = files.state.join("generation-3.toml");
    let text = fs::read_to_string(&newest)?;
    fs::write(&newest, &text[..text.len() - 1])?;
    fs::write(files.state.join("generation-4.toml.new"), "half")?;
    site.start_daemon(&config())?;
    let cli = site.cli()?;
    let status = cli.status()?;
    ensure!(status.generation == 2 && cli.succeed(&["deny", "list"])? == "203.0.113.7\n", "{status:?}");
    ensure!(
        status.warnings.iter().any(|warning| warning.contains("generation-3.toml.bad")),
        "{:?}",
        status.warnings
    );
    ensure!(fs::read_to_string(files.state.join("generation-3.toml.bad"))? == text[..text.len() - 1]);
    ensure!(!files.state.join("generation-4.toml.new").exists(), "what a killed daemon left is still there");
    cli.succeed(&["deny", "add", "203.0.113.9"])?;
    wait_generation(cli, 4)
}

fn a_state_directory_belongs_to_one_daemon(tools: Tools) -> Result<()> {
    let site = served(tools)?;
    let other = site.files("other");
    let state = |files: &Files| format!("state = \"{}\"", files.state.display());
    let text =
        Config { metrics: false, interfaces: vec!["backend1".to_owned()], ..config() }.render(&other.socket);
    fs::write(&other.config, text.replace(&state(&other), &state(&site.files("lb"))))?;
    let said = process::finish(run_command(site.lb(), &site.lab.namespace(Node::Balancer), &other), LIMIT)?;
    ensure_refused(&said, &["is in use by another lb"])?;
    ensure!(!site.lab.has_xdp(Node::Balancer, "backend1")?, "a program is left on backend1");
    site.status().map(drop)
}

fn a_vip_of_the_host_is_refused(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    let files = site.files("lb");
    let local = |verb: &str| format!("address {verb} {VIP4}/32 dev lo");
    site.lab.ip(Node::Balancer, &[local("add")])?;
    write(&files.config, &config(), &files)?;
    let said = process::finish(run_command(site.lb(), &site.lab.namespace(Node::Balancer), &files), LIMIT)?;
    ensure_refused(&said, &["service web: VIP 192.0.2.10 is an address of this host, on lo"])?;
    ensure_detached(&site.lab)?;
    let other = Config::new(vec![web("192.0.2.77".parse::<std::net::Ipv4Addr>()?)]);
    site.start_daemon(&other)?;
    let new = site.directory().join("new.toml");
    write(&new, &config(), &files)?;
    let apply = ["config", "apply", new.to_str().context("a path that is not text")?];
    ensure_text(&site.cli()?.run(&apply)?, 4, "ip address del 192.0.2.10 dev lo")?;
    ensure!(site.status()?.generation == 1);
    site.lab.ip(Node::Balancer, &[local("del")])?;
    site.cli()?.succeed(&apply)?;
    site.cli()?.wait_serving("web", 3, SERVING)?;
    ensure_answered_by(&site, &[FIRST, SECOND, Node::Backend(3)])
}

/// The daemon is killed at ever later moments of a change: the next one finds the state before it or after it.
fn a_daemon_killed_within_a_change_has_made_it_or_not(tools: Tools) -> Result<()> {
    let mut site = served(tools)?;
    let files = site.files("lb");
    let path = |name: &str| site.directory().join(name).to_string_lossy().into_owned();
    let (one, two) = (path("one.toml"), path("two.toml"));
    write(Path::new(&one), &only(&[FIRST]), &files)?;
    write(
        Path::new(&two),
        &only(&[SECOND, Node::Backend(3)]).listing("deny = [\"203.0.113.0/24\"]"),
        &files,
    )?;
    let shown = |cli: &Cli, file: &str| -> Result<String> {
        cli.succeed(&["config", "apply", file])?;
        cli.succeed(&["config", "show"])
    };
    let states = [shown(site.cli()?, &two)?, shown(site.cli()?, &one)?];
    let mut seen = [0, 0];
    for round in 0..8u32 {
        let cli = site.cli()?.clone();
        let asked = cli.succeed(&["config", "show"])?;
        let next = if asked == states[1] { two.clone() } else { one.clone() };
        let change = std::thread::spawn(move || cli.run(&["config", "apply", &next]));
        std::thread::sleep(Duration::from_millis(3) * round);
        site.daemon()?.process.kill()?;
        let answer = change.join().map_err(|_| anyhow::anyhow!("the command panicked"))??;
        site.start_daemon(&config())?;
        let now = site.cli()?.succeed(&["config", "show"])?;
        let which = states.iter().position(|state| *state == now).context("neither of the two")?;
        seen[which] += 1;
        ensure!(answer.code != Some(0) || now != asked, "an answered change is forgotten");
        let warnings = site.status()?.warnings;
        ensure!(!warnings.iter().any(|warning| warning.contains("generation")), "{warnings:?}");
        let served: usize = if which == 1 { 1 } else { 2 };
        site.cli()?.wait_serving("web", served, SERVING)?;
    }
    ensure!(seen.iter().sum::<u32>() == 8, "{seen:?}");
    let target: SocketAddr = (VIP4, HTTP_PORT).into();
    load::requests(&site.client(1), target, 30).map(drop)
}
