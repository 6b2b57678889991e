//! Counters that only ever grow, although the rows behind them move and are used again.

use std::collections::BTreeMap;
use std::time::Instant;

use lb_common::layout::{Forwarded, LimiterCounts, Withheld};

use crate::datapath::{Datapath, TableError};
use crate::model::{Endpoint, LimiterKey};
use crate::placement::Placement;

/// A counter row that counts for somebody since some moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Account {
    row: u32,
    /// What the row held at that moment.
    baseline: Forwarded,
    /// What rows before this one have counted.
    carried: Forwarded,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct ServiceAccount {
    row: u32,
    baseline: Withheld,
    /// What backends that are gone have taken.
    retired: Forwarded,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct LimiterAccount {
    row: u32,
    baseline: LimiterCounts,
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
    limiters: BTreeMap<LimiterKey, LimiterAccount>,
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
    /// The ledger for the next placement. Reads the rows that come into use, while nobody counts in them yet.
    pub(super) fn next<D: Datapath + ?Sized>(
        &self,
        placement: &Placement,
        tables: &D,
    ) -> Result<Self, TableError> {
        let mut next = Self::default();
        for (name, placed) in placement.services() {
            let row = placed.row();
            let old = self.services.get(name).filter(|old| old.row == row);
            let account = match old {
                Some(old) => *old,
                None => {
                    ServiceAccount { row, baseline: tables.withheld(row)?, retired: Forwarded::default() }
                }
            };
            next.services.insert(name.clone(), account);
            for (endpoint, row) in placed.backend_rows() {
                let key = (name.clone(), *endpoint);
                let account = match self.backends.get(&key).filter(|old| old.row == row) {
                    Some(old) => *old,
                    None => Account { row, baseline: tables.forwarded(row)?, carried: Forwarded::default() },
                };
                next.backends.insert(key, account);
            }
        }
        for (key, row) in placement.limiters() {
            let account = match self.limiters.get(key).filter(|old| old.row == row) {
                Some(old) => *old,
                None => LimiterAccount { row, baseline: tables.limiter_counts(row)? },
            };
            next.limiters.insert(key.clone(), account);
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

    /// Carries over what the rows given up have counted, now that nobody counts in them any more.
    pub(super) fn settle<D: Datapath + ?Sized>(&mut self, tables: &D) -> Result<(), TableError> {
        for (service, endpoint, account) in std::mem::take(&mut self.closing) {
            let total = total(&account, tables)?;
            if let Some(heir) = self.backends.get_mut(&(service.clone(), endpoint)) {
                heir.carried = add(heir.carried, total);
            } else if let Some(service) = self.services.get_mut(&service) {
                service.retired = add(service.retired, total);
            }
        }
        Ok(())
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
        let Some(account) = self.limiters.get(key) else { return Ok(LimiterCounts::default()) };
        let (now, then) = (tables.limiter_counts(account.row)?, account.baseline);
        Ok(LimiterCounts {
            admitted: now.admitted.wrapping_sub(then.admitted),
            over: now.over.wrapping_sub(then.over),
            unmarked: now.unmarked.wrapping_sub(then.unmarked),
            contended: now.contended.wrapping_sub(then.contended),
        })
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
        let (now, then) = (tables.withheld(account.row)?, account.baseline);
        let withheld = Withheld {
            limited: now.limited.wrapping_sub(then.limited),
            dropped: now.dropped.wrapping_sub(then.dropped),
        };
        Ok(ServiceTotals { forwarded, withheld })
    }
}

impl MeterAccount {
    /// Packets that the meter had no word for.
    pub(super) fn contended<D: Datapath + ?Sized>(&self, tables: &D) -> Result<u64, TableError> {
        Ok(tables.limiter_counts(self.meter)?.contended.wrapping_sub(self.baseline.contended))
    }
}

fn total<D: Datapath + ?Sized>(account: &Account, tables: &D) -> Result<Forwarded, TableError> {
    let (now, then) = (tables.forwarded(account.row)?, account.baseline);
    let since = Forwarded {
        packets: now.packets.wrapping_sub(then.packets),
        bytes: now.bytes.wrapping_sub(then.bytes),
        new_flows: now.new_flows.wrapping_sub(then.new_flows),
    };
    Ok(add(account.carried, since))
}

fn add(a: Forwarded, b: Forwarded) -> Forwarded {
    Forwarded {
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
        new_flows: a.new_flows + b.new_flows,
    }
}
