//! What every key of the configuration is: the parser takes its names and ranges from here, `lb config explain` and
//! docs/configuration.md their words.

mod api;
mod backends;
mod daemon;
mod health;
mod limit;
mod lists;
mod service;

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

pub use self::api::API;
pub use self::backends::BACKENDS;
pub use self::daemon::DAEMON;
pub use self::health::HEALTH;
pub use self::limit::LIMIT;
pub use self::lists::LISTS;
pub use self::service::SERVICE;

use super::units::{show_bits, show_count, show_duration};

/// All tables, in the order of the page.
pub static TABLES: [&Table; 7] = [&DAEMON, &API, &LISTS, &SERVICE, &LIMIT, &HEALTH, &BACKENDS];

/// What stands before the tables on the page.
pub const INTRODUCTION: &str = include_str!("introduction.md");

/// A table of the file and the keys it may have.
pub struct Table {
    /// What stands above it on the page: `[daemon]`, `limit`.
    pub title: &'static str,
    /// Where it stands in the file: `service.limit`.
    pub path: &'static str,
    /// What is said of all of it, as Markdown; may be empty.
    pub text: &'static str,
    /// Its keys, in the order of the page.
    pub keys: &'static [Key],
}

/// A key of a table.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What holds without it.
    pub fallback: Fallback,
    /// What it means, with at least one example, as Markdown.
    pub text: &'static str,
    /// What of its kind is refused nevertheless, and what else is: a list without a full stop.
    pub refused: &'static str,
}

/// What the value of a key is.
pub enum Kind {
    /// A string of a closed set.
    Words(&'static [&'static str]),
    /// An integer.
    Integer(RangeInclusive<u32>),
    /// A prime number.
    Prime(RangeInclusive<u32>),
    /// A string such as `500ms`.
    Duration(RangeInclusive<Duration>),
    /// A string such as `10k/s`.
    Rate(RangeInclusive<u64>),
    /// A string such as `200Mbit/s`.
    BitRate(RangeInclusive<u64>),
    /// What has no other name here, in words.
    Other(&'static str),
}

/// What holds where a key is absent.
pub enum Fallback {
    /// Nothing: it has to be there.
    Required,
    /// An integer.
    Number(u32),
    /// A string.
    Text(&'static str),
    /// A duration.
    Duration(Duration),
    /// What depends on other things, in words.
    Other(&'static str),
}

impl Table {
    /// The names of its keys.
    pub fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }

    /// Whether it may have a key of this name.
    pub fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }

    fn markdown(&self) -> String {
        let mut page = format!("\n## {}\n", self.title);
        push_paragraphs(&mut page, self.text);
        for key in self.keys {
            let facts = facts(&key.kind.said(), key.fallback.said().as_deref());
            push_paragraphs(&mut page, &format!("### `{}`\n\n*{facts}*", key.name));
            push_paragraphs(&mut page, key.text);
            push_paragraphs(&mut page, &wrapped(&format!("Refused: {}.", key.refused)));
        }
        page
    }
}

/// A paragraph in lines of the page's length.
fn wrapped(text: &str) -> String {
    const LENGTH: usize = 124;
    let mut used = 0;
    let mut lines = String::new();
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 {
            let fits = used + 1 + length <= LENGTH;
            lines.push(if fits { ' ' } else { '\n' });
            used = if fits { used + 1 } else { 0 };
        }
        lines.push_str(word);
        used += length;
    }
    lines
}

fn push_paragraphs(page: &mut String, text: &str) {
    let text = text.trim_matches('\n');
    if !text.is_empty() {
        page.push('\n');
        page.push_str(text);
        page.push('\n');
    }
}

/// What a value is and what holds without it, as a sentence each.
fn facts(kind: &str, default: Option<&str>) -> String {
    match default {
        None => format!("{kind}. Required."),
        Some(default) => format!("{kind}. Default: {default}."),
    }
}

