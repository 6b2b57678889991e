//! Keeps docs/configuration.md true: its keys are the parser's, and its examples are read.

use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;

use super::api::API_KEYS;
use super::limit::LIMIT_KEYS;
use super::lists::LISTS_KEYS;
use super::service::{BACKEND_KEYS, HEALTH_KEYS, SERVICE_KEYS};
use super::{Config, ConfigError, DAEMON_KEYS, parse};

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

/// A key of the page: its section, name, facts (type and default), and the first example that has it.
struct Described {
    section: &'static str,
    key: &'static str,
    facts: &'static str,
    example: &'static str,
}

fn described() -> Vec<Described> {
    let mut all = Vec::new();
    for (section, text) in parts(&PAGE, "##") {
        for (title, text) in parts(text, "###") {
            let key = title.trim_matches('`');
            let facts = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
            let example = examples(text).find(|example| place(example, key).is_some()).unwrap();
            all.push(Described { section, key, facts, example });
        }
    }
    all
}

/// Where an example says a key and its value.
fn place(example: &str, key: &str) -> Option<Range<usize>> {
    let says = format!("{key} = ");
    let starts_word = |at: usize| !example[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let (start, _) = example.match_indices(&says).find(|(at, _)| starts_word(*at))?;
    let value = &example[start + says.len()..];
    let length = [", ", " }", "\n"].iter().filter_map(|end| value.find(end)).min()?;
    Some(start..start + says.len() + length)
}

impl Described {
    /// What is read from the example with this value of the key, or without the key.
    fn with(&self, value: Option<&str>) -> Result<Config, ConfigError> {
        let place = place(self.example, self.key).unwrap();
        let mut example = self.example.to_owned();
        if let Some(value) = value {
            example.replace_range(place, &format!("{} = {value}", self.key));
        } else {
            let followed = example[place.end..].starts_with(", ");
            let led = example[..place.start].ends_with(", ");
            let start = if led && !followed { place.start - 2 } else { place.start };
            example.replace_range(start..if followed { place.end + 2 } else { place.end }, "");
        }
        parse(&file(self.section, &example), Path::new("example"))
    }

    /// The default that the page writes as a value: a number, or in quotation marks.
    fn default(&self) -> Option<&str> {
        let (_, text) = self.facts.split_once(" Default: ")?;
        let text = text.trim_start_matches('`');
        let quoted = text.strip_prefix('"').and_then(|text| text.find('"')).map(|end| end + 2);
        let word = quoted.or_else(|| text.find([',', '.', '`', ' ', ';']))?;
        let value = &text[..word];
        let is_value = quoted.is_some() || value.parse::<u64>().is_ok() || value == "false";
        is_value.then_some(value)
    }

    /// The least and the greatest value, and what is just beyond them, as the type tells them.
    fn bounds(&self) -> Option<[String; 4]> {
        let (_, range) = self.facts.split_once(" from ")?;
        let (least, rest) = range.split_once(" to ")?;
        let most = rest.split([',', '.', ';']).next()?;
        let beyond = [moved(least, -1)?, moved(most, 1)?];
        let text = !self.facts.starts_with("*Integer");
        let quoted = |value: &str| if text { format!("\"{value}\"") } else { value.to_owned() };
        Some([quoted(least), quoted(most), quoted(&beyond[0]), quoted(&beyond[1])])
    }
}

/// A value with its unit, by the smallest step more or less.
fn moved(value: &str, by: i64) -> Option<String> {
    /// Units, what they are in steps, and the unit of a step.
    const UNITS: [(&str, i64, &str); 11] = [
        ("", 1, ""),
        ("ms", 1, "ms"),
        ("s", 1000, "ms"),
        ("m", 60_000, "ms"),
        ("h", 3_600_000, "ms"),
        ("/s", 1, "/s"),
        ("k/s", 1000, "/s"),
        ("M/s", 1_000_000, "/s"),
        ("bit/s", 1, "bit/s"),
        ("Mbit/s", 1_000_000, "bit/s"),
        ("Tbit/s", 1_000_000_000_000, "bit/s"),
    ];
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let (_, steps, step) = UNITS.iter().find(|(name, ..)| *name == unit)?;
    Some(format!("{}{step}", number.parse::<i64>().ok()? * steps + by))
}

#[test]
fn each_default_is_what_is_in_force_without_the_key() {
    let mut seen = 0;
    for key in described() {
        let Some(default) = key.default() else { continue };
        seen += 1;
        let (said, left_out) = (key.with(Some(default)).unwrap(), key.with(None).unwrap());
        assert!(said == left_out, "{} {}: {default} is not its default", key.section, key.key);
    }
    assert_eq!(seen, 20);
}

#[test]
fn each_range_ends_where_the_page_says() {
    // Whether the ends are accepted depends on what stands beside these: a burst has to be refilled in time at the rate.
    const DEPENDENT: [&str; 5] = ["packets", "bits", "new_connections", "burst", "window"];
    let mut seen = 0;
    for key in described() {
        let Some([least, most, below, above]) = key.bounds() else { continue };
        seen += 1;
        let name = format!("{} {}", key.section, key.key);
        for value in [least, most] {
            let read = key.with(Some(&value));
            assert!(DEPENDENT.contains(&key.key) || read.is_ok(), "{name} = {value}: {read:?}");
        }
        for value in [below, above] {
            assert!(key.with(Some(&value)).is_err(), "{name} = {value} is accepted");
        }
    }
    assert_eq!(seen, 19);
}
