//! The program under test: its configuration, its life, and its command line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lb_userspace::model::{ForwardMode, Protocol};
use lb_userspace::view::{BackendView, HealthState, ServiceView, Status};
use rustix::process::Signal;
use serde::de::DeserializeOwned;

use crate::net::{BACKENDS, CLIENTS, Namespace, Node};
use crate::process::{self, Finished, Process};
use crate::wait;

/// How long the daemon may take to answer its socket. Building tables and loading the program are most of it.
const START: Duration = Duration::from_secs(20);
/// How long any other command of `lb` may take.
const COMMAND: Duration = Duration::from_secs(10);
/// How long the daemon may take to end.
const STOP: Duration = Duration::from_secs(10);

/// Where the daemon of every lab serves its metrics, in the balancer's namespace.
pub const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9441);

/// The health check of most labs: quick, so that nobody waits long.
pub const QUICK_HEALTH: &str =
    r#"{ kind = "tcp", interval = "200ms", timeout = "200ms", rise = 2, fall = 2, port = 80 }"#;

/// A quick health check that can be made to fail while the backend serves as before.
pub const PULSED_HEALTH: &str =
    r#"{ kind = "tcp", interval = "200ms", timeout = "200ms", rise = 2, fall = 2, port = 81 }"#;

/// A configuration file in the making.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the program is attached.
    pub interfaces: Vec<String>,
    /// Whether there is a metrics page at [`METRICS`].
    pub metrics: bool,
    /// Where program and tables are pinned, to outlive the daemon; else they go with it.
    pub pins: Option<PathBuf>,
    /// Whether the program goes with the daemon although there are pins.
    pub detaches: bool,
    /// The value of `flows`.
    pub flows: Option<u32>,
    /// The section `[daemon.api]`, as it stands in the file.
    pub api: String,
    /// Lines of the section `[lists]`, as they stand in the file.
    pub lists: String,
    /// Further sections, as they stand in the file.
    pub sections: String,
    /// The services.
    pub services: Vec<Service>,
}

/// A service of a configuration file.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its address and port; port 0 stands for every port, `*`.
    pub vip: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// How packets reach its backends.
    pub mode: ForwardMode,
    /// Packets a second and burst of each source.
    pub limit: Option<(u64, u32)>,
    /// The value of `health`, as it stands in the file.
    pub health: Option<String>,
    /// Further lines of its section, as they stand in the file.
    pub options: String,
    /// The value of `idle_timeout`.
    pub idle_timeout: Option<String>,
    /// Where its backends listen; the service's port if nowhere else.
    pub backend_port: Option<u16>,
    /// Its backends' addresses.
    pub backends: Vec<IpAddr>,
    /// Further keys of some of them, as they stand in the file.
    pub keys: BTreeMap<IpAddr, String>,
    /// An address of the backends' family.
    pub family: IpAddr,
}

impl Service {
    /// All backends of the lab behind `vip`, addressed in its family, without limit and without checks.
    pub fn new(name: &str, vip: SocketAddr, protocol: Protocol) -> Self {
        Self {
            name: name.to_owned(),
            vip,
            protocol,
            mode: ForwardMode::DsrL2,
            limit: None,
            health: None,
            idle_timeout: None,
            options: String::new(),
            backend_port: None,
            backends: BACKENDS.map(|node| node.address_like(vip.ip())).to_vec(),
            keys: BTreeMap::new(),
            family: vip.ip(),
        }
    }

    /// With the quick health check.
    #[must_use]
    pub fn checked(mut self) -> Self {
        self.health = Some(QUICK_HEALTH.to_owned());
        self
    }

    /// With further lines in its section.
    #[must_use]
    pub fn with(mut self, options: &str) -> Self {
        self.options = format!("{}{options}\n", self.options);
        self
    }

    /// With further keys of a backend.
    #[must_use]
    pub fn asking(mut self, node: Node, keys: &str) -> Self {
        self.keys.insert(node.address_like(self.family), keys.to_owned());
        self
    }

    /// With a health check that can be made to fail while the backend serves as before.
    #[must_use]
    pub fn pulsed(mut self) -> Self {
        self.health = Some(PULSED_HEALTH.to_owned());
        self
    }

