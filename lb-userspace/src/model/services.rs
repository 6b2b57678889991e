//! All services, and the limiters that every one of them has.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Deref, DerefMut};

use super::{Limit, Service};

/// Services by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    by_name: BTreeMap<String, Service>,
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

impl Deref for Services {
    type Target = BTreeMap<String, Service>;

    fn deref(&self) -> &Self::Target {
        &self.by_name
    }
}

impl DerefMut for Services {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.by_name
    }
}

impl FromIterator<(String, Service)> for Services {
    fn from_iter<I: IntoIterator<Item = (String, Service)>>(services: I) -> Self {
        Self { by_name: services.into_iter().collect(), limits: Vec::new() }
    }
}

impl<const N: usize> From<[(String, Service); N]> for Services {
    fn from(services: [(String, Service); N]) -> Self {
        services.into_iter().collect()
    }
}

impl<'s> IntoIterator for &'s Services {
    type Item = (&'s String, &'s Service);
    type IntoIter = btree_map::Iter<'s, String, Service>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_name.iter()
    }
}
