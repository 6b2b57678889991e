//! Waiting for something to become true: always with a deadline, and the last obstacle in the error.

use std::env;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::interrupt;

/// Between two looks at something that announces no event of its own.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How many times as long as elsewhere everything may take: `LB_PATIENCE`, which machines that are emulated have.
pub fn patience() -> u32 {
    static PATIENCE: LazyLock<u32> =
        LazyLock::new(|| env::var("LB_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1));
    *PATIENCE
}

/// Calls `probe` until it succeeds. After `limit`, or so many times it as `LB_PATIENCE` says, its last error is returned, said to be about `what`.
pub fn until<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = limit * patience();
    let end = Instant::now() + limit;
    loop {
        interrupt::check()?;
        match probe() {
            Ok(value) => return Ok(value),
            Err(obstacle) if Instant::now() >= end => {
                return Err(obstacle).with_context(|| format!("waited {limit:?} in vain until {what}"));
            }
            Err(_) => interrupt::pause(LOOK_AGAIN)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_obstacle_is_told() {
        let error =
            until::<()>(Duration::from_millis(30), "pigs fly", || anyhow::bail!("no wings")).unwrap_err();
        assert_eq!(format!("{error:#}"), "waited 30ms in vain until pigs fly: no wings");
    }

    #[test]
    fn success_ends_the_wait() {
        let mut looks = 0;
        let value = until(Duration::from_secs(5), "the third look", || {
            looks += 1;
            anyhow::ensure!(looks == 3, "only {looks}");
            Ok(looks)
        });
        assert_eq!(value.unwrap(), 3);
    }
}
