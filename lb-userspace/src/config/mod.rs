//! The configuration files: TOML in, [`Config`] out, or every mistake with its file, line and field; and TOML out again.

mod admin;
mod api;
mod conflicts;
mod document;
mod files;
mod hash_key;
pub mod keys;
mod limit;
mod lists;
mod options;
mod render;
mod rules;
mod service;
mod service_keys;
mod tokens;
mod units;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

pub use self::admin::{PaceError, parse_drain_timeout, parse_slow_start};
pub use self::api::ApiSettings;
pub use self::conflicts::{NatConflict, NatError, TogetherError, check_together, nat_conflicts};
pub use self::files::{Text, load, parse, parse_text};
pub use self::hash_key::{HashKeyError, read_hash_key};
pub use self::limit::{LimitKeys, LimitMistake, Scalar, limit_keys, packets_per_source, read_limit};
pub use self::render::{Digest, DigestError, changed_settings, digest, render, render_settings};
pub(crate) use self::render::{render_rest, render_service};
pub use self::rules::{
    BackendError, InterfaceError, InterfacesError, LimitConflict, MAX_BACKENDS, MAX_WINDOWS, NameError,
    OuterSourceRuleError, TableSizeError, VipError, WindowsError, check_backend, check_interface,
    check_interfaces, check_limits, check_name, check_outer_source, check_shared_limits, check_table_size,
    check_vip, check_windows,
};
pub(crate) use self::service_keys::render_keys;
pub use self::service_keys::{ServiceKeys, read_service, service_keys};
pub use self::tokens::{Day, Role, Token, TokenDigest, read_tokens};
pub use self::units::{
    DurationError, RateError, parse_bit_rate, parse_bits, parse_duration, parse_rate, show_bits, show_count,
    show_duration,
};

use self::document::Node;
use crate::datapath::DEFAULT_PINS;
use crate::model::{Desired, Limit, ListName, Lists, Service, Services};

/// Where daemon and CLI meet unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb/lb.sock";

/// Where generations are kept unless told otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/lb";

/// Flows that can be remembered unless told otherwise: 16 MiB.
const DEFAULT_FLOWS: u32 = 1 << 20;
/// Flows that can be remembered: from one set of them to 1 GiB.
const FLOWS: RangeInclusive<u32> = 8..=1 << 26;

/// A whole, checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What concerns the daemon itself.
    pub daemon: DaemonSettings,
    /// Limiters of all services, in the order of the files.
    pub limits: Vec<Limit>,
    /// The services, in the order of the files; names are unique, and so are VIP, port and protocol together.
    pub services: Vec<Service>,
    /// Which sources are denied, and which are not limited.
    pub lists: Lists,
    /// Files that add to a list: [`load`] has read them, [`parse`] has not.
    pub list_files: Vec<(ListName, PathBuf)>,
}

impl Config {
    /// All that is to be balanced.
    pub fn services(&self) -> Services {
        let services = self.services.iter().map(|service| (service.name.clone(), service.clone()));
        let mut services: Services = services.collect();
        services.limits.clone_from(&self.limits);
        services
    }

    /// All that it says but for `[daemon]`.
    pub fn desired(&self) -> Desired {
        Desired { services: self.services(), lists: self.lists.clone().into() }
    }
}

/// The `[daemon]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Interfaces to attach to; at least one, each once.
    pub interfaces: Vec<String>,
    /// Where `/metrics` is served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The API's Unix socket.
    pub socket: PathBuf,
    /// Where the API is served over the network, if anywhere.
    pub api: Option<ApiSettings>,
    /// The directory that keeps generations.
    pub state: PathBuf,
    /// The file that holds the flow hash's key; without it each host has a key of its own.
    pub hash_key: Option<PathBuf>,
    /// Flows that can be remembered while slots move, rounded up to what the table's shape allows.
    pub flows: u32,
    /// What becomes of the program when the daemon ends.
    pub on_exit: OnExit,
    /// Where program and tables are pinned.
    pub pins: PathBuf,
}

