//! Counters that only ever grow, although the rows behind them move and are used again.
//!
//! A row is set to zero before somebody counts in it, and what other rows have counted for its owner stands with the owner in
//! the tables: so a daemon that finds them goes on counting where the one before it ended.

use std::collections::BTreeMap;
use std::time::Instant;

use lb_common::layout::{Forwarded, LimiterCounts, Withheld};

use crate::datapath::{Counters, Datapath, Image, TableError};
use crate::model::{Endpoint, LimiterKey};
use crate::placement::Placement;

/// A counter row that counts for somebody.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Account {
    row: u32,
    /// What rows before this one have counted.
    carried: Forwarded,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct ServiceAccount {
    row: u32,
    /// What backends that are gone have taken.
    retired: Forwarded,
}

/// A meter that measures for a limiter since some moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MeterAccount {
    pub(super) meter: u32,
    pub(super) since: Instant,
    baseline: LimiterCounts,
}

/// Who counts in which row. Made by [`Ledger::next`] before a change, completed by [`Ledger::settle`] after it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    backends: BTreeMap<(String, Endpoint), Account>,
    services: BTreeMap<String, ServiceAccount>,
    limiters: BTreeMap<LimiterKey, u32>,
    meters: BTreeMap<LimiterKey, MeterAccount>,
    closing: Vec<(String, Endpoint, Account)>,
}

/// All that a service has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceTotals {
    /// What went to its backends, those of the past included.
    pub(super) forwarded: Forwarded,
    /// What did not.
    pub(super) withheld: Withheld,
}

impl Ledger {
    /// The ledger of tables that were found with this content, and the placement in them.
    pub(super) fn adopt(placement: &Placement, image: &Image) -> Self {
        let mut adopted = Self::default();
        for (name, placed) in placement.services() {
            let row = placed.row();
            let retired = image.service_owners.get(&row).map(|owner| owner.retired).unwrap_or_default();
            adopted.services.insert(name.clone(), ServiceAccount { row, retired });
            for (endpoint, row) in placed.backend_rows() {
                let carried = image.backend_owners.get(&row).map(|owner| owner.carried).unwrap_or_default();
                adopted.backends.insert((name.clone(), *endpoint), Account { row, carried });
            }
        }
        adopted.limiters = placement.limiters().map(|(key, row)| (key.clone(), row)).collect();
        adopted
    }

    /// The ledger for the next placement. Clears the rows that come into use, while nobody counts in them yet.
    pub(super) fn next<D: Datapath + ?Sized>(
        &self,
        placement: &Placement,
        tables: &mut D,
    ) -> Result<Self, TableError> {
        let mut next = Self::default();
        for (name, placed) in placement.services() {
            let row = placed.row();
            let old = self.services.get(name).filter(|old| old.row == row).copied();
            let account = old.unwrap_or(ServiceAccount { row, retired: Forwarded::default() });
            if old.is_none() {
                tables.clear(Counters::Withheld, row)?;
            }
            next.services.insert(name.clone(), account);
            for (endpoint, row) in placed.backend_rows() {
                let key = (name.clone(), *endpoint);
                let old = self.backends.get(&key).filter(|old| old.row == row).copied();
                if old.is_none() {
                    tables.clear(Counters::Forwarded, row)?;
                }
                next.backends.insert(key, old.unwrap_or(Account { row, carried: Forwarded::default() }));
            }
        }
        for (key, row) in placement.limiters() {
            if self.limiters.get(key) != Some(&row) {
                tables.clear(Counters::Limiter, row)?;
            }
            next.limiters.insert(key.clone(), row);
        }
        for (key, meter) in placement.meters() {
            let account = match self.meter(key).filter(|old| old.meter == meter) {
                Some(old) => *old,
                None => {
                    MeterAccount { meter, since: Instant::now(), baseline: tables.limiter_counts(meter)? }
                }
            };
            next.meters.insert(key.clone(), account);
        }
        let left =
            self.backends.iter().filter(|(key, old)| next.backends.get(*key).map(|a| a.row) != Some(old.row));
        next.closing =
            left.map(|((service, endpoint), account)| (service.clone(), *endpoint, *account)).collect();
        Ok(next)
    }

