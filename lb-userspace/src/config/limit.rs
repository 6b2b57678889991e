//! Limiters as the configuration and the API write them: keys and values in, [`Limit`] out, and back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::document::Node;
use super::keys;
use super::rules::check_name;
use super::units::{
    parse_bit_rate, parse_bits, parse_duration, parse_rate, show_bits, show_count, show_duration,
};
use crate::model::{Action, Limit, LimitError, Policy, Scope, Shape, Unit};

pub(super) const DEFAULT_PREFIX4: u8 = 32;
pub(super) const DEFAULT_PREFIX6: u8 = 64;
/// Packets or connections that may come at once, at most.
pub(super) const MAX_BURST: u32 = 1_000_000_000;

/// A value of a key: a text or a whole number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// As it stands in a TOML file, texts without quotes.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// The keys of one limiter and their values.
pub type LimitKeys = BTreeMap<String, Scalar>;

/// One thing that is wrong with a limiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitMistake {
    /// The key that is wrong or missing.
    pub key: String,
    /// A sentence.
    pub message: String,
}

impl fmt::Display for LimitMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Collects the mistakes of one limiter.
struct Reader<'k> {
    keys: &'k LimitKeys,
    mistakes: RefCell<Vec<LimitMistake>>,
}

impl<'k> Reader<'k> {
    fn note(&self, key: &str, message: impl Into<String>) {
        self.mistakes.borrow_mut().push(LimitMistake { key: key.to_owned(), message: message.into() });
    }

    fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    fn required(&self, key: &str, example: &str) -> Option<&'k Scalar> {
        let value = self.keys.get(key);
        if value.is_none() {
            self.note(key, format!("missing; expected {example}"));
        }
        value
    }

    fn text(&self, key: &str, value: &'k Scalar) -> Option<&'k str> {
        match value {
            Scalar::Text(text) => Some(text),
            Scalar::Integer(_) => {
                self.note(key, "expected a string in quotes, found an integer");
                None
            }
        }
    }

    fn read_with<T, E: fmt::Display>(
        &self,
        key: &str,
        value: &'k Scalar,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        read(self.text(key, value)?).map_err(|error| self.note(key, error.to_string())).ok()
    }

    fn word<T: Copy>(&self, key: &str, value: &'k Scalar, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key, value)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.note(key, format!("{text:?} is unknown; expected {}", known.join(" or ")));
        }
        found
    }

    fn integer(&self, key: &str, value: &Scalar, most: i64) -> Option<u64> {
        let Scalar::Integer(number) = value else {
            self.note(key, "expected an integer, found a string");
            return None;
        };
        let inside = (1..=most).contains(number);
        if !inside {
            self.note(key, format!("{number} is not from 1 to {most}"));
        }
        inside.then_some(number.unsigned_abs())
    }

    fn refuse(&self, key: &str, reason: &str) -> Option<()> {
        let absent = !self.has(key);
        if !absent {
            self.note(key, reason);
        }
        absent.then_some(())
    }

    fn scope(&self) -> Option<Scope> {
        let value = self.required("scope", "scope = \"source\"");
        let words = ["source", "prefix", "service"];
        let word = value.and_then(|value| self.word("scope", value, &words.map(|word| (word, word))))?;
        if word == "prefix" {
            return Some(Scope::Prefix {
                v4: self.prefix("prefix4", DEFAULT_PREFIX4, 32)?,
                v6: self.prefix("prefix6", DEFAULT_PREFIX6, 128)?,
            });
        }
        let reason = "only scope = \"prefix\" has a length of prefixes";
        let fits = [self.refuse("prefix4", reason), self.refuse("prefix6", reason)];
        fits.into_iter().collect::<Option<()>>()?;
        Some(if word == "source" { Scope::Source } else { Scope::Service })
    }

    fn prefix(&self, key: &str, default: u8, most: u8) -> Option<u8> {
        let Some(value) = self.keys.get(key) else { return Some(default) };
        u8::try_from(self.integer(key, value, most.into())?).ok()
    }

    /// The key of its rate says what it counts.
    fn unit(&self) -> Option<Unit> {
        let units = [Unit::Packets, Unit::Bits, Unit::NewConnections];
        let mut named = units.into_iter().filter(|unit| self.has(unit.key()));
        let Some(unit) = named.next() else {
            self.required(
                "packets",
                "packets = \"1k/s\", bits = \"200Mbit/s\" or new_connections = \"200/s\"",
            );
            return None;
        };
        if let Some(second) = named.next() {
            self.note(second.key(), format!("a limiter counts one thing; there is {} already", unit.key()));
            return None;
        }
        Some(unit)
    }

    fn rate(&self, unit: Unit) -> Option<u64> {
        let value = self.keys.get(unit.key())?;
        match unit {
            Unit::Bits => self.read_with(unit.key(), value, parse_bit_rate),
            _ => self.read_with(unit.key(), value, parse_rate),
        }
    }

    fn shape(&self, unit: Option<Unit>) -> Option<Shape> {
        let algorithms =
            ["token-bucket", "leaky-bucket", "fixed-window", "sliding-window"].map(|word| (word, word));
        let algorithm = self.keys.get("algorithm");
        let algorithm =
            algorithm.map_or(Some("token-bucket"), |value| self.word("algorithm", value, &algorithms))?;
        if algorithm.ends_with("window") {
            let length = self.required("window", "window = \"1s\"");
            let length = length.and_then(|value| self.read_with("window", value, parse_duration));
            self.refuse("burst", "a window has no burst: all that it admits may come at once")?;
            return Some(Shape::Window { slides: algorithm == "sliding-window", length: length? });
        }
        self.refuse("window", "a bucket has no window; expected burst, or algorithm = \"sliding-window\"")?;
        let example = if unit == Some(Unit::Bits) { "burst = \"2Mbit\"" } else { "burst = 200" };
        let value = self.required("burst", example)?;
        let burst = match unit? {
            Unit::Bits => self.read_with("burst", value, parse_bits),
            _ => self.integer("burst", value, MAX_BURST.into()),
        };
        Some(Shape::Bucket { burst: burst?, leaks: algorithm == "leaky-bucket" })
    }

    fn limit(&self) -> Option<Limit> {
        for key in self.keys.keys().filter(|key| !keys::LIMIT.has(key)) {
            self.note(key, format!("unknown key; expected one of {}", keys::LIMIT.names().join(", ")));
        }
        let scope = self.scope();
        let unit = self.unit();
        let rate = unit.and_then(|unit| self.rate(unit));
        let shape = self.shape(unit);
        let actions = [Action::Drop, Action::Mark, Action::Shadow].map(|action| (action.name(), action));
        let action = self.required("action", "action = \"drop\"");
        let action = action.and_then(|value| self.word("action", value, &actions));
        let name = self
            .keys
            .get("name")
            .map(|value| self.read_with("name", value, |text| check_name(text).map(|()| text.to_owned())));
        let (scope, unit, rate, shape, action) = (scope?, unit?, rate?, shape?, action?);
        let policy = Policy { unit, rate, scope, shape, action };
        let name = name.unwrap_or_else(|| Some(policy.default_name()))?;
        Limit::try_new(name, policy).map_err(|LimitError { key, reason }| self.note(key, reason)).ok()
    }
}

/// The limiter that keys describe, or all that is wrong with it.
pub fn read_limit(keys: &LimitKeys) -> Result<Limit, Vec<LimitMistake>> {
    let reader = Reader { keys, mistakes: RefCell::default() };
    let limit = reader.limit();
    let mistakes = reader.mistakes.into_inner();
    match limit {
        Some(limit) if mistakes.is_empty() => Ok(limit),
        _ => Err(mistakes),
    }
}

