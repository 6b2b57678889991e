//! `lb doctor`: what of this host stands in the way of packets, why it matters, and what mends it.
//!
//! Each check is a function of what was found to a [`Finding`]; what is found comes from files under a root, so that tests can
//! bring hosts of their own.

mod driver;
mod host;
mod interface;
mod programs;
mod services;
mod setup;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::driver::Told;
pub use self::host::host;
pub use self::interface::{interface, interfaces};
pub use self::programs::occupant;
pub use self::services::services;
pub use self::setup::{Step, backend_setup};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Well,
    /// It works, and could be better.
    Note,
    /// Packets are not forwarded, or are lost.
    Bad,
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, such as `kernel` or `eth0 queues`.
    pub check: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// Why that matters; empty if it is as it should be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What mends it, if anything does: a command, mostly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn well(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            severity: Severity::Well,
            found: found.into(),
            why: String::new(),
            mend: None,
        }
    }

    fn note(check: impl Into<String>, found: impl Into<String>, why: impl Into<String>) -> Self {
        Self { severity: Severity::Note, why: why.into(), ..Self::well(check, found) }
    }

    fn bad(check: impl Into<String>, found: impl Into<String>, why: impl Into<String>) -> Self {
        Self { severity: Severity::Bad, ..Self::note(check, found, why) }
    }

    fn mended_by(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}

/// The files of a host.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// The files of this host, or of what is below a directory.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A file's text without the space around it.
    fn read(&self, path: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.path(path)).ok()?.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The names in a directory, in order.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    /// The last part of where a link leads.
    fn target(&self, path: &str) -> Option<String> {
        let target = std::fs::read_link(self.path(path)).ok()?;
        Some(target.file_name().map(Path::new)?.display().to_string())
    }
}

/// A host of a test's own.
#[cfg(test)]
fn host_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let files = Files::below(root.path());
    (root, files)
}
