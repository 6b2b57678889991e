//! Where limiters stand: rows of the table, rows of counters, salts, and ranges of buckets.
//!
//! A limiter keeps its counters for as long as it has its name, and its buckets for as long as they mean the same: whatever
//! is done to rate, burst and action. Else it gets another salt, under which nobody has a bucket yet, and its service other
//! rows, so that no packet meets half of each.
//!
//! Limiters of sources that only count have a meter as long as there are any: [`lb_common::limiter::meter`]. A meter goes with
//! a salt and is never kept for another.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_common::answer;
use lb_common::layout::{LimiterEntry, LimiterRows, MAX_LIMITERS, VipKey};
use lb_common::limiter::meter::METERS;
use lb_common::limiter::{Sets, WINDOW_RANGES};
use lb_common::owner::LimiterOwner;
use lb_common::wire::Ipv6Address;

use super::PlacementError;
use super::adopt::name_digest;
use super::ranges::{Range, Ranges};
use crate::datapath::{Capacity, Image};
use crate::model::{Action, Limit, LimiterKey, Policy, Scope, Service, Services, Shape, Unit};

/// The longest kernel tick (`CONFIG_HZ=100`): a burst that covers two of them does with the coarse clock.
const LONGEST_TICK_NS: u64 = 10_000_000;

/// What makes the words of a limiter mean what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meaning {
    unit: Unit,
    scope: Scope,
    /// Of a window: whether it slides, and its length.
    window: Option<(bool, Duration)>,
    is_exact: bool,
}

impl Meaning {
    fn of(limit: &Limit) -> Self {
        let Policy { unit, scope, shape, .. } = *limit.policy();
        let window = match shape {
            Shape::Bucket { .. } => None,
            Shape::Window { slides, length } => Some((slides, length)),
        };
        Self { unit, scope, window, is_exact: needs_exact_clock(limit) }
    }
}

impl Meaning {
    /// Its upper 24 bits. A name that is changed here costs the buckets there are, no more.
    fn digest(self) -> u32 {
        (name_digest(&format!("{self:?}")) >> 32) as u32 & !0xff
    }
}

fn key_digest(key: &LimiterKey) -> u64 {
    // No service's name has a space.
    name_digest(&format!("{} {}", key.service.as_deref().unwrap_or("*"), key.name))
}

/// Whether the timer's ticks are too coarse for a limiter.
pub fn needs_exact_clock(limit: &Limit) -> bool {
    !limit.rule().covers(LONGEST_TICK_NS)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    /// `None` if it is not what the limiter is wanted to mean.
    meaning: Option<Meaning>,
    salt: u32,
    counters: Range,
    /// Its range of buckets, if it has one of its own.
    window: Option<Range>,
    meter: Option<Range>,
}

impl Placed {
    /// The row of its counters; those of the meters come first.
    fn counters(&self) -> u32 {
        METERS + self.counters.start
    }
}

/// The rows of one service, and whose they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows {
    range: Range,
    salts: Vec<u32>,
}

/// The place of every limiter.
#[derive(Clone, Debug)]
pub(super) struct Limiters {
    bucket_sets: u32,
    placed: BTreeMap<LimiterKey, Placed>,
    rows: BTreeMap<String, Rows>,
    next_salt: u32,
    free_rows: Ranges,
    free_counters: Ranges,
    free_windows: Ranges,
    free_meters: Ranges,
}

#[derive(Default)]
struct GivenUp {
    rows: Vec<Range>,
    counters: Vec<Range>,
    windows: Vec<Range>,
    meters: Vec<Range>,
}

impl Limiters {
    pub(super) fn new(capacity: &Capacity) -> Self {
        Self {
            bucket_sets: capacity.bucket_sets,
            placed: BTreeMap::new(),
            rows: BTreeMap::new(),
            next_salt: 0,
            free_rows: Ranges::new(capacity.limiters),
            free_counters: Ranges::new(capacity.limiters),
            free_windows: Ranges::new(WINDOW_RANGES),
            free_meters: Ranges::new(METERS),
        }
    }

    /// The row in which a limiter counts.
    pub(super) fn counters(&self, key: &LimiterKey) -> Option<u32> {
        self.placed.get(key).map(Placed::counters)
    }

    /// The row in which every limiter counts.
    pub(super) fn all_counters(&self) -> impl Iterator<Item = (&LimiterKey, u32)> {
        self.placed.iter().map(|(key, placed)| (key, placed.counters()))
    }

    /// The meters and whose they are.
    pub(super) fn meters(&self) -> impl Iterator<Item = (&LimiterKey, u32)> {
        self.placed.iter().filter_map(|(key, placed)| Some((key, placed.meter?.start)))
    }

    /// What the limiter's sources are hashed with.
    pub(super) fn salt(&self, key: &LimiterKey) -> Option<u32> {
        self.placed.get(key).map(|placed| placed.salt)
    }

