//! Entering a namespace: with a thread, for sockets and settings, or with a process.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps a namespace.
pub(super) fn path(name: &str) -> String {
    format!("/run/netns/{name}")
}

/// A network namespace, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The namespace that `ip netns` calls `name`.
    pub(super) fn named(name: String) -> Self {
        Self(name)
    }

    /// A command that runs in the namespace. Unlike `ip netns exec` this leaves /sys as it is.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", path(&self.0))).arg("--").arg(program);
        command
    }

    /// Runs `work` in the namespace, on a thread of its own. Sockets that it opens stay in the namespace for ever.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.enter().map(|()| work()));
            inside.join().map_err(|_| anyhow!("the work in namespace {} panicked", self.0))?
        })
    }

    /// Starts `work` in the namespace, on a thread of its own.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<Result<T>> {
        let namespace = self.clone();
        thread::spawn(move || namespace.enter().map(|()| work()))
    }

    /// Moves the calling thread. There is no way back, so only threads that end afterwards come here.
    fn enter(&self) -> Result<()> {
        let file = File::open(path(&self.0)).with_context(|| format!("there is no namespace {}", self.0))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter namespace {}", self.0))
    }
}
