//! `lb-bench control`: how long a daemon with many services takes to start and to make a change, and what memory it takes.
//!
//! It is the real daemon, started as an operator does, and it is asked over its socket, as the command line does it. The
//! answer to a change comes when its last slot is written and the change is on the disk.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use lb_userspace::client::Client;
use lb_userspace::model::{Endpoint, Weight};
use lb_userspace::view::{AddBackend, DrainBackend, SetBackend};
use rustix::process::geteuid;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::{Machine, median, write_json};
use crate::daemon::{Cli, Files, run_command};
use crate::interrupt;
use crate::net::{Group, Namespace};
use crate::process::Process;
use crate::tools::Tools;
use crate::wait;

const BALANCER: &str = "balancer";
const DEVICE: &str = "uplink";

/// How long the daemon may take to serve, and to end.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often a command is timed.
const COMMANDS: usize = 21;

/// Changes made of one backend, one after the other: then everything is as it was.
const DEEDS: usize = 5;

/// Start a daemon with many services and change one backend after the other
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Services
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4096))]
    services: u32,
    /// Backends of each
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    backends: u32,
    /// Slots of each service's table
    #[arg(long, default_value_t = 16_381)]
    table_size: u32,
    /// Changes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(5..=100_000))]
    changes: u32,
    /// Write the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    services: u32,
    backends: u32,
    table_size: u32,
    changes: usize,
    /// Milliseconds from the start of the process, with empty tables, until it forwards all of it.
    apply_ms: f64,
    /// Milliseconds from a request to its answer.
    change_ms_p50: f64,
    change_ms_p99: f64,
    change_ms_max: f64,
    /// Milliseconds that `lb status` and `lb backend list` take, the medians of some runs.
    status_ms: f64,
    backends_ms: f64,
    /// Mebibytes of the daemon that are in memory after all the changes, and at the most.
    rss_mib: f64,
    peak_mib: f64,
    /// Of the former, what belongs to this process alone, and what are tables of the kernel's that it has mapped.
    anonymous_mib: f64,
    shared_mib: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    machine: Machine,
    control: Figures,
}

/// A daemon in a namespace of its own. Dropping it ends it, and removes everything.
struct Trial {
    process: Process,
    client: Client,
    cli: Cli,
    runtime: Runtime,
    started: Duration,
    _directory: tempfile::TempDir,
    _group: Group,
}

/// Measures and reports.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(geteuid().is_root(), "network namespaces need root: run this again with sudo");
    interrupt::watch().context("cannot watch for signals")?;
    let machine = Machine::this();
    let Arguments { services, backends, table_size, .. } = *arguments;
    println!("{machine}; {services} services of {backends} backends, {table_size} slots each\n");
    let trial = Trial::begin(arguments)?;
    let mut changes = trial.change(arguments)?;
    changes.sort_by(f64::total_cmp);
    let memory = |key| memory(trial.process.id(), key);
    let control = Figures {
        services,
        backends,
        table_size,
        changes: changes.len(),
        apply_ms: trial.started.as_secs_f64() * 1e3,
        change_ms_p50: median(changes.iter().copied()),
        change_ms_p99: changes.get(changes.len() * 99 / 100).copied().unwrap_or(f64::NAN),
        change_ms_max: changes.last().copied().unwrap_or(f64::NAN),
        rss_mib: memory("VmRSS")?,
        peak_mib: memory("VmHWM")?,
        anonymous_mib: memory("RssAnon")?,
        shared_mib: memory("RssShmem")?,
        status_ms: trial.command(&["status"])?,
        backends_ms: trial.command(&["backend", "list", &service(0)])?,
    };
    control.show();
    arguments.json.as_ref().map_or(Ok(()), |file| write_json(file, &Report { machine, control }))
}

fn service(number: u32) -> String {
    format!("s{number}")
}

/// Addresses of shared address space (RFC 6598), of which there are four million.
fn backend(arguments: &Arguments, service: u32, number: u32) -> String {
    let host = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + service * arguments.backends + number;
    format!("{}:80", Ipv4Addr::from(host))
}

fn config(arguments: &Arguments, files: &Files) -> String {
    let mut text = format!(
        "[daemon]\ninterfaces = [\"{DEVICE}\"]\nsocket = \"{}\"\nstate = \"{}\"\non_exit = \"detach\"\npins = \"{}\"\n",
        files.socket.display(),
        files.state.display(),
        files.state.with_extension("pins").display(),
    );
    for number in 0..arguments.services {
        let vip = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + number);
        let (name, size) = (service(number), arguments.table_size);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n[[service]]\nname = \"{name}\"\nvip = \"{vip}:80\"\nprotocol = \"tcp\"\nmode = \"ipip\"\n\
             table_size = {size}\nbackends = [\n"
        );
        for host in 0..arguments.backends {
            let _ = writeln!(text, "  {{ address = \"{}\" }},", backend(arguments, number, host));
        }
        text += "]\n";
    }
    text
}