    /// Carries over what the rows given up have counted, now that nobody counts in them any more; says whether there are any.
    pub(super) fn settle<D: Datapath + ?Sized>(&mut self, tables: &D) -> Result<bool, TableError> {
        let any = !self.closing.is_empty();
        for (service, endpoint, account) in std::mem::take(&mut self.closing) {
            let total = total(&account, tables)?;
            if let Some(heir) = self.backends.get_mut(&(service.clone(), endpoint)) {
                heir.carried = add(heir.carried, total);
            } else if let Some(service) = self.services.get_mut(&service) {
                service.retired = add(service.retired, total);
            }
        }
        Ok(any)
    }

    /// What a backend has received; nothing if there is no such backend.
    pub(super) fn backend<D: Datapath + ?Sized>(
        &self,
        service: &str,
        endpoint: Endpoint,
        tables: &D,
    ) -> Result<Forwarded, TableError> {
        let account = self.backends.get(&(service.to_owned(), endpoint));
        account.map_or(Ok(Forwarded::default()), |account| total(account, tables))
    }

    /// What a limiter has said; nothing if there is no such limiter.
    pub(super) fn limiter<D: Datapath + ?Sized>(
        &self,
        key: &LimiterKey,
        tables: &D,
    ) -> Result<LimiterCounts, TableError> {
        self.limiters.get(key).map_or(Ok(LimiterCounts::default()), |row| tables.limiter_counts(*row))
    }

    /// The meter of a limiter, if it has one.
    pub(super) fn meter(&self, key: &LimiterKey) -> Option<&MeterAccount> {
        self.meters.get(key)
    }

    /// The meters that measure for others than in the ledger before.
    pub(super) fn new_meters(&self, before: &Self) -> Vec<u32> {
        let is_new = |(key, account): &(&LimiterKey, &MeterAccount)| {
            before.meter(key).is_none_or(|old| old.meter != account.meter)
        };
        self.meters.iter().filter(is_new).map(|(_, account)| account.meter).collect()
    }

    /// What a service has received; nothing if there is no such service.
    pub(super) fn service<D: Datapath + ?Sized>(
        &self,
        name: &str,
        tables: &D,
    ) -> Result<ServiceTotals, TableError> {
        let Some(account) = self.services.get(name) else { return Ok(ServiceTotals::default()) };
        let mut forwarded = account.retired;
        for (_, backend) in self.backends.iter().filter(|((service, _), _)| service == name) {
            forwarded = add(forwarded, total(backend, tables)?);
        }
        Ok(ServiceTotals { forwarded, withheld: tables.withheld(account.row)? })
    }

    /// Notes with the owners of rows in the tables what other rows have counted for them.
    pub(super) fn note(&self, image: &mut Image) {
        for account in self.backends.values() {
            if let Some(owner) = image.backend_owners.get_mut(&account.row) {
                owner.carried = account.carried;
            }
        }
        for account in self.services.values() {
            if let Some(owner) = image.service_owners.get_mut(&account.row) {
                owner.retired = account.retired;
            }
        }
    }
}

impl MeterAccount {
    /// Packets that the meter had no word for.
    pub(super) fn contended<D: Datapath + ?Sized>(&self, tables: &D) -> Result<u64, TableError> {
        Ok(tables.limiter_counts(self.meter)?.contended.wrapping_sub(self.baseline.contended))
    }
}

fn total<D: Datapath + ?Sized>(account: &Account, tables: &D) -> Result<Forwarded, TableError> {
    Ok(add(account.carried, tables.forwarded(account.row)?))
}

fn add(a: Forwarded, b: Forwarded) -> Forwarded {
    Forwarded {
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
        new_flows: a.new_flows + b.new_flows,
    }
}
