//! What is wanted, as text: every key that says something, in an order that never changes, read back as the same value.

use std::fmt;
use std::fmt::Write as _;
use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use toml::ser::ValueSerializer;

use super::keys;
use super::limit::limit_keys;
use super::units::show_duration;
use super::{DaemonSettings, Scalar};
use crate::model::{
    AdminState, Affinity, Backend, Desired, HealthCheck, Limit, ListName, Lists, Service, ServiceOptions,
};

/// One value as TOML writes it within a line.
fn value<T: Serialize + ?Sized>(value: &T) -> String {
    let mut text = String::new();
    // Texts, numbers and tables of them: there is nothing that TOML has no form for.
    let written = value.serialize(ValueSerializer::new(&mut text));
    debug_assert!(written.is_ok(), "{written:?}");
    text
}

/// Writes `key = value` lines.
struct Lines<'t>(&'t mut String);

impl Lines<'_> {
    fn raw(&mut self, key: &str, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{key} = {text}");
    }

    fn set<T: Serialize + ?Sized>(&mut self, key: &str, to: &T) {
        self.raw(key, &value(to));
    }

    fn text(&mut self, key: &str, to: impl fmt::Display) {
        self.set(key, &to.to_string());
    }

    /// An array with a line for each of its items.
    fn array(&mut self, key: &str, items: impl Iterator<Item = String>) {
        let lines: Vec<String> = items.map(|item| format!("    {item},\n")).collect();
        if !lines.is_empty() {
            self.raw(key, &format!("[\n{}]", lines.concat()));
        }
    }
}

/// The `[daemon]` section, with every key that is set or has a default.
pub fn render_settings(daemon: &DaemonSettings) -> String {
    let mut text = "[daemon]\n".to_owned();
    for (key, value) in settings(daemon) {
        Lines(&mut text).raw(key, &value);
    }
    text
}

/// The keys of `[daemon]` and their values.
fn settings(daemon: &DaemonSettings) -> Vec<(&'static str, String)> {
    let DaemonSettings { interfaces, metrics, socket, api, state, hash_key, flows, on_exit, pins } = daemon;
    let metrics = metrics.map(|address| ("metrics", value(&address.to_string())));
    let hash_key = hash_key.as_ref().map(|path| ("hash_key", value(&format!("file:{}", path.display()))));
    let given = [
        Some(("interfaces", value(interfaces))),
        metrics,
        Some(("socket", value(socket))),
        api.as_ref().map(|api| ("api", value(api))),
        Some(("state", value(state))),
        hash_key,
        Some(("flows", value(flows))),
        Some(("on_exit", value(on_exit.name()))),
        Some(("pins", value(pins))),
    ];
    given.into_iter().flatten().collect()
}

/// The keys of `[daemon]` that differ, each of which needs a restart.
pub fn changed_settings(before: &DaemonSettings, after: &DaemonSettings) -> Vec<&'static str> {
    let (before, after) = (settings(before), settings(after));
    let differs = |key: &&str| {
        let of = |settings: &[(&str, String)]| {
            settings.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
        };
        of(&before) != of(&after)
    };
    keys::DAEMON.names().into_iter().filter(differs).collect()
}

/// Everything but `[daemon]`.
pub fn render(desired: &Desired) -> String {
    let mut text = render_rest(desired);
    for service in desired.services.values() {
        text += &render_service(service);
    }
    text
}

/// What is of no service: the lists, and the limiters of all.
pub(crate) fn render_rest(desired: &Desired) -> String {
    let mut text = render_lists(&desired.lists);
    for limit in &desired.services.limits {
        text += "[[limit]]\n";
        for (key, value) in limit_entries(limit) {
            Lines(&mut text).set(key, &value);
        }
        text.push('\n');
    }
    text
}

fn render_lists(lists: &Lists) -> String {
    if lists.is_empty() {
        return String::new();
    }
    let mut text = "[lists]\n".to_owned();
    for list in [ListName::Deny, ListName::Allow] {
        let prefixes = lists.of(list).iter().map(|prefix| value(&prefix.to_string()));
        Lines(&mut text).array(&list.to_string(), prefixes);
    }
    text + "\n"
}

