//! Whole command lines: what stands on which stream, and the exit code.

use super::screens::tests as samples;
use super::*;
use crate::api::double::Daemon;
use crate::controller::ListAction;
use crate::view::HealthState;
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(super) struct Ran {
    pub(super) exit: Exit,
    pub(super) out: String,
    pub(super) err: String,
}

pub(super) fn lb(words: &[&str]) -> Ran {
    let args = Args::try_parse_from(["lb"].iter().chain(words)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(args, &mut out, None, &mut err);
    Ran { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn file(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

const GOOD: &str = r#"
[daemon]
interfaces = ["eth0"]
[[service]]
name = "web"
vip = "192.0.2.10:80"
protocol = "tcp"
mode = "dsr-l2"
backends = [{ address = "10.0.1.1:80" }, { address = "10.0.1.2:80" }]
"#;

#[test]
fn the_grammar_is_sound_and_each_command_has_an_example() {
    let mut command = Args::command();
    command.build();
    command.clone().debug_assert();
    check_examples(&command);
}

fn check_examples(command: &clap::Command) {
    let name = command.get_name();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    assert!(help.starts_with("Example") || name == "help", "{name} has no example");
    if name != "help" {
        command.get_subcommands().for_each(check_examples);
    }
}

#[test]
fn nonsense_is_a_mistake_in_usage() {
    let cases: [(&[&str], ErrorKind); 17] = [
        (&["lb", "backend", "drain", "web", "10.0.1.1:80", "--timeout", "0s"], ErrorKind::ValueValidation),
        (&["lb", "backend", "drain", "web", "10.0.1.1:80", "--timeout", "169h"], ErrorKind::ValueValidation),
        (&["lb", "backend", "drain", "web", "10.0.1.1:80", "--timeout", "5"], ErrorKind::ValueValidation),
        (&["lb", "backend", "set", "web", "10.0.1.1:80", "--weight=-1"], ErrorKind::ValueValidation),
        (&["lb", "deny", "add"], ErrorKind::MissingRequiredArgument),
        (&["lb", "allow", "remove"], ErrorKind::MissingRequiredArgument),
        (&["lb", "statsu"], ErrorKind::InvalidSubcommand),
        (&["lb", "backend", "add", "web"], ErrorKind::MissingRequiredArgument),
        (&["lb", "backend", "add", "web", "10.0.1.1:80", "--weight", "65536"], ErrorKind::ValueValidation),
        (&["lb", "backend", "set", "web", "10.0.1.1:80"], ErrorKind::MissingRequiredArgument),
        (&["lb", "status", "-o", "xml"], ErrorKind::InvalidValue),
        (&["lb", "limit", "set", "web", "x", "burst"], ErrorKind::ValueValidation),
        (&["lb", "limit", "suggest", "web", "--quantile", "0"], ErrorKind::ValueValidation),
        (&["lb", "limit", "suggest", "web", "--quantile", "101"], ErrorKind::ValueValidation),
        (&["lb", "limit", "top", "--count", "0"], ErrorKind::ValueValidation),
        (&["lb", "limit", "top", "--count", "1025"], ErrorKind::ValueValidation),
        (&["lb", "limit", "top", "web", "5"], ErrorKind::UnknownArgument),
    ];
    for (words, kind) in cases {
        let error = Args::try_parse_from(words).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, Exit::Usage as i32), "{words:?}");
    }
}

#[test]
fn a_good_configuration_is_summed_up() {
    let (_folder, path) = file(GOOD);
    let ran = lb(&["config", "check", &path]);
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Ok, ""));
    assert_eq!(ran.out, format!("{path}: ok: 1 service, 2 backends on eth0\n"));
    let json: serde_json::Value =
        serde_json::from_str(&lb(&["config", "check", &path, "-o", "json"]).out).unwrap();
    assert_eq!(
        json,
        serde_json::json!({ "file": path, "interfaces": ["eth0"], "services": 1, "backends": 2, "prefixes": 0 })
    );
}

