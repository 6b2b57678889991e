//! From files to a whole configuration: `lb.toml`, and what stands in `conf.d` beside it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use super::document::{Log, Node, Section};
use super::{
    Config, ConfigError, DaemonSettings, Mistake, check_windows, lists, read_daemon, read_shared_limits,
    service,
};
use crate::model::{Desired, Limit, ListName, Lists, Service, Services};

/// The folder of further files, beside the main one.
const FOLDER: &str = "conf.d";

/// What a file may and must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// `[daemon]` and everything else.
    Main,
    /// Anything but `[daemon]`.
    Part,
    /// Perhaps `[daemon]`, and no names of files: a text by itself.
    Alone,
}

/// One file and what it says.
struct Source {
    file: PathBuf,
    text: String,
    role: Role,
}

impl Source {
    fn read(file: PathBuf, role: Role) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Self { file, text, role }),
            Err(error) => Err(unreadable(&file, &error)),
        }
    }

    fn log(&self) -> Log<'_> {
        let folder = self.file.parent().filter(|_| self.role != Role::Alone);
        Log::new(&self.file, &self.text, folder)
    }
}

pub(super) fn unreadable(file: &Path, error: &io::Error) -> ConfigError {
    let message = format!("cannot be read: {error}");
    let mistake = Mistake { file: file.to_owned(), line: None, field: String::new(), message };
    ConfigError { mistakes: vec![mistake] }
}

/// A text by itself: what it says, and how it would set the daemon up if it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its `[daemon]`, if it has one.
    pub daemon: Option<DaemonSettings>,
    /// Everything else.
    pub desired: Desired,
}

/// Reads and checks the configuration in `path`, the files of `conf.d` beside it in the order of their names, and the
/// lists that these name, whose paths begin at the folder of the file that names them.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let mut sources = vec![Source::read(path.to_owned(), Role::Main)?];
    for part in parts(&path.parent().unwrap_or(Path::new("")).join(FOLDER))? {
        sources.push(Source::read(part, Role::Part)?);
    }
    let mut config = whole(&sources)?;
    for (list, file) in &config.list_files {
        lists::add_file(&mut config.lists, *list, file)?;
    }
    Ok(config)
}

/// Checks the configuration `text`; messages call it `file`. No other file is read.
pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
    whole(&[Source { file: file.to_owned(), text: text.to_owned(), role: Role::Main }])
}

/// Checks a text that came by itself, such as [`render`](super::render) makes it; messages call it `name`.
pub fn parse_text(text: &str, name: &Path) -> Result<Text, ConfigError> {
    let Contents { daemon, limits, services, lists, .. } =
        read(&[Source { file: name.to_owned(), text: text.to_owned(), role: Role::Alone }])?;
    let mut services: Services =
        services.into_iter().map(|service| (service.name.clone(), service)).collect();
    services.limits = limits;
    Ok(Text { daemon, desired: Desired { services, lists: lists.into() } })
}

/// The files of the folder that end in `.toml` and are not hidden, by name. Without the folder there are none.
fn parts(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(folder, &error)),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(|error| unreadable(folder, &error))?;
    paths.retain(|path| is_part(path));
    paths.sort();
    Ok(paths)
}

fn is_part(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension() == Some(OsStr::new("toml"))
}

/// What several files say together.
struct Contents {
    daemon: Option<DaemonSettings>,
    limits: Vec<Limit>,
    services: Vec<Service>,
    lists: Lists,
    list_files: Vec<(ListName, PathBuf)>,
}

fn whole(sources: &[Source]) -> Result<Config, ConfigError> {
    let Contents { daemon, limits, services, lists, list_files } = read(sources)?;
    // Its absence from the main file has been noted.
    let daemon = daemon.ok_or(ConfigError { mistakes: Vec::new() })?;
    Ok(Config { daemon, limits, services, lists, list_files })
}

/// What the files say together, or the mistakes of all of them.
fn read(sources: &[Source]) -> Result<Contents, ConfigError> {
    let logs: Vec<Log<'_>> = sources.iter().map(Source::log).collect();
    let contents = read_documents(sources, &logs);
    if logs.iter().all(Log::is_clean) {
        return Ok(contents);
    }
    Err(ConfigError { mistakes: logs.into_iter().flat_map(Log::into_mistakes).collect() })
}

/// The contents, of use only if the logs are clean.
fn read_documents(sources: &[Source], logs: &[Log<'_>]) -> Contents {
    let documents: Vec<Option<Spanned<DeTable<'_>>>> = logs.iter().map(Log::parse).collect();
    let parsed = sources.iter().zip(logs).zip(&documents);
    let roots: Vec<(Role, Section<'_>)> = parsed
        .filter_map(|((source, log), document)| {
            let keys = ["daemon", "lists", "limit", "service"];
            Some((source.role, Section::root(log, document.as_ref()?.get_ref(), &keys)))
        })
        .collect();
    let all = |key| roots.iter().filter_map(|(_, root)| root.optional(key)).collect::<Vec<Node<'_>>>();
    let mut daemon = None;
    for (role, root) in &roots {
        daemon = read_daemon_of(*role, root).or(daemon);
    }
    let limits = read_shared_limits(&all("limit"));
    let services = service::read_all(&all("service"), &limits);
    let own = services.iter().flat_map(|service| &service.limits);
    if let (Err(error), Some((_, root))) = (check_windows(own.chain(&limits)), roots.first()) {
        root.note("limit", error.to_string());
    }
    let (lists, list_files) = lists::read_lists(&all("lists"));
    Contents { daemon, limits, services, lists, list_files }
}

fn read_daemon_of(role: Role, root: &Section<'_>) -> Option<DaemonSettings> {
    match role {
        Role::Main => root.required("daemon", "[daemon] with interfaces = [\"eth0\"]"),
        Role::Alone => root.optional("daemon"),
        Role::Part => {
            if let Some(node) = root.optional("daemon") {
                node.note("only the main file has it; move its keys there");
            }
            None
        }
    }
    .and_then(|node| read_daemon(&node))
}

#[cfg(test)]
mod tests;
