//! Keeps docs/configuration.md true: its keys are the parser's, and its examples are read.

use std::path::Path;
use std::sync::LazyLock;

use super::api::API_KEYS;
use super::limit::LIMIT_KEYS;
use super::lists::LISTS_KEYS;
use super::service::{BACKEND_KEYS, HEALTH_KEYS, SERVICE_KEYS};
use super::{DAEMON_KEYS, parse};

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// Its first chapter, the reference.
static PAGE: LazyLock<&str> = LazyLock::new(|| DOCUMENT.split("\n# ").next().unwrap_or_default());

/// The sections of the page that describe keys, and the parser's keys.
const SECTIONS: [(&str, &[&str]); 7] = [
    ("[daemon]", DAEMON_KEYS),
    ("[daemon.api]", API_KEYS),
    ("[lists]", LISTS_KEYS),
    ("[[service]]", SERVICE_KEYS),
    ("limit", LIMIT_KEYS),
    ("health", HEALTH_KEYS),
    ("backends", BACKEND_KEYS),
];

/// What every service needs, used where an example does not say it itself.
const REQUIRED: [(&str, &str); 4] =
    [("name", "\"example\""), ("vip", "\"192.0.2.10:80\""), ("protocol", "\"tcp\""), ("mode", "\"dsr-l2\"")];

/// The parts of a text that begin with a line of `mark` and a title: the title and what follows it.
fn parts<'t>(text: &'t str, mark: &str) -> Vec<(&'t str, &'t str)> {
    let starts = format!("\n{mark} ");
    let part = |part: &'t str| part.split_once('\n').unwrap_or((part, ""));
    text.split(starts.as_str()).skip(1).map(part).collect()
}

fn examples(text: &str) -> impl Iterator<Item = &str> {
    text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

/// A whole file around an example of a section.
fn file(section: &str, example: &str) -> String {
    if section == "[daemon]" {
        return format!("[daemon]\n{example}");
    }
    if section == "[daemon.api]" {
        return format!("[daemon]\ninterfaces = [\"eth0\"]\n[daemon.api]\n{example}");
    }
    if section == "[lists]" {
        return format!("[daemon]\ninterfaces = [\"eth0\"]\n[lists]\n{example}");
    }
    // What stands behind a header is no key of the service.
    let own = || example.lines().take_while(|line| !line.starts_with("[["));
    let says = |key: &str| own().any(|line| line.starts_with(&format!("{key} = ")));
    let missing = REQUIRED.iter().filter(|(key, _)| !says(key));
    let missing: Vec<String> = missing.map(|(key, value)| format!("{key} = {value}")).collect();
    format!("[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\n{}\n{example}", missing.join("\n"))
}

#[test]
fn the_page_names_the_keys_that_the_parser_knows() {
    let sections = parts(&PAGE, "##");
    let titles: Vec<&str> = sections.iter().map(|(title, _)| *title).collect();
    assert_eq!(titles, SECTIONS.map(|(title, _)| title));
    for ((title, text), (_, keys)) in sections.into_iter().zip(SECTIONS) {
        let described: Vec<&str> = parts(text, "###").iter().map(|(key, _)| key.trim_matches('`')).collect();
        assert_eq!(described, keys, "{title}");
    }
}

#[test]
fn each_key_has_a_type_a_default_an_example_and_its_refusals() {
    for (title, text) in parts(&PAGE, "##") {
        for (key, text) in parts(text, "###") {
            let facts = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
            let required = facts.ends_with("Required.*");
            assert!(facts.starts_with('*') && (required || facts.contains(" Default: ")), "{title} {key}");
            assert!(text.lines().any(|line| line.starts_with("Refused: ")), "{title} {key}");
            let name = key.trim_matches('`');
            let shown = examples(text).any(|example| example.contains(&format!("{name} = ")));
            assert!(shown, "{title} {key} has no example");
        }
    }
}

#[test]
fn every_example_is_accepted() {
    let introduction = PAGE.split("\n## ").next().unwrap_or_default();
    let mut files: Vec<String> = examples(introduction).map(str::to_owned).collect();
    for (title, text) in parts(&PAGE, "##") {
        files.extend(examples(text).map(|example| file(title, example)));
    }
    assert_eq!(files.len(), PAGE.matches("```toml\n").count());
    for file in files {
        if let Err(error) = parse(&file, Path::new("example")) {
            panic!("{error}\nin:\n{file}");
        }
    }
}