#[test]
fn a_bad_configuration_fails_the_check_and_is_refused_by_run() {
    let (_folder, path) = file(&GOOD.replace("10.0.1.2:80", "10.0.1.2:81"));
    let expected = format!(
        "{path}:9: service web: backends[1].address: port 81 is not the VIP's port 80; dsr-l2 does not \
         rewrite ports: write 10.0.1.2:80\n"
    );
    for (words, exit) in
        [(["config", "check", &path], Exit::Negative), (["run", "--config", &path], Exit::Refused)]
    {
        let ran = lb(&words);
        assert_eq!(
            (ran.exit, ran.out.as_str(), ran.err.as_str()),
            (exit, "", expected.as_str()),
            "{words:?}"
        );
    }
}

#[test]
fn a_missing_configuration_is_named() {
    let ran = lb(&["config", "check", "/nonexistent/lb.toml"]);
    assert_eq!(ran.exit, Exit::Negative);
    assert_eq!(ran.err, "/nonexistent/lb.toml: cannot be read: No such file or directory (os error 2)\n");
}

#[test]
fn a_wrong_address_is_refused_without_a_daemon() {
    let expected = "lb: backend address \"10.0.1.300:8080\": 300 is not a byte; expected ADDRESS:PORT such \
        as 10.0.1.30:8080 or [2001:db8::1]:8080\n";
    let commands: [&[&str]; 6] =
        [&["add"], &["remove"], &["drain"], &["ready"], &["maintenance"], &["set", "--weight", "1"]];
    for command in commands {
        let words = [&["--socket", "/nonexistent/lb.sock", "backend"], command, &["web", "10.0.1.300:8080"]];
        let ran = lb(&words.concat());
        let answer = (ran.exit, ran.out.as_str(), ran.err.as_str());
        assert_eq!(answer, (Exit::Refused, "", expected), "{command:?}");
    }
}

#[test]
fn a_wrong_balancer_of_decap_is_refused_before_anything_is_touched() {
    let expected = "lb: --from \"192.0.2.1/24\": bits behind the prefix are set: write 192.0.2.0/24; expected ADDRESS \
        or ADDRESS/BITS such as 192.0.2.5, 192.0.2.0/24 or fd00:1::/64\n";
    let ran = lb(&["decap", "--interface", "eth0", "--from", "192.0.2.5", "--from", "192.0.2.1/24"]);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Refused, "", expected));
}

#[test]
fn decap_needs_interfaces_balancers_and_a_port() {
    let good = ["lb", "decap", "--interface", "eth0", "--from", "192.0.2.5"];
    let kind = |words: &[&str]| Args::try_parse_from(words).unwrap_err().kind();
    assert!(Args::try_parse_from(good).is_ok());
    assert_eq!(kind(&good[..4]), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind(&[&good[..2], &good[4..]].concat()), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind(&[&good[..], &["--gue-port", "0"]].concat()), ErrorKind::ValueValidation);
    assert_eq!(kind(&[&good[..], &["--metrics", "localhost"]].concat()), ErrorKind::ValueValidation);
}

#[test]
fn an_absent_daemon_is_exit_3() {
    let commands: [&[&str]; 4] = [
        &["status"],
        &["service", "list"],
        &["backend", "list", "web"],
        &["backend", "add", "web", "10.0.1.1:80"],
    ];
    for words in commands {
        let ran = lb(&[words, &["--socket", "/nonexistent/lb.sock"]].concat());
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Unreachable, ""), "{words:?}");
        assert!(ran.err.starts_with("lb: cannot reach the daemon at /nonexistent/lb.sock: "), "{}", ran.err);
    }
}