/// What becomes of the program when the daemon ends, however that happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExit {
    /// It goes on forwarding, and the next daemon goes on with it.
    #[default]
    Keep,
    /// It goes, too.
    Detach,
}

impl OnExit {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Detach => "detach",
        }
    }
}

/// Why files are not a configuration: all their mistakes, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one mistake, in the order of the files and of their lines.
    pub mistakes: Vec<Mistake>,
}

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, counted from 1; absent if the file as a whole is meant.
    pub line: Option<usize>,
    /// The field, such as `service web: backends[1].address`; empty where the text is no TOML.
    pub field: String,
    /// What is wrong with it and what is expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.mistakes.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.field.is_empty() {
            write!(f, " {}:", self.field)?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The limiters of all services, from all files.
fn read_shared_limits(nodes: &[Node<'_>]) -> Vec<Limit> {
    let items = nodes.iter().flat_map(|node| node.items("[[limit]] sections").unwrap_or_default());
    let read = limit::read_limits(&items.collect::<Vec<_>>());
    let (limits, nodes): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    for LimitConflict { limit, error } in check_shared_limits(&limits) {
        nodes[limit].note(error);
    }
    limits
}

fn read_daemon(node: &Node<'_>) -> Option<DaemonSettings> {
    let section = node.section(&keys::DAEMON.names())?;
    let interfaces =
        section.required("interfaces", "interfaces = [\"eth0\"]").and_then(|node| read_interfaces(&node));
    let metrics = section.optional("metrics").and_then(|node| node.read_with(parse_listener));
    let socket = section.optional("socket").and_then(|node| node.text());
    let api = section.optional("api").map(|node| api::read_api(&node));
    let state = section.optional("state").and_then(|node| node.read_with(parse_folder));
    let hash_key = section.optional("hash_key").and_then(|node| node.read_with(parse_key_source));
    let on_exit = section.optional("on_exit").map_or(Some(OnExit::default()), |node| {
        node.word(&[("keep", OnExit::Keep), ("detach", OnExit::Detach)])
    });
    let pins = section
        .optional("pins")
        .map_or(Some(DEFAULT_PINS.into()), |node| node.read_with(parse_absolute(DEFAULT_PINS)));
    let flows = section.optional("flows").map_or(Some(DEFAULT_FLOWS), |node| node.integer(FLOWS));
    Some(DaemonSettings {
        interfaces: interfaces?,
        metrics,
        socket: socket.unwrap_or(DEFAULT_SOCKET).into(),
        api: api.map_or(Some(None), |api| api.map(Some))?,
        state: state.unwrap_or_else(|| DEFAULT_STATE.into()),
        hash_key,
        flows: flows?,
        on_exit: on_exit?,
        pins: pins?,
    })
}

fn read_interfaces(node: &Node<'_>) -> Option<Vec<String>> {
    let items = node.items("[\"eth0\"]")?;
    if let Err(error) = check_interfaces(items.len()) {
        node.note(error.to_string());
    }
    let mut names: Vec<&str> = Vec::new();
    for item in &items {
        let Some(name) = item.text() else { continue };
        if let Err(error) = check_interface(name) {
            item.note(error.to_string());
        } else if names.contains(&name) {
            item.note(format!("{name:?} is named twice"));
        }
        names.push(name);
    }
    Some(names.into_iter().map(str::to_owned).collect())
}

fn parse_listener(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT such as 127.0.0.1:9441 or [::1]:9441"))
}

fn parse_folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("a directory is expected, such as \"/var/lib/lb\"".to_owned());
    }
    Ok(text.into())
}

/// The daemon may be started anywhere, so a relative path would say nothing.
fn parse_absolute(example: &str) -> impl Fn(&str) -> Result<PathBuf, String> {
    move |text| {
        if text.starts_with('/') {
            Ok(text.into())
        } else {
            Err(format!("{text:?} is not an absolute path such as {example:?}"))
        }
    }
}

/// The prefix leaves room for other sources of keys.
fn parse_key_source(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("file:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(format!("{text:?} is not file:PATH such as \"file:/etc/lb/hash.key\"")),
    }
}

#[cfg(test)]
pub(crate) use self::render::tests as render_tests;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
