//! The commands that our pages and our help show, run.

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_tests::daemon::Config;
use lb_tests::net::{BACKENDS, Node, VIP4, VIP6};
use lb_tests::process;
use lb_tests::site::Site;
use lb_tests::tools::Tools;

use lb_userspace::model::ForwardMode;

use crate::cases::{Case, cases, web};
use crate::doctor::site_of_bare_hosts;
use crate::ways::{Way, some_ways};

const README: &str = include_str!("../../README.md");
pub(crate) const BACKENDS_PAGE: &str = include_str!("../../docs/backends.md");
const SERVICE_PAGE: &str = include_str!("../../docs/service.md");

/// Pages, and what stands before a command on them, in blocks of code.
const PAGES: [(&str, &str); 7] = [
    (README, "   lb "),
    (include_str!("../../docs/cli.md"), "  lb "),
    (include_str!("../../docs/configuration.md"), "$ lb "),
    (include_str!("../../docs/changes.md"), "lb "),
    (include_str!("../../docs/tuning.md"), "lb "),
    (include_str!("../../docs/troubleshooting.md"), "lb "),
    (include_str!("../../docs/upgrade.md"), "lb "),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases![
        "pages": the_commands_of_our_pages_run,
        forty_columns_are_enough,
        the_service_is_installed_as_its_page_says,
    ];
    // Tunnels take devices that not every kernel has, or `lb decap`, which has cases of its own. Of `nat` the page shows IPv4.
    cases.extend(some_ways(
        "pages::a_backend_is_set_up_as_its_page_says",
        |way| way.mode == ForwardMode::DsrL2 || (way.mode == ForwardMode::Nat && way.vip.is_ipv4()),
        a_backend_is_set_up_as_its_page_says,
    ));
    cases
}

/// Commands that are run elsewhere, by their first words.
const ELSEWHERE: [&str; 9] = [
    // By every case.
    "run ",
    // By `decap`.
    "decap ",
    // By `service` and `lifecycle`.
    "xdp attach",
    "xdp detach",
    // By `doctor`, which gives the command files of its own below /sys.
    "doctor",
    // By `survive`, whose daemons pin their maps.
    "bpf ",
    // By `events` and `changes`: they have no end.
    "events",
    "status --watch",
    // By `api`, over a network that this page does not set up.
    "--url",
];

/// What the commands speak of.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// The service `web`, with two backends.
    Web,
    /// Its backend that comes and goes.
    Ninth,
    /// Its limiter for new connections.
    Syn,
    /// A service of the other family.
    Dns,
}

impl Part {
    /// What a command adds, which cannot be there before.
    fn added_by(command: &str) -> Option<Self> {
        let adding = [
            ("service add web", Self::Web),
            ("service add dns", Self::Dns),
            ("backend add web", Self::Ninth),
            ("slots disruption", Self::Ninth),
            ("limit set web syn scope", Self::Syn),
        ];
        adding.iter().find_map(|(words, part)| command.starts_with(words).then_some(*part))
    }
}

/// All that the commands speak of but one part, as a configuration without what concerns the daemon.
fn world_without(missing: Option<Part>) -> String {
    let has = |part: Part| missing != Some(part);
    let mut text = String::from(
        r#"
[lists]
deny = ["198.51.100.0/24", "203.0.113.0/24"]
allow = ["192.0.2.200/32"]

[[limit]]
name = "source-bits"
scope = "source"
bits = "1Gbit/s"
burst = "1Gbit"
action = "shadow"
"#,
    );
    if has(Part::Web) {
        let limit = |name: &str, unit: &str, action: &str| {
            format!("  {{ name = \"{name}\", scope = \"source\", {unit}, action = \"{action}\" }},\n")
        };
        let backend = |number: u8| format!("  {{ address = \"10.0.1.{number}:80\" }},\n");
        text += r#"
[[service]]
name = "web"
vip = "192.0.2.10:80"
protocol = "tcp"
mode = "dsr-l2"
health = { kind = "tcp" }
"#;
        text += "limit = [\n";
        text += &limit("source-packets", "packets = \"1k/s\", burst = 2000", "drop");
        text += &limit("probe", "packets = \"1k/s\", burst = 2000", "shadow");
        if has(Part::Syn) {
            text += &limit("syn", "new_connections = \"200/s\", burst = 400", "drop");
        }
        text += "]\nbackends = [\n";
        text.extend(
            [backend(1), backend(2), backend(3)].into_iter().chain(has(Part::Ninth).then(|| backend(9))),
        );
        text += "]\n";
    }
    if has(Part::Dns) {
        text += r#"
[[service]]
name = "dns"
vip = "[2001:db8::53]:53"
protocol = "udp"
mode = "ipip"
backends = [{ address = "[2001:db8::1]:53" }]
"#;
    }
    text
}