#[test]
fn a_daemons_answers_become_data_and_exit_codes() {
    let runtime = Runtime::new().unwrap();
    let daemon = runtime.block_on(async { Daemon::start() });
    let socket = daemon.socket().to_str().unwrap().to_owned();
    let ask = |words: &[&str]| lb(&[words, &["--socket", &socket]].concat());

    let status = ask(&["status"]);
    assert_eq!((status.exit, status.err.as_str()), (Exit::Ok, ""));
    let head = "lb 0.1.0  up 1s  generation 1 (file lb.toml, 1970-01-01 00:00:00 UTC)  well\n";
    assert!(status.out.starts_with(head), "{}", status.out);
    assert_eq!(ask(&["service", "list", "-o", "json"]).out, "[]\n");

    let added = ask(&["backend", "add", "web", "10.0.1.1:80"]);
    assert_eq!((added.exit, added.err.as_str()), (Exit::Ok, ""));
    assert_eq!(added.out, "done (generation 2): 33.3 % of 3 slots moved, the least possible is 33.3 %\n");

    let set = ask(&["backend", "set", "web", "10.0.1.1:80", "--weight", "50"]);
    assert_eq!((set.exit, set.err.as_str()), (Exit::Ok, ""));

    let limits = ask(&["limit", "list"]);
    let expected = "SERVICE  LIMITER         LIMIT                                 CLOCK   ADMITTED  OVER  UNMARKED  CONTENDED\n\
                    web      source-packets  1000 packets/s per source, burst 200  coarse      1.5k     5         0          1\n";
    assert_eq!((limits.exit, limits.out.as_str()), (Exit::Ok, expected));
    let shown = ask(&["limit", "show", "web", "source-packets"]);
    assert!(
        shown.out.contains("KEYS     action=drop burst=200 packets=1k/s scope=source\n"),
        "{}",
        shown.out
    );
    assert!(shown.out.contains("CLOCK    coarse (the kernel's timer"), "{}", shown.out);
    let set = ask(&["limit", "set", "web", "source-packets", "burst=300"]);
    assert_eq!((set.exit, set.err.as_str()), (Exit::Ok, ""));
    let refused = ask(&["limit", "set", "web", "source-packets", "burst=0"]);
    assert_eq!(refused.err, "lb: burst: 0 is not from 1 to 1000000000\n");
    assert_eq!(refused.exit, Exit::Refused);
    assert_eq!(ask(&["limit", "remove", "web", "source-packets"]).exit, Exit::Ok);
    let suggested = ask(&["limit", "suggest", "web", "--quantile", "99.95"]);
    let expected = "LIMITER   web probe\n\
                    MEASURED  about 12 304 sources in 10m\n\
                    BUSIEST   second of each, at most: 50 %: 3/s  100 %: 2.05k/s\n\
                    PROPOSED  320 packets/s per source, burst 640 (99.95 %)\n\
                    HITS      9 sources at most (0.1 %), the others never\n\
                    COMMAND   lb limit set web probe packets=320/s burst=640 action=drop\n";
    assert_eq!((suggested.exit, suggested.out.as_str()), (Exit::Ok, expected));
    let json: serde_json::Value =
        serde_json::from_str(&ask(&["limit", "suggest", "*", "--limiter", "all", "-o", "json"]).out).unwrap();
    assert_eq!(
        (&json[0]["limiter"], &json[0]["hits"], &json[0]["service"]),
        (&"all".into(), &9.into(), &().into())
    );

    let top = ask(&["limit", "top", "web", "--count", "1"]);
    let expected = "SOURCE         RATE   +/-  SERVICE  LIMITER         ACTION\n\
                    198.51.100.7  1.21k  20.2  web      source-packets  drop\n\
                    1.21k packets/s over limits in the last 15 s; 1 more not shown\n\
                    ! 2 samples were lost: rates are higher than shown\n";
    assert_eq!((top.exit, top.out.as_str(), top.err.as_str()), (Exit::Ok, expected, ""));
    let missing = ask(&["limit", "top", "wbe"]);
    assert_eq!((missing.exit, missing.err.as_str()), (Exit::NotFound, "lb: there is no service \"wbe\"\n"));

    let missing = ask(&["backend", "list", "wbe"]);
    assert_eq!((missing.exit, missing.out.as_str()), (Exit::NotFound, ""));
    assert_eq!(missing.err, "lb: there is no service \"wbe\"\n");

    let refused = ask(&["backend", "drain", "web", "10.0.1.1:80"]);
    assert_eq!((refused.exit, refused.err.as_str()), (Exit::Refused, "lb: 10.0.1.1:80 drains already\n"));
}

