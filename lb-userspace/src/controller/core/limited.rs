//! Who is over which limit, told by name.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use lb_common::layout::VipKey;

use super::super::limited::{Culprit, Rate};
use super::{ChangeError, Core, TableError, edits};
use crate::datapath::Datapath;
use crate::model::{Limit, LimiterKey, Prefix, Scope};
use crate::view::{LimitedSource, LimitedView, SamplesView};

impl<D: Datapath> Core<D> {
    /// Whether any packet may be over a limit.
    pub(in crate::controller) fn has_limiters(&self) -> bool {
        self.services.limiters().next().is_some()
    }

    /// Takes in what the program tells of packets over limits.
    pub(in crate::controller) fn take_over_samples(&mut self) -> Result<(), TableError> {
        let samples = self.datapath.take_over_samples();
        let now = Instant::now();
        if samples.is_empty() {
            self.limited.turn(now);
            return Ok(());
        }
        let lost = self.datapath.sample_counts()?.lost;
        self.limited.record(samples, lost, now);
        Ok(())
    }

    /// The sources that are over most at the limiters that packets of one service meet, or at any: `most` of them.
    pub(in crate::controller) fn limited(
        &mut self,
        service: Option<&str>,
        most: usize,
    ) -> Result<LimitedView, ChangeError> {
        let limiters: Vec<(LimiterKey, &Limit)> = match service {
            None => self.services.limiters().collect(),
            Some(name) => {
                let service = self.services.get(name);
                let service = service.ok_or_else(|| edits::no_service(&self.services, name))?;
                self.services.limiters_met(service).collect()
            }
        };
        let names: Vec<_> = limiters
            .into_iter()
            .filter_map(|(key, limit)| Some((self.placement.limiter_salt(&key)?, key, limit.clone())))
            .collect();
        self.take_over_samples().map_err(|error| ChangeError::Refused(error.to_string()))?;
        let now = Instant::now();
        let mut sources: Vec<LimitedSource> = Vec::new();
        // Samples of limiters that are gone, or mean something else by now, have salts that no limiter has.
        for (culprit, rate) in self.limited.sources(now) {
            if let Some((_, key, limit)) = names.iter().find(|(salt, ..)| *salt == culprit.salt) {
                sources.push(told(culprit, rate, key, limit));
            }
        }
        sources.sort_by(|a, b| b.packets_per_second.total_cmp(&a.packets_per_second));
        let (samples, samples_lost) = self.limited.samples();
        let view = LimitedView {
            seconds: hundredths(self.limited.time(now).as_secs_f64()),
            packets_per_second: hundredths(
                names.iter().map(|(salt, ..)| self.limited.total(*salt, now)).sum(),
            ),
            samples,
            samples_lost,
            sources_total: sources.len(),
            sources,
        };
        Ok(LimitedView { sources: view.sources.into_iter().take(most).collect(), ..view })
    }

    /// What became of the samples.
    pub(super) fn samples_view(&self) -> Result<SamplesView, TableError> {
        let counts = self.datapath.sample_counts()?;
        Ok(SamplesView { told: counts.told, lost: counts.lost })
    }
}

fn told(culprit: Culprit, rate: Rate, key: &LimiterKey, limit: &Limit) -> LimitedSource {
    LimitedSource {
        source: source(culprit.source, limit.policy().scope),
        packets_per_second: hundredths(rate.mean),
        uncertainty: hundredths(rate.uncertainty),
        service: key.service.clone(),
        limiter: key.name.clone(),
        action: limit.policy().action,
    }
}

/// What a limiter with this scope tells from other sources; nothing if it tells none.
fn source(key: VipKey, scope: Scope) -> Option<String> {
    let bytes: [u8; 16] = bytemuck::cast(key);
    let address = Ipv6Addr::from(bytes).to_canonical();
    let length = match (scope, address) {
        (Scope::Service, _) => return None,
        (Scope::Source, IpAddr::V4(_)) => 32,
        (Scope::Source, IpAddr::V6(_)) => 64,
        (Scope::Prefix { v4, .. }, IpAddr::V4(_)) => v4,
        (Scope::Prefix { v6, .. }, IpAddr::V6(_)) => v6,
    };
    Some(Prefix::of(address, length).to_string())
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
