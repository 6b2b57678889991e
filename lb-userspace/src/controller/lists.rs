//! Changes of the deny and the allow list, before anything is stored.

use std::collections::BTreeSet;

use super::ChangeError;
use crate::model::{ListName, Lists, Prefix};

/// What to do with prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListAction {
    /// Put them on the list, beside those that are there.
    Add,
    /// Take them off the list.
    Remove,
    /// Make them the list.
    Replace,
}

/// An operator's change of a list: whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListChange {
    /// Which list.
    pub list: ListName,
    /// What to do.
    pub action: ListAction,
    /// With which prefixes; one that is named twice counts once.
    pub prefixes: Vec<Prefix>,
}

impl ListChange {
    /// The lists after the change, and the change in words.
    pub(super) fn edited(&self, lists: &Lists) -> Result<(Lists, String), ChangeError> {
        let Self { list, action, ref prefixes } = *self;
        if prefixes.is_empty() && action != ListAction::Replace {
            return Err(ChangeError::Refused(format!("{list}: no prefix is named")));
        }
        let named: BTreeSet<Prefix> = prefixes.iter().copied().collect();
        let mut lists = lists.clone();
        let summary = match action {
            ListAction::Add => {
                let added = add(&mut lists, list, &named)?;
                let known = named.len() - added;
                let known = if known > 0 { format!(", {known} there already") } else { String::new() };
                format!("{list}: {} added{known}", plural(added))
            }
            ListAction::Remove => {
                for prefix in &named {
                    if !lists.remove(list, *prefix) {
                        return Err(not_there(list, *prefix));
                    }
                }
                format!("{list}: {} removed", plural(named.len()))
            }
            ListAction::Replace => {
                lists.clear(list);
                add(&mut lists, list, &named)?;
                format!("{list}: replaced")
            }
        };
        let summary = format!("{summary}, {} on the list", lists.of(list).len());
        Ok((lists, summary))
    }
}

/// How many of the prefixes were not there yet.
fn add(lists: &mut Lists, list: ListName, prefixes: &BTreeSet<Prefix>) -> Result<usize, ChangeError> {
    let mut added = 0;
    for prefix in prefixes {
        let new = lists.add(list, *prefix).map_err(|error| {
            let other = list.other();
            ChangeError::Refused(format!("{error}; take it off there first: lb {other} remove {prefix}"))
        })?;
        added += usize::from(new);
    }
    Ok(added)
}

fn not_there(list: ListName, prefix: Prefix) -> ChangeError {
    ChangeError::NotFound(format!(
        "{prefix} is not on the {list} list, and nothing was removed; see `lb {list} list`"
    ))
}

fn plural(count: usize) -> String {
    if count == 1 { "1 prefix".to_owned() } else { format!("{count} prefixes") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ListAction::{Add, Remove, Replace};
    use ListName::{Allow, Deny};

    fn change(list: ListName, action: ListAction, prefixes: &[&str]) -> ListChange {
        ListChange { list, action, prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect() }
    }

    #[test]
    fn deny_list_changes_are_whole_and_told_in_words() {
        let mut lists = Lists::default();
        let mut step = |change: ListChange| {
            let result = change.edited(&lists);
            result.map(|(new, summary)| {
                lists = new;
                summary
            })
        };
        let told = |text: &str| Ok(text.to_owned());
        let both = ["10.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(step(change(Deny, Add, &both)), told("deny: 2 prefixes added, 2 on the list"));
        let again = ["10.0.0.0/8", "192.0.2.0/24"];
        let expected = "deny: 1 prefix added, 1 there already, 3 on the list";
        assert_eq!(step(change(Deny, Add, &again)), told(expected));
        let conflict = "10.0.0.0/8 is on the deny list too, and can be on one only; take it off there first: \
                        lb deny remove 10.0.0.0/8";
        let refused = |text: &str| Err(ChangeError::Refused(text.to_owned()));
        assert_eq!(step(change(Allow, Add, &["10.0.0.0/9", "10.0.0.0/8"])), refused(conflict));
        assert_eq!(step(change(Allow, Add, &[])), refused("allow: no prefix is named"));
        let missing = "198.51.100.0/24 is not on the deny list, and nothing was removed; see `lb deny list`";
        let missing = Err(ChangeError::NotFound(missing.to_owned()));
        assert_eq!(step(change(Deny, Remove, &["10.0.0.0/8", "198.51.100.0/24"])), missing);
        assert_eq!(
            step(change(Deny, Remove, &["10.0.0.0/8"])),
            told("deny: 1 prefix removed, 2 on the list")
        );
        assert_eq!(step(change(Allow, Add, &["10.0.0.0/8"])), told("allow: 1 prefix added, 1 on the list"));
        assert_eq!(step(change(Deny, Replace, &["::/0"])), told("deny: replaced, 1 on the list"));
        assert_eq!(step(change(Deny, Replace, &[])), told("deny: replaced, 0 on the list"));
    }
}
