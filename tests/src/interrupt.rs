//! SIGINT and SIGTERM become an error that travels up like any other, so that every owner cleans up on its way.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: Mutex<bool> = Mutex::new(false);
static CHANGED: Condvar = Condvar::new();

/// The user (or the system) asked the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Starts to note SIGINT and SIGTERM instead of dying from them.
pub fn watch() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        *INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner) = true;
        CHANGED.notify_all();
    })?;
    Ok(())
}

/// Fails once a signal has arrived.
pub fn check() -> Result<(), Interrupted> {
    pause(Duration::ZERO)
}

/// Waits for `duration`, or fails as soon as a signal arrives.
pub fn pause(duration: Duration) -> Result<(), Interrupted> {
    let end = Instant::now() + duration;
    let mut interrupted = INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner);
    while !*interrupted {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        interrupted = CHANGED.wait_timeout(interrupted, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    Err(Interrupted)
}
