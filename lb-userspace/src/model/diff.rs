//! What makes one [`Desired`] of another: a list of changes that can be read, and that says all.

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::{
    AdminState, Affinity, Backend, Desired, Endpoint, ForwardMode, HealthCheck, Limit, ListName, OuterSource,
    Prefix, Protocol, Service, Services, Weight,
};

pub use self::words::lines;

/// What something was and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Was<T> {
    /// Before.
    pub from: T,
    /// After.
    pub to: T,
}

impl<T: Clone + PartialEq> Was<T> {
    /// `None` if they are the same.
    fn between(from: &T, to: &T) -> Option<Self> {
        (from != to).then(|| Self { from: from.clone(), to: to.clone() })
    }
}

/// A key of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the keys of a service, which say what they are")]
pub enum Setting {
    Vip(Was<Endpoint>),
    Protocol(Was<Protocol>),
    Mode(Was<ForwardMode>),
    GuePort(Was<Option<NonZeroU16>>),
    OuterSource(Was<Option<OuterSource>>),
    Affinity(Was<Affinity>),
    Quic(Was<bool>),
    IdleTimeout(Was<Option<Duration>>),
    DrainTimeout(Was<Option<Duration>>),
    SlowStart(Was<Option<Duration>>),
    Announce(Was<bool>),
    TableSize(Was<u32>),
    Health(Was<Option<HealthCheck>>),
}

/// What happens to one of several things with names, whose order counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemChange<T, K> {
    /// It comes, behind the others.
    Add(T),
    /// It goes.
    Remove(K),
    /// It becomes this, in its place.
    Replace(Was<T>),
    /// All of them stand in this order.
    Order(Vec<K>),
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A new service.
    AddService(Box<Service>),
    /// A service goes, with all that it has.
    RemoveService(Box<Service>),
    /// A key of a service.
    Setting {
        /// The service's name.
        service: String,
        /// The key and its values.
        setting: Setting,
    },
    /// A backend of a service.
    Backend {
        /// The service's name.
        service: String,
        /// What happens to it.
        change: ItemChange<Backend, Endpoint>,
    },
    /// A limiter of a service, or of all.
    Limit {
        /// The service's name; `None` for a limiter of all services.
        service: Option<String>,
        /// What happens to it.
        change: ItemChange<Limit, String>,
    },
    /// Prefixes come onto a list or go from it.
    Listed {
        /// Which list.
        list: ListName,
        /// Whether they come.
        added: bool,
        /// Which prefixes; at least one.
        prefixes: BTreeSet<Prefix>,
    },
}

/// What makes `to` of `from`: nothing if they are the same.
pub fn diff(from: &Desired, to: &Desired) -> Vec<Difference> {
    let mut found = lists(from, to);
    let shared = items(&from.services.limits, &to.services.limits, |limit| limit.name().to_owned());
    found.extend(shared.into_iter().map(|change| Difference::Limit { service: None, change }));
    for service in from.services.values().filter(|service| !to.services.contains_key(&service.name)) {
        found.push(Difference::RemoveService(Box::new(service.clone())));
    }
    for service in to.services.values() {
        match from.services.get(&service.name) {
            None => found.push(Difference::AddService(Box::new(service.clone()))),
            Some(_) if from.services.agree_on(&to.services, &service.name) => {}
            Some(before) => found.extend(of_service(before, service)),
        }
    }
    found
}

fn lists(from: &Desired, to: &Desired) -> Vec<Difference> {
    if from.lists == to.lists {
        return Vec::new();
    }
    let mut found = Vec::new();
    // What goes from one list goes before it comes onto the other.
    for added in [false, true] {
        for list in [ListName::Deny, ListName::Allow] {
            let (before, after) = (from.lists.of(list), to.lists.of(list));
            let (less, more) = if added { (before, after) } else { (after, before) };
            let prefixes: BTreeSet<Prefix> = more.difference(less).copied().collect();
            if !prefixes.is_empty() {
                found.push(Difference::Listed { list, added, prefixes });
            }
        }
    }
    found
}

fn of_service(from: &Service, to: &Service) -> Vec<Difference> {
    let name = &from.name;
    let setting = |setting| Difference::Setting { service: name.clone(), setting };
    let backends = items(&from.backends, &to.backends, |backend| backend.endpoint);
    let backends = backends.into_iter().map(|change| Difference::Backend { service: name.clone(), change });
    let limits = items(&from.limits, &to.limits, |limit| limit.name().to_owned());
    let limits = limits.into_iter().map(|change| Difference::Limit { service: Some(name.clone()), change });
    settings(from, to).into_iter().map(setting).chain(limits).chain(backends).collect()
}

fn settings(from: &Service, to: &Service) -> Vec<Setting> {
    let (before, after) = (&from.options, &to.options);
    let changed = [
        Was::between(&from.vip, &to.vip).map(Setting::Vip),
        Was::between(&from.protocol, &to.protocol).map(Setting::Protocol),
        Was::between(&from.mode, &to.mode).map(Setting::Mode),
        Was::between(&before.gue_port, &after.gue_port).map(Setting::GuePort),
        Was::between(&before.outer_source, &after.outer_source).map(Setting::OuterSource),
        Was::between(&before.affinity, &after.affinity).map(Setting::Affinity),
        Was::between(&before.quic, &after.quic).map(Setting::Quic),
        Was::between(&before.idle_timeout, &after.idle_timeout).map(Setting::IdleTimeout),
        Was::between(&before.drain_timeout, &after.drain_timeout).map(Setting::DrainTimeout),
        Was::between(&before.slow_start, &after.slow_start).map(Setting::SlowStart),
        Was::between(&before.announce, &after.announce).map(Setting::Announce),
        Was::between(&from.table_size, &to.table_size).map(Setting::TableSize),
        Was::between(&from.health, &to.health).map(Setting::Health),
    ];
    changed.into_iter().flatten().collect()
}

