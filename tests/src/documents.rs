//! Holds our pages to tests that exist: the claims of SECURITY.md, and every command that a page shows.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const SECURITY: &str = include_str!("../../SECURITY.md");

/// Pages with commands in blocks of code. `docs/cli.md` and `docs/configuration.md` are made by the program, whose own tests know them.
const PAGES: [(&str, &str); 12] = [
    ("README.md", include_str!("../../README.md")),
    ("SECURITY.md", SECURITY),
    ("docs/api.md", include_str!("../../docs/api.md")),
    ("docs/backends.md", include_str!("../../docs/backends.md")),
    ("docs/changes.md", include_str!("../../docs/changes.md")),
    ("docs/limits.md", include_str!("../../docs/limits.md")),
    ("docs/performance.md", include_str!("../../docs/performance.md")),
    ("docs/service.md", include_str!("../../docs/service.md")),
    ("docs/testing.md", include_str!("../../docs/testing.md")),
    ("docs/troubleshooting.md", include_str!("../../docs/troubleshooting.md")),
    ("docs/tuning.md", include_str!("../../docs/tuning.md")),
    ("docs/upgrade.md", include_str!("../../docs/upgrade.md")),
];

/// With what commands begin, but for those that continue a line.
const PROGRAMS: [&str; 14] = [
    "cargo",
    "cat",
    "curl",
    "ethtool",
    "install",
    "ip",
    "lb",
    "modprobe",
    "nft",
    "openssl",
    "sysctl",
    "systemctl",
    "systemd-sysusers",
    "tc",
];

/// Which test runs a page's commands that begin so; the first line that fits counts.
const RUN: [(&str, &str, &str); 17] = [
    ("README.md", "ip address", "a_backend_is_set_up_as_its_page_says"),
    ("README.md", "sysctl", "a_backend_is_set_up_as_its_page_says"),
    ("README.md", "cargo xtask demo", "everything_is_as_expected"),
    ("docs/api.md", "lb --url", "over_the_network_it_takes_a_token"),
    ("docs/api.md", "openssl", "over_the_network_it_takes_a_token"),
    ("docs/api.md", "cat >> /etc/lb/tokens.toml", "over_the_network_it_takes_a_token"),
    ("docs/api.md", "curl", "the_socket_answers_what_the_page_asks"),
    ("docs/backends.md", "ip link", "tunnels_of_the_kernel_unwrap"),
    ("docs/backends.md", "ip fou", "tunnels_of_the_kernel_unwrap"),
    ("docs/backends.md", "ip address", "a_backend_is_set_up_as_its_page_says"),
    ("docs/backends.md", "ip route", "a_backend_is_set_up_as_its_page_says"),
    ("docs/backends.md", "sysctl", "a_backend_is_set_up_as_its_page_says"),
    ("docs/service.md", "install", "the_service_is_installed_as_its_page_says"),
    ("docs/service.md", "systemd-sysusers", "the_service_is_installed_as_its_page_says"),
    ("docs/service.md", "systemctl enable", "the_service_is_installed_as_its_page_says"),
    ("", "lb decap", "carries"),
    ("", "lb ", "the_commands_of_our_pages_run"),
];

/// What no test runs, and why.
const NOT_RUN: [(&str, &str); 6] = [
    (
        "cargo xtask lab",
        "it keeps a network until somebody ends it; its parts are what the tests are made of",
    ),
    ("cargo xtask", "it is what runs tests"),
    ("modprobe fou", "machines load their modules before there is a root file system"),
    ("ethtool --set-channels", "no device here has channels of both directions"),
    ("systemctl daemon-reload", "there is no systemd that runs"),
    ("systemctl restart lb", "there is no systemd that runs; `survive` ends and starts the daemon itself"),
];

/// The text of all our Rust files with tests.
static SOURCES: LazyLock<String> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut text = String::new();
    for folder in ["tests", "lb-common/src", "lb-userspace/src"] {
        read_all(&root.join(folder), &mut text);
    }
    text
});

fn read_all(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

fn is_test(name: &str) -> bool {
    SOURCES.contains(&format!("fn {name}("))
}

#[test]
fn every_claim_has_a_test() {
    let (_, claims) = SECURITY.split_once("| Claim | Test |").unwrap();
    let rows: Vec<&str> = claims.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "{} claims", rows.len());
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test holds {row}");
        for name in names {
            assert!(is_test(name), "{name} is no test: {row}");
        }
    }
}

#[test]
fn every_command_of_our_pages_is_run_by_a_test() {
    let mut seen = 0;
    let mut excused = [false; NOT_RUN.len()];
    for (page, text) in PAGES {
        for line in text.split("```").skip(1).step_by(2).flat_map(|block| block.lines().skip(1)) {
            let line = line.trim_start().trim_start_matches("$ ");
            if !PROGRAMS.contains(&line.split(' ').next().unwrap_or_default()) {
                continue;
            }
            seen += 1;
            let runs = |(of, words, _): &&(&str, &str, &str)| {
                (of.is_empty() || *of == page) && line.starts_with(words)
            };
            if let Some((_, _, test)) = RUN.iter().find(runs) {
                assert!(is_test(test), "{page}: {test} is no test, which is to run `{line}`");
            } else {
                let place = NOT_RUN.iter().position(|(words, _)| line.starts_with(words));
                excused[place.unwrap_or_else(|| panic!("{page}: no test runs `{line}`"))] = true;
            }
        }
    }
    assert!(seen > 60, "{seen} commands");
    for ((words, why), excused) in NOT_RUN.iter().zip(excused) {
        assert!(excused && !why.is_empty(), "no page shows {words} any more");
    }
}
