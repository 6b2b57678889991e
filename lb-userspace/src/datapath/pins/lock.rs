//! One owner of a pin directory: a lock that ends with its process, however that ends.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A held lock.
#[derive(Debug)]
pub(super) struct Lock {
    directory: File,
}

/// Why there is no lock.
#[derive(Debug)]
pub(super) enum Locked {
    /// Another process has it; its number, if the kernel tells.
    ByAnother(Option<u32>),
    /// It cannot be had.
    Failed(io::Error),
}

impl Lock {
    /// Takes the lock of a directory.
    pub(super) fn take(path: &Path) -> Result<Self, Locked> {
        let directory = File::open(path).map_err(Locked::Failed)?;
        match flock(directory.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { directory }),
            Err(Errno::WOULDBLOCK) => Err(Locked::ByAnother(holder(path))),
            Err(error) => Err(Locked::Failed(error.into())),
        }
    }

    /// What was locked.
    pub(super) fn metadata(&self) -> io::Result<fs::Metadata> {
        self.directory.metadata()
    }
}

/// The process that holds the lock of a directory, if one does and the kernel tells.
pub(super) fn holder(path: &Path) -> Option<u32> {
    let metadata = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    find_holder(&locks, metadata.dev(), metadata.ino())
}

/// Looks through `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 1234 00:1d:42 0 EOF`.
fn find_holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let of_this = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&file.as_str())
    };
    locks.lines().find(of_this)?.split_whitespace().nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_other_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:1d:42 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 00:1d:43 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 14 00:1d:42 0 EOF\n3: FLOCK  ADVISORY  WRITE 13 00:1d:42 0 EOF\n";
        let device = rustix::fs::makedev(0, 0x1d);
        assert_eq!(find_holder(locks, device, 42), Some(13));
        assert_eq!(find_holder(locks, device, 44), None);
    }

    #[test]
    fn a_lock_is_held_once_and_ends_with_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let held = Lock::take(directory.path()).unwrap();
        let own = std::process::id();
        assert!(matches!(Lock::take(directory.path()), Err(Locked::ByAnother(Some(id))) if id == own));
        drop(held);
        assert!(Lock::take(directory.path()).is_ok());
        assert_eq!(holder(directory.path()), None);
    }
}
