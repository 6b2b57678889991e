//! The state directory.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use lz4_flex::frame::{FrameDecoder, FrameEncoder};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::text::{Renderer, split};
use super::{Generation, KEPT, Store, TextError, decode};
use crate::model::Desired;

/// Why the state cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory is not there and cannot be made.
    #[error(
        "the state directory {} cannot be made: {source}; [daemon] state names another one",
        directory.display()
    )]
    Make {
        /// The directory.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another daemon uses it.
    #[error(
        "the state directory {} is in use by another lb; [daemon] state gives this one a directory of its own",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory cannot be read.
    #[error("the state directory {} cannot be read: {source}", directory.display())]
    List {
        /// The directory.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A generation cannot be written.
    #[error("{} cannot be written: {source}", file.display())]
    Write {
        /// Its file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A generation cannot be removed.
    #[error("{} cannot be removed: {source}", file.display())]
    Remove {
        /// Its file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A generation cannot be read.
    #[error("{} cannot be read: {source}", file.display())]
    Read {
        /// Its file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What a file holds is not a generation.
    #[error("{}: {source}", file.display())]
    Text {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: TextError,
    },
    /// There is no state directory.
    #[error("there is no state directory")]
    Absent,
    /// There is no such generation.
    #[error("generation {number} is not kept; see `lb config history`")]
    Missing {
        /// Its number.
        number: u64,
    },
}

/// A directory of generations.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked while it is open, so that two daemons do not count the same numbers.
    lock: File,
    known: Vec<Generation>,
    renderer: Renderer,
    /// The memory of the last file.
    packed: Vec<u8>,
}

/// What was in the directory.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest generation that can be read.
    pub newest: Option<(Generation, Desired)>,
    /// What could not be read, a sentence each.
    pub damaged: Vec<String>,
    /// The highest number of any file, readable or not.
    pub last: u64,
}

impl Directory {
    /// The directory, and what is in it. If it is not there it is made, for nobody but its owner.
    ///
    /// What another daemon left unfinished is removed; what cannot be read is kept under another name, with `.bad` behind it.
    pub fn open(path: &Path) -> Result<(Self, Found), StateError> {
        let fail = |source| StateError::Make { directory: path.to_owned(), source };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
            _ => {}
        }
        let lock = lock(path)?;
        let mut directory = Self {
            path: path.to_owned(),
            lock,
            known: Vec::new(),
            renderer: Renderer::default(),
            packed: Vec::new(),
        };
        let found = directory.look()?;
        Ok((directory, found))
    }

    fn look(&mut self) -> Result<Found, StateError> {
        let mut found = Found::default();
        let mut numbers = self.numbers()?;
        numbers.sort_unstable();
        found.last = numbers.last().copied().unwrap_or(0);
        for number in numbers.into_iter().rev() {
            // Only the newest is needed whole; of the others it is enough that they are not damaged.
            let read = if found.newest.is_none() {
                self.decode(number).map(|(generation, desired)| (generation, Some(desired)))
            } else {
                self.header(number).map(|generation| (generation, None))
            };
            match read {
                Ok((generation, desired)) => {
                    self.known.insert(0, generation.clone());
                    found.newest = found.newest.or(desired.map(|desired| (generation, desired)));
                }
                Err(error) => found.damaged.push(self.set_aside(number, &error)),
            }
        }
        Ok(found)
    }

    /// The numbers of the generations there are. Temporary files of a daemon that is gone are removed.
    fn numbers(&self) -> Result<Vec<u64>, StateError> {
        let fail = |source| StateError::List { directory: self.path.clone(), source };
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let Some(rest) = name.strip_prefix("generation-") else { continue };
            if rest.ends_with(".toml.new")
                && let Err(error) = fs::remove_file(self.path.join(name))
            {
                tracing::warn!(
                    "{} is left over and cannot be removed: {error}",
                    self.path.join(name).display()
                );
            }
            numbers.extend(rest.strip_suffix(".toml").and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.path.join(format!("generation-{number}.toml"))
    }

    fn text(&self, number: u64) -> Result<String, StateError> {
        let file = self.file(number);
        let bytes = fs::read(&file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StateError::Missing { number },
            _ => StateError::Read { file: file.clone(), source },
        })?;
        unpack(bytes).ok_or(StateError::Text { file, source: TextError::Sum })
    }

    fn decode(&self, number: u64) -> Result<(Generation, Desired), StateError> {
        let (file, text) = (self.file(number), self.text(number)?);
        decode(&text, &file).map_err(|source| StateError::Text { file, source })
    }

    fn header(&self, number: u64) -> Result<Generation, StateError> {
        let (file, text) = (self.file(number), self.text(number)?);
        let (generation, _) = split(&text).map_err(|source| StateError::Text { file, source })?;
        Ok(generation)
    }

    /// Keeps a damaged file for whoever wants to look at it; says what happened.
    fn set_aside(&self, number: u64, error: &StateError) -> String {
        let file = self.file(number);
        let aside = file.with_extension("toml.bad");
        match fs::rename(&file, &aside) {
            Ok(()) => format!("{error}; it is kept as {}", aside.display()),
            Err(rename) => format!("{error}; it is left where it is: {rename}"),
        }
    }

    /// Writes a file beside its place, makes it durable, and renames it into its place.
    fn replace(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(number);
        let new = file.with_extension("toml.new");
        let written = write_durably(&new, bytes).and_then(|()| fs::rename(&new, &file));
        if written.is_err() {
            // If that fails too, the next start does it.
            drop(fs::remove_file(&new));
        }
        written?;
        self.sync().inspect_err(|_| {
            // Nobody may find what is not certain to be there.
            drop(fs::remove_file(&file));
        })
    }

    /// Makes what was renamed or removed durable.
    fn sync(&self) -> io::Result<()> {
        self.lock.sync_all()
    }

    /// Forgets the oldest generations. What cannot be removed does no harm.
    fn forget_old(&mut self) {
        let many = self.known.len().saturating_sub(KEPT);
        for old in self.known.drain(..many).collect::<Vec<_>>() {
            let file = self.file(old.number);
            if let Err(error) = fs::remove_file(&file) {
                tracing::warn!("{} is old and cannot be removed: {error}", file.display());
            }
        }
    }
}

/// The directory, opened and locked until it is closed.
fn lock(path: &Path) -> Result<File, StateError> {
    let directory = || path.to_owned();
    let opened = File::open(path).map_err(|source| StateError::List { directory: directory(), source })?;
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(opened),
        Err(Errno::WOULDBLOCK) => Err(StateError::InUse { directory: directory() }),
        Err(source) => Err(StateError::List { directory: directory(), source: source.into() }),
    }
}

