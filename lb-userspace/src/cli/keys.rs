//! `KEY=VALUE` on a command line: what is to become of keys of the configuration.

use super::{Exit, Failure};

/// What keys are to be, in the order of the command line; `None` for those that are taken away, with `KEY=`.
pub(super) type KeyChanges<'k> = Vec<(&'k str, Option<&'k str>)>;

/// Refuses a key that is there twice: only one of the two could be meant.
pub(super) fn key_changes(keys: &[(String, String)]) -> Result<KeyChanges<'_>, Failure> {
    let twice =
        keys.iter().enumerate().find(|(at, (key, _))| keys[..*at].iter().any(|(other, _)| other == key));
    if let Some((_, (key, _))) = twice {
        return Err(Failure::new(Exit::Usage, format!("{key} is given twice; leave one of them")));
    }
    let changes =
        keys.iter().map(|(key, text)| (key.as_str(), Some(text.as_str()).filter(|text| !text.is_empty())));
    Ok(changes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(keys: &[(&str, &str)]) -> Vec<(String, String)> {
        keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_key_is_changed_once_or_the_command_is_refused() {
        let keys = pairs(&[("mode", "gue"), ("slow_start", "")]);
        assert_eq!(key_changes(&keys).unwrap(), [("mode", Some("gue")), ("slow_start", None)]);
        for second in ["nat", "ipip", ""] {
            let failure =
                key_changes(&pairs(&[("mode", "ipip"), ("burst", "4"), ("mode", second)])).unwrap_err();
            assert_eq!(
                (failure.exit, failure.message.as_str()),
                (Exit::Usage, "lb: mode is given twice; leave one of them")
            );
        }
    }
}