    /// With an idle time-out of its own.
    #[must_use]
    pub fn idle(mut self, timeout: &str) -> Self {
        self.idle_timeout = Some(timeout.to_owned());
        self
    }

    /// With a limit for each source.
    #[must_use]
    pub fn limited(mut self, rate: u64, burst: u32) -> Self {
        self.limit = Some((rate, burst));
        self
    }

    /// In another mode, to the backends' addresses of the family of `like`.
    #[must_use]
    pub fn by(mut self, mode: ForwardMode, like: IpAddr) -> Self {
        self.mode = mode;
        self.family = like;
        self.backends = BACKENDS.map(|node| node.address_like(like)).to_vec();
        self
    }

    /// With backends that listen on another port.
    #[must_use]
    pub fn at_port(mut self, port: u16) -> Self {
        self.backend_port = Some(port);
        self
    }

    /// With these backends only.
    #[must_use]
    pub fn only(mut self, nodes: &[Node]) -> Self {
        self.backends = nodes.iter().map(|node| node.address_like(self.family)).collect();
        self
    }

    /// The endpoint of a node as a backend of this service, as the command line wants it.
    pub fn endpoint(&self, node: Node) -> String {
        endpoint(SocketAddr::new(node.address_like(self.family), self.port()))
    }

    fn port(&self) -> u16 {
        self.backend_port.unwrap_or(self.vip.port())
    }

    fn render(&self) -> String {
        let Self { name, protocol, mode, .. } = self;
        let vip = endpoint(self.vip);
        let mut text = format!("\n[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\n");
        let _ = writeln!(text, "protocol = \"{protocol}\"\nmode = \"{mode}\"");
        if let Some((rate, burst)) = self.limit {
            let limit =
                format!("scope = \"source\", packets = \"{rate}/s\", burst = {burst}, action = \"drop\"");
            let _ = writeln!(text, "limit = [{{ {limit} }}]");
        }
        if let Some(health) = &self.health {
            let _ = writeln!(text, "health = {health}");
        }
        text += &self.options;
        if let Some(timeout) = &self.idle_timeout {
            let _ = writeln!(text, "idle_timeout = \"{timeout}\"");
        }
        let backend = |ip: &IpAddr| {
            let at = endpoint(SocketAddr::new(*ip, self.port()));
            let keys = self.keys.get(ip).map(|keys| format!(", {keys}")).unwrap_or_default();
            format!("    {{ address = \"{at}\"{keys} }},\n")
        };
        let backends: Vec<String> = self.backends.iter().map(backend).collect();
        let _ = writeln!(text, "backends = [\n{}]", backends.concat());
        text
    }
}

/// As `lb` writes an endpoint.
fn endpoint(at: SocketAddr) -> String {
    match (at, at.port()) {
        (SocketAddr::V4(v4), 0) => format!("{}:*", v4.ip()),
        (SocketAddr::V6(v6), 0) => format!("[{}]:*", v6.ip()),
        _ => at.to_string(),
    }
}

impl Config {
    /// Attached towards both clients, with a metrics page.
    pub fn new(services: Vec<Service>) -> Self {
        let interfaces = CLIENTS.map(|node| node.to_string()).to_vec();
        Self {
            interfaces,
            metrics: true,
            pins: None,
            detaches: false,
            flows: None,
            api: String::new(),
            lists: String::new(),
            sections: String::new(),
            services,
        }
    }

    /// With a data plane that outlives the daemon, pinned there.
    #[must_use]
    pub fn pinned(mut self, pins: &Path) -> Self {
        self.pins = Some(pins.to_owned());
        self
    }

    /// With the API over the network.
    #[must_use]
    pub fn reachable(mut self, api: &str) -> Self {
        api.clone_into(&mut self.api);
        self
    }

    /// With deny and allow lists.
    #[must_use]
    pub fn listing(mut self, lists: &str) -> Self {
        lists.clone_into(&mut self.lists);
        self
    }

