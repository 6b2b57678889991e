//! Counters that only ever grow, although the rows behind them move and are used again.
//!
//! A row is set to zero before somebody counts in it, and what other rows have counted for its owner stands with the owner in
//! the tables: so a daemon that finds them goes on counting where the one before it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use lb_common::layout::{Forwarded, LimiterCounts, Withheld};

use crate::datapath::{Counters, Datapath, Image, TableError};
use crate::model::{Endpoint, LimiterKey};
use crate::placement::{Placed, Placement, Touched};

/// A counter row that counts for somebody.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Account {
    row: u32,
    /// What rows before this one have counted.
    carried: Forwarded,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ServiceAccount {
    row: u32,
    /// What backends that are gone have taken.
    retired: Forwarded,
    backends: BTreeMap<Endpoint, Account>,
    /// Index of the first of its backends' rows.
    first: u32,
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
    services: BTreeMap<String, Arc<ServiceAccount>>,
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

/// What stands in rows of counters.
#[derive(Debug)]
pub(super) struct Counted {
    forwarded: Vec<Forwarded>,
    withheld: Vec<Withheld>,
}

impl Ledger {
    /// The ledger of tables that were found with this content, and the placement in them.
    pub(super) fn adopt(placement: &Placement, image: &Image) -> Self {
        let mut adopted = Self::default();
        for (name, placed) in placement.services() {
            let row = placed.row();
            let retired = image.service_owners.get(&row).map(|owner| owner.retired).unwrap_or_default();
            let account = |(endpoint, row): (&Endpoint, u32)| {
                let carried = image.backend_owners.get(row).map(|owner| owner.carried).unwrap_or_default();
                (*endpoint, Account { row, carried })
            };
            let backends = placed.backend_rows().map(account).collect();
            let account = ServiceAccount { row, retired, backends, first: placed.first_backend() };
            adopted.services.insert(name.clone(), account.into());
        }
        adopted.limiters = placement.limiters().map(|(key, row)| (key.clone(), row)).collect();
        adopted
    }

    /// The ledger for the next placement, in which only touched services differ. Clears the rows that come into use, while
    /// nobody counts in them yet.
    pub(super) fn next<D: Datapath + ?Sized>(
        &self,
        placement: &Placement,
        touched: &Touched,
        tables: &mut D,
    ) -> Result<Self, TableError> {
        let mut next = Self::default();
        for (name, placed) in placement.services() {
            let account = match self.services.get(name) {
                Some(old) if !touched.has(name) => Arc::clone(old),
                old => next_account(old.map(|old| &**old), placed, tables)?.into(),
            };
            next.services.insert(name.clone(), account);
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
        for (name, old) in &self.services {
            let account = next.services.get(name);
            if account.is_none_or(|account| !Arc::ptr_eq(account, old)) {
                let stays = |endpoint: &Endpoint| account.and_then(|account| account.backends.get(endpoint));
                let left =
                    old.backends.iter().filter(|(end, old)| stays(end).map(|a| a.row) != Some(old.row));
                next.closing.extend(left.map(|(endpoint, account)| (name.clone(), *endpoint, *account)));
            }
        }
        Ok(next)
    }

    /// Carries over what the rows given up have counted, now that nobody counts in them any more; says whose there are.
    pub(super) fn settle<D: Datapath + ?Sized>(
        &mut self,
        tables: &D,
    ) -> Result<BTreeSet<String>, TableError> {
        let mut concerned = BTreeSet::new();
        for (name, endpoint, account) in std::mem::take(&mut self.closing) {
            let total = total(&account, tables)?;
            let Some(service) = self.services.get_mut(&name).map(Arc::make_mut) else { continue };
            match service.backends.get_mut(&endpoint) {
                Some(heir) => heir.carried = add(heir.carried, total),
                None => service.retired = add(service.retired, total),
            }
            concerned.insert(name);
        }
        Ok(concerned)
    }

    /// Whether there are rows given up whose counts are to be carried over.
    pub(super) fn is_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// What a backend has received; nothing if there is no such backend.
    pub(super) fn backend<D: Datapath + ?Sized>(
        &self,
        service: &str,
        endpoint: Endpoint,
        tables: &D,
    ) -> Result<Forwarded, TableError> {
        let account = self.services.get(service).and_then(|service| service.backends.get(&endpoint));
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

    /// What stands in the rows of all services and backends, at about one moment.
    pub(super) fn read<D: Datapath + ?Sized>(&self, tables: &D) -> Result<Counted, TableError> {
        // What a row costs is the kernel's copying of it: only rows that are somebody's are worth that.
        let mut forwarded: Vec<Forwarded> = Vec::new();
        for account in self.services.values() {
            let end = account.backends.values().map(|backend| backend.row + 1).max().unwrap_or(account.first);
            let rows = tables.forwarded_in(account.first..end)?;
            let (first, end) = (account.first as usize, end as usize);
            forwarded.resize(forwarded.len().max(end), Forwarded::default());
            forwarded[first..end].copy_from_slice(&rows);
        }
        let services = self.services.values().map(|account| account.row + 1).max();
        Ok(Counted { forwarded, withheld: tables.withheld_in(0..services.unwrap_or_default())? })
    }

    /// What was forwarded and not forwarded for a service since it exists, of which `counted` was read before.
    pub(super) fn service<D: Datapath + ?Sized>(
        &self,
        name: &str,
        counted: &Counted,
        tables: &D,
    ) -> Result<ServiceTotals, TableError> {
        let Some(account) = self.services.get(name) else { return Ok(ServiceTotals::default()) };
        let mut forwarded = account.retired;
        for backend in account.backends.values() {
            let row = counted.forwarded.get(backend.row as usize).copied().unwrap_or_default();
            forwarded = add(forwarded, add(backend.carried, row));
        }
        for (_, _, account) in self.closing.iter().filter(|(service, ..)| service == name) {
            forwarded = add(forwarded, total(account, tables)?);
        }
        let withheld = counted.withheld.get(account.row as usize).copied().unwrap_or_default();
        Ok(ServiceTotals { forwarded, withheld })
    }

    /// Notes with the owners of rows in the tables what other rows have counted for them: for backends of these services.
    pub(super) fn note(&self, image: &mut Image, services: &Touched) {
        for (name, account) in &self.services {
            if let Some(owner) = image.service_owners.get_mut(&account.row) {
                owner.retired = account.retired;
            }
            if !services.has(name) {
                continue;
            }
            let Some(owners) = image.backend_owners.run_mut(account.first) else { continue };
            for backend in account.backends.values() {
                if let Some(owner) = owners.get_mut((backend.row - account.first) as usize) {
                    owner.carried = backend.carried;
                }
            }
        }
    }
}

/// The account of a service that may have had one before. Rows that come into use are cleared.
fn next_account<D: Datapath + ?Sized>(
    old: Option<&ServiceAccount>,
    placed: &Placed,
    tables: &mut D,
) -> Result<ServiceAccount, TableError> {
    let row = placed.row();
    let retired = old.filter(|old| old.row == row).map(|old| old.retired);
    if retired.is_none() {
        tables.clear(Counters::Withheld, row)?;
    }
    let mut backends = BTreeMap::new();
    for (endpoint, row) in placed.backend_rows() {
        let old = old.and_then(|old| old.backends.get(endpoint)).filter(|old| old.row == row).copied();
        if old.is_none() {
            tables.clear(Counters::Forwarded, row)?;
        }
        backends.insert(*endpoint, old.unwrap_or(Account { row, carried: Forwarded::default() }));
    }
    Ok(ServiceAccount { row, retired: retired.unwrap_or_default(), backends, first: placed.first_backend() })
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