#[test]
fn configurations_travel_to_the_daemon_and_back() {
    let runtime = Runtime::new().unwrap();
    let daemon = runtime.block_on(async { Daemon::start() });
    let socket = daemon.socket().to_str().unwrap().to_owned();
    let ask = |words: &[&str]| lb(&[words, &["--socket", &socket]].concat());
    let (_folder, path) = file(GOOD);
    assert_eq!(ask(&["config", "show"]).out, "[daemon]\ninterfaces = [\"eth0\"]\n");
    let same = ask(&["config", "diff"]);
    assert_eq!((same.exit, same.out.as_str(), same.err.as_str()), (Exit::Ok, "", ""));
    let other = ask(&["config", "diff", &path]);
    let plan = "+ deny: 10.0.0.0/8\n  plan: 1 change, 1 table, 4.8 % of its slots move (3.9 % is the least possible)\n";
    assert_eq!((other.exit, other.out.as_str(), other.err.as_str()), (Exit::Negative, plan, ""));
    let applied = "+ deny: 10.0.0.0/8\ncommand: 1 change (generation 4): 4.8 % of 1000 slots moved, the least possible is \
                   3.9 %\n";
    assert_eq!(ask(&["config", "apply", &path, "--confirm-within", "5m"]).out, applied);
    assert_eq!(ask(&["config", "apply"]).out, applied);
    assert_eq!(ask(&["config", "rollback"]).exit, Exit::Ok);
    assert_eq!(ask(&["config", "rollback", "3"]).exit, Exit::Ok);
    let asked = ["apply text Some(300s)", "apply files None", "rollback None", "rollback Some(3)"];
    assert_eq!(*daemon.double.asked.lock().unwrap(), asked);
    let history = "GENERATION  TIME                     ORIGIN   CHANGES\n       * 2  1970-01-02 00:00:00 UTC  command  + b \
                   and 1 more\n         1  1970-01-02 00:00:00 UTC  command  + a and 1 more\n";
    assert_eq!(ask(&["config", "history"]).out, history);
    let confirm = ask(&["config", "confirm"]);
    let sentence = "lb: generation 2 does not wait to be confirmed\n";
    assert_eq!((confirm.exit, confirm.err.as_str()), (Exit::Refused, sentence));
}

#[test]
fn a_wrong_file_is_not_sent_to_the_daemon() {
    let (_folder, path) = file("nonsense");
    let expected = format!("{path}:1: key with no value, expected `=`\n");
    for words in [["config", "apply", &path], ["config", "diff", &path]] {
        let ran = lb(&[&words[..], &["--socket", "/nonexistent/lb.sock"]].concat());
        assert_eq!((ran.exit, ran.err.as_str()), (Exit::Refused, expected.as_str()), "{words:?}");
    }
    let kind = |words: &[&str]| Args::try_parse_from(words).unwrap_err().kind();
    for patience in ["5", "0s", "25h"] {
        let words = ["lb", "config", "apply", "--confirm-within", patience];
        assert_eq!(kind(&words), ErrorKind::ValueValidation);
    }
}

#[test]
fn deny_and_allow_prefixes_travel_to_the_daemon() {
    let runtime = Runtime::new().unwrap();
    let daemon = runtime.block_on(async { Daemon::start() });
    let socket = daemon.socket().to_str().unwrap().to_owned();
    let ask = |words: &[&str]| lb(&[words, &["--socket", &socket]].concat());
    let list = ask(&["deny", "list"]);
    assert_eq!((list.exit, list.out.as_str(), list.err.as_str()), (Exit::Ok, "198.51.100.0/24\n", ""));
    assert_eq!(ask(&["allow", "list"]).out, "");
    let json: serde_json::Value = serde_json::from_str(&ask(&["deny", "list", "-o", "json"]).out).unwrap();
    assert_eq!(json, serde_json::json!({ "prefixes": ["198.51.100.0/24"] }));
    let added = ask(&["deny", "add", "10.0.0.7", "2001:db8::/32"]);
    assert_eq!((added.exit, added.out.as_str()), (Exit::Ok, "listed (generation 3)\n"));
    assert_eq!(ask(&["allow", "remove", "10.0.0.0/8"]).exit, Exit::Ok);
    let changes = std::mem::take(&mut *daemon.double.list_changes.lock().unwrap());
    let told: Vec<_> = changes
        .iter()
        .map(|change| (change.list, change.action, change.prefixes.iter().map(ToString::to_string).collect()))
        .collect();
    let expected: [(_, _, Vec<String>); 2] = [
        (ListName::Deny, ListAction::Add, vec!["10.0.0.7".to_owned(), "2001:db8::/32".to_owned()]),
        (ListName::Allow, ListAction::Remove, vec!["10.0.0.0/8".to_owned()]),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_wrong_deny_prefix_is_refused_without_a_daemon() {
    let ran = lb(&["--socket", "/nonexistent/lb.sock", "deny", "add", "10.0.0.0/8", "198.51.100.7/24"]);
    let expected = "lb: deny prefix \"198.51.100.7/24\": bits behind the prefix are set: write 198.51.100.0/24; \
        expected ADDRESS or ADDRESS/BITS such as 192.0.2.5, 192.0.2.0/24 or fd00:1::/64\n";
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Refused, "", expected));
}