/// The keys that describe a limiter, its name aside; what is as usual is left out.
pub fn limit_keys(policy: &Policy) -> LimitKeys {
    let text = |text: &str| Scalar::Text(text.to_owned());
    let mut keys = LimitKeys::new();
    let mut set = |key: &str, value| {
        keys.insert(key.to_owned(), value);
    };
    set("scope", text(policy.scope.name()));
    if let Scope::Prefix { v4, v6 } = policy.scope {
        set("prefix4", Scalar::Integer(v4.into()));
        set("prefix6", Scalar::Integer(v6.into()));
    }
    let is_bits = policy.unit == Unit::Bits;
    let rate = if is_bits { show_bits(policy.rate) } else { show_count(policy.rate) };
    set(policy.unit.key(), Scalar::Text(format!("{rate}/s")));
    match policy.shape {
        Shape::Bucket { burst, leaks } => {
            let number = i64::try_from(burst).unwrap_or(i64::MAX);
            set("burst", if is_bits { Scalar::Text(show_bits(burst)) } else { Scalar::Integer(number) });
            if leaks {
                set("algorithm", text("leaky-bucket"));
            }
        }
        Shape::Window { slides, length } => {
            set("algorithm", text(if slides { "sliding-window" } else { "fixed-window" }));
            set("window", Scalar::Text(show_duration(length)));
        }
    }
    set("action", text(policy.action.name()));
    keys
}

/// The limiters of an array of the document, each mistake noted.
pub(super) fn read_limits<'d>(items: &[Node<'d>]) -> Vec<(Limit, Node<'d>)> {
    items.iter().filter_map(|item| Some((read_item(item)?, item.clone()))).collect()
}

fn read_item(node: &Node<'_>) -> Option<Limit> {
    let section = node.section(&keys::LIMIT.names())?;
    let mut limit = LimitKeys::new();
    for key in keys::LIMIT.names() {
        if let Some(node) = section.optional(key) {
            limit.insert(key.to_owned(), node.scalar()?);
        }
    }
    let tell = |LimitMistake { key, message }| match section.optional(&key) {
        Some(value) => value.note(message),
        None => section.note(&key, message),
    };
    read_limit(&limit).map_err(|mistakes| mistakes.into_iter().for_each(tell)).ok()
}

/// A policy as far as tests and examples need it: so many packets a second of each source, dropped beyond.
pub fn packets_per_source(rate: u64, burst: u64) -> Policy {
    Policy {
        unit: Unit::Packets,
        rate,
        scope: Scope::Source,
        shape: Shape::Bucket { burst, leaks: false },
        action: Action::Drop,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn policy() -> impl Strategy<Value = Policy> {
        let unit = prop::sample::select(vec![Unit::Packets, Unit::Bits, Unit::NewConnections]);
        let scope = prop_oneof![
            Just(Scope::Source),
            Just(Scope::Service),
            (1u8..=32, 1u8..=128).prop_map(|(v4, v6)| Scope::Prefix { v4, v6 }),
        ];
        let bucket =
            (1u64..100_000_000, any::<bool>()).prop_map(|(burst, leaks)| Shape::Bucket { burst, leaks });
        let window = (any::<bool>(), 1u64..100_000)
            .prop_map(|(slides, length)| Shape::Window { slides, length: Duration::from_millis(length) });
        let action = prop::sample::select(vec![Action::Drop, Action::Mark, Action::Shadow]);
        (unit, 8u64..=100_000_000, scope, prop_oneof![bucket, window], action)
            .prop_map(|(unit, rate, scope, shape, action)| Policy { unit, rate, scope, shape, action })
    }

    proptest! {
        /// Every limiter that can be is told by keys that make the same one.
        #[test]
        fn limits_survive_a_round_trip(policy in policy()) {
            if let Ok(limit) = Limit::try_new(policy.default_name(), policy) {
                prop_assert_eq!(read_limit(&limit_keys(&policy)), Ok(limit));
            } else {
                prop_assert!(read_limit(&limit_keys(&policy)).is_err());
            }
        }
    }
}