/// The commands of the pages, each once, without what a shell does with what they say.
fn examples() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (page, prompt) in PAGES {
        for block in page.split("```").skip(1).step_by(2) {
            for line in block.lines().filter_map(|line| line.strip_prefix(prompt)) {
                let ends = [" | ", " > ", " # ", " && systemctl"].iter().filter_map(|end| line.find(end));
                let command = line[..ends.min().unwrap_or(line.len())].trim();
                if !all.iter().any(|known| known == command) {
                    all.push(command.to_owned());
                }
            }
        }
    }
    all
}

fn the_commands_of_our_pages_run(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![]))?;
    let folder = site.directory().join("examples");
    fs::create_dir(&folder)?;
    let bin = site.lb().parent().context("lb is nowhere")?.display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let socket = site.files("lb").socket;
    let lan = Node::Backend(1).gateway4().to_string();
    let lan = lan.strip_suffix('1').context("a gateway is the first of its network")?;
    let here = |text: &str| {
        let servers = (1..=4).map(|number| (format!("10.0.1.{number}:"), format!("{lan}{}:", number + 1)));
        let text = servers.fold(text.to_owned(), |text, (server, here)| text.replace(&server, &here));
        let text = text.replace("10.0.1.", lan);
        text.replace("/etc/ipvsadm.rules", "ipvsadm.rules")
            .replace("/etc/lb/", "")
            .replace("/usr/local/share/man/man1", ".")
    };
    let shell = |script: &str| {
        let mut command = site.lab.namespace(Node::Balancer).command("sh");
        command.args(["-ec", script]).current_dir(&folder).env("PATH", &path).env("LB_SOCKET", &socket);
        process::finish(command, Duration::from_secs(30))
    };
    let examples = examples();
    ensure!(examples.len() > 70, "the page has {} examples", examples.len());
    fs::write(folder.join("prefixes.txt"), "198.51.100.128/25\n")?;
    fs::write(
        folder.join("ipvsadm.rules"),
        "-A -t 192.0.2.10:80 -s mh\n-a -t 192.0.2.10:80 -r 10.0.1.1:80 -g -w 1\n",
    )?;
    let own = shell("lb config show")?.stdout;
    fs::write(folder.join("probe"), "#!/bin/sh\n")?;
    fs::set_permissions(folder.join("probe"), Permissions::from_mode(0o755))?;
    let mut failed = Vec::new();
    for example in examples.iter().filter(|example| !ELSEWHERE.iter().any(|words| example.starts_with(words)))
    {
        let is = |what: &str| example.starts_with(what);
        let text = here(&format!("{own}\n{}", world_without(Part::added_by(example))));
        fs::write(folder.join("lb.toml"), &text)?;
        fs::write(folder.join("new.toml"), text.replace("burst = 2000", "burst = 3000"))?;
        let confirms = if is("config confirm") { " --confirm-within 5m" } else { "" };
        let set = shell(&format!("lb config apply lb.toml{confirms}"))?;
        ensure!(set.code == Some(0), "{text}{set:?}");
        let kept = site.status()?.generation - 1;
        let ran =
            shell(&format!("lb {}", here(example)).replace("rollback 41", &format!("rollback {kept}")))?;
        let expected = match example.as_str() {
            // As of diff(1): there are differences.
            "config diff" | "config diff new.toml" => 1,
            // Nobody has sent anything.
            _ if is("limit suggest") => 5,
            _ => 0,
        };
        if ran.code != Some(expected) {
            failed.push(format!("lb {example}: {:?} {}{}", ran.code, ran.stdout, ran.stderr));
        }
        if example.contains("--confirm-within") && !example.contains("config confirm") {
            shell("lb config confirm")?;
        }
    }
    ensure!(failed.is_empty(), "{} of {} fail:\n{}", failed.len(), examples.len(), failed.join("\n"));
    Ok(())
}

/// The commands of the block of code that holds some words, a line each.
pub(crate) fn block<'p>(page: &'p str, holding: &str) -> Result<Vec<&'p str>> {
    let mut blocks = page.split("```").skip(1).step_by(2);
    let found = blocks.find(|block| block.contains(holding));
    let found = found.with_context(|| format!("no block of the page has {holding:?}"))?;
    Ok(found.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).collect())
}

