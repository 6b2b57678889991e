//! The service manager that has started the daemon, if one has: `sd_notify(3)`. Without one nothing is told to anybody.

use std::convert::Infallible;
use std::future::{Future, pending};

use sd_notify::NotifyState;

/// Packets are forwarded, and the API answers. Also when a reload has ended, whatever came of it.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The files are read anew.
pub(crate) fn reloading() {
    // The clock is there; if it were not, the manager would wait for nothing.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The daemon ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells as often as the manager wants to hear it that all is well, for as long as `is_well` says so in time.
pub(crate) async fn watch<F: Future<Output = bool>>(is_well: impl Fn() -> F) -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else { return pending().await };
    loop {
        // Twice within the limit, as sd_watchdog_enabled(3) recommends.
        tokio::time::sleep(limit / 2).await;
        if tokio::time::timeout(limit / 4, is_well()).await != Ok(true) {
            tracing::error!(
                "the daemon has not looked after its tables within {} ms; the watchdog is not told that it is well",
                (limit / 4).as_millis()
            );
            continue;
        }
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager cannot be told {state:?}: {error}");
    }
}
