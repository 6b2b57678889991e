//! A whole site in one value: the network, servers on the backends, and the daemon on the balancer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use lb_userspace::view::Status;
use tempfile::TempDir;

use crate::daemon::{Cli, Config, Daemon, Files};
use crate::net::{BACKENDS, CLIENTS, Lab, Namespace, Node};
use crate::process::Process;
use crate::servers::Serve;
use crate::tools::Tools;

/// How long loading a program may take.
const LOAD: Duration = Duration::from_secs(20);
/// How long the backends of a new daemon may take to serve: neighbours are resolved, first checks pass.
pub const SERVING: Duration = Duration::from_secs(15);

/// A site. Dropping it ends the processes first, then removes their files and the network.
#[derive(Debug)]
pub struct Site {
    daemon: Option<Daemon>,
    servers: Vec<(Node, Process)>,
    pulses: Vec<(Node, Process)>,
    decapsulators: Vec<(Node, Process)>,
    receivers: Vec<(Node, Process)>,
    directory: TempDir,
    tools: Tools,
    /// Its network.
    pub lab: Lab,
}

impl Site {
    /// Network and servers, no daemon yet.
    pub fn new(tools: Tools) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("lb-lab-").tempdir().context("no temporary directory")?;
        Self::build(tools, directory, Lab::unique()?)
    }

    /// Servers in a network, with their files in `directory`.
    pub fn build(tools: Tools, directory: TempDir, lab: Lab) -> Result<Self> {
        let mut site = Self {
            daemon: None,
            servers: Vec::new(),
            pulses: Vec::new(),
            decapsulators: Vec::new(),
            receivers: Vec::new(),
            directory,
            tools,
            lab,
        };
        for node in BACKENDS {
            site.start_servers(node)?;
        }
        // A veth gives what the other end sends back by XDP only to a device with a program of its own.
        for node in CLIENTS {
            site.start_receiver(node)?;
        }
        Ok(site)
    }

    /// Network, servers and a daemon with all backends serving.
    pub fn with_daemon(tools: Tools, config: &Config) -> Result<Self> {
        let mut site = Self::new(tools)?;
        site.serve(config)?;
        Ok(site)
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self, config: &Config) -> Result<()> {
        let balancer = self.lab.namespace(Node::Balancer);
        self.daemon = Some(Daemon::start(&self.tools.lb, &balancer, self.files("lb"), config)?);
        Ok(())
    }

    /// Starts the daemon and waits until all backends of all its services serve.
    pub fn serve(&mut self, config: &Config) -> Result<()> {
        self.start_daemon(config)?;
        for service in &config.services {
            self.cli()?.wait_serving(&service.name, service.backends.len(), SERVING)?;
        }
        Ok(())
    }

    /// The files of a daemon of this name.
    pub fn files(&self, name: &str) -> Files {
        Files::inside(self.directory.path(), name)
    }

    /// Starts the servers of a backend.
    pub fn start_servers(&mut self, node: Node) -> Result<()> {
        let namespace = self.lab.namespace(node);
        let process = Serve::backend(node).start(&self.tools.lab, &namespace, &self.log(node, "servers"))?;
        self.servers.push((node, process));
        Ok(())
    }

    /// Starts what answers the health checks of [`PULSED_HEALTH`](crate::daemon::PULSED_HEALTH) on a backend.
    pub fn start_pulse(&mut self, node: Node) -> Result<()> {
        let namespace = self.lab.namespace(node);
        let process = Serve::pulse(node).start(&self.tools.lab, &namespace, &self.log(node, "pulse"))?;
        self.pulses.push((node, process));
        Ok(())
    }

    /// Lets these health checks fail, while the backend serves as before.
    pub fn stop_pulse(&mut self, node: Node) -> Result<()> {
        take(&mut self.pulses, node)?.kill().map(drop)
    }

    /// Kills the servers of a backend, without a chance to say good-bye.
    pub fn kill_servers(&mut self, node: Node) -> Result<()> {
        take(&mut self.servers, node)?.kill().map(drop)
    }

    /// Makes every backend unwrap what the balancer sends in tunnels, from the addresses it has on its link to each.
    pub fn decapsulate(&mut self) -> Result<()> {
        self.decapsulate_with(&[])
    }

    /// The same with further arguments for `lb decap`, such as more addresses that tunnel packets are taken from.
    pub fn decapsulate_with(&mut self, arguments: &[&str]) -> Result<()> {
        for node in BACKENDS {
            let mut command = self.decap_command(node);
            command.args(["--from", &node.gateway4().to_string(), "--from", &node.gateway6().to_string()]);
            command.args(arguments);
            self.start_decap(node, command)?;
        }
        Ok(())
    }

    /// `lb decap` on the interface of a backend, which still needs to be told from whom.
    pub fn decap_command(&self, node: Node) -> Command {
        let mut command = self.lab.namespace(node).command(&self.tools.lb);
        command.args(["decap", "--interface", "eth0"]);
        command
    }

    /// Runs `lb decap` on a backend.
    pub fn start_decap(&mut self, node: Node, command: Command) -> Result<()> {
        let name = format!("the decapsulator of {node}");
        let process = Process::spawn_ready(&name, command, &self.log(node, "decap"), LOAD)?;
        self.decapsulators.push((node, process));
        Ok(())
    }

    /// The decapsulator of a backend, to be ended.
    pub fn take_decap(&mut self, node: Node) -> Result<Process> {
        take(&mut self.decapsulators, node)
    }

    fn start_receiver(&mut self, node: Node) -> Result<()> {
        let mut command = self.lab.namespace(node).command(&self.tools.lab);
        command.args(["receive", "--interface", "eth0"]);
        let name = format!("the receiver of {node}");
        self.receivers.push((node, Process::spawn_ready(&name, command, &self.log(node, "receive"), LOAD)?));
        Ok(())
    }

    fn log(&self, node: Node, what: &str) -> PathBuf {
        self.directory.path().join(format!("{node}-{what}.log"))
    }

    /// The daemon.
    pub fn daemon(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("there is no daemon")
    }

    /// The daemon, to be ended.
    pub fn take_daemon(&mut self) -> Result<Daemon> {
        self.daemon.take().context("there is no daemon")
    }

    /// The daemon's command line.
    pub fn cli(&self) -> Result<&Cli> {
        Ok(&self.daemon.as_ref().context("there is no daemon")?.cli)
    }

    /// The command line of `lb` for what needs no daemon.
    pub fn free_cli(&self) -> Cli {
        Cli::new(&self.tools.lb, &self.files("lb"), &self.lab.namespace(Node::Balancer))
    }

    /// Uses another program from here on.
    pub fn use_lb(&mut self, lb: &Path) {
        lb.clone_into(&mut self.tools.lb);
    }

    /// `lb status`.
    pub fn status(&self) -> Result<Status> {
        self.cli()?.status()
    }

    /// A client's namespace.
    pub fn client(&self, number: u8) -> Namespace {
        self.lab.namespace(Node::Client(number))
    }

    /// The metrics page.
    pub fn metrics(&self) -> Result<String> {
        let fetch = || crate::load::get(SocketAddr::from(crate::daemon::METRICS), "/metrics");
        self.lab.namespace(Node::Balancer).run(fetch)?.context("cannot fetch the metrics page")
    }

    /// The program under test.
    pub fn lb(&self) -> &Path {
        &self.tools.lb
    }

    /// The directory of its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Lets everything outlive its owner.
    pub fn keep(self) {
        let Self { daemon, servers, pulses, decapsulators, receivers, directory, lab, .. } = self;
        // What is kept is the directory; its path is known already.
        drop(directory.keep());
        lab.keep();
        let others = servers.into_iter().chain(pulses).chain(decapsulators).chain(receivers);
        let others = others.map(|(_, process)| process);
        daemon.into_iter().map(|daemon| daemon.process).chain(others).for_each(Process::keep);
    }

    /// Every process of it.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let others = [&self.servers, &self.pulses, &self.decapsulators, &self.receivers];
        let others = others.into_iter().flatten().map(|(_, process)| process);
        self.daemon.iter().map(|daemon| &daemon.process).chain(others)
    }

    /// By what to recognise later whether anything of the site is left.
    pub fn traces(&self) -> Traces {
        Traces {
            processes: self.processes().map(Process::id).collect(),
            namespaces: self.lab.leftovers(),
            directory: self.directory.path().to_owned(),
        }
    }
}

/// A node's process out of many.
fn take(processes: &mut Vec<(Node, Process)>, node: Node) -> Result<Process> {
    let at = processes.iter().position(|(owner, _)| *owner == node);
    let (_, process) = processes.swap_remove(at.with_context(|| format!("{node} has no such process"))?);
    Ok(process)
}

/// What a site consists of, outside of this program.
#[derive(Clone, Debug)]
pub struct Traces {
    /// Numbers of processes.
    pub processes: Vec<u32>,
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    directory: PathBuf,
}

impl Traces {
    /// What of it is there now, each in words.
    pub fn left(&self) -> Vec<String> {
        let exists = |path: &str| Path::new(path).exists();
        let processes = self.processes.iter().filter(|id| exists(&format!("/proc/{id}")));
        let namespaces = self.namespaces.iter().filter(|name| exists(&format!("/run/netns/{name}")));
        let mut left: Vec<String> = processes.map(|id| format!("process {id}")).collect();
        left.extend(namespaces.map(|name| format!("namespace {name}")));
        left.extend(self.directory.exists().then(|| self.directory.display().to_string()));
        left
    }
}
