//! All services, and the limiters that every one of them has.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Limit, Service};

/// Services by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    by_name: BTreeMap<String, Arc<Service>>,
    /// Limiters that the packets of all services meet, after those of their own service.
    pub limits: Vec<Limit>,
}

/// Whose limiter it is and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimiterKey {
    /// The service; `None` if it is of all services.
    pub service: Option<String>,
    /// Its name.
    pub name: String,
}

impl LimiterKey {
    /// The key of a limiter of a service, or of all.
    pub fn new(service: Option<&str>, limit: &Limit) -> Self {
        Self { service: service.map(str::to_owned), name: limit.name().to_owned() }
    }
}

impl Services {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The limiters of a service's own, or those of all services.
    pub fn limits_of(&self, service: Option<&str>) -> &[Limit] {
        match service {
            None => &self.limits,
            Some(name) => self.by_name.get(name).map_or(&[], |service| &service.limits),
        }
    }

    /// The limiters that packets of a service meet, in this order.
    pub fn limiters_met<'s>(&'s self, service: &'s Service) -> impl Iterator<Item = (LimiterKey, &'s Limit)> {
        let own = service.limits.iter().map(|limit| (LimiterKey::new(Some(&service.name), limit), limit));
        let shared = self.limits.iter().filter(|limit| limit.concerns(service));
        own.chain(shared.map(|limit| (LimiterKey::new(None, limit), limit)))
    }

    /// Every limiter.
    pub fn limiters(&self) -> impl Iterator<Item = (LimiterKey, &Limit)> {
        let shared = self.limits.iter().map(|limit| (LimiterKey::new(None, limit), limit));
        let of_service = |service: &Service| -> Vec<_> {
            service.limits.iter().map(|limit| LimiterKey::new(Some(&service.name), limit)).collect()
        };
        let own = self
            .by_name
            .values()
            .flat_map(move |service| of_service(service).into_iter().zip(&service.limits));
        shared.chain(own)
    }
}

/// As of a map; but a service is shared until it is changed: a change of one in a thousand copies one, and two sets of which
/// one came from the other are compared by comparing what differs.
impl Services {
    /// The service of this name.
    pub fn get(&self, name: &str) -> Option<&Service> {
        self.shared(name).map(|service| &**service)
    }

    /// [`Self::get`], to keep.
    pub fn shared(&self, name: &str) -> Option<&Arc<Service>> {
        self.by_name.get(name)
    }

    /// [`Self::get`], to change.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.by_name.get_mut(name).map(Arc::make_mut)
    }

    /// Whether there is a service of this name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Adds a service, in place of the one that has its name.
    pub fn insert(&mut self, name: String, service: impl Into<Arc<Service>>) {
        self.by_name.insert(name, service.into());
    }

    /// Removes a service.
    pub fn remove(&mut self, name: &str) -> Option<Arc<Service>> {
        self.by_name.remove(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Their names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    /// They, in the order of their names.
    pub fn values(&self) -> impl Iterator<Item = &Service> {
        self.by_name.values().map(|service| &**service)
    }

    /// [`Self::values`], to change them all.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        self.by_name.values_mut().map(Arc::make_mut)
    }

    /// [`Self::values`], with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Service)> {
        self.by_name.iter().map(|(name, service)| (name, &**service))
    }

    /// [`Self::iter`], to keep.
    pub fn all_shared(&self) -> impl Iterator<Item = (&String, &Arc<Service>)> {
        self.by_name.iter()
    }

    /// Whether the service of this name is the same here and there.
    pub fn agree_on(&self, other: &Self, name: &str) -> bool {
        // Of the same service no field need be looked at: that is what the standard library does for shared `Eq`.
        self.shared(name) == other.shared(name)
    }
}

impl FromIterator<(String, Service)> for Services {
    fn from_iter<I: IntoIterator<Item = (String, Service)>>(services: I) -> Self {
        let by_name = services.into_iter().map(|(name, service)| (name, Arc::new(service))).collect();
        Self { by_name, limits: Vec::new() }
    }
}

impl<const N: usize> From<[(String, Service); N]> for Services {
    fn from(services: [(String, Service); N]) -> Self {
        services.into_iter().collect()
    }
}

impl<'s> IntoIterator for &'s Services {
    type Item = (&'s String, &'s Service);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 's>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}
