//! A cursor over a TOML document: each value knows its place, each mistake is noted with its line.
//!
//! Reading goes on after a mistake, so that one run tells all of them. `None` from a reader means either
//! "absent" or "wrong, and noted": whoever needs to know asks [`Log::is_clean`] at the end.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Mistake;
use super::limit::Scalar;

/// Collects the mistakes of one document.
pub(super) struct Log {
    /// Where lines end.
    ends: Vec<usize>,
    mistakes: RefCell<Vec<Mistake>>,
}

impl Log {
    pub(super) fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset);
        Self { ends: ends.collect(), mistakes: RefCell::default() }
    }

    /// The line, counted from 1, of a byte offset.
    fn line(&self, offset: usize) -> usize {
        1 + self.ends.partition_point(|end| *end < offset)
    }

    pub(super) fn note(&self, offset: usize, field: &str, message: impl Into<String>) {
        let mistake =
            Mistake { line: Some(self.line(offset)), field: field.to_owned(), message: message.into() };
        self.mistakes.borrow_mut().push(mistake);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    /// The mistakes in the order of their lines.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }
}

/// One value of the document and its place.
#[derive(Clone)]
pub(super) struct Node<'d> {
    log: &'d Log,
    /// The path people read: `service web: backends[1].address`.
    field: String,
    /// What stands between `field` and a key of the table.
    joint: &'static str,
    offset: usize,
    value: &'d DeValue<'d>,
}

impl<'d> Node<'d> {
    fn new(log: &'d Log, field: String, value: &'d Spanned<DeValue<'d>>) -> Self {
        Self { log, field, joint: ".", offset: value.span().start, value: value.get_ref() }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// The line of another value, by its offset.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.log.line(offset)
    }

    pub(super) fn note(&self, message: impl Into<String>) {
        self.log.note(self.offset, &self.field, message);
    }

    fn note_type(&self, expected: &str) {
        let found = self.value.type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.note(format!("expected {expected}, found {article} {found}"));
    }

    pub(super) fn text(&self) -> Option<&'d str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.note_type("a string in quotes");
        }
        text
    }

    /// A string that some type reads.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        self.read_with(str::parse)
    }

    /// A string that `read` reads.
    pub(super) fn read_with<T, E: Display>(&self, read: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        read(self.text()?).map_err(|error| self.note(error.to_string())).ok()
    }

    /// A string from a closed set.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.note(format!("{text:?} is unknown; expected {}", known.join(" or ")));
        }
        found
    }

    /// A string or a whole number.
    pub(super) fn scalar(&self) -> Option<Scalar> {
        let integer = self.value.as_integer();
        let number = integer.and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok());
        let text = self.value.as_str().map(|text| Scalar::Text(text.to_owned()));
        let scalar = number.map(Scalar::Integer).or(text);
        if scalar.is_none() {
            self.note_type("a string in quotes or an integer");
        }
        scalar
    }

    /// A truth value.
    pub(super) fn boolean(&self) -> Option<bool> {
        let boolean = self.value.as_bool();
        if boolean.is_none() {
            self.note_type("true or false");
        }
        boolean
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let Some(integer) = self.value.as_integer() else {
            self.note_type("an integer");
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let inside =
            number.and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        if inside.is_none() {
            self.note(format!("{integer} is not from {} to {}", range.start(), range.end()));
        }
        inside
    }

    /// The elements of an array.
    pub(super) fn items(&self, example: &str) -> Option<Vec<Self>> {
        let Some(array) = self.value.as_array() else {
            self.note_type(&format!("an array such as {example}"));
            return None;
        };
        let item = |(index, value)| Node::new(self.log, format!("{}[{index}]", self.field), value);
        Some(array.iter().enumerate().map(item).collect())
    }

    /// A table with no keys but `keys`.
    pub(super) fn section(&self, keys: &[&str]) -> Option<Section<'d>> {
        let Some(table) = self.value.as_table() else {
            self.note_type("a table");
            return None;
        };
        let section = Section {
            log: self.log,
            prefix: format!("{}{}", self.field, self.joint),
            offset: self.offset,
            table,
        };
        section.refuse_other_keys(keys);
        Some(section)
    }

    /// The text under `key` if there is one; nothing is noted otherwise.
    pub(super) fn peek_text(&self, key: &str) -> Option<&'d str> {
        self.value.as_table()?.get(key)?.get_ref().as_str()
    }

    /// The same value under a title of its own in messages.
    pub(super) fn titled(self, title: Option<String>) -> Self {
        Self { field: title.unwrap_or(self.field), joint: ": ", ..self }
    }
}

/// One table of the document and its place.
pub(super) struct Section<'d> {
    log: &'d Log,
    prefix: String,
    offset: usize,
    table: &'d DeTable<'d>,
}

impl<'d> Section<'d> {
    /// The document itself.
    pub(super) fn root(log: &'d Log, document: &'d DeTable<'d>, keys: &[&str]) -> Self {
        let section = Self { log, prefix: String::new(), offset: 0, table: document };
        section.refuse_other_keys(keys);
        section
    }

    pub(super) fn optional(&self, key: &str) -> Option<Node<'d>> {
        self.table.get(key).map(|value| Node::new(self.log, format!("{}{key}", self.prefix), value))
    }

    /// A value that must be there; `example` shows what it looks like.
    pub(super) fn required(&self, key: &str, example: &str) -> Option<Node<'d>> {
        let node = self.optional(key);
        if node.is_none() {
            self.note_missing(key, example);
        }
        node
    }

    /// Notes something about a key that is not there.
    pub(super) fn note(&self, key: &str, message: impl Into<String>) {
        self.log.note(self.offset, &format!("{}{key}", self.prefix), message);
    }

    pub(super) fn note_missing(&self, key: &str, example: &str) {
        self.note(key, format!("missing; expected {example}"));
    }

    fn refuse_other_keys(&self, keys: &[&str]) {
        for key in self.table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref())) {
            let field = format!("{}{}", self.prefix, key.get_ref());
            self.log.note(
                key.span().start,
                &field,
                format!("unknown key; expected one of {}", keys.join(", ")),
            );
        }
    }
}