fn write_durably(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(file)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Texts longer than this are compressed: who waits for a change waits for the disk.
const LONG: usize = 256 * 1024;

/// The first bytes of an LZ4 frame (the magic number of the frame format); no text begins with them.
const LZ4: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// A text as a file holds it: as it is, or, if it is long, as an LZ4 frame, which `lz4cat` reads. Uses the memory of `bytes`.
fn pack(text: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.clear();
    if text.len() > LONG {
        let mut encoder = FrameEncoder::new(bytes);
        if encoder.write_all(text.as_bytes()).is_ok()
            && let Ok(packed) = encoder.finish()
        {
            return packed;
        }
        // Compression into memory does not fail; if it did, the text as it is would do.
        return text.into();
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The text in a file, unless it is none.
fn unpack(bytes: Vec<u8>) -> Option<String> {
    if !bytes.starts_with(&LZ4) {
        return String::from_utf8(bytes).ok();
    }
    let mut text = String::new();
    FrameDecoder::new(&bytes[..]).read_to_string(&mut text).ok()?;
    Some(text)
}

impl Store for Directory {
    fn write(&mut self, generation: &Generation, desired: &Desired) -> Result<(), StateError> {
        let file = self.file(generation.number);
        let bytes = pack(self.renderer.encode(generation, desired), std::mem::take(&mut self.packed));
        let written = self.replace(generation.number, &bytes);
        self.packed = bytes;
        written.map_err(|source| StateError::Write { file, source })?;
        self.known.retain(|known| known.number != generation.number);
        self.known.push(generation.clone());
        self.forget_old();
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Result<(), StateError> {
        let file = self.file(number);
        let removed = fs::remove_file(&file).and_then(|()| self.sync());
        removed.map_err(|source| StateError::Remove { file, source })?;
        self.known.retain(|known| known.number != number);
        Ok(())
    }

    fn read(&self, number: u64) -> Result<Desired, StateError> {
        self.decode(number).map(|(_, desired)| desired)
    }

    fn history(&self) -> Vec<Generation> {
        self.known.clone()
    }
}

#[cfg(test)]
mod tests;