impl Kind {
    /// In words, without a full stop.
    pub fn said(&self) -> Cow<'static, str> {
        match self {
            Self::Other(text) => Cow::Borrowed(text),
            Self::Words(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word:?}`")).collect();
                match words.split_last() {
                    Some((last, others)) if !others.is_empty() => {
                        format!("{} or {last}", others.join(", ")).into()
                    }
                    _ => words.concat().into(),
                }
            }
            Self::Integer(range) => format!("Integer from {} to {}", range.start(), range.end()).into(),
            Self::Prime(range) => {
                format!("Integer, a prime from {} to {}", range.start(), range.end()).into()
            }
            Self::Duration(range) => {
                let [least, most] = [range.start(), range.end()].map(|end| show_duration(*end));
                format!("String, a duration from {least} to {most}").into()
            }
            Self::Rate(range) => {
                let [least, most] = [range.start(), range.end()].map(|end| show_count(*end));
                format!("String, a rate from {least}/s to {most}/s").into()
            }
            Self::BitRate(range) => {
                let [least, most] = [range.start(), range.end()].map(|end| show_bits(*end));
                format!("String, a rate from {least}/s to {most}/s").into()
            }
        }
    }
}

impl Fallback {
    /// In words, without a full stop; `None` if the key has to be there.
    pub fn said(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Required => None,
            Self::Number(number) => Some(number.to_string().into()),
            Self::Text(text) => Some(format!("`{text:?}`").into()),
            Self::Duration(duration) => Some(format!("`{:?}`", show_duration(*duration)).into()),
            Self::Other(text) => Some(Cow::Borrowed(text)),
        }
    }
}

/// The page of the documentation.
pub fn markdown() -> String {
    let tables: String = TABLES.iter().map(|table| table.markdown()).collect();
    format!("{INTRODUCTION}{tables}")
}

/// What [`explain`] found.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Found {
    /// All keys, or those of a table.
    Table(Vec<Explained>),
    /// The keys of that name.
    Keys(Vec<Explained>),
}

/// What there is to say of a key, for people and programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Where it stands: `service.health.interval`.
    pub key: String,
    /// What its value is.
    #[serde(rename = "type")]
    pub kind: String,
    /// What holds without it; absent if it is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What it means, as Markdown.
    pub text: &'static str,
    /// What is refused.
    pub refused: &'static str,
}

impl Explained {
    /// Its type and its default, as a sentence each.
    pub fn facts(&self) -> String {
        facts(&self.kind, self.default.as_deref())
    }
}

/// The keys that a name means: all of them without one; those of a table, by its path; or those whose path ends with it. A
/// path may begin anywhere: `service.limit.burst`, `limit.burst` and `burst` are the same.
///
/// # Errors
///
/// The end of a sentence that says what there is instead.
pub fn explain(name: Option<&str>) -> Result<Found, String> {
    let ends = |path: &str, name: &str| path == name || path.ends_with(&format!(".{name}"));
    let all = || TABLES.into_iter().flat_map(|table| table.keys.iter().map(move |key| (table, key)));
    let explained = |(table, key): (&'static Table, &'static Key)| Explained {
        key: format!("{}.{}", table.path, key.name),
        kind: key.kind.said().into_owned(),
        default: key.fallback.said().map(Cow::into_owned),
        text: key.text.trim_matches('\n'),
        refused: key.refused,
    };
    let Some(name) = name else { return Ok(Found::Table(all().map(explained).collect())) };
    let of_table: Vec<Explained> = all().filter(|(table, _)| ends(table.path, name)).map(explained).collect();
    if !of_table.is_empty() {
        return Ok(Found::Table(of_table));
    }
    let found: Vec<Explained> = all().map(explained).filter(|explained| ends(&explained.key, name)).collect();
    if found.is_empty() {
        let names = TABLES.iter().map(|table| table.path).chain(all().map(|(_, key)| key.name));
        return Err(crate::names::instead(name, names));
    }
    Ok(Found::Keys(found))
}