/// What makes one row of things of another: those that go, those that become others, those that come, and their order if it
/// is not what follows from that.
fn items<T: Clone + PartialEq, K: Ord + Clone>(
    from: &[T],
    to: &[T],
    key: impl Fn(&T) -> K,
) -> Vec<ItemChange<T, K>> {
    if from == to {
        return Vec::new();
    }
    let before: BTreeMap<K, &T> = from.iter().map(|item| (key(item), item)).collect();
    let after: BTreeSet<K> = to.iter().map(&key).collect();
    let mut found: Vec<ItemChange<T, K>> =
        from.iter().map(&key).filter(|key| !after.contains(key)).map(ItemChange::Remove).collect();
    let mut order: Vec<K> = from.iter().map(&key).filter(|key| after.contains(key)).collect();
    for item in to {
        if let Some(was) = before.get(&key(item)) {
            found.extend(Was::between(*was, item).map(ItemChange::Replace));
        } else {
            order.push(key(item));
            found.push(ItemChange::Add(item.clone()));
        }
    }
    let wanted: Vec<K> = to.iter().map(&key).collect();
    if order != wanted {
        found.push(ItemChange::Order(wanted));
    }
    found
}

/// What the differences make of `from`. What they name and is not there is left out.
#[must_use]
pub fn apply(differences: &[Difference], from: &Desired) -> Desired {
    let mut to = from.clone();
    for difference in differences {
        apply_one(difference, &mut to);
    }
    to
}

fn apply_one(difference: &Difference, to: &mut Desired) {
    match difference {
        Difference::AddService(service) => {
            to.services.insert(service.name.clone(), Service::clone(service));
        }
        Difference::RemoveService(service) => drop(to.services.remove(&service.name)),
        Difference::Setting { service, setting } => {
            if let Some(service) = to.services.get_mut(service) {
                set(setting, service);
            }
        }
        Difference::Backend { service, change } => {
            if let Some(service) = to.services.get_mut(service) {
                change_items(change, &mut service.backends, |backend| backend.endpoint);
            }
        }
        Difference::Limit { service, change } => {
            if let Some(limits) = limits_of(&mut to.services, service.as_deref()) {
                change_items(change, limits, |limit| limit.name().to_owned());
            }
        }
        Difference::Listed { list, added, prefixes } => {
            let lists = Arc::make_mut(&mut to.lists);
            for prefix in prefixes {
                if *added {
                    // A difference has taken it off the other list before.
                    let _ = lists.add(*list, *prefix);
                } else {
                    lists.remove(*list, *prefix);
                }
            }
        }
    }
}

fn limits_of<'s>(services: &'s mut Services, service: Option<&str>) -> Option<&'s mut Vec<Limit>> {
    match service {
        None => Some(&mut services.limits),
        Some(name) => services.get_mut(name).map(|service| &mut service.limits),
    }
}

fn set(setting: &Setting, service: &mut Service) {
    let options = &mut service.options;
    match setting {
        Setting::Vip(was) => service.vip = was.to,
        Setting::Protocol(was) => service.protocol = was.to,
        Setting::Mode(was) => service.mode = was.to,
        Setting::GuePort(was) => options.gue_port = was.to,
        Setting::OuterSource(was) => options.outer_source = was.to,
        Setting::Affinity(was) => options.affinity = was.to,
        Setting::Quic(was) => options.quic = was.to,
        Setting::IdleTimeout(was) => options.idle_timeout = was.to,
        Setting::DrainTimeout(was) => options.drain_timeout = was.to,
        Setting::SlowStart(was) => options.slow_start = was.to,
        Setting::Announce(was) => options.announce = was.to,
        Setting::TableSize(was) => service.table_size = was.to,
        Setting::Health(was) => service.health = was.to,
    }
}

fn change_items<T: Clone, K: Ord>(change: &ItemChange<T, K>, items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    match change {
        ItemChange::Add(item) => items.push(item.clone()),
        ItemChange::Remove(gone) => items.retain(|item| key(item) != *gone),
        ItemChange::Replace(was) => {
            if let Some(place) = items.iter_mut().find(|item| key(item) == key(&was.from)) {
                *place = was.to.clone();
            }
        }
        ItemChange::Order(order) => {
            let places: BTreeMap<&K, usize> = order.iter().zip(0..).collect();
            items.sort_by_key(|item| places.get(&key(item)).copied());
        }
    }
}

impl Was<Backend> {
    /// The weights, if they differ.
    pub fn weight(&self) -> Option<Was<Weight>> {
        Was::between(&self.from.weight, &self.to.weight)
    }

    /// The states, if they differ.
    pub fn admin(&self) -> Option<Was<AdminState>> {
        Was::between(&self.from.admin, &self.to.admin)
    }
}

#[cfg(test)]
mod tests;
