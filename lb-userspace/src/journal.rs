//! What has happened lately, for all who follow it: one ring of events, and no queue for anybody.
//!
//! A follower has only a place in the ring and asks for what comes after it. Whoever is so slow that the ring has gone round is
//! told so and has to begin anew; nobody's slowness costs memory, and nobody who tells something ever waits.

mod summaries;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

pub use self::summaries::summarize;
use crate::state::unix_now;
use crate::view::{Event, EventKind};

/// Events that are kept: minutes of a storm, days of a quiet week. About 200 bytes each.
const KEPT: usize = 1_024;

/// The longest text of an event, in bytes; a reload may have changed thousands of things.
const LONGEST: usize = 1_000;

/// Where events are told and followed. Clones are the same journal.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Tells the numbers of one run of the daemon from those of another.
    run: u64,
    kept: Mutex<Kept>,
    /// Wakes followers whenever `kept` is another.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the newest event; the first is 1.
    newest: u64,
    /// It and those before it.
    events: VecDeque<Event>,
    /// Whether whoever has heard them all is to go.
    closed: bool,
}

impl Default for Journal {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::of_run(now.as_millis() as u64)
    }
}

impl Journal {
    fn of_run(run: u64) -> Self {
        Self(Arc::new(Inner { run, kept: Mutex::default(), news: watch::Sender::new(()) }))
    }

    /// Tells what has happened, to a service if it was one.
    pub fn tell(&self, kind: EventKind, service: Option<&str>, mut text: String) {
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
            text += " ...";
        }
        let mut kept = self.kept();
        kept.newest += 1;
        let (id, service) = (self.id(kept.newest), service.map(str::to_owned));
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(Event { id, time: unix_now(), kind, service, text });
        drop(kept);
        self.0.news.send_replace(());
    }

    /// There will be no more: all who follow it come to an end.
    pub fn close(&self) {
        self.kept().closed = true;
        self.0.news.send_replace(());
    }

    /// Follows what comes after the event of this id; from now on if there is none.
    ///
    /// `None` if that is no id.
    pub fn follow(&self, after: Option<&str>) -> Option<Follower> {
        let newest = self.kept().newest;
        let (place, gap) = match after {
            None => (newest, None),
            Some(id) => {
                let (run, number) = id.split_once('-')?;
                match (u64::from_str_radix(run, 16).ok()?, number.parse::<u64>().ok()?) {
                    (run, number) if run == self.0.run && number <= newest => (number, None),
                    _ => {
                        (0, Some("the daemon has started anew since; this is what it has told from then on"))
                    }
                }
            }
        };
        Some(Follower { journal: self.clone(), news: self.0.news.subscribe(), place, gap })
    }

    fn id(&self, number: u64) -> String {
        format!("{:x}-{number}", self.0.run)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody's place in a [`Journal`].
#[derive(Debug)]
pub struct Follower {
    journal: Journal,
    news: watch::Receiver<()>,
    /// The number of the last event that it has got.
    place: u64,
    /// What is to be told before anything else.
    gap: Option<&'static str>,
}

/// Why somebody cannot follow any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The ring has gone round.
    #[error(
        "too slow: more than {KEPT} events have come since event {last}, and {lost} of them are lost; begin anew"
    )]
    Behind {
        /// The last event that it has got.
        last: String,
        /// Events that it will never get.
        lost: u64,
    },
    /// The daemon stops.
    #[error("the daemon is shutting down")]
    Closed,
}

impl Follower {
    /// The next event, as soon as there is one. Cancel safe.
    pub async fn next(&mut self) -> Result<Event, End> {
        loop {
            if let Some(text) = self.gap.take() {
                let id = self.journal.id(self.place);
                return Ok(Event {
                    id,
                    time: unix_now(),
                    kind: EventKind::Gap,
                    service: None,
                    text: text.to_owned(),
                });
            }
            // Before it looks: what is told while it looks wakes it.
            self.news.mark_unchanged();
            if let Some(next) = self.step() {
                return next;
            }
            // The sender is the journal's, which this has.
            let _ = self.news.changed().await;
        }
    }

    /// What is there already.
    fn step(&mut self) -> Option<Result<Event, End>> {
        let kept = self.journal.kept();
        let behind = kept.newest - self.place;
        if behind == 0 {
            return kept.closed.then_some(Err(End::Closed));
        }
        let lost = behind.saturating_sub(kept.events.len() as u64);
        if lost > 0 {
            return Some(Err(End::Behind { last: self.journal.id(self.place), lost }));
        }
        let event = kept.events.get(kept.events.len() - behind as usize).cloned();
        drop(kept);
        self.place += 1;
        event.map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(journal: &Journal, texts: impl IntoIterator<Item = u32>) {
        for text in texts {
            journal.tell(EventKind::Drop, None, text.to_string());
        }
    }

    async fn texts(follower: &mut Follower, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(follower.next().await.unwrap().text);
        }
        texts
    }

    #[tokio::test]
    async fn a_follower_gets_everything_once_and_in_order() {
        let journal = Journal::of_run(0xab);
        told(&journal, [1, 2]);
        let mut late = journal.follow(None).unwrap();
        let mut early = journal.follow(Some("ab-1")).unwrap();
        let teller = {
            let journal = journal.clone();
            tokio::spawn(async move {
                for text in 3..500 {
                    told(&journal, [text]);
                    tokio::task::yield_now().await;
                }
            })
        };
        let expected = |from: u32| (from..500).map(|text| text.to_string()).collect::<Vec<_>>();
        assert_eq!(texts(&mut early, 498).await, expected(2));
        assert_eq!(texts(&mut late, 497).await, expected(3));
        teller.await.unwrap();
        journal.close();
        assert_eq!(late.next().await, Err(End::Closed));
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_and_costs_nothing() {
        let journal = Journal::of_run(0xab);
        let mut slow = journal.follow(None).unwrap();
        told(&journal, 1..=KEPT as u32);
        assert_eq!(slow.next().await.unwrap().id, "ab-1", "just in time");
        told(&journal, 0..3);
        assert_eq!(slow.next().await, Err(End::Behind { last: "ab-1".to_owned(), lost: 2 }));
        assert_eq!(journal.kept().events.len(), KEPT);
    }

    #[tokio::test]
    async fn what_an_earlier_daemon_told_is_said_to_be_missing() {
        let journal = Journal::of_run(0xab);
        told(&journal, [1, 2]);
        for stranger in ["aa-1", "ab-3"] {
            let mut follower = journal.follow(Some(stranger)).unwrap();
            let gap = follower.next().await.unwrap();
            assert_eq!((gap.kind, gap.id.as_str()), (EventKind::Gap, "ab-0"));
            assert_eq!(texts(&mut follower, 2).await, ["1", "2"]);
        }
        for wrong in ["", "7", "ab-", "x-1", "ab-1-2", "ab--1"] {
            assert!(journal.follow(Some(wrong)).is_none(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_was_told_before_the_end_is_still_heard() {
        let journal = Journal::of_run(1);
        let mut follower = journal.follow(None).unwrap();
        told(&journal, [7]);
        journal.close();
        told(&journal, [8]);
        assert_eq!(texts(&mut follower, 2).await, ["7", "8"]);
        assert_eq!(follower.next().await, Err(End::Closed));
    }

    #[test]
    fn no_text_is_longer_than_a_screen() {
        let journal = Journal::of_run(1);
        journal.tell(EventKind::Change, None, "ä".repeat(LONGEST));
        let text = journal.kept().events[0].text.clone();
        assert!(text.len() <= LONGEST + 4 && text.ends_with("ä ..."), "{}", text.len());
    }
}
