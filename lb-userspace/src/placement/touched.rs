//! Which services a step has to look at.

use std::collections::BTreeSet;

/// Services of which anything may have changed that their places or their tables follow from. The others stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Every one.
    All,
    /// Those of these names.
    Some(BTreeSet<String>),
}

impl Default for Touched {
    fn default() -> Self {
        Self::NONE
    }
}

impl Touched {
    /// None.
    pub const NONE: Self = Self::Some(BTreeSet::new());

    /// Whether it names a service.
    pub fn has(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(service),
        }
    }

    /// These and others.
    pub fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Some(names), Self::Some(others)) => names.extend(others),
            (_, Self::All) => *self = Self::All,
            (Self::All, Self::Some(_)) => {}
        }
    }
}

impl FromIterator<String> for Touched {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self::Some(names.into_iter().collect())
    }
}
