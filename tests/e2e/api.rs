//! The API as other programs use it: many at once, by users who may only read, and by one that tries whatever the description
//! allows.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use lb_tests::daemon::Config;
use lb_tests::net::{Namespace, Node, VIP4};
use lb_tests::process::{self, Finished};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;
use lb_userspace::view::BackendView;

use crate::cases::{Case, cases, web};
use crate::config::start_with_mount;

pub(crate) fn cases() -> Vec<Case> {
    cases!["api":
        a_hundred_clients_lose_no_update,
        members_of_lb_ro_may_only_read,
        requests_are_numbered_and_logged,
        bad_input_is_answered_and_changes_nothing,
        over_the_network_it_takes_a_token,
        the_socket_answers_what_the_page_asks,
        a_validator_finds_nothing,
    ]
}

/// A connection that stays open from request to request.
pub(crate) struct Connection(BufReader<UnixStream>);

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By lower-case names.
    headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("cannot connect to the API")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Result<Answer> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: lb\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("an answer begins with {line:?}"))?;
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Answer { status, headers, body })
    }
}

/// What a client of many has seen.
#[derive(Default)]
struct Seen {
    answers: usize,
    updates: u32,
    superseded: usize,
}

/// Reads a weight, adds one to it for as long as nobody was faster, and begins anew.
fn keep_adding(socket: &Path, address: &str, until: Instant) -> Result<Seen> {
    let mut connection = Connection::open(socket)?;
    let (list, one) = ("/v1/services/web/backends", format!("/v1/services/web/backends/{address}"));
    let mut seen = Seen::default();
    while Instant::now() < until {
        let read = connection.ask("GET", list, "", "")?;
        ensure!(read.status == 200, "GET {list}: {}", read.status);
        let tag = read.headers.get("etag").context("no etag")?;
        let weight = weight_of(&serde_json::from_slice::<Vec<BackendView>>(&read.body)?, address)?;
        let guard = format!("If-Match: {tag}\r\n");
        let set = connection.ask("PATCH", &one, &guard, &format!("{{\"weight\":{}}}", weight + 1))?;
        seen.answers += 2;
        match set.status {
            200 => seen.updates += 1,
            412 => seen.superseded += 1,
            status => bail!("PATCH {one}: {status}: {}", String::from_utf8_lossy(&set.body)),
        }
    }
    Ok(seen)
}

fn weight_of(backends: &[BackendView], address: &str) -> Result<u16> {
    let backend = backends.iter().find(|backend| backend.address == address);
    Ok(backend.with_context(|| format!("no backend {address}"))?.weight.0)
}

/// Looks at everything, over and over.
fn keep_reading(socket: &Path, until: Instant) -> Result<Seen> {
    let mut connection = Connection::open(socket)?;
    let mut seen = Seen::default();
    while Instant::now() < until {
        for path in ["/v1/status", "/v1/services", "/v1/limits", "/v1/config/history", "/v1/deny"] {
            let read = connection.ask("GET", path, "", "")?;
            ensure!(read.status == 200, "GET {path}: {}", read.status);
            seen.answers += 1;
        }
    }
    Ok(seen)
}