/// Hosts that lack everything become backends by what the page says, on each of them.
fn a_backend_is_set_up_as_its_page_says(tools: Tools, way: Way) -> Result<()> {
    let site = site_of_bare_hosts(tools, way)?;
    let of_vip4 = block(BACKENDS_PAGE, "192.0.2.10/32 dev lo")?;
    ensure!(block(README, "192.0.2.10/32 dev lo")? == of_vip4, "README and page say different things");
    let lines = match (way.mode, way.vip) {
        (ForwardMode::DsrL2, IpAddr::V4(_)) => of_vip4,
        (ForwardMode::DsrL2, IpAddr::V6(_)) => block(BACKENDS_PAGE, "2001:db8::10/128 dev lo")?,
        _ => {
            let ways_back =
                BACKENDS_PAGE.lines().filter(|line| line.starts_with("ip route replace default via"));
            ways_back.collect()
        }
    };
    ensure!(!lines.is_empty(), "the page says nothing");
    for node in BACKENDS {
        let here = lines.join("\n").replace("192.0.2.10", &VIP4.to_string());
        let here = here.replace("2001:db8::10", &VIP6.to_string());
        let here = here.replace("10.0.1.254", &node.gateway4().to_string());
        let mut command = site.lab.namespace(node).command("sh");
        command.args(["-ec", &here]);
        process::succeed(command, Duration::from_secs(10))?;
    }
    way.ensure_connects(&site)
}

/// The commands that make a service of it, on a system in a folder: systemd's own programs work on one, too, but what needs
/// a systemd that runs.
fn the_service_is_installed_as_its_page_says(tools: Tools) -> Result<()> {
    let site = Site::new(tools)?;
    let root = site.directory().join("root");
    let at = root.display().to_string();
    fs::create_dir_all(root.join("usr/sbin"))?;
    fs::write(site.directory().join("lb.toml"), world_without(None))?;
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the project is nowhere")?;
    let deploy = project.join("deploy").display().to_string();
    let lines = block(SERVICE_PAGE, "systemctl enable")?;
    let running = "systemctl daemon-reload";
    ensure!(lines.contains(&running), "{lines:?}");
    for line in lines.into_iter().filter(|line| *line != running) {
        let here = line
            .replace(" /", &format!(" {at}/"))
            .replace("target/release/lb", &site.lb().display().to_string());
        let here = here.replace(" deploy/", &format!(" {deploy}/"));
        let here = here.replace("systemd-sysusers", &format!("systemd-sysusers --root={at}"));
        let here = here.replace("systemctl enable --now", &format!("systemctl --root={at} enable"));
        let mut command = Command::new("sh");
        command.args(["-ec", &here]).current_dir(site.directory());
        process::succeed(command, Duration::from_secs(20)).with_context(|| format!("`{line}` fails"))?;
    }
    let wanted = root.join("etc/systemd/system/multi-user.target.wants/lb.service");
    ensure!(fs::symlink_metadata(&wanted).is_ok(), "{} is not there", wanted.display());
    let groups = fs::read_to_string(root.join("etc/group"))?;
    for group in ["lb:", "lb-ro:"] {
        ensure!(groups.lines().any(|line| line.starts_with(group)), "there is no group {group}\n{groups}");
    }
    let unit = fs::read_to_string(root.join("etc/systemd/system/lb.service"))?;
    for file in ["/usr/sbin/lb", "/etc/lb/lb.toml"] {
        ensure!(unit.contains(file) && root.join(&file[1..]).is_file(), "the unit does not find {file}");
    }
    Ok(())
}

/// In a terminal of 40 columns, screens are folded and tables become paragraphs, and all that they say is there.
fn forty_columns_are_enough(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4)]))?;
    let (lb, socket) = (site.lb().display(), site.files("lb").socket);
    for (screen, said) in [("status", "PACKETS"), ("service list", "web"), ("backend list web", "NEXT HOP")] {
        let mut command = site.lab.namespace(Node::Balancer).command("script");
        let line = format!("stty cols 40 && {lb} {screen}");
        command.args(["-qec", &line, "/dev/null"]).env("LB_SOCKET", &socket).env("NO_COLOR", "1");
        let seen = process::finish(command, Duration::from_secs(20))?;
        ensure!(seen.code == Some(0) && !seen.stdout.is_empty(), "{screen}: {seen:?}");
        let widest =
            seen.stdout.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or_default();
        ensure!(widest <= 40, "{screen} is {widest} columns wide:\n{}", seen.stdout);
        ensure!(seen.stdout.contains(said), "{screen} does not say {said}:\n{}", seen.stdout);
    }
    Ok(())
}