/// A stdout whose writes all fail.
struct Closed(io::ErrorKind);

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
    let (_folder, path) = file(GOOD);
    for (kind, exit) in [(io::ErrorKind::BrokenPipe, Exit::Ok), (io::ErrorKind::StorageFull, Exit::Negative)]
    {
        let args = Args::try_parse_from(["lb", "config", "check", &path]).unwrap();
        let mut err = Vec::new();
        assert_eq!(run(args, &mut Closed(kind), None, &mut err), exit);
        assert_eq!(err.is_empty(), exit == Exit::Ok);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Layer(&'static str, #[source] Option<Box<Layer>>);

#[test]
fn sources_are_told_once() {
    let error = Layer(
        "cannot start: no link",
        Some(Box::new(Layer("no link", Some(Box::new(Layer("EBUSY", None)))))),
    );
    assert_eq!(with_sources(&error), "cannot start: no link: EBUSY");
}

/// A file of another balancer becomes a part of ours.
#[test]
fn services_of_ipvs_are_imported() {
    let (_folder, path) = file("-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.1.1:80 -i -w 1\n");
    let imported = lb(&["import", "ipvsadm", &path]);
    assert_eq!(imported.exit, Exit::Ok, "{}", imported.err);
    assert!(
        imported.out.starts_with("# tcp 192.0.2.10:80: scheduler rr becomes Maglev hashing\n[[service]]\n")
    );
    let whole = format!("[daemon]\ninterfaces = [\"eth0\"]\n{}", imported.out);
    let (_folder, path) = file(&whole);
    assert_eq!(lb(&["config", "check", &path]).exit, Exit::Ok);
    let (_folder, path) = file("-A -f 7 -s rr\nnonsense\n");
    let refused = lb(&["import", "ipvsadm", &path]);
    assert_eq!((refused.exit, refused.err.lines().count()), (Exit::Refused, 2), "{}", refused.err);
    assert_eq!(lb(&["import", "ipvsadm", "/nonexistent"]).exit, Exit::Negative);
}

#[test]
fn keys_of_the_configuration_are_explained() {
    let one = lb(&["config", "explain", "daemon.api"]);
    assert_eq!(one.exit, Exit::Ok, "{}", one.err);
    assert!(one.out.starts_with("KEY ") && one.out.contains("daemon.api.listen"), "{}", one.out);
    let one = lb(&["config", "explain", "health.timeout"]);
    let start = "service.health.timeout\n\nString, a duration up to interval. Default: \"500ms\", or interval if that is shorter.\n";
    assert!(one.out.starts_with(start), "{}", one.out);
    assert!(
        one.out.contains("\n\n    health = { kind = \"tcp\", interval = \"5s\", timeout = \"2s\" }\n"),
        "{}",
        one.out
    );
    // Links are their text.
    let linked = lb(&["config", "explain", "socket"]);
    assert!(linked.out.contains("the group lb, see the API."), "{}", linked.out);
    let json = lb(&["config", "explain", "rise", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json[0]["type"], &json[0]["default"]), (&"Integer from 1 to 100".into(), &"2".into()));
    let unknown = lb(&["config", "explain", "intervall"]);
    assert_eq!(unknown.exit, Exit::NotFound);
    assert!(unknown.err.contains("intervall; did you mean interval?"), "{}", unknown.err);
}

/// Pages on which commands are shown.
const PAGES: [(&str, &str); 12] = [
    ("README.md", include_str!("../../../README.md")),
    ("docs/api.md", include_str!("../../../docs/api.md")),
    ("docs/architecture.md", include_str!("../../../docs/architecture.md")),
    ("docs/backends.md", include_str!("../../../docs/backends.md")),
    ("docs/changes.md", include_str!("../../../docs/changes.md")),
    ("docs/configuration.md", include_str!("../../../docs/configuration.md")),
    ("docs/cli.md", include_str!("../../../docs/cli.md")),
    ("docs/limits.md", include_str!("../../../docs/limits.md")),
    ("docs/tuning.md", include_str!("../../../docs/tuning.md")),
    ("docs/upgrade.md", include_str!("../../../docs/upgrade.md")),
    ("docs/service.md", include_str!("../../../docs/service.md")),
    ("docs/troubleshooting.md", include_str!("../../../docs/troubleshooting.md")),
];

/// The words of the first command of a line, as a shell makes them; nothing if it is none of `lb`.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.trim_start().trim_start_matches("$ ").trim_start_matches("sudo ");
    line.starts_with("lb ").then_some(())?;
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (letter, quote) {
            ('|' | '>' | '<' | '#' | '&' | ';', None) => break,
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (end, Some(begun)) if end == begun => quote = None,
            (' ', None) => words.extend(word.take()),
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[test]
fn every_command_on_our_pages_is_one() {
    let mut seen = 0;
    for (page, text) in PAGES {
        for block in text.split("```").skip(1).step_by(2) {
            let block = block.replace("\\\n", " ");
            // In help, what is not indented is a sentence.
            let is_command = |line: &&str| page != "docs/cli.md" || line.starts_with("  ");
            for words in block.lines().filter(is_command).filter_map(words) {
                let parsed = Args::try_parse_from(&words);
                let helps = |error: &clap::Error| !error.use_stderr();
                assert!(
                    parsed.as_ref().is_ok() || parsed.as_ref().is_err_and(helps),
                    "{page}: {words:?}: {}",
                    parsed.unwrap_err()
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen} commands were found");
}

/// What programs read: a change here breaks them.
const CONTRACT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/contract.txt");

/// `LB_WRITE_CONTRACT=1 cargo test -p lb-userspace --lib json_is_a_contract` writes the file anew: what differs then is to be looked at.
#[tokio::test(flavor = "multi_thread")]
async fn json_is_a_contract() {
    let daemon = Daemon::start();
    let socket = daemon.socket().display().to_string();
    let commands = [
        "status",
        "service list",
        "service show web",
        "backend list web",
        "backend add web 10.0.1.9:80",
        "limit list",
        "limit show web source-packets",
        "limit top",
        "limit suggest web",
        "deny list",
        "health list",
        "flow list",
        "flow count",
        "flow lookup tcp 198.51.100.7:40000 192.0.2.10:80",
        "slots show web",
        "slots disruption web --add 10.0.1.9:80",
        "config history",
        "config rollback",
    ];
    let mut said = String::new();
    for command in commands {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let socket = socket.clone();
        let ran = tokio::task::spawn_blocking(move || {
            let all: Vec<&str> =
                words.iter().map(String::as_str).chain(["-o", "json", "--socket", &socket]).collect();
            lb(&all)
        });
        let ran = ran.await.unwrap();
        assert_eq!(ran.exit, Exit::Ok, "{command}: {}", ran.err);
        said.extend(["$ lb ", command, " -o json\n", &ran.out, "\n"]);
    }
    // The double has none of these.
    let service = samples::service("web", 2, 3_810_000);
    let backend = samples::backend("10.0.1.1:80", BackendState::Ready, HealthState::Up, 100);
    for sample in [serde_json::to_string_pretty(&service), serde_json::to_string_pretty(&backend)] {
        said.extend([&sample.unwrap(), "\n"]);
    }
    if std::env::var_os("LB_WRITE_CONTRACT").is_some() {
        std::fs::write(CONTRACT, &said).unwrap();
    }
    let contract = std::fs::read_to_string(CONTRACT).unwrap();
    let differs = said.lines().zip(contract.lines()).find(|(now, then)| now != then);
    assert!(said == contract, "what programs read is no longer what it was: {differs:?}");
}