/// Bytes of memory that a process has.
pub(crate) fn memory(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

const CLIENTS: usize = 100;

/// A tenth of them change something. `API_SECONDS` makes it last longer.
fn a_hundred_clients_lose_no_update(tools: Tools) -> Result<()> {
    let mut site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let seconds = std::env::var("API_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let lasts = Duration::from_secs(seconds);
    let (socket, address) = (site.files("lb").socket, web(VIP4).endpoint(Node::Backend(1)));
    let before = weight_of(&site.cli()?.backends("web")?, &address)?;
    let until = Instant::now() + lasts;
    let (told, seen) = mpsc::channel();
    for number in 0..CLIENTS {
        let (socket, address, told) = (socket.clone(), address.clone(), told.clone());
        let work = move || {
            if number % 10 == 0 {
                keep_adding(&socket, &address, until)
            } else {
                keep_reading(&socket, until)
            }
        };
        thread::spawn(move || drop(told.send(work())));
    }
    drop(told);
    let process = site.daemon()?.process.id();
    thread::sleep(lasts / 3);
    let early = memory(process)?;
    let mut all = Seen::default();
    for _ in 0..CLIENTS {
        let one =
            seen.recv_timeout(lasts + Duration::from_mins(1)).map_err(|_| anyhow!("a client is stuck"))??;
        all.answers += one.answers;
        all.updates += one.updates;
        all.superseded += one.superseded;
    }
    let late = memory(process)?;
    println!(
        "{CLIENTS} clients, {seconds} s: {} answers, {} updates, {} superseded, memory {early} and {late} bytes",
        all.answers, all.updates, all.superseded
    );
    ensure!(all.updates > 20 && all.superseded > 0, "{} updates, {} superseded", all.updates, all.superseded);
    let after = weight_of(&site.cli()?.backends("web")?, &address)?;
    ensure!(u32::from(after - before) == all.updates, "{} updates made {before} into {after}", all.updates);
    ensure!(late < early + early / 10 + (4 << 20), "memory has grown from {early} to {late} bytes");
    Ok(())
}

/// Users that every Debian has, and their groups.
const NOBODY: &str = "65534";
const DAEMON: &str = "1";

/// `lb` as a user of the host, in the groups given.
fn run_as(site: &Site, lb: &Path, user: &str, groups: &str, arguments: &[&str]) -> Result<Finished> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--groups", groups]).arg(lb).args(arguments);
    command.env("LB_SOCKET", site.files("lb").socket);
    process::finish(command, Duration::from_secs(20))
}

/// The socket belongs to a group of whose members some may only read.
fn members_of_lb_ro_may_only_read(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let (files, directory) = (site.files("lb"), site.directory().to_owned());
    fs::create_dir_all(&files.state)?;
    fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
    let lb = directory.join("lb-of-everybody");
    fs::copy(site.lb(), &lb)?;
    let groups = fs::read_to_string("/etc/group")? + "lb:x:4242:\nlb-ro:x:4243:nobody\n";
    fs::write(files.state.join("group"), groups)?;
    let (_process, cli) = start_with_mount(&site, "mount --bind DIR/group /etc/group")?;
    let endpoint = web(VIP4).endpoint(Node::Backend(1));
    let remove = ["backend", "remove", "web", &endpoint];

    let stranger = run_as(&site, &lb, NOBODY, "4243", &["status"])?;
    ensure!(
        stranger.code == Some(3) && stranger.stderr.contains("a user of the socket's group"),
        "{stranger:?}"
    );
    let reader = run_as(&site, &lb, NOBODY, "4242", &["backend", "list", "web"])?;
    ensure!(reader.code == Some(0) && reader.stdout.contains(&endpoint), "{reader:?}");
    let compares = run_as(&site, &lb, NOBODY, "4242", &["config", "diff"])?;
    ensure!(compares.code == Some(0), "{compares:?}");
    let weighs = run_as(&site, &lb, NOBODY, "4242", &["slots", "disruption", "web", "--remove", &endpoint])?;
    ensure!(weighs.code == Some(0) && weighs.stdout.contains("Nothing was changed"), "{weighs:?}");
    let refused = run_as(&site, &lb, NOBODY, "4242", &remove)?;
    ensure!(refused.code == Some(4), "{refused:?}");
    ensure!(refused.stderr.contains("may only read: its user is a member of group lb-ro"), "{refused:?}");
    ensure!(cli.backends("web")?.len() == 3 && cli.status()?.generation == 1, "something has changed");
    let writer = run_as(&site, &lb, DAEMON, "4242", &remove)?;
    ensure!(writer.code == Some(0) && cli.backends("web")?.len() == 2, "{writer:?}");
    Ok(())
}

/// Changes and refusals can be found in the log by their number.
fn requests_are_numbered_and_logged(tools: Tools) -> Result<()> {
    let mut site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let mut connection = Connection::open(&site.files("lb").socket)?;
    let numbered = "X-Request-Id: deploy-17\r\n";
    let denied = connection.ask("POST", "/v1/deny", numbered, "{\"prefixes\":[\"203.0.113.0/24\"]}")?;
    ensure!(denied.status == 200 && denied.headers.get("x-request-id").is_some_and(|id| id == "deploy-17"));
    let unknown = connection.ask("DELETE", "/v1/services/none/backends/10.0.0.1:1", "", "")?;
    let number = unknown.headers.get("x-request-id").context("no number")?;
    ensure!(connection.ask("GET", "/v1/status", "X-Request-Id: look\r\n", "")?.status == 200);
    let log = site.daemon()?.process.log();
    let me = format!("uid 0 pid {}", std::process::id());
    let lines = [
        format!("request deploy-17: {me}: POST /v1/deny: 200 in "),
        format!("request {number}: {me}: DELETE /v1/services/none/backends/10.0.0.1:1: 404 in "),
    ];
    for line in lines {
        ensure!(log.contains(&line), "no {line:?} in {log}");
    }
    ensure!(!log.contains("request look"), "who only looks fills the log");
    Ok(())
}

/// Whatever is sent, the answer says what is wrong with it, and all is as it was.
fn bad_input_is_answered_and_changes_nothing(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let socket = site.files("lb").socket;
    let state = || -> Result<_> {
        let read = Connection::open(&socket)?.ask("GET", "/v1/config", "", "")?;
        Ok((read.headers.get("etag").cloned(), read.body))
    };
    let before = state()?;
    let long = format!("{{\"prefixes\":[\"{}\"]}}", "x".repeat(100_000));
    let header = format!("X-Long: {}\r\n", "x".repeat(100_000));
    let asked = [
        ("POST", "/v1/deny", "", long.as_str(), 400, "longer than any prefix"),
        ("PATCH", "/v1/services/web/backends/10.0.0.1:80", "", long.as_str(), 413, "65536 bytes"),
        ("POST", "/v1/deny", "", "{\"prefixes\":", 400, "line 1"),
        ("POST", "/v1/deny", "", "{\"prefixes\":[\"203.0.113.300/24\"]}", 400, "203.0.113.300/24"),
        ("POST", "/v1/deny", "If-Match: \"0\"\r\n", "{\"prefixes\":[\"203.0.113.0/24\"]}", 412, "generation"),
        ("DELETE", "/v1/services/wbe", "", "", 404, "did you mean web"),
        ("DELETE", "/v1/status", "", "", 405, "allow header"),
        ("GET", "/v1/stauts", "", "", 404, "/v1/openapi.json"),
        ("GET", "/v1/services?limit=no", "", "", 400, "limit"),
        ("GET", "/v1/status", &header, "", 431, ""),
    ];
    for (method, path, headers, body, status, words) in asked {
        let answer = Connection::open(&socket)?.ask(method, path, headers, body)?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == status && said.contains(words), "{method} {path}: {} {said}", answer.status);
        ensure!(said.len() < 20_000, "{method} {path} was answered with {} bytes", said.len());
    }
    // Half a request: its client goes away, the daemon does not wait for more of it.
    let mut half = UnixStream::connect(&socket)?;
    half.write_all(b"POST /v1/deny HTTP/1.1\r\nHost: lb\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{\"prefixes\"")?;
    half.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    half.read_to_string(&mut said)?;
    ensure!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "half a request was answered with {said}");
    let cli = site.cli()?;
    for (command, code, words) in [
        (&["service", "show", "wbe"][..], 5, "web"),
        (&["statsu"], 2, "status"),
        (&["config", "diff", "--watch"], 2, "--watch"),
        (&["man", "--markdown", "somewhere"], 2, "cannot be used with"),
    ] {
        let ran = cli.run(command)?;
        ensure!(ran.code == Some(code) && ran.stderr.contains(words), "{command:?}: {ran:?}");
    }
    ensure!(state()? == before, "something has changed");
    Ok(())
}

