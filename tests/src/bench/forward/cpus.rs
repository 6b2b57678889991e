//! Which CPUs take part, and how far apart they are.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::super::median;

/// Figures of which the round trip is the median, and round trips of each.
const FIGURES: u32 = 101;
const TRIPS: u32 = 500;

/// The CPUs that this process may use, in order.
pub(super) fn allowed() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None).context("cannot tell which CPUs there are")?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect())
}

/// Keeps a thread, or the calling one, on a CPU.
pub(super) fn pin(thread: Option<Pid>, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(thread, &cpus).with_context(|| format!("cannot keep a thread on CPU {cpu}"))
}

/// Nanoseconds in which a word gets from one CPU to the other and an answer comes back.
///
/// Every packet's memory goes this way, so this is what makes two machines, or two runs on a virtual one, differ most.
pub(super) fn round_trip(here: usize, there: usize) -> Result<f64> {
    let word = AtomicU32::new(0);
    let figures = thread::scope(|scope| {
        let echo = scope.spawn(|| pin(None, there).map(|()| answer(&word)));
        let ask = scope.spawn(|| pin(None, here).map(|()| ask(&word)));
        echo.join().map_err(|_| anyhow!("the answering thread panicked"))??;
        ask.join().map_err(|_| anyhow!("the asking thread panicked"))?
    })?;
    Ok(median(figures.into_iter()))
}

/// Odd numbers are questions, the even ones after them answers.
fn ask(word: &AtomicU32) -> Vec<f64> {
    let trip = |number| {
        word.store(2 * number + 1, Ordering::Release);
        while word.load(Ordering::Acquire) != 2 * number + 2 {
            spin_loop();
        }
    };
    let figure = |figure| {
        let begun = Instant::now();
        (figure * TRIPS..(figure + 1) * TRIPS).for_each(trip);
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(TRIPS)
    };
    (0..FIGURES).map(figure).collect()
}

fn answer(word: &AtomicU32) {
    for number in 0..FIGURES * TRIPS {
        while word.load(Ordering::Acquire) != 2 * number + 1 {
            spin_loop();
        }
        word.store(2 * number + 2, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_takes_a_while() {
        let cpus = allowed().unwrap();
        let nanoseconds = round_trip(cpus[0], *cpus.last().unwrap()).unwrap();
        assert!(nanoseconds > 1.0 && nanoseconds.is_finite(), "{nanoseconds}");
    }
}