    /// The limiters' places for `services`. What is given up is free in the placement after.
    pub(super) fn next(&self, services: &Services) -> Result<Self, PlacementError> {
        let mut next = self.clone();
        let mut given_up = GivenUp::default();
        let wanted: BTreeMap<LimiterKey, &Limit> = services.limiters().collect();
        for (_, gone) in next.placed.extract_if(.., |key, _| !wanted.contains_key(key)) {
            given_up.counters.push(gone.counters);
            given_up.windows.extend(gone.window);
            given_up.meters.extend(gone.meter);
        }
        for (key, limit) in wanted {
            next.place(&key, Meaning::of(limit), &mut given_up)?;
            next.place_meter(&key, limit.policy().is_measured(), &mut given_up);
        }
        let gone = next.rows.extract_if(.., |name, _| !services.contains_key(name));
        given_up.rows.extend(gone.map(|(_, rows)| rows.range));
        for service in services.values() {
            next.place_rows(services, service, &mut given_up)?;
        }
        let Self { free_rows, free_counters, free_windows, free_meters, .. } = &mut next;
        given_up.rows.into_iter().for_each(|range| free_rows.give(range));
        given_up.counters.into_iter().for_each(|range| free_counters.give(range));
        given_up.windows.into_iter().for_each(|range| free_windows.give(range));
        given_up.meters.into_iter().for_each(|range| free_meters.give(range));
        Ok(next)
    }

    fn place(
        &mut self,
        key: &LimiterKey,
        meaning: Meaning,
        given_up: &mut GivenUp,
    ) -> Result<(), PlacementError> {
        let old = self.placed.get(key).copied();
        if old.is_some_and(|old| old.meaning == Some(meaning)) {
            return Ok(());
        }
        let owner = key.service.as_deref().unwrap_or("*");
        given_up.windows.extend(old.and_then(|old| old.window));
        given_up.meters.extend(old.and_then(|old| old.meter));
        let counters = match old {
            Some(old) => old.counters,
            None => take(&mut self.free_counters, 1, owner, "limiters")?,
        };
        let window = match meaning.window {
            Some(_) => Some(take(&mut self.free_windows, 1, owner, "window limiters")?),
            None => None,
        };
        let mut salt = self.next_salt;
        while self.placed.values().any(|placed| placed.salt == salt) {
            salt = (salt + 1) % answer::SALT;
        }
        self.next_salt = (salt + 1) % answer::SALT;
        let placed = Placed { meaning: Some(meaning), salt, counters, window, meter: None };
        self.placed.insert(key.clone(), placed);
        Ok(())
    }

    /// Gives a limiter a meter if there is one left, or takes it away.
    fn place_meter(&mut self, key: &LimiterKey, is_wanted: bool, given_up: &mut GivenUp) {
        let Some(placed) = self.placed.get_mut(key) else { return };
        if !is_wanted {
            given_up.meters.extend(placed.meter.take());
        } else if placed.meter.is_none() {
            placed.meter = self.free_meters.take(1);
        }
    }

    fn place_rows(
        &mut self,
        services: &Services,
        service: &Service,
        given_up: &mut GivenUp,
    ) -> Result<(), PlacementError> {
        let salts: Vec<u32> = services.limiters_met(service).filter_map(|(key, _)| self.salt(&key)).collect();
        let old = self.rows.get(&service.name);
        if old.map_or(&[][..], |old| &old.salts) == salts {
            return Ok(());
        }
        given_up.rows.extend(old.map(|old| old.range).filter(|range| range.length > 0));
        let range = match salts.len() as u32 {
            0 => Range::default(),
            length => take(&mut self.free_rows, length, &service.name, "limiters")?,
        };
        self.rows.insert(service.name.clone(), Rows { range, salts });
        Ok(())
    }

    /// Who counts in which row.
    pub(super) fn owners(&self) -> impl Iterator<Item = (u32, LimiterOwner)> {
        self.placed.iter().map(|(key, placed)| {
            let window = placed.window.map_or(0, |window| window.start + 1);
            let meaning = placed.meaning.map_or(0, Meaning::digest) | window;
            (placed.counters.start, LimiterOwner { name: key_digest(key), salt: placed.salt, meaning })
        })
    }