/// The page that tells how to reach the API over the network.
const PAGE: &str = include_str!("../../docs/api.md");

/// The blocks of `kind` in a chapter of [`PAGE`], with this address and this folder in the place of the page's.
fn documented(chapter: &str, kind: &str, address: &str, folder: &Path) -> Vec<String> {
    let text = PAGE.split("\n## ").find(|text| text.starts_with(chapter)).unwrap_or_default();
    let fence = format!("```{kind}\n");
    let blocks = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    let folder = folder.display().to_string();
    blocks.map(|block| block.replace("192.0.2.5", address).replace("/etc/lb", &folder)).collect()
}

/// Every request that the page makes over the socket is one that is answered; one that does not end by itself, with something
/// before it is ended.
fn the_socket_answers_what_the_page_asks(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let socket = site.files("lb").socket.display().to_string();
    let blocks = PAGE.split("```").skip(1).step_by(2);
    let asking: Vec<&str> =
        blocks.filter(|block| block.contains("curl") && block.contains("lb.sock")).collect();
    ensure!(asking.len() >= 7, "the page has {} requests", asking.len());
    for block in asking {
        // The page's generation and its address with another port are examples of some moment.
        let script = block.replace("/run/lb/lb.sock", &socket).replace("\"42\"", "*");
        let script = script.replace("curl ", "curl --silent --fail-with-body ");
        let goes_on = script.contains("/v1/events");
        let mut command = site.lab.namespace(Node::Balancer).command("sh");
        command.args(["-ec", &script.replace("--no-buffer", "--no-buffer --max-time 1")]);
        let asked = process::finish(command, Duration::from_secs(20))?;
        // 28: curl was out of time.
        let expected = if goes_on { Some(28) } else { Some(0) };
        ensure!(asked.code == expected && (goes_on || !asked.stdout.is_empty()), "{script}{asked:?}");
    }
    Ok(())
}