/// A namespace in which every address is reached by one gateway, whose MAC address is known.
fn furnish(group: &Group) -> Result<Namespace> {
    let lines = [
        format!("link add {DEVICE} type veth peer name peer"),
        format!("address add 10.9.0.1/24 dev {DEVICE}"),
        "link set lo up".to_owned(),
        "link set peer up".to_owned(),
        format!("link set {DEVICE} up"),
        format!("neighbor add 10.9.0.2 lladdr 02:00:00:00:00:02 nud permanent dev {DEVICE}"),
        "route add default via 10.9.0.2".to_owned(),
    ];
    group.ip(BALANCER, &lines)?;
    Ok(group.namespace(BALANCER))
}

impl Trial {
    fn begin(arguments: &Arguments) -> Result<Self> {
        let tools = Tools::beside_this_program()?;
        let directory = tempfile::tempdir()?;
        let files = Files::inside(directory.path(), "lb");
        fs::write(&files.config, config(arguments, &files)).context("cannot write the configuration")?;
        let group = Group::unique(&[BALANCER])?;
        let namespace = furnish(&group)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::new(&files.socket);
        let begun = Instant::now();
        let mut process = Process::spawn("lb run", run_command(&tools.lb, &namespace, &files), &files.log)?;
        let ended = wait::until(PATIENCE, "the daemon forwards", || {
            let ended = process.ended()?;
            ensure!(ended.is_some() || process.log().contains("forwarding on"), "it is not ready yet");
            Ok(ended)
        })?;
        if let Some(status) = ended {
            return Err(process.failure(&format!("ended early ({status})")));
        }
        let started = begun.elapsed();
        let cli = Cli::new(&tools.lb, &files, &namespace);
        let services = runtime.block_on(client.services())?;
        let full = |service: &lb_userspace::view::ServiceView| {
            service.backends_serving == arguments.backends as usize
        };
        ensure!(services.len() == arguments.services as usize && services.iter().all(full), "not all serve");
        Ok(Self { process, client, cli, runtime, started, _directory: directory, _group: group })
    }

    /// Milliseconds that each change takes.
    fn change(&self, arguments: &Arguments) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for number in 0..arguments.changes as usize {
            interrupt::check()?;
            // The services in turn, each by another backend.
            let turn = u32::try_from(number / DEEDS)?;
            let (name, host) = (service(turn % arguments.services), turn * 7 % arguments.backends);
            let address = backend(arguments, turn % arguments.services, host);
            let begun = Instant::now();
            self.runtime.block_on(self.deed(number % DEEDS, &name, &address))?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    }

    async fn deed(&self, which: usize, name: &str, address: &str) -> Result<()> {
        let endpoint: Endpoint = address.parse()?;
        let add = AddBackend { address: address.to_owned(), weight: Weight::default() };
        match which {
            0 => self.client.set_backend(name, endpoint, &SetBackend { weight: Weight(50) }).await?,
            1 => self.client.drain_backend(name, endpoint, &DrainBackend::default()).await?,
            2 => self.client.ready_backend(name, endpoint).await?,
            3 => self.client.remove_backend(name, endpoint).await?,
            _ => self.client.add_backend(name, &add).await?,
        };
        Ok(())
    }

    /// Milliseconds that a command of `lb` takes from its start to its end, in the median.
    fn command(&self, words: &[&str]) -> Result<f64> {
        let once = || -> Result<f64> {
            let begun = Instant::now();
            self.cli.succeed(words)?;
            Ok(begun.elapsed().as_secs_f64() * 1e3)
        };
        let times: Result<Vec<f64>> = (0..COMMANDS).map(|_| once()).collect();
        Ok(median(times?.into_iter()))
    }
}

/// Mebibytes, from a line of `/proc/PID/status` (`proc_pid_status(5)`).
fn memory(process: u32, key: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("the daemon is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kibibytes: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(kibibytes.with_context(|| format!("the kernel does not tell {key}"))? / 1024.0)
}

impl Figures {
    fn show(&self) {
        println!("from nothing until all is forwarded  {:9.0} ms", self.apply_ms);
        println!(
            "one backend changed                  {:9.1} ms  p99 {:.1}, longest {:.1}, of {}",
            self.change_ms_p50, self.change_ms_p99, self.change_ms_max, self.changes
        );
        println!("lb status                            {:9.0} ms", self.status_ms);
        println!("lb backend list                      {:9.0} ms", self.backends_ms);
        println!(
            "memory                               {:9.0} MiB of which {:.0} its own and {:.0} tables; {:.0} at the most",
            self.rss_mib, self.anonymous_mib, self.shared_mib, self.peak_mib
        );
    }
}
