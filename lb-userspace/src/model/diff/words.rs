//! Differences as people read them: a line each, `+` what comes, `-` what goes, `~` what becomes another.

use std::fmt;

use super::{Difference, ItemChange, Setting, Was};
use crate::config::show_duration;
use crate::model::{AdminState, Backend, Endpoint, HealthCheck, Limit, Service};

/// Prefixes of a list that are told one by one.
const TOLD: usize = 10;

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService(service) => write!(f, "+ service {}", summary(service)),
            Self::RemoveService(service) => write!(f, "- service {}", summary(service)),
            Self::Setting { service, setting } => write!(f, "~ service {service}: {setting}"),
            Self::Backend { service, change } => backend(f, service, change),
            Self::Limit { service, change } => limit(f, service.as_deref(), change),
            Self::Listed { list, added, prefixes } => {
                let sign = if *added { '+' } else { '-' };
                for (index, prefix) in prefixes.iter().take(TOLD).enumerate() {
                    write!(f, "{}{sign} {list}: {prefix}", if index > 0 { "\n" } else { "" })?;
                }
                match prefixes.len().saturating_sub(TOLD) {
                    0 => Ok(()),
                    more => write!(f, "\n{sign} {list}: {more} more"),
                }
            }
        }
    }
}

/// Such as `web: 192.0.2.10:80 tcp, dsr-l2 to 3 backends`.
fn summary(service: &Service) -> String {
    let Service { name, vip, protocol, mode, backends, .. } = service;
    let count = backends.len();
    let backends = if count == 1 { "backend" } else { "backends" };
    format!("{name}: {vip} {protocol}, {mode} to {count} {backends}")
}

fn backend(f: &mut fmt::Formatter<'_>, service: &str, change: &ItemChange<Backend, Endpoint>) -> fmt::Result {
    match change {
        ItemChange::Add(Backend { endpoint, weight, admin }) => {
            write!(f, "+ service {service}: backend {endpoint} weight {}", weight.0)?;
            if *admin == AdminState::Ready { Ok(()) } else { write!(f, ", {}", state(*admin)) }
        }
        ItemChange::Remove(endpoint) => write!(f, "- service {service}: backend {endpoint}"),
        ItemChange::Replace(was) => {
            let weight = was.weight().map(|was| format!("weight {} -> {}", was.from.0, was.to.0));
            let admin = was.admin().map(|was| format!("{} -> {}", state(was.from), state(was.to)));
            let words: Vec<String> = weight.into_iter().chain(admin).collect();
            write!(f, "~ service {service}: backend {} {}", was.to.endpoint, words.join(", "))
        }
        ItemChange::Order(_) => write!(f, "~ service {service}: its backends in another order"),
    }
}

fn state(admin: AdminState) -> String {
    match admin {
        AdminState::Ready => "ready".to_owned(),
        AdminState::Drain { timeout: None } => "drain".to_owned(),
        AdminState::Drain { timeout: Some(timeout) } => format!("drain for {}", show_duration(timeout)),
        AdminState::Maintenance => "maintenance".to_owned(),
    }
}

fn limit(
    f: &mut fmt::Formatter<'_>,
    service: Option<&str>,
    change: &ItemChange<Limit, String>,
) -> fmt::Result {
    let owner = service.map_or_else(|| "all services".to_owned(), |name| format!("service {name}"));
    match change {
        ItemChange::Add(limit) => write!(f, "+ {owner}: limiter {}: {}", limit.name(), limit.policy()),
        ItemChange::Remove(name) => write!(f, "- {owner}: limiter {name}"),
        ItemChange::Replace(Was { from, to }) => {
            write!(f, "~ {owner}: limiter {}: {} -> {}", to.name(), from.policy(), to.policy())
        }
        ItemChange::Order(_) => write!(f, "~ {owner}: limiters in another order"),
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vip(was) => told(f, "vip", was, ToString::to_string),
            Self::Protocol(was) => told(f, "protocol", was, ToString::to_string),
            Self::Mode(was) => told(f, "mode", was, ToString::to_string),
            Self::GuePort(was) => told(f, "gue_port", was, optional),
            Self::OuterSource(was) => told(f, "outer_source", was, optional),
            Self::Affinity(was) => told(f, "affinity", was, ToString::to_string),
            Self::Quic(was) => told(f, "quic", was, ToString::to_string),
            Self::IdleTimeout(was) => told(f, "idle_timeout", was, |timeout| {
                timeout.map_or_else(|| "default".to_owned(), show_duration)
            }),
            Self::DrainTimeout(was) => told(f, "drain_timeout", was, |timeout| {
                timeout.map_or_else(|| "none".to_owned(), show_duration)
            }),
            Self::SlowStart(was) => {
                told(f, "slow_start", was, |time| time.map_or_else(|| "0s".to_owned(), show_duration))
            }
            Self::Announce(was) => {
                told(f, "announce", was, |announce| if *announce { "l2" } else { "none" }.to_owned())
            }
            Self::TableSize(was) => told(f, "table_size", was, ToString::to_string),
            Self::Health(was) => {
                told(f, "health", was, |health| health.as_ref().map_or_else(|| "none".to_owned(), check))
            }
        }
    }
}

fn told<T>(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    Was { from, to }: &Was<T>,
    words: impl Fn(&T) -> String,
) -> fmt::Result {
    write!(f, "{key} {} -> {}", words(from), words(to))
}

#[expect(clippy::ref_option, reason = "what a setting was and becomes is shown by reference")]
fn optional<T: fmt::Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "default".to_owned(), ToString::to_string)
}

fn check(health: &HealthCheck) -> String {
    let HealthCheck { interval, timeout, rise, fall, port } = health;
    let [interval, timeout] = [interval, timeout].map(|time| show_duration(*time));
    let port = port.map_or_else(String::new, |port| format!(" port={port}"));
    format!("tcp(interval={interval} timeout={timeout} rise={rise} fall={fall}{port})")
}

/// The differences as lines.
pub fn lines(differences: &[Difference]) -> Vec<String> {
    let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    texts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
}