    /// The text of the file.
    pub fn render(&self, socket: &Path) -> String {
        let interfaces: Vec<String> = self.interfaces.iter().map(|name| format!("\"{name}\"")).collect();
        let mut text = format!("[daemon]\ninterfaces = [{}]\n", interfaces.join(", "));
        if self.metrics {
            let _ = writeln!(text, "metrics = \"{}\"", SocketAddr::from(METRICS));
        }
        let _ = writeln!(text, "socket = \"{}\"", socket.display());
        // A directory of its own for each daemon, beside its socket.
        let _ = writeln!(text, "state = \"{}\"", state_beside(socket).display());
        if let Some(pins) = &self.pins {
            let _ = writeln!(text, "pins = \"{}\"", pins.display());
        }
        if self.detaches || self.pins.is_none() {
            text += "on_exit = \"detach\"\n";
        }
        if let Some(flows) = self.flows {
            let _ = writeln!(text, "flows = {flows}");
        }
        text += &self.api;
        if !self.lists.is_empty() {
            let _ = writeln!(text, "\n[lists]\n{}", self.lists);
        }
        text += &self.sections;
        text.extend(self.services.iter().map(Service::render));
        text
    }
}

/// The files of one daemon.
#[derive(Clone, Debug)]
pub struct Files {
    /// Its configuration.
    pub config: PathBuf,
    /// Its API's socket.
    pub socket: PathBuf,
    /// Where its generations are kept.
    pub state: PathBuf,
    /// Where its standard error goes.
    pub log: PathBuf,
}

/// The state directory of the daemon with this socket.
fn state_beside(socket: &Path) -> PathBuf {
    socket.with_extension("state")
}

impl Files {
    /// The files in a directory, for the daemon of a given name.
    pub fn inside(directory: &Path, name: &str) -> Self {
        let file = |extension| directory.join(name).with_extension(extension);
        let socket = file("sock");
        Self { config: file("toml"), state: state_beside(&socket), socket, log: file("log") }
    }
}

/// `lb` on the balancer: what is needed to run any of its commands.
#[derive(Clone, Debug)]
pub struct Cli {
    lb: PathBuf,
    socket: PathBuf,
    balancer: Namespace,
}

impl Cli {
    /// For the daemon with these files.
    pub fn new(lb: &Path, files: &Files, balancer: &Namespace) -> Self {
        Self { lb: lb.to_owned(), socket: files.socket.clone(), balancer: balancer.clone() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.balancer.command(&self.lb);
        command.env("LB_SOCKET", &self.socket).args(arguments);
        command
    }

    /// Runs a command of `lb` to its end, whatever that is.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        process::finish(self.command(arguments), COMMAND)
    }

    /// Runs a command of `lb` that must succeed, and returns what it printed.
    pub fn succeed(&self, arguments: &[&str]) -> Result<String> {
        process::succeed(self.command(arguments), COMMAND)
    }

    /// Runs a command of `lb` that must succeed with `-o json`, and returns what it said.
    pub fn ask<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.succeed(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("lb {arguments:?} said {text:?}"))
    }

    /// `lb status`.
    pub fn status(&self) -> Result<Status> {
        self.ask(&["status"])
    }

    /// One service out of `lb service list`.
    pub fn service(&self, name: &str) -> Result<ServiceView> {
        let services: Vec<ServiceView> = self.ask(&["service", "list"])?;
        services
            .into_iter()
            .find(|service| service.name == name)
            .with_context(|| format!("no service {name}"))
    }

    /// `lb backend list SERVICE`.
    pub fn backends(&self, service: &str) -> Result<Vec<BackendView>> {
        self.ask(&["backend", "list", service])
    }

    /// Waits until `count` backends of `service` are reachable, not down, and own slots, and the others own none.
    pub fn wait_serving(&self, service: &str, count: usize, limit: Duration) -> Result<()> {
        wait::until(limit, &format!("{count} backends serve {service}"), || {
            let backends = self.backends(service)?;
            let serves = |backend: &&BackendView| {
                backend.reachable && backend.health != HealthState::Down && backend.share > 0.0
            };
            let serving = backends.iter().filter(serves).count();
            let owners = backends.iter().filter(|backend| backend.share > 0.0).count();
            ensure!(serving == count && owners == count, "{serving} serve, {owners} own slots: {backends:?}");
            Ok(())
        })
    }
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    /// Its process.
    pub process: Process,
    /// Its command line.
    pub cli: Cli,
    /// Its files.
    pub files: Files,
}

