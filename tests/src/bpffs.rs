//! A BPF file system of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process;

/// How long mounting may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A mounted file system. Dropping it unmounts it, and with it goes whatever is pinned there.
#[derive(Debug)]
pub struct BpfFs {
    path: PathBuf,
}

impl BpfFs {
    /// Mounts one at a path below `directory`.
    pub fn mount(directory: &Path) -> Result<Self> {
        let path = directory.join("bpf");
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut command = Command::new("mount");
        command.args(["-t", "bpf", "bpf"]).arg(&path);
        process::succeed(command, LIMIT)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it read-only, or writable again.
    pub fn set_writable(&self, writable: bool) -> Result<()> {
        let mut command = Command::new("mount");
        command.args(["-o", if writable { "remount,rw" } else { "remount,ro" }]).arg(&self.path);
        process::succeed(command, LIMIT).map(drop)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("--lazy").arg(&self.path);
        // There is nobody to tell; what is left is seen by whoever removes the directory.
        drop(process::succeed(command, LIMIT));
    }
}