    /// The limiters that stand in tables with this content. `rows` are those of each service that packets find.
    pub(super) fn adopt<'n>(
        image: &Image,
        capacity: &Capacity,
        services: &Services,
        rows: impl Iterator<Item = (&'n str, LimiterRows)>,
        salt: u32,
    ) -> Self {
        let mut adopted = Self { next_salt: salt % answer::SALT, ..Self::new(capacity) };
        let wanted: BTreeMap<u64, (LimiterKey, &Limit)> =
            services.limiters().map(|(key, limit)| (key_digest(&key), (key, limit))).collect();
        for (row, owner) in image.limiter_owners.iter().filter(|(_, owner)| owner.name != 0) {
            adopted.adopt_limiter(*row, owner, wanted.get(&owner.name));
        }
        for (service, LimiterRows { first, count }) in rows {
            let range = Range { start: first, length: count };
            if count > 0 && count <= MAX_LIMITERS && adopted.free_rows.claim(range) {
                let salt_of = |row| image.limiters.get(&row).map_or(answer::SALT, |entry| entry.salt);
                let salts = (first..first + count).map(salt_of).collect();
                adopted.rows.insert(service.to_owned(), Rows { range, salts });
            }
        }
        adopted
    }

    fn adopt_limiter(&mut self, row: u32, owner: &LimiterOwner, wanted: Option<&(LimiterKey, &Limit)>) {
        let counters = Range { start: row, length: 1 };
        if !self.free_counters.claim(counters) {
            return;
        }
        let window = (owner.meaning & 0xff).checked_sub(1).map(|start| Range { start, length: 1 });
        let window = window.filter(|window| self.free_windows.claim(*window));
        let meaning = wanted.map(|(_, limit)| Meaning::of(limit));
        let is_whole = |meaning: &Meaning| {
            meaning.digest() == owner.meaning & !0xff && meaning.window.is_some() == window.is_some()
        };
        let unknown = || LimiterKey { service: None, name: format!("#{:016x}", owner.name) };
        let key = wanted.map_or_else(unknown, |(key, _)| key.clone());
        // What is measured begins anew with each daemon.
        let meaning = meaning.filter(is_whole);
        let placed = Placed { meaning, salt: owner.salt, counters, window, meter: None };
        self.placed.insert(key, placed);
    }

    /// The rows of a service.
    pub(super) fn rows(&self, service: &str) -> LimiterRows {
        let range = self.rows.get(service).map(|rows| rows.range).unwrap_or_default();
        LimiterRows { first: range.start, count: range.length }
    }

    /// What stands in the rows of a service.
    pub(super) fn render<'l>(
        &'l self,
        services: &'l Services,
        service: &'l Service,
    ) -> impl Iterator<Item = (u32, LimiterEntry)> + 'l {
        let is_ipv4 = service.vip.address.is_ipv4();
        let entry = move |(key, limit)| self.entry(&key, limit, is_ipv4);
        (self.rows(&service.name).first..).zip(services.limiters_met(service).filter_map(entry))
    }

    fn entry(&self, key: &LimiterKey, limit: &Limit, is_ipv4: bool) -> Option<LimiterEntry> {
        let placed = self.placed.get(key)?;
        let is_exact = needs_exact_clock(limit);
        let sets = match placed.window {
            Some(range) => Sets::of_window(self.bucket_sets, range.start),
            None if is_exact => Sets::of_nanoseconds(self.bucket_sets),
            None => Sets::of_ticks(self.bucket_sets),
        };
        let Policy { unit, scope, action, .. } = *limit.policy();
        let unit = match unit {
            Unit::Packets => 0,
            Unit::Bits => LimiterEntry::BYTES,
            Unit::NewConnections => LimiterEntry::NEW_CONNECTIONS,
        };
        let action = match action {
            Action::Drop => LimiterEntry::DROP,
            Action::Mark => LimiterEntry::MARK,
            Action::Shadow => 0,
        };
        let clock = if is_exact { LimiterEntry::EXACT_CLOCK } else { 0 };
        Some(LimiterEntry {
            rule: *limit.rule(),
            mask: mask(scope, is_ipv4),
            first_set: sets.first,
            set_count: sets.count,
            salt: placed.salt,
            counters: placed.counters(),
            flags: unit | action | clock | if placed.meter.is_some() { LimiterEntry::METERED } else { 0 },
            meter: placed.meter.map_or(0, |meter| meter.start),
        })
    }
}

fn take(
    ranges: &mut Ranges,
    length: u32,
    service: &str,
    what: &'static str,
) -> Result<Range, PlacementError> {
    let capacity = ranges.capacity();
    ranges.take(length).ok_or_else(|| PlacementError::Full { service: service.to_owned(), what, capacity })
}

/// The bits of a source's key that count; an IPv4 address stands in the last 32 of 128.
fn mask(scope: Scope, is_ipv4: bool) -> [u64; 2] {
    let length = match (scope, is_ipv4) {
        (Scope::Service, _) => 0,
        (Scope::Source, true) => 128,
        (Scope::Source, false) => 64,
        (Scope::Prefix { v4, .. }, true) => 96 + u32::from(v4),
        (Scope::Prefix { v6, .. }, false) => u32::from(v6),
    };
    let bits = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    let VipKey { high, low } = VipKey::v6(Ipv6Address::new(bits.to_be_bytes()));
    [high, low]
}

#[cfg(test)]
mod tests;
