//! What outlives the daemon, and where: maps, programs and links, pinned under one directory.
//!
//! ```text
//! PINS/tables-FORMAT-KEY-SIZE/NAME         the maps, by their names
//!                            /program-ID/  a loaded program and what belongs to it alone
//! PINS/links/INTERFACE                     by which the program is on the interface
//! ```
//!
//! Tables of another format, of flows hashed by another key, or of another size get another directory. A program is pinned
//! when its tables are as they should be, and before any link leads to it, so tables with a program are whole ones.

mod error;
mod links;
mod lock;
mod tables;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use lb_common::hash::HashKey;

pub use self::error::PinsError;
use self::error::mount_for;
pub(crate) use self::links::PinnedLinkFacts;
use self::lock::{Lock, Locked};
pub(crate) use self::tables::Plan;
use super::Room;

/// Where everything is pinned unless told otherwise.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf/lb";

/// The pin directory, which this process has to itself.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    _lock: Lock,
}

/// A pin directory as anybody may look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance<'p> {
    root: &'p Path,
}

impl Pins {
    /// Makes the directory if there is none, and takes hold of it until the process ends.
    pub fn open(root: &Path) -> Result<Self, PinsError> {
        let existing = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        // What is below the file system's root may be on it without having been there a moment ago.
        let kind =
            rustix::fs::statfs(existing).map_err(|error| PinsError::system("look at", existing, error))?;
        if kind.f_type.cast_unsigned() & 0xffff_ffff != BPF_FS_MAGIC {
            return Err(PinsError::NoBpfFs { path: root.to_owned(), mount: mount_for(root) });
        }
        loop {
            make(root)?;
            let lock = Lock::take(root).map_err(|error| match error {
                Locked::ByAnother(holder) => PinsError::InUse { path: root.to_owned(), holder },
                Locked::Failed(error) => PinsError::system("lock", root, error),
            })?;
            // Whoever held it before may have removed it.
            if lock.is_of(root) {
                return Ok(Self { root: root.to_owned(), _lock: lock });
            }
        }
    }

    /// The directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What a daemon with this key and need of room goes on with, or begins.
    pub(crate) fn plan(&self, key: &HashKey, room: &Room, indices: &[u32]) -> Result<Plan, PinsError> {
        tables::plan(&self.root, &self.links()?, key, room, indices)
    }

    /// The links that are pinned.
    pub(crate) fn links(&self) -> Result<Vec<PinnedLinkFacts>, PinsError> {
        Glance { root: &self.root }.links()
    }

    /// Where links are pinned.
    fn links_directory(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Removes everything, and with it the program from all interfaces.
    pub fn clear(&self) -> Result<(), PinsError> {
        remove_all(&self.links_directory())?;
        for set in tables::sets(&self.root)? {
            remove_all(&set.directory)?;
        }
        // Others may have made it, and keep it.
        drop(fs::remove_dir(&self.root));
        Ok(())
    }
}

impl<'p> Glance<'p> {
    /// Of a directory, which need not exist.
    pub(crate) fn at(root: &'p Path) -> Self {
        Self { root }
    }

    /// The process that is at work on it.
    pub(crate) fn holder(self) -> Option<u32> {
        lock::holder(self.root)
    }

    /// The links that are pinned.
    pub(crate) fn links(self) -> Result<Vec<PinnedLinkFacts>, PinsError> {
        links::pinned(&self.root.join("links"))
    }

    /// Where the program of this number is pinned.
    pub(crate) fn program(self, id: u32) -> Option<PathBuf> {
        let sets = tables::sets(self.root).ok()?;
        sets.iter().find_map(|set| set.programs.contains(&id).then(|| set.program(id).join("balance")))
    }

    /// Where the tables are pinned that the program uses which was pinned last.
    pub(crate) fn newest_tables(self) -> Result<Option<PathBuf>, PinsError> {
        if !self.root.exists() {
            return Ok(None);
        }
        let newest =
            tables::sets(self.root)?.into_iter().max_by_key(|set| set.programs.iter().copied().max());
        Ok(newest.filter(|set| !set.programs.is_empty()).map(|set| set.directory))
    }

    /// The program that was pinned last, of all.
    pub(crate) fn newest_program(self) -> Option<PathBuf> {
        let sets = tables::sets(self.root).ok()?;
        // The kernel counts programs upwards.
        let newest = sets.iter().flat_map(|set| &set.programs).max()?;
        self.program(*newest)
    }
}

/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Makes a directory and those above it, for this user alone.
fn make(path: &Path) -> Result<(), PinsError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| PinsError::system("make", path, error))
}

/// Names in a directory; none if there is no directory.
fn names(path: &Path) -> Result<Vec<String>, PinsError> {
    let failed = |error: io::Error| PinsError::system("read", path, error);
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
        Ok(entries) => {
            let name =
                |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
            entries.map(name).collect::<io::Result<_>>().map_err(failed)
        }
    }
}

/// Removes a directory with everything in it, if it is there.
fn remove_all(path: &Path) -> Result<(), PinsError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PinsError::system("remove", path, error))
        }
        _ => Ok(()),
    }
}

impl Lock {
    /// Whether the path still leads to the directory that is locked.
    fn is_of(&self, path: &Path) -> bool {
        let same = |(ours, there): (fs::Metadata, fs::Metadata)| {
            (ours.dev(), ours.ino()) == (there.dev(), there.ino())
        };
        self.metadata().ok().zip(fs::metadata(path).ok()).is_some_and(same)
    }
}