/// One `[[service]]`, and an empty line.
pub(crate) fn render_service(service: &Service) -> String {
    let Service { name, vip, protocol, mode, table_size, limits, health, options, backends } = service;
    let mut text = "[[service]]\n".to_owned();
    let mut lines = Lines(&mut text);
    lines.set("name", name);
    lines.text("vip", vip);
    lines.text("protocol", protocol);
    lines.text("mode", mode);
    render_options(&mut lines, options);
    lines.set("table_size", table_size);
    lines.array("limit", limits.iter().map(inline_limit));
    if let Some(health) = health {
        lines.set("health", &HealthText::of(health));
    }
    lines.array("backends", backends.iter().map(|backend| value(&BackendText::of(backend))));
    text + "\n"
}

fn render_options(lines: &mut Lines<'_>, options: &ServiceOptions) {
    let ServiceOptions {
        affinity,
        quic,
        idle_timeout,
        drain_timeout,
        slow_start,
        announce,
        outer_source,
        gue_port,
    } = options;
    if let Some(port) = gue_port {
        lines.set("gue_port", port);
    }
    if let Some(source) = outer_source {
        lines.text("outer_source", source);
    }
    if *affinity != Affinity::default() {
        lines.text("affinity", affinity);
    }
    if *quic {
        lines.set("quic", quic);
    }
    for (key, time) in
        [("idle_timeout", idle_timeout), ("drain_timeout", drain_timeout), ("slow_start", slow_start)]
    {
        if let Some(time) = time {
            lines.text(key, show_duration(*time));
        }
    }
    if *announce {
        lines.set("announce", "l2");
    }
}

/// The keys of a limiter in the order of the documentation.
fn limit_entries(limit: &Limit) -> Vec<(&'static str, Scalar)> {
    let mut entries = limit_keys(limit.policy());
    entries.insert("name".to_owned(), Scalar::Text(limit.name().to_owned()));
    keys::LIMIT.names().into_iter().filter_map(|key| Some((key, entries.remove(key)?))).collect()
}

fn inline_limit(limit: &Limit) -> String {
    let entries: Vec<String> =
        limit_entries(limit).into_iter().map(|(key, to)| format!("{key} = {}", value(&to))).collect();
    format!("{{ {} }}", entries.join(", "))
}

#[derive(Serialize)]
struct HealthText {
    kind: &'static str,
    interval: String,
    timeout: String,
    rise: u32,
    fall: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

impl HealthText {
    fn of(health: &HealthCheck) -> Self {
        let HealthCheck { interval, timeout, rise, fall, port } = *health;
        let (interval, timeout) = (show_duration(interval), show_duration(timeout));
        Self { kind: "tcp", interval, timeout, rise, fall, port: port.map(Into::into) }
    }
}

#[derive(Serialize)]
struct BackendText {
    address: String,
    weight: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_timeout: Option<String>,
}

impl BackendText {
    fn of(backend: &Backend) -> Self {
        let (state, timeout) = match backend.admin {
            AdminState::Ready => (None, None),
            AdminState::Drain { timeout } => (Some("drain"), timeout),
            AdminState::Maintenance => (Some("maintenance"), None),
        };
        let drain_timeout = timeout.map(show_duration);
        Self { address: backend.endpoint.to_string(), weight: backend.weight.0, state, drain_timeout }
    }
}

/// What a configuration says, in 128 bits. Comments, spacing and the order of services do not count, nor does `[daemon]`.
///
/// It is kept over restarts and over new versions: what makes it another for the same files drops the changes that were
/// made since by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(u128);

impl Digest {
    /// The digest of a text.
    pub fn of(text: &str) -> Self {
        let mut hasher = SipHasher24::new();
        hasher.write(text.as_bytes());
        Self(hasher.finish128().as_u128())
    }
}

/// The digest of what is wanted.
pub fn digest(desired: &Desired) -> Digest {
    Digest::of(&render(desired))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

/// Why a text is not a [`Digest`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 32 hexadecimal digits")]
pub struct DigestError(String);

impl std::str::FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| DigestError(text.to_owned()))
    }
}

#[cfg(test)]
pub(crate) mod tests;
