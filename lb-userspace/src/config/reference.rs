//! Holds what is said of the keys to what the parser does: docs/configuration.md is made of it.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::keys::{Fallback, Found, INTRODUCTION, Key, Kind, TABLES, Table, explain, markdown};
use super::units::{show_bits, show_count, show_duration};
use super::{Config, ConfigError, parse};

/// What every service needs, used where an example does not say it itself.
const REQUIRED: [(&str, &str); 4] =
    [("name", "\"example\""), ("vip", "\"192.0.2.10:80\""), ("protocol", "\"tcp\""), ("mode", "\"dsr-l2\"")];

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

/// `lb config explain --markdown > docs/configuration.md` makes it so.
#[test]
fn the_page_in_docs_is_made_of_the_keys() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let page = fs::read_to_string(path).unwrap();
    let is_new = page == markdown();
    assert!(is_new, "write it anew with `lb config explain --markdown > docs/configuration.md`");
    assert!(page.contains("\n### `flows`\n\n*Integer from 8 to 67108864. Default: 1048576.*\n"));
}

#[test]
fn each_key_has_an_example_and_its_refusals() {
    for Described { table, key, .. } in described() {
        assert!(!key.refused.is_empty() && !key.refused.ends_with('.'), "{} {}", table.title, key.name);
    }
}

#[test]
fn every_example_is_accepted() {
    let mut files: Vec<String> = examples(INTRODUCTION).map(str::to_owned).collect();
    for table in TABLES {
        let texts = [table.text].into_iter().chain(table.keys.iter().map(|key| key.text));
        files.extend(texts.flat_map(examples).map(|example| file(table.title, example)));
    }
    assert_eq!(files.len(), markdown().matches("```toml\n").count());
    for file in files {
        if let Err(error) = parse(&file, Path::new("example")) {
            panic!("{error}\nin:\n{file}");
        }
    }
}

/// A key, and the first example that has it.
struct Described {
    table: &'static Table,
    key: &'static Key,
    example: &'static str,
}

fn described() -> Vec<Described> {
    let keys = TABLES.into_iter().flat_map(|table| table.keys.iter().map(move |key| (table, key)));
    keys.map(|(table, key)| {
        let example = examples(key.text).find(|example| place(example, key.name).is_some());
        let example = example.unwrap_or_else(|| panic!("{} {} has no example", table.title, key.name));
        Described { table, key, example }
    })
    .collect()
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
        let place = place(self.example, self.key.name).unwrap();
        let mut example = self.example.to_owned();
        if let Some(value) = value {
            example.replace_range(place, &format!("{} = {value}", self.key.name));
        } else {
            let followed = example[place.end..].starts_with(", ");
            let led = example[..place.start].ends_with(", ");
            let start = if led && !followed { place.start - 2 } else { place.start };
            example.replace_range(start..if followed { place.end + 2 } else { place.end }, "");
        }
        parse(&file(self.table.title, &example), Path::new("example"))
    }

    /// The default as a file has it, where it is a value.
    fn default(&self) -> Option<String> {
        match &self.key.fallback {
            Fallback::Required => None,
            Fallback::Number(number) => Some(number.to_string()),
            Fallback::Text(text) => Some(format!("{text:?}")),
            Fallback::Duration(duration) => Some(format!("{:?}", show_duration(*duration))),
            // In words that begin with a value, as in code.
            Fallback::Other(text) => text.strip_prefix('`')?.split('`').next().map(str::to_owned),
        }
    }

    /// The least and the greatest value, and what is just beyond them, as a file has them.
    fn bounds(&self) -> Option<[String; 4]> {
        let ends = |least: u64, most: u64, show: &dyn Fn(u64) -> String| {
            [show(least), show(most), show(least - 1), show(most + 1)]
        };
        let whole = |least: u32, most: u32| {
            [least.into(), most.into(), i64::from(least) - 1, i64::from(most) + 1].map(|end| end.to_string())
        };
        Some(match &self.key.kind {
            Kind::Words(_) | Kind::Other(_) => return None,
            Kind::Integer(range) | Kind::Prime(range) => whole(*range.start(), *range.end()),
            Kind::Duration(range) => {
                let [least, most] = [range.start(), range.end()].map(|end| end.as_millis() as u64);
                ends(least, most, &|milliseconds| format!("\"{milliseconds}ms\""))
            }
            Kind::Rate(range) => {
                ends(*range.start(), *range.end(), &|rate| format!("\"{}/s\"", show_count(rate)))
            }
            Kind::BitRate(range) => {
                ends(*range.start(), *range.end(), &|rate| format!("\"{}/s\"", show_bits(rate)))
            }
        })
    }
}

#[test]
fn each_default_is_what_is_in_force_without_the_key() {
    let mut seen = 0;
    for key in described() {
        let Some(default) = key.default() else { continue };
        seen += 1;
        let name = format!("{} {}", key.table.title, key.key.name);
        let (said, left_out) = (key.with(Some(&default)).unwrap(), key.with(None).unwrap());
        assert!(said == left_out, "{name}: {default} is not its default");
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
        let name = format!("{} {}", key.table.title, key.key.name);
        for value in [least, most] {
            let read = key.with(Some(&value));
            assert!(DEPENDENT.contains(&key.key.name) || read.is_ok(), "{name} = {value}: {read:?}");
        }
        for value in [below, above] {
            assert!(key.with(Some(&value)).is_err(), "{name} = {value} is accepted");
        }
    }
    assert_eq!(seen, 19);
}

/// The parser tells which words it takes when it meets another.
#[test]
fn each_word_is_one_and_there_is_no_other() {
    let mut seen = 0;
    for key in described() {
        let Kind::Words(words) = key.key.kind else { continue };
        seen += 1;
        let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let refused = key.with(Some("\"nonsense\"")).unwrap_err().to_string();
        let told = format!("\"nonsense\" is unknown; expected {}", words.join(" or "));
        assert!(refused.contains(&told), "{} {}: {refused}", key.table.title, key.key.name);
    }
    assert_eq!(seen, 10);
}

#[test]
fn a_key_is_named_by_the_end_of_its_path() {
    let keys = |name| match explain(Some(name)).unwrap() {
        Found::Keys(keys) => keys.into_iter().map(|key| key.key).collect::<Vec<_>>(),
        Found::Table(_) => panic!("{name} is a table"),
    };
    assert_eq!(keys("service.limit.burst"), ["service.limit.burst"]);
    assert_eq!(keys("limit.burst"), keys("burst"));
    assert_eq!(keys("drain_timeout"), ["service.drain_timeout", "service.backends.drain_timeout"]);
    let Found::Table(limit) = explain(Some("limit")).unwrap() else { panic!("limit is no table") };
    assert_eq!(limit.len(), super::keys::LIMIT.keys.len());
    let Found::Table(all) = explain(None).unwrap() else { panic!("all keys are no table") };
    assert_eq!(all.len(), TABLES.iter().map(|table| table.keys.len()).sum::<usize>());
    assert_eq!(explain(Some("wieght")).unwrap_err(), "; did you mean weight?");
    // Only whole parts of a path count.
    assert!(explain(Some("urst")).is_err() && explain(Some("")).is_err());
}
