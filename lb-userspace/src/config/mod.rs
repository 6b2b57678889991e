//! The configuration file: TOML in, [`Config`] out, or every mistake with its file, line and field.

mod admin;
mod conflicts;
mod document;
mod hash_key;
mod limit;
mod lists;
mod options;
mod rules;
mod service;
mod units;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use self::admin::{PaceError, parse_drain_timeout, parse_slow_start};
pub use self::conflicts::{NatConflict, NatError, TogetherError, check_together, nat_conflicts};
pub use self::hash_key::{HashKeyError, read_hash_key};
pub use self::limit::{LimitKeys, LimitMistake, Scalar, limit_keys, packets_per_source, read_limit};
pub use self::rules::{
    BackendError, InterfaceError, InterfacesError, LimitConflict, MAX_BACKENDS, MAX_WINDOWS, NameError,
    OuterSourceRuleError, TableSizeError, VipError, WindowsError, check_backend, check_interface,
    check_interfaces, check_limits, check_name, check_outer_source, check_shared_limits, check_table_size,
    check_vip, check_windows,
};
pub use self::units::{
    DurationError, RateError, parse_bit_rate, parse_bits, parse_duration, parse_rate, show_bits, show_count,
    show_duration,
};

use self::document::{Log, Node, Section};
use crate::datapath::DEFAULT_PINS;
use crate::model::{Limit, ListName, Lists, Service, Services};

/// The keys of `[daemon]`.
const DAEMON_KEYS: &[&str] = &["interfaces", "metrics", "socket", "hash_key", "flows", "on_exit", "pins"];

/// Where daemon and CLI meet unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb/lb.sock";

/// Flows that can be remembered unless told otherwise: 16 MiB.
const DEFAULT_FLOWS: u32 = 1 << 20;
/// Flows that can be remembered: from one set of them to 1 GiB.
const FLOWS: RangeInclusive<u32> = 8..=1 << 26;

/// A whole, checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What concerns the daemon itself.
    pub daemon: DaemonSettings,
    /// Limiters of all services, in the order of the file.
    pub limits: Vec<Limit>,
    /// The services, in the order of the file; names are unique, and so are VIP, port and protocol together.
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

/// Why a file is not a configuration: all its mistakes, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// At least one mistake, in the order of the lines.
    pub mistakes: Vec<Mistake>,
}

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, counted from 1; absent if the file as a whole is meant.
    pub line: Option<usize>,
    /// The field, such as `service web: backends[1].address`; empty where the text is no TOML.
    pub field: String,
    /// What is wrong with it and what is expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let end_of_previous = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_previous}{}:{mistake}", self.file.display())?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    /// What stands behind the file's name and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

/// Reads and checks the configuration in `path`, and the files that it names, whose paths begin at its folder.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let mistake =
            Mistake { line: None, field: String::new(), message: format!("cannot be read: {error}") };
        ConfigError { file: path.to_owned(), mistakes: vec![mistake] }
    })?;
    let mut config = parse(&text, path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for (list, file) in &config.list_files {
        lists::add_file(&mut config.lists, *list, &folder.join(file))?;
    }
    Ok(config)
}

/// Checks the configuration `text`; messages call it `file`.
pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let log = Log::new(text);
    let config = read(&log, text);
    match config {
        Some(config) if log.is_clean() => Ok(config),
        _ => Err(ConfigError { file: file.to_owned(), mistakes: log.into_mistakes() }),
    }
}

/// The configuration, of use only if the log is clean.
fn read(log: &Log, text: &str) -> Option<Config> {
    let document = DeTable::parse(text)
        .map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            log.note(offset, "", error.message().replace('\n', "; "));
        })
        .ok()?;
    let root = Section::root(log, document.get_ref(), &["daemon", "lists", "limit", "service"]);
    let daemon =
        root.required("daemon", "[daemon] with interfaces = [\"eth0\"]").and_then(|node| read_daemon(&node));
    let limits = root.optional("limit").map(|node| read_shared_limits(&node)).unwrap_or_default();
    let services = root.optional("service").map(|node| service::read_all(&node, &limits));
    let services = services.unwrap_or_default();
    let own = services.iter().flat_map(|service| &service.limits);
    if let Err(error) = check_windows(own.chain(&limits)) {
        root.note("limit", error.to_string());
    }
    let lists = root.optional("lists").map_or_else(Default::default, |node| lists::read_lists(&node));
    let (lists, list_files) = lists.unwrap_or_default();
    Some(Config { daemon: daemon?, limits, services, lists, list_files })
}

fn read_shared_limits(node: &Node<'_>) -> Vec<Limit> {
    let read = limit::read_limits(&node.items("[[limit]] sections").unwrap_or_default());
    let (limits, nodes): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    for LimitConflict { limit, error } in check_shared_limits(&limits) {
        nodes[limit].note(error);
    }
    limits
}

fn read_daemon(node: &Node<'_>) -> Option<DaemonSettings> {
    let section = node.section(DAEMON_KEYS)?;
    let interfaces =
        section.required("interfaces", "interfaces = [\"eth0\"]").and_then(|node| read_interfaces(&node));
    let metrics = section.optional("metrics").and_then(|node| node.read_with(parse_listener));
    let socket = section.optional("socket").and_then(|node| node.text());
    let hash_key = section.optional("hash_key").and_then(|node| node.read_with(parse_key_source));
    let on_exit = section.optional("on_exit").map_or(Some(OnExit::default()), |node| {
        node.word(&[("keep", OnExit::Keep), ("detach", OnExit::Detach)])
    });
    let pins = section.optional("pins").map_or(Some(DEFAULT_PINS.into()), |node| node.read_with(parse_pins));
    let flows = section.optional("flows").map_or(Some(DEFAULT_FLOWS), |node| node.integer(FLOWS));
    Some(DaemonSettings {
        interfaces: interfaces?,
        metrics,
        socket: socket.unwrap_or(DEFAULT_SOCKET).into(),
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

/// The daemon may be started anywhere, so a relative path would say nothing.
fn parse_pins(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(format!("{text:?} is not an absolute path such as {DEFAULT_PINS:?}"))
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
mod reference;
#[cfg(test)]
mod tests;
