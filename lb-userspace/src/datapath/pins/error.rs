//! What can be wrong with a pin directory, each as a sentence that says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why maps, programs and links cannot be pinned, or what is pinned cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The directory is elsewhere.
    #[error(
        "{} is not on a BPF file system, so nothing can be pinned there; mount one with `mount -t bpf bpf {}`, or let the program \
         end with the daemon: [daemon] on_exit = \"detach\"", path.display(), mount.display()
    )]
    NoBpfFs {
        /// The pin directory.
        path: PathBuf,
        /// Where to mount it.
        mount: PathBuf,
    },
    /// Another process is at work on it.
    #[error("{} is in use by {}: one daemon at a time", path.display(), holder.map_or_else(|| "another process".to_owned(), |id| format!("process {id}")))]
    InUse {
        /// The pin directory.
        path: PathBuf,
        /// The other process.
        holder: Option<u32>,
    },
    /// It is read-only.
    #[error(
        "cannot write {}: the BPF file system is read-only here; `mount -o remount,rw {}`, and under systemd leave out \
         ProtectKernelTunables", path.display(), mount.display()
    )]
    ReadOnly {
        /// The pin directory.
        path: PathBuf,
        /// Where it is mounted.
        mount: PathBuf,
    },
    /// The system says no.
    #[error("cannot {action} {}: {source}", path.display())]
    System {
        /// What was to be done.
        action: &'static str,
        /// What it was to be done with.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A map is not the one that its name says.
    #[error(
        "{} is not the map that this lb pins under this name ({found}, and not {expected}); packets are forwarded as before. \
         `lb xdp detach` ends that and clears the directory for a new start", path.display()
    )]
    OtherMap {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}

impl PinsError {
    /// The system's reason not to do something with a path.
    pub(in crate::datapath) fn system(
        action: &'static str,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        let (path, source) = (path.to_owned(), source.into());
        if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
            return Self::ReadOnly { mount: mount_for(&path), path };
        }
        Self::System { action, path, source }
    }
}

/// Where the BPF file system of a path is, or is to be, mounted.
pub(super) fn mount_for(path: &Path) -> PathBuf {
    let usual = Path::new("/sys/fs/bpf");
    if path.starts_with(usual) {
        return usual.to_owned();
    }
    let existing = path.ancestors().skip(1).find(|ancestor| ancestor.is_dir());
    existing.unwrap_or(usual).to_owned()
}
