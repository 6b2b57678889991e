//! File systems of a test's own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

/// How long mounting may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
struct Mounted(PathBuf);

impl Mounted {
    /// Makes a directory and mounts something there.
    fn new(path: PathBuf, arguments: &[&str]) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        mount(arguments, &path)?;
        Ok(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("--lazy").arg(&self.0);
        // There is nobody to tell; what is left is seen by whoever removes the directory.
        drop(process::succeed(command, LIMIT));
    }
}

fn mount(arguments: &[impl AsRef<OsStr>], path: &Path) -> Result<()> {
    let mut command = Command::new("mount");
    command.args(arguments).arg(path);
    process::succeed(command, LIMIT).map(drop)
}

/// A BPF file system. With it goes whatever is pinned there.
#[derive(Debug)]
pub struct BpfFs(Mounted);

impl BpfFs {
    /// Mounts one at a path below `directory`.
    pub fn mount(directory: &Path) -> Result<Self> {
        Mounted::new(directory.join("bpf"), &["-t", "bpf", "bpf"]).map(Self)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.0
    }

    /// Makes it read-only, or writable again.
    pub fn set_writable(&self, writable: bool) -> Result<()> {
        mount(&["-o", if writable { "remount,rw" } else { "remount,ro" }], self.path())
    }
}

/// A small disk, in memory. With it goes whatever is kept there.
#[derive(Debug)]
pub struct Disk(Mounted);

impl Disk {
    /// Makes `path` a disk of so many MiB.
    pub fn mount(path: PathBuf, mebibytes: u32) -> Result<Self> {
        let options = format!("size={mebibytes}m");
        Mounted::new(path, &["-t", "tmpfs", "-o", &options, "tmpfs"]).map(Self)
    }

    fn filler(&self) -> PathBuf {
        self.0.0.join("filler")
    }

    /// Leaves no room for anything.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler()).context("cannot fill the disk")?;
        loop {
            match file.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => bail!("cannot fill the disk: {error}"),
            }
        }
    }

    /// Gives the room back.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("cannot free the disk")
    }
}