/// What the page says makes a daemon reachable does, and a client elsewhere reaches it as the page says.
fn over_the_network_it_takes_a_token(tools: Tools) -> Result<()> {
    let mut site = Site::new(tools)?;
    let (folder, address) = (site.directory().to_owned(), Node::Client(1).gateway4().to_string());
    let of = |kind| documented("Over the network", kind, &address, &folder);
    let [shell, toml] = ["sh", "toml"].map(of);
    let [make, ask] = &shell[..] else { bail!("{} blocks of commands", shell.len()) };
    let run = |mut command: Command, script: &str| {
        command.args(["-ec", script]).current_dir(&folder).env("LB_LOG", "info");
        process::finish(command, Duration::from_secs(20))
    };
    let prepared = run(Command::new("bash"), make)?;
    ensure!(prepared.code == Some(0), "{prepared:?}");
    site.serve(&Config::new(vec![web(VIP4)]).reachable(&toml[0]))?;
    let elsewhere = site.client(1);
    let bin = site.lb().parent().context("lb is nowhere")?.display().to_string();
    let script = |lines: &str| format!("PATH={bin}:$PATH\n{lines}");
    let asked = run(elsewhere.command("bash"), &script(ask))?;
    ensure!(asked.code == Some(0), "{asked:?}");
    ensure!(asked.stdout.contains("web") && asked.stdout.contains("\"vip\":"), "{}", asked.stdout);

    let endpoint = web(VIP4).endpoint(Node::Backend(1));
    let remote = format!("lb --url https://{address}:9440 --ca api.crt --token-file deploy.token");
    let drained = run(elsewhere.command("bash"), &script(&format!("{remote} backend drain web {endpoint}")))?;
    ensure!(drained.code == Some(0), "{drained:?}");
    let tokens = folder.join("tokens.toml");
    let listed = fs::read_to_string(&tokens)?;
    let (before, _) = listed.split_once("expires").context("the token does not expire")?;
    fs::write(&tokens, format!("{before}expires = \"2026-01-31\"\n"))?;
    let status = script(&format!("{remote} status"));
    let refused = wait::until(Duration::from_secs(10), "the token is refused", || {
        let asked = run(elsewhere.command("bash"), &status)?;
        ensure!(asked.code != Some(0), "{asked:?}");
        Ok(asked)
    })?;
    ensure!(refused.code == Some(4), "{refused:?}");
    ensure!(refused.stderr == "lb: token deploy has expired: 2026-01-31 was its last day\n", "{refused:?}");
    let token = fs::read_to_string(folder.join("deploy.token"))?;
    let log = site.daemon()?.process.log();
    ensure!(log.contains(" token deploy: POST /v1/services/web/backends/"), "{log}");
    ensure!(!log.contains(token.trim()), "a token stands in the log");
    Ok(())
}

/// Answers a TCP port of a namespace with what a Unix socket answers, as long as it lives.
struct Bridge {
    port: u16,
    namespace: Namespace,
    stop: Arc<AtomicBool>,
}

