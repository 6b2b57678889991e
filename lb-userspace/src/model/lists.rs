//! The deny list and the allow list: prefixes of sources, each on one list at most.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use utoipa::ToSchema;

use super::Prefix;

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListName {
    /// Sources whose packets are dropped.
    Deny,
    /// Sources whose packets are not limited.
    Allow,
}

impl ListName {
    /// The other list.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Deny => Self::Allow,
            Self::Allow => Self::Deny,
        }
    }
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        })
    }
}

/// A prefix that is on the other list already. A longer or a shorter one may be: the longest decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{prefix} is on the {} list too, and can be on one only", .list.other())]
pub struct OnBothLists {
    /// The prefix.
    pub prefix: Prefix,
    /// The list that it cannot be put on.
    pub list: ListName,
}

/// Both lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    deny: BTreeSet<Prefix>,
    allow: BTreeSet<Prefix>,
}

impl Lists {
    /// One of the lists, in the order of addresses.
    pub fn of(&self, list: ListName) -> &BTreeSet<Prefix> {
        match list {
            ListName::Deny => &self.deny,
            ListName::Allow => &self.allow,
        }
    }

    fn of_mut(&mut self, list: ListName) -> &mut BTreeSet<Prefix> {
        match list {
            ListName::Deny => &mut self.deny,
            ListName::Allow => &mut self.allow,
        }
    }

    /// Puts a prefix on a list; says whether it was not there yet.
    pub fn add(&mut self, list: ListName, prefix: Prefix) -> Result<bool, OnBothLists> {
        if self.of(list.other()).contains(&prefix) {
            return Err(OnBothLists { prefix, list });
        }
        Ok(self.of_mut(list).insert(prefix))
    }

    /// Takes a prefix off a list; says whether it was there.
    pub fn remove(&mut self, list: ListName, prefix: Prefix) -> bool {
        self.of_mut(list).remove(&prefix)
    }

    /// Empties a list.
    pub fn clear(&mut self, list: ListName) {
        self.of_mut(list).clear();
    }

    /// Prefixes on both lists together.
    pub fn len(&self) -> usize {
        self.deny.len() + self.allow.len()
    }

    /// Whether neither list says anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ListName::{Allow, Deny};

    #[test]
    fn a_prefix_is_on_the_deny_or_the_allow_list_once() {
        let (wide, narrow): (Prefix, Prefix) = ("10.0.0.0/8".parse().unwrap(), "10.0.0.0/9".parse().unwrap());
        let mut lists = Lists::default();
        assert_eq!(lists.add(Deny, wide), Ok(true));
        assert_eq!(lists.add(Deny, wide), Ok(false));
        let error = lists.add(Allow, wide).unwrap_err();
        assert_eq!(error.to_string(), "10.0.0.0/8 is on the deny list too, and can be on one only");
        assert_eq!(lists.add(Allow, narrow), Ok(true));
        assert_eq!((lists.len(), lists.of(Allow).len()), (2, 1));
        assert!(!lists.remove(Deny, narrow) && lists.remove(Deny, wide) && lists.remove(Allow, narrow));
        assert!(lists.is_empty());
    }
}
