//! What the meters have measured, and which limiters follow from it.

use super::super::edits;
use super::{ChangeError, Core, ReconcileError};
use crate::config::limit_keys;
use crate::controller::SuggestionQuery;
use crate::controller::ledger::Ledger;
use crate::datapath::{Datapath, TableError};
use crate::model::{Limit, LimiterKey, Policy, Shape};
use crate::suggestion::{Proposal, Quantile, Tally, propose, rate_of};
use crate::view::{Busiest, Suggestion};

impl<D: Datapath> Core<D> {
    /// Empties the meters that are about to measure for others.
    pub(super) fn clear_meters(&mut self, ledger: &Ledger) -> Result<(), ReconcileError> {
        let meters = ledger.new_meters(&self.ledger);
        if !meters.is_empty() {
            // Packets under way may still be measured by whose they were.
            self.datapath.settle();
        }
        meters.into_iter().try_for_each(|meter| self.datapath.clear_meter(meter))?;
        Ok(())
    }

    /// A limiter for each that measures, of those that packets of one service meet, or of all services' own.
    pub(in crate::controller) fn suggestions(
        &self,
        query: &SuggestionQuery,
    ) -> Result<Vec<Suggestion>, ChangeError> {
        let asked = self.measured(query)?;
        let mut suggestions = Vec::new();
        let mut silent = None;
        for (key, limit) in &asked {
            match self.suggestion(key, limit, query.quantile) {
                Ok(Ok(suggestion)) => suggestions.push(suggestion),
                Ok(Err(reason)) => silent = Some(reason),
                Err(error) => return Err(ChangeError::Refused(error.to_string())),
            }
        }
        match silent {
            Some(reason) if suggestions.is_empty() => Err(ChangeError::NotFound(reason)),
            _ => Ok(suggestions),
        }
    }

    /// The limiters that are asked about: one at least, and each is to be measured.
    fn measured(&self, query: &SuggestionQuery) -> Result<Vec<(LimiterKey, &Limit)>, ChangeError> {
        let SuggestionQuery { service, limiter, .. } = query;
        let met: Vec<(LimiterKey, &Limit)> = match service {
            None => self.services.limits.iter().map(|limit| (LimiterKey::new(None, limit), limit)).collect(),
            Some(name) => {
                let service =
                    self.services.get(name).ok_or_else(|| edits::no_service(&self.services, name))?;
                self.services.limiters_met(service).collect()
            }
        };
        let owner = service.as_deref().unwrap_or("*");
        if let Some(name) = limiter {
            let Some((key, limit)) = met.into_iter().find(|(key, _)| key.name == *name) else {
                let list = service.as_deref().unwrap_or_default();
                let sentence = format!("there is no limiter {name:?}; see `lb limit list {list}");
                return Err(ChangeError::NotFound(format!("{}`", sentence.trim_end())));
            };
            if !limit.policy().is_measured() {
                return Err(ChangeError::Refused(format!(
                    "limiter {name} measures nothing: only those do that have action = \"shadow\" and a scope of \
                     sources, \"source\" or \"prefix\"; {}",
                    adds_one(owner)
                )));
            }
            return Ok(vec![(key, limit)]);
        }
        let measured: Vec<_> = met.into_iter().filter(|(_, limit)| limit.policy().is_measured()).collect();
        if measured.is_empty() {
            let whose =
                if service.is_some() { format!("service {owner} has") } else { "there is".to_owned() };
            return Err(ChangeError::NotFound(format!(
                "{whose} no limiter that measures sources; {}",
                adds_one(owner)
            )));
        }
        Ok(measured)
    }

    /// What follows from one meter, or why nothing does.
    fn suggestion(
        &self,
        key: &LimiterKey,
        limit: &Limit,
        quantile: Quantile,
    ) -> Result<Result<Suggestion, String>, TableError> {
        let name = &key.name;
        let Some(account) = self.ledger.meter(key) else {
            return Ok(Err(format!(
                "limiter {name} measures nothing: all meters measure for other limiters with action = \"shadow\"; \
                 remove one of those and set it again (lb limit list)"
            )));
        };
        let tally = Tally::of(&self.datapath.meter(account.meter)?);
        let watched_seconds = account.since.elapsed().as_secs();
        let Some(Proposal { limit: proposed, hits }) = propose(limit, &tally, quantile) else {
            return Ok(Err(format!(
                "limiter {name} has not seen a source yet, for {watched_seconds} s; ask again when there were some"
            )));
        };
        let unit = limit.policy().unit;
        let busiest = Quantile::TOLD
            .map(|told| Busiest { percent: told.percent(), rate: rate_of(unit, tally.quantile(told)) });
        Ok(Ok(Suggestion {
            service: key.service.clone(),
            limiter: name.clone(),
            watched_seconds,
            sources: tally.sources(),
            contended: account.contended(&self.datapath)?,
            busiest: busiest.to_vec(),
            quantile: quantile.percent(),
            words: proposed.policy().to_string(),
            settings: limit_keys(proposed.policy()),
            hits,
            command: command(key, limit.policy(), proposed.policy()),
        }))
    }
}

/// How to get a limiter that measures.
fn adds_one(owner: &str) -> String {
    let owner = shown(Some(owner).filter(|owner| *owner != "*"));
    format!(
        "`lb limit set {owner} probe scope=source packets=1k/s burst=2000 action=shadow` adds one, which drops nothing"
    )
}

fn shown(service: Option<&str>) -> &str {
    service.unwrap_or("'*'")
}

/// The command that makes a limiter what is proposed.
fn command(key: &LimiterKey, present: &Policy, proposed: &Policy) -> String {
    let keys = limit_keys(proposed);
    let of = |key: &str| keys.get(key).map(|value| format!(" {key}={value}")).unwrap_or_default();
    let other = match present.shape {
        Shape::Bucket { leaks: false, .. } => "",
        Shape::Bucket { leaks: true, .. } => " algorithm=",
        Shape::Window { .. } => " algorithm= window=",
    };
    format!(
        "lb limit set {} {}{}{}{other}{}",
        shown(key.service.as_deref()),
        key.name,
        of(proposed.unit.key()),
        of("burst"),
        of("action")
    )
}
