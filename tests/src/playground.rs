//! `lb-lab up`, `enter` and `down`: the demo's network, kept for a person to play with.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use lb_userspace::model::Protocol;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::daemon::{Config, Service};
use crate::net::{self, Lab, Node, VIP4, VIP6};
use crate::process::Process;
use crate::servers::{ECHO_PORT, HTTP_PORT};
use crate::site::Site;
use crate::tools::Tools;

/// Its parent and its name. That it exists means that a lab is up, or was not taken down well.
const DIRECTORY: (&str, &str) = ("/run", "lb-lab");
/// How long a process may take to end after SIGTERM.
const GOOD_ORDER: Duration = Duration::from_secs(5);

/// What `down` and `enter` need to know.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    socket: PathBuf,
    processes: Vec<Kept>,
}

/// A process that `up` left running. The start time tells it from a later one with the same number.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    name: String,
    id: u32,
    started: u64,
}

impl Kept {
    fn new(process: &Process) -> Self {
        Self { name: process.name().to_owned(), id: process.id(), started: started(process.id()) }
    }
}

/// The services of the demo and of the playground: web over TCP, and an echo over UDP with a limit, in both families.
pub fn services() -> Vec<Service> {
    let web = |name, vip| Service::new(name, vip, Protocol::Tcp).checked();
    let echo = |name, vip| Service::new(name, vip, Protocol::Udp).checked().limited(500, 100);
    vec![
        web("web", (VIP4, HTTP_PORT).into()),
        web("web6", (VIP6, HTTP_PORT).into()),
        echo("echo", (VIP4, ECHO_PORT).into()),
        echo("echo6", (VIP6, ECHO_PORT).into()),
    ]
}

/// Sets everything up and leaves it running.
pub fn up(tools: Tools) -> Result<()> {
    let (parent, name) = DIRECTORY;
    let directory = match tempfile::Builder::new().prefix(name).rand_bytes(0).tempdir_in(parent) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("the lab is up already; `cargo xtask lab down` ends it")
        }
        made => made.with_context(|| format!("cannot make {}", directory().display()))?,
    };
    let mut site = Site::build(tools, directory, Lab::fixed()?)?;
    site.serve(&Config::new(services()))?;
    let state =
        State { socket: site.files("lb").socket, processes: site.processes().map(Kept::new).collect() };
    let state = serde_json::to_vec_pretty(&state).context("cannot write the state")?;
    fs::write(state_path(), state).with_context(|| format!("cannot write {}", state_path().display()))?;
    site.keep();
    println!("{}", INVITATION.trim_end());
    Ok(())
}

const INVITATION: &str = "\
The lab is up: client1, client2, balancer, backend1, backend2 and backend3. To try:

  one request                            cargo xtask lab enter client1 curl http://192.0.2.10/
  several over IPv6, without curl        cargo xtask lab enter client1 lb-lab http --count 9 'http://[2001:db8::10]/'
  more than the limit of 500 a second    cargo xtask lab enter client2 lb-lab flood --rate 5000
  what the balancer says                 cargo xtask lab enter balancer lb status
  take backend2 out, gently              cargo xtask lab enter balancer lb backend drain web 10.0.12.2:80
  the metrics page                       cargo xtask lab enter balancer lb-lab http http://127.0.0.1:9441/metrics
  a shell on backend1                    cargo xtask lab enter backend1
  end it all                             cargo xtask lab down
";

/// Becomes a command, or a shell, on `node`. Returns only if that fails.
pub fn enter(node: Node, command: &[OsString]) -> anyhow::Error {
    let Ok(state) = read_state() else {
        return anyhow!("the lab is not up; `cargo xtask lab up` sets it up");
    };
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let (program, arguments) = command.split_first().map_or((&shell, &[][..]), |(first, rest)| (first, rest));
    let mut inside = net::fixed_namespace(node).command(program);
    inside.args(arguments).env("LB_SOCKET", state.socket);
    if let Some(path) = search_path() {
        inside.env("PATH", path);
    }
    anyhow!(inside.exec()).context("cannot run nsenter: is util-linux installed?")
}

/// The usual search path with our own programs in front.
fn search_path() -> Option<OsString> {
    let tools = Tools::beside_this_program().ok()?;
    let usual = std::env::var_os("PATH").unwrap_or_default();
    let ours = [tools.lab, tools.lb].into_iter().filter_map(|program| program.parent().map(Path::to_owned));
    std::env::join_paths(ours.chain(std::env::split_paths(&usual))).ok()
}

/// Ends what `up` started, and nothing else. Does nothing if there is nothing.
pub fn down() -> Result<()> {
    if !directory().exists() && !net::fixed_exists() {
        println!("the lab is not up");
        return Ok(());
    }
    // Without a readable state there is no process that is surely ours; namespaces and files can still go.
    for kept in read_state().map(|state| state.processes).unwrap_or_default() {
        end(&kept).with_context(|| format!("cannot end {} (process {})", kept.name, kept.id))?;
    }
    net::remove_fixed()?;
    if directory().exists() {
        fs::remove_dir_all(directory())
            .with_context(|| format!("cannot remove {}", directory().display()))?;
    }
    println!("the lab is down");
    Ok(())
}

fn end(kept: &Kept) -> Result<()> {
    let Some(process) = i32::try_from(kept.id).ok().and_then(Pid::from_raw) else { return Ok(()) };
    // The descriptor is opened before the start time is compared: from then on it names this process and no other.
    let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { return Ok(()) };
    if started(kept.id) != kept.started {
        return Ok(());
    }
    for signal in [Signal::TERM, Signal::KILL] {
        pidfd_send_signal(&process, signal).or_else(gone_is_fine)?;
        if wait_end(&process)? {
            return Ok(());
        }
    }
    bail!("it survives SIGKILL")
}

fn gone_is_fine(error: rustix::io::Errno) -> rustix::io::Result<()> {
    if error == rustix::io::Errno::SRCH { Ok(()) } else { Err(error) }
}

/// Whether the process ended in time: its descriptor becomes readable then.
fn wait_end(process: &OwnedFd) -> Result<bool> {
    let limit = Timespec::try_from(GOOD_ORDER).context("a duration out of range")?;
    Ok(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit))? == 1)
}

/// When a process started, in clock ticks since boot (proc(5), field 22 of stat); 0 if there is none.
fn started(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The second field is the program's name in parentheses, which may contain anything, parentheses too.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

fn directory() -> PathBuf {
    Path::new(DIRECTORY.0).join(DIRECTORY.1)
}

fn state_path() -> PathBuf {
    directory().join("state.json")
}

fn read_state() -> Result<State> {
    Ok(serde_json::from_slice(&fs::read(state_path())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_have_a_start_time() {
        assert_ne!(started(std::process::id()), 0);
        assert_eq!(started(u32::MAX), 0);
    }

    #[test]
    fn another_process_with_the_number_is_spared() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let stranger = Kept { name: "sleep".to_owned(), id: child.id(), started: started(child.id()) + 1 };
        end(&stranger).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        end(&Kept { started: stranger.started - 1, ..stranger }).unwrap();
        assert!(child.wait().unwrap().code().is_none());
    }
}