impl Bridge {
    fn new(namespace: Namespace, socket: PathBuf) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(("127.0.0.1", 0)))??;
        let port = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(other) = UnixStream::connect(&socket) else { continue };
                drop(join(stream, other));
            }
        });
        Ok(Self { port, namespace, stop })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let port = self.port;
        drop(self.namespace.run(|| TcpStream::connect(("127.0.0.1", port))));
    }
}

fn join(tcp: TcpStream, unix: UnixStream) -> io::Result<()> {
    let (mut tcp_in, mut unix_out) = (tcp.try_clone()?, unix.try_clone()?);
    thread::spawn(move || {
        drop(io::copy(&mut tcp_in, &mut unix_out));
        drop(unix_out.shutdown(Shutdown::Write));
    });
    let (mut tcp_out, mut unix_in) = (tcp, unix);
    thread::spawn(move || {
        drop(io::copy(&mut unix_in, &mut tcp_out));
        drop(tcp_out.shutdown(Shutdown::Both));
    });
    Ok(())
}

fn validator() -> Result<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let places = fs::read_dir(&tools).with_context(|| format!("there is no {}", tools.display()))?;
    let found = places.flatten().map(|place| place.path()).find(|path| path.join("ready").exists());
    Ok(found.context("there is no schemathesis; run `cargo xtask setup`")?.join("bin/schemathesis"))
}

/// What the validator has to know that no description says: how a text of TOML is written, and what there is. One name in two is
/// of something that exists, so that not everything ends at a name.
const HOOKS: &str = r#"
import os
import schemathesis

KNOWN = {"service": "web", "name": "each", "address": os.environ["KNOWN_ADDRESS"]}

@schemathesis.serializer("application/toml")
def toml(context, value):
    return value if isinstance(value, bytes) else str(value).encode()

@schemathesis.hook
def map_path_parameters(context, parameters):
    known = {name: KNOWN[name] for name, value in (parameters or {}).items() if name in KNOWN and len(str(value)) % 2 == 0}
    return {**parameters, **known} if parameters else parameters

@schemathesis.hook
def map_headers(context, headers):
    known = {"If-Match": "*"} if len(str((headers or {}).get("If-Match", "x"))) % 2 == 0 else {}
    return {**headers, **known} if headers else headers
"#;

/// No answer that the description does not have, none of the server's mistakes, whatever is asked. `API_EXAMPLES` asks more.
fn a_validator_finds_nothing(tools: Tools) -> Result<()> {
    let limit = "limit = [{ name = \"each\", scope = \"source\", packets = \"1k/s\", burst = 200, action = \"shadow\" }]";
    let mut site = Site::with_daemon(tools, &Config::new(vec![web(VIP4).with(limit)]))?;
    let bridge = Bridge::new(site.lab.namespace(Node::Balancer), site.files("lb").socket)?;
    let url = format!("http://127.0.0.1:{}", bridge.port);
    let hooks = site.directory().join("hooks.py");
    fs::write(&hooks, HOOKS)?;
    let mut command = site.lab.namespace(Node::Balancer).command(validator()?);
    command.current_dir(site.directory()).env("SCHEMATHESIS_HOOKS", &hooks).env("HOME", site.directory());
    command.env("KNOWN_ADDRESS", web(VIP4).endpoint(Node::Backend(1)));
    command.args(["run", &format!("{url}/v1/openapi.json"), "--url", &url]);
    // What the description cannot say (that a prefix is one, that a service exists) is refused, too.
    command.args(["--exclude-checks", "positive_data_acceptance"]);
    // It is answered for as long as one listens; its own tests do.
    command.args(["--exclude-path", "/v1/events"]);
    let examples = std::env::var("API_EXAMPLES").unwrap_or_else(|_| "20".to_owned());
    command.args(["--max-examples", &examples, "--seed", "1", "--no-color"]);
    let said = process::finish(command, Duration::from_mins(8))?;
    ensure!(said.code == Some(0), "{}\n{}", said.stdout, said.stderr);
    let cases = said
        .stdout
        .lines()
        .find_map(|line| line.trim().strip_suffix(" passed")?.split(' ').next()?.parse().ok());
    ensure!(cases.is_some_and(|cases: u32| cases > 300), "{}", said.stdout);
    ensure!(site.daemon()?.process.ended()?.is_none(), "the daemon has ended");
    Ok(())
}
