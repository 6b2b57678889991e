//! Child processes that end with their owner.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal};

use crate::wait;

/// A child that runs until it is killed or its owner goes.
///
/// It is in a process group of its own, so that Ctrl-C reaches only the owner, who ends it in good order.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    kept: bool,
}

impl Process {
    /// Starts `command`. Its standard error goes to `log`; what it prints is discarded.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        command.stdout(Stdio::null()).stderr(create(log)?);
        Self::spawn_as_is(name, command, log)
    }

    /// Starts `command`. Its standard error and what it prints go to `log`.
    pub fn spawn_logged(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = create(log)?;
        command.stdout(file.try_clone()?).stderr(file);
        Self::spawn_as_is(name, command, log)
    }

    /// Starts `command` and waits for the first line it prints: by custom, the word that it is ready.
    pub fn spawn_ready(name: &str, mut command: Command, log: &Path, limit: Duration) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(create(log)?);
        let mut process = Self::spawn_as_is(name, command, log)?;
        let stdout = process.child.stdout.take();
        match first_line(stdout).recv_timeout(limit * wait::patience()) {
            Ok(line) if !line.is_empty() => Ok(process),
            Ok(_) => Err(process.failure("ended before it was ready")),
            Err(_) => Err(process.failure("was not ready in time")),
        }
    }

    fn spawn_as_is(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        command.stdin(Stdio::null()).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), kept: false })
    }

    /// An error about this process, with what it wrote.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        anyhow!("{} {what}; it wrote:\n{}", self.name, self.log())
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot ask after {}", self.name))
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let what = format!("{} has ended", self.name);
        wait::until(limit, &what, || self.child.try_wait()?.ok_or_else(|| anyhow!("it still runs")))
    }

    /// Lets it outlive its owner.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.kept {
            // It may have ended by itself; in either case there is nothing left to do here.
            drop(self.kill());
        }
    }
}

fn create(log: &Path) -> Result<File> {
    File::create(log).with_context(|| format!("cannot write {}", log.display()))
}

/// Reads a line on a thread of its own, so that waiting for it can have a deadline. Empty at the end of the output.
fn first_line(stdout: Option<ChildStdout>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
        // After the deadline nobody listens any more, which is not this thread's business.
        drop(sender.send(if matches!(read, Some(Ok(_))) { line } else { String::new() }));
    });
    receiver
}

/// What a command that ran to its end said.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs `command` to its end, or kills it at the deadline and fails.
pub fn finish(mut command: Command, limit: Duration) -> Result<Finished> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", name_of(&command)))?;
    let stdout = read_aside(child.stdout.take());
    let stderr = read_aside(child.stderr.take());
    let ended = wait::until(limit, "it ended", || child.try_wait()?.ok_or_else(|| anyhow!("it still runs")));
    let status = match ended {
        Ok(status) => status,
        Err(error) => {
            child.kill().context("cannot kill it")?;
            child.wait().context("cannot wait for it")?;
            return Err(error.context(format!("{} did not end", name_of(&command))));
        }
    };
    Ok(Finished { code: status.code(), stdout: collect(stdout)?, stderr: collect(stderr)? })
}

/// Runs `command` to its end and fails unless it succeeds.
pub fn succeed(command: Command, limit: Duration) -> Result<String> {
    let name = name_of(&command);
    let finished = finish(command, limit)?;
    if finished.code != Some(0) {
        bail!("{name} failed ({:?}): {}", finished.code, finished.stderr.trim());
    }
    Ok(finished.stdout)
}

fn name_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

type Reader = thread::JoinHandle<std::io::Result<String>>;

/// Reads a pipe on a thread of its own, so that a child never blocks on a full one.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> Reader {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut text)?;
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    })
}

fn collect(reader: Reader) -> Result<String> {
    reader.join().map_err(|_| anyhow!("a reading thread panicked"))?.context("cannot read its output")
}
