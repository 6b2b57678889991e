//! Two hosts on a cable, network namespaces that a test makes for itself.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Far longer than anything here takes: a test that runs into it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace that lives as long as the process inside of it; that one ends when its input is closed, also when
/// the test is killed.
pub(crate) struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is part of util-linux");
        let mut line = String::new();
        let output = holder.stdout.take().expect("its output is piped");
        BufReader::new(output).read_line(&mut line).expect("its output is readable");
        assert_eq!(line, "ready\n", "unshare made no network namespace");
        Self(holder)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Moves the calling thread inside; it does not come back.
    pub(crate) fn enter(&self) {
        let namespace = File::open(self.path()).expect("its holder is alive");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may enter a namespace");
    }

    /// Runs `ip` inside; what it printed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let namespace = format!("--net={}", self.path());
        run(Command::new("nsenter").args([&namespace, "ip"]).args(arguments.split(' ')), arguments)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("the holder of a namespace can be waited for");
    }
}

/// Runs a test in a thread of its own, for a thread that entered a namespace does not come back.
pub(crate) fn in_a_thread(test: impl FnOnce() + Send + 'static) -> Result<(), Failed> {
    thread::spawn(test).join().map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Failed::from(said.unwrap_or_else(|| "the test panicked".to_owned()))
    })
}

/// Two hosts on a cable: the balancer (`lb0`, 02:00:00:00:00:01, 10.0.0.1, `fd00::1`) and its peer (`peer0`,
/// 02:00:00:00:00:02, 10.0.0.2, `fd00::2`).
pub(crate) struct Cable {
    pub(crate) peer: Namespace,
    _balancer: Namespace,
}

impl Cable {
    /// Connects the two, and moves the calling thread to the balancer.
    pub(crate) fn new() -> Self {
        let (balancer, peer) = (Namespace::new(), Namespace::new());
        // Without duplicate address detection the addresses, also the link-local ones that neighbor solicitations are sent
        // from, are usable at once.
        let no_detection = "/proc/sys/net/ipv6/conf/default/accept_dad";
        for namespace in [&peer, &balancer] {
            namespace.enter();
            fs::write(no_detection, "0").expect("a sysctl of the namespace");
        }
        ip(&format!("link add lb0 address 02:00:00:00:00:01 type veth peer peer0 netns {}", peer.0.id()));
        for command in [
            "addr add 10.0.0.1/24 dev lb0",
            "addr add fd00::1/64 dev lb0",
            "link set lb0 up",
            "link set lo up",
        ] {
            ip(command);
        }
        for command in [
            "link set peer0 address 02:00:00:00:00:02",
            "addr add 10.0.0.2/24 dev peer0",
            "addr add fd00::2/64 dev peer0",
            "link set peer0 up",
        ] {
            peer.ip(command);
        }
        Self { peer, _balancer: balancer }
    }
}

/// The index of `lb0`.
pub(crate) fn ifindex() -> u32 {
    let shown = ip("-o link show dev lb0");
    shown.split(':').next().and_then(|index| index.parse().ok()).expect("`ip -o link` begins with the index")
}

/// Asks `show` again and again until it shows `text`.
pub(crate) fn wait_for(text: &str, show: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = show();
        if shown.contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "no {text} in {shown:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `ip` in the calling thread's namespace; what it printed.
pub(crate) fn ip(arguments: &str) -> String {
    run(Command::new("ip").args(arguments.split(' ')), arguments)
}

/// Runs many lines of `ip` in the calling thread's namespace.
pub(crate) fn batch(lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    let mut file = tempfile::NamedTempFile::new().expect("there is a directory for temporary files");
    file.write_all(lines.join("\n").as_bytes()).expect("it is writable");
    ip(&format!("-batch {}", file.path().display()));
}

/// Whether a netlink socket of this namespace lost events: the ninth column of the kernel's list.
pub(crate) fn events_lost() -> bool {
    let sockets = fs::read_to_string("/proc/thread-self/net/netlink").expect("the kernel lists its sockets");
    sockets
        .lines()
        .filter_map(|line| line.split_whitespace().nth(8))
        .any(|drops| drops != "Drops" && drops != "0")
}

fn run(command: &mut Command, what: &str) -> String {
    let output = command.output().expect("iproute2 and util-linux are installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {what}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
