//! The daemon as a service manager runs it: as a user of its own, with the capabilities of `deploy/lb.service` and no others, and
//! told about.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::daemon::{Cli, Config, run_command};
use lb_tests::load;
use lb_tests::mounts::BpfFs;
use lb_tests::net::{Node, VIP4, VIP6};
use lb_tests::process::{self, Process};
use lb_tests::servers::HTTP_PORT;
use lb_tests::site::{SERVING, Site};
use lb_tests::tools::Tools;
use rustix::process::Signal;

use crate::cases::{Case, cases, ensure_only, ensure_spread, web};

pub(crate) fn cases() -> Vec<Case> {
    cases!["service": it_runs_as_a_user_with_three_capabilities]
}

/// `daemon`, a user that every Debian has.
const USER: u32 = 1;

/// Long enough for anything but a daemon that does not tell it.
const LIMIT: Duration = Duration::from_secs(30);

const WATCHDOG: Duration = Duration::from_secs(1);

/// The words of a setting of the unit.
fn unit(setting: &str) -> Result<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/lb.service");
    let text = fs::read_to_string(&file).with_context(|| format!("there is no {}", file.display()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    let value = value.with_context(|| format!("the unit does not set {setting}"))?;
    Ok(value.split_whitespace().map(str::to_owned).collect())
}

/// The manager's side of `sd_notify(3)`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(directory: &Path) -> Result<Self> {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o777))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Self { socket, path })
    }

    /// Waits for a message that has this line.
    fn wait(&self, line: &str) -> Result<String> {
        let until = Instant::now() + LIMIT;
        let mut seen = Vec::new();
        let mut bytes = [0; 4096];
        while Instant::now() < until {
            let length = self.socket.recv(&mut bytes).with_context(|| format!("no {line} but {seen:?}"))?;
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if message.lines().any(|one| one == line) {
                return Ok(message);
            }
            seen.push(message);
        }
        bail!("no {line} within {LIMIT:?} but {seen:?}")
    }
}

/// What is needed to start it again and again.
struct Service {
    /// In the site's directory, which goes only when nothing is mounted in it any more.
    _bpffs: BpfFs,
    site: Site,
    lb: PathBuf,
    capabilities: Vec<String>,
    manager: Manager,
}

impl Service {
    fn start(&self) -> Result<Process> {
        let files = self.site.files("lb");
        let plain = run_command(&self.lb, &self.site.lab.namespace(Node::Balancer), &files);
        // nsenter, its namespace, and `--` come before the daemon's own words.
        let words: Vec<_> = plain.get_args().collect();
        let mut command = Command::new(plain.get_program());
        let listed: Vec<String> = self.capabilities.iter().map(|name| format!("+{name}")).collect();
        let listed = listed.join(",");
        command.args(&words[..2]).arg("setpriv");
        command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"]);
        command.arg("--no-new-privs").arg(format!("--bounding-set=-all,{listed}"));
        command.arg(format!("--inh-caps=-all,{listed}")).arg(format!("--ambient-caps=-all,{listed}"));
        command.args(&words[2..]).env("NOTIFY_SOCKET", &self.manager.path);
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let process = Process::spawn("lb run", command, &files.log)?;
        let ready = self.manager.wait("READY=1").map_err(|error| error.context(process.log()))?;
        ensure!(ready.contains("STATUS=forwarding on ") && ready.contains("(native)"), "{ready}");
        Ok(process)
    }
}

fn it_runs_as_a_user_with_three_capabilities(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let directory = site.directory().to_owned();
    let bpffs = BpfFs::mount(&directory)?;
    let pins = bpffs.path().join("lb");
    let config = Config::new(
        vec![web(VIP4), web(VIP6).limited(10_000, 1_000)].into_iter().enumerate().map(named).collect(),
    );
    let config = config.pinned(&pins);
    let files = site.files("lb");
    fs::write(&files.config, config.render(&files.socket))?;
    // As the manager would: directories for runtime and state, and what the unit does before the start.
    chown(&directory, Some(USER), Some(USER))?;
    fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
    let before = unit("ExecStartPre")?;
    let words = before.iter().map(|word| match word.as_str() {
        "lb" => "daemon".to_owned(),
        "/sys/fs/bpf/lb" => pins.to_string_lossy().into_owned(),
        word => word.trim_start_matches('+').to_owned(),
    });
    let mut words = words.collect::<Vec<_>>().into_iter();
    let mut install = Command::new(words.next().context("ExecStartPre is empty")?);
    install.args(words);
    process::succeed(install, LIMIT)?;

    let lb = directory.join("lb-of-everybody");
    fs::copy(site.lb(), &lb)?;
    let names = unit("AmbientCapabilities")?;
    ensure!(names == unit("CapabilityBoundingSet")?, "more can be had than is given");
    let capabilities = names.iter().map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
    let manager = Manager::new(&directory)?;
    let service = Service { _bpffs: bpffs, site, lb, capabilities, manager };
    let mut process = service.start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    for line in
        ["Uid:\t1\t1\t1\t1", "CapEff:\t000000c000001000", "CapBnd:\t000000c000001000", "NoNewPrivs:\t1"]
    {
        ensure!(status.contains(line), "no {line:?} in {status}");
    }
    (0..3).try_for_each(|_| service.manager.wait("WATCHDOG=1").map(drop))?;

    let Service { site, manager, .. } = &service;
    let cli = Cli::new(site.lb(), &files, &site.lab.namespace(Node::Balancer));
    let answered = || load::requests(&site.client(1), (VIP4, HTTP_PORT).into(), 90);
    cli.wait_serving("web0", 3, SERVING)?;
    cli.wait_serving("web1", 3, SERVING)?;
    ensure_spread(&answered()?)?;
    ensure_spread(&load::requests(&site.client(1), (VIP6, HTTP_PORT).into(), 90)?)?;
    cli.succeed(&["backend", "remove", "web0", &web(VIP4).endpoint(Node::Backend(1))])?;
    cli.succeed(&["deny", "add", "203.0.113.0/24"])?;
    ensure_only(&answered()?, &[Node::Backend(2), Node::Backend(3)])?;

    // What commands have changed goes on after a restart; a reload brings back what the files say.
    process.terminate(LIMIT)?;
    manager.wait("STOPPING=1")?;
    ensure_only(&answered()?, &[Node::Backend(2), Node::Backend(3)])?;
    let mut process = service.start()?;
    cli.wait_serving("web0", 2, SERVING)?;
    process.signal(Signal::HUP)?;
    let reloading = manager.wait("RELOADING=1")?;
    ensure!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    let ready = manager.wait("READY=1")?;
    ensure!(ready.contains("STATUS=generation 4"), "{ready}");
    cli.wait_serving("web0", 3, SERVING)?;
    ensure_spread(&answered()?)?;
    let log = process.log();
    ensure!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    ensure!(process.terminate(LIMIT)?.success(), "{}", process.log());
    let detach = cli.run(&["xdp", "detach", "--pins", &pins.to_string_lossy()])?;
    ensure!(detach.code == Some(0), "{detach:?}");
    Ok(())
}

/// The same service at two VIPs.
fn named((number, service): (usize, lb_tests::daemon::Service)) -> lb_tests::daemon::Service {
    lb_tests::daemon::Service { name: format!("web{number}"), ..service }
}
