//! Every map of the balancer's object in one list: how many entries it has, and whether it outlives the daemon.

use super::{Capacity, Table};

/// What becomes of a map when the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is pinned, and the next daemon goes on with it.
    Kept,
    /// It belongs to one loaded program, with which it is pinned.
    OfProgram,
    /// It is nobody else's business, for this reason.
    Private(&'static str),
}

/// A map of the object.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapKind {
    /// Its name in the object, and that of its pin.
    pub(super) name: &'static str,
    /// What becomes of it.
    pub(super) fate: Fate,
    /// How many entries it has, if the object does not say.
    pub(super) entries: Option<fn(&Capacity) -> u32>,
}

/// The map of programs.
pub(super) const WAYS: &str = "WAYS";

const fn kept(name: &'static str, entries: fn(&Capacity) -> u32) -> MapKind {
    MapKind { name, fate: Fate::Kept, entries: Some(entries) }
}

const fn kept_as_it_is(name: &'static str) -> MapKind {
    MapKind { name, fate: Fate::Kept, entries: None }
}

/// All maps. A test holds this list against the object.
pub(super) const MAPS: &[MapKind] = &[
    kept_as_it_is("VIPS"),
    kept("SERVICES", |c| c.entries(Table::Services)),
    kept("SLOTS", |c| c.entries(Table::Slots)),
    kept("BACKENDS", |c| c.entries(Table::Backends)),
    kept_as_it_is("FEATURES"),
    kept_as_it_is("INTERFACES"),
    kept("BACKEND_OWNERS", |c| c.entries(Table::BackendOwners)),
    kept("SERVICE_OWNERS", |c| c.entries(Table::ServiceOwners)),
    kept("LIMITER_OWNERS", |c| c.entries(Table::LimiterOwners)),
    kept("LISTS_A", |c| c.lists),
    kept("LISTS_B", |c| c.lists),
    kept("LIMITERS", |c| c.entries(Table::Limiters)),
    kept("BUCKETS", |c| c.bucket_sets),
    kept("FLOWS", |c| c.flow_sets),
    kept("FRAGMENTS", |c| c.fragment_sets),
    kept("FORWARDED", |c| c.backends),
    kept("WITHHELD", |c| c.services),
    kept("LIMITER_COUNTS", Capacity::limiter_counters),
    kept_as_it_is("FLOW_COUNTS"),
    kept_as_it_is("REASONS"),
    kept_as_it_is("SAMPLERS"),
    MapKind { name: WAYS, fate: Fate::OfProgram, entries: None },
    MapKind {
        name: ".rodata",
        fate: Fate::Private("constants of one program, which holds them itself"),
        entries: None,
    },
    MapKind {
        name: "METERS",
        fate: Fate::Private("measurements begin anew with each daemon, which alone knows since when"),
        entries: None,
    },
    MapKind {
        name: "OVER_SAMPLES",
        fate: Fate::Private("samples for the daemon that loaded the program, and of the last seconds only"),
        entries: None,
    },
    MapKind {
        name: "SCRATCH",
        fate: Fate::Private("what one run of a program notes for itself"),
        entries: None,
    },
    MapKind {
        name: "AYA_LOGS",
        fate: Fate::Private("messages to the daemon that loaded the program"),
        entries: None,
    },
];

/// The maps that are pinned for the next daemon.
pub(super) fn kept_maps() -> impl Iterator<Item = &'static MapKind> {
    MAPS.iter().filter(|map| map.fate == Fate::Kept)
}

#[cfg(test)]
mod tests {
    use super::super::BALANCER_OBJECT;
    use super::*;
    use std::collections::BTreeSet;

    /// A map that is in nobody's list would be empty after each restart.
    #[test]
    fn every_map_of_the_object_is_pinned_or_has_a_reason() {
        let object = aya_obj::Object::parse(BALANCER_OBJECT).unwrap();
        let inside: BTreeSet<&str> = object.maps.keys().map(String::as_str).collect();
        let listed: BTreeSet<&str> = MAPS.iter().map(|map| map.name).collect();
        let forgotten: Vec<_> = inside.difference(&listed).collect();
        assert!(forgotten.is_empty(), "say in datapath/maps.rs what becomes of {forgotten:?}");
        let gone: Vec<_> = listed.difference(&inside).filter(|name| **name != ".rodata").collect();
        assert!(gone.is_empty(), "the object has no {gone:?}");
        assert_eq!(MAPS.len(), listed.len(), "a map is listed twice");
        for map in MAPS {
            if let Fate::Private(reason) = map.fate {
                assert!(reason.len() > 20, "{}: {reason:?} is no reason", map.name);
            }
        }
    }
}