impl Daemon {
    /// Writes the configuration, starts `lb run` in the balancer's namespace and waits until it answers.
    pub fn start(lb: &Path, balancer: &Namespace, files: Files, config: &Config) -> Result<Self> {
        fs::write(&files.config, config.render(&files.socket)).context("cannot write the configuration")?;
        let command = run_command(lb, balancer, &files);
        let process = Process::spawn("lb run", command, &files.log)?;
        let mut daemon = Self { process, cli: Cli::new(lb, &files, balancer), files };
        daemon.wait_answering()?;
        Ok(daemon)
    }

    fn wait_answering(&mut self) -> Result<()> {
        let Self { process, cli, .. } = self;
        let mut early_end = None;
        let answering = wait::until(START, "the daemon answers", || {
            early_end = process.ended()?;
            if early_end.is_some() {
                return Ok(());
            }
            cli.status().map(drop)
        });
        match early_end {
            Some(status) => Err(process.failure(&format!("ended early ({status})"))),
            None => answering.map_err(|error| error.context(process.failure("does not answer"))),
        }
    }

    /// Writes another configuration, has it read and waits until it is in force.
    pub fn reload(&self, config: &Config) -> Result<()> {
        let before = self.cli.status()?.generation;
        fs::write(&self.files.config, config.render(&self.files.socket))
            .context("cannot write the configuration")?;
        self.process.signal(Signal::HUP)?;
        wait::until(COMMAND, "the configuration is in force", || {
            let status = self.cli.status()?;
            ensure!(status.generation > before, "it is still generation {before}: {:?}", status.warnings);
            Ok(())
        })
    }

    /// Ends it with SIGTERM; it must end well.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(STOP)?;
        if !status.success() {
            bail!(self.process.failure(&format!("ended badly ({status})")));
        }
        Ok(())
    }
}

/// `lb run` with these files, in the balancer's namespace.
pub fn run_command(lb: &Path, balancer: &Namespace, files: &Files) -> Command {
    let mut command = balancer.command(lb);
    command.args(["run", "--config"]).arg(&files.config);
    command
}

/// A copy of `lb` whose program says another sentence.
pub fn other_build(lb: &Path, copy: &Path) -> Result<PathBuf> {
    let (said, instead) = (b"please report it", b"do tell us of it");
    let mut bytes = fs::read(lb)?;
    let found: Vec<usize> =
        (0..bytes.len() - said.len()).filter(|at| bytes[*at..].starts_with(said)).collect();
    ensure!(!found.is_empty(), "lb says nothing of the kind");
    for at in found {
        bytes[at..at + said.len()].copy_from_slice(instead);
    }
    fs::write(copy, bytes)?;
    fs::set_permissions(copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{VIP4, VIP6};

    #[test]
    fn configurations_look_like_an_operators() {
        let service = Service::new("web", (VIP4, 80).into(), Protocol::Tcp).limited(500, 100).checked();
        let text = Config::new(vec![service]).render(Path::new("/run/lb.sock"));
        assert!(
            text.contains("interfaces = [\"client1\", \"client2\"]\nmetrics = \"127.0.0.1:9441\"\n"),
            "{text}"
        );
        assert!(text.contains("vip = \"192.0.2.10:80\"\nprotocol = \"tcp\"\nmode = \"dsr-l2\"\n"), "{text}");
        assert!(text.contains("packets = \"500/s\", burst = 100"), "{text}");
        assert!(text.contains("{ address = \"10.0.13.2:80\" }"), "{text}");
    }

    #[test]
    fn tunnels_may_cross_the_families() {
        let service =
            Service::new("dns", (VIP6, 53).into(), Protocol::Udp).by(ForwardMode::Ipip, VIP4.into());
        let text = service.only(&[Node::Backend(2)]).render();
        assert!(text.contains("vip = \"[2001:db8::10]:53\""), "{text}");
        assert!(text.contains("backends = [\n    { address = \"10.0.12.2:53\" },\n]"), "{text}");
    }
}
