//! A generation as text: a sum, what is told of it, and the configuration in canonical form.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Generation;
use crate::config::{ConfigError, Digest, parse_text, render_rest, render_service};
use crate::model::{Desired, Service};

/// What the first line begins with; the sum of all that follows it is the rest.
const HEAD: &str = "# A generation of lb, see `lb config history`; sum ";
/// What separates the two parts, each of which is TOML.
const SEPARATOR: &str = "\n# What is wanted:\n";

/// Why a text is not a generation.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// It does not begin like one.
    #[error("its first line is not that of a generation")]
    Head,
    /// It was cut off or changed.
    #[error("its sum is not that of its text: it was cut off or changed")]
    Sum,
    /// What is told of it cannot be read.
    #[error("its [generation] cannot be read: {0}")]
    Header(#[source] toml::de::Error),
    /// What is wanted in it cannot be.
    #[error("{0}")]
    Config(#[from] ConfigError),
}

#[derive(Serialize, Deserialize)]
struct Header {
    generation: Generation,
}

/// Writes generations as text. Services that are the same as the last time are copied, and the memory is used again.
#[derive(Debug, Default)]
pub(super) struct Renderer {
    services: BTreeMap<String, (Arc<Service>, Arc<str>)>,
    text: String,
}

impl Renderer {
    /// A generation as text.
    pub(super) fn encode(&mut self, generation: &Generation, desired: &Desired) -> &str {
        self.text.clear();
        // The sum is known when the rest is.
        self.text += HEAD;
        self.text += &Digest::of("").to_string();
        self.text += "\n";
        let body = self.text.len();
        // A header holds numbers and texts, for all of which TOML has a form.
        self.text += &toml::to_string(&Header { generation: generation.clone() }).unwrap_or_default();
        self.text += SEPARATOR;
        self.render(desired);
        let sum = Digest::of(&self.text[body..]).to_string();
        self.text.replace_range(HEAD.len()..body - 1, &sum);
        &self.text
    }

    /// The same as [`render`](crate::config::render).
    fn render(&mut self, desired: &Desired) {
        self.services.retain(|name, _| desired.services.contains_key(name));
        self.text += &render_rest(desired);
        for (name, service) in desired.services.all_shared() {
            match self.services.get(name) {
                Some((known, rendered)) if known == service => self.text += rendered,
                _ => {
                    let rendered = render_service(service);
                    self.text += &rendered;
                    self.services.insert(name.clone(), (Arc::clone(service), rendered.into()));
                }
            }
        }
    }
}

/// A generation as text.
pub fn encode(generation: &Generation, desired: &Desired) -> String {
    Renderer::default().encode(generation, desired).to_owned()
}

/// What is told of the generation that a text holds, and the text of what is wanted.
pub(super) fn split(text: &str) -> Result<(Generation, &str), TextError> {
    let (first, body) = text.split_once('\n').ok_or(TextError::Head)?;
    let sum: Digest = first.strip_prefix(HEAD).and_then(|sum| sum.parse().ok()).ok_or(TextError::Head)?;
    if Digest::of(body) != sum {
        return Err(TextError::Sum);
    }
    let (header, wanted) = body.split_once(SEPARATOR).ok_or(TextError::Head)?;
    let Header { generation } = toml::from_str(header).map_err(TextError::Header)?;
    Ok((generation, wanted))
}

/// The generation that a text holds; messages call it `name`.
pub fn decode(text: &str, name: &Path) -> Result<(Generation, Desired), TextError> {
    let (generation, wanted) = split(text)?;
    Ok((generation, parse_text(wanted, name)?.desired))
}

#[cfg(test)]
mod tests {
    use super::super::{Confirm, Origin};
    use super::*;
    use crate::config::digest;
    use crate::config::render_tests::desired;
    use proptest::prelude::*;

    pub(super) fn generation(number: u64, desired: &Desired) -> Generation {
        Generation::new(number, Origin::Api, digest(desired), vec!["~ \"a\"\\".to_owned()])
    }

    proptest! {
        #[test]
        fn generations_survive_a_round_trip(first in desired(), second in desired()) {
            let mut renderer = Renderer::default();
            for (number, desired) in [(1, &first), (2, &second), (3, &first)] {
                let generation = generation(number, desired);
                let text = renderer.encode(&generation, desired).to_owned();
                prop_assert_eq!(&text, &encode(&generation, desired));
                let (read, wanted) = decode(&text, "text".as_ref()).map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!(read, generation);
                prop_assert_eq!(&wanted, desired);
            }
        }
    }

    #[test]
    fn every_origin_survives_a_round_trip() {
        let empty = Desired::default();
        for origin in [
            Origin::Start { file: "/etc/lb/lb.toml".into() },
            Origin::Reload { file: "lb \"x\".toml".into() },
            Origin::Api,
            Origin::Rollback { to: 7 },
            Origin::Unconfirmed { to: 8 },
        ] {
            let confirm = Some(Confirm { until: 9, back_to: 3 });
            let generation = Generation { origin, confirm, ..generation(1, &empty) };
            assert_eq!(
                decode(&encode(&generation, &empty), "text".as_ref()).unwrap(),
                (generation, empty.clone())
            );
        }
    }

    #[test]
    fn what_was_cut_off_or_changed_anywhere_is_noticed() {
        let desired = Desired::default();
        let text = encode(&generation(1, &desired), &desired);
        for length in 0..text.len() {
            assert!(decode(&text[..length], "text".as_ref()).is_err(), "{length}");
        }
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(decode(&changed, "text".as_ref()).is_err(), "{place}");
        }
    }
}
