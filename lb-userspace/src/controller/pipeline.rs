//! The pipeline: the one way by which what is wanted changes, whoever asks.
//!
//! One change at a time: it is made on paper, checked, kept by the state directory, and only then handed to the controller,
//! which brings it to the tables whole or not at all. If the tables do not take it, it is taken back from the state directory.
//! So nothing is in force that a restart would forget, and nothing is answered that is not in force. While a slow disk
//! keeps a change waiting, the controller goes on with what it has.

mod checks;
mod generations;
mod requests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::edits::{Edited, no_service};
use super::{Change, ChangeError};
use crate::config::{
    Config, ConfigError, DaemonSettings, Digest, Text, changed_settings, digest, load, parse_text,
};
use crate::heap;
use crate::journal::Journal;
use crate::model::Desired;
use crate::model::diff::{diff, lines};
use crate::state::{Beginning, Confirm, Generation, Origin, Store, unix_now};
use crate::supervisor;
use crate::view::{Applied, ConfigApplied, ConfigDiff, ConfigStatus, EventKind, PlanView};
pub use checks::{LocalVip, check_local_vips, check_no_local_vip};
pub(super) use requests::Wish;

/// What a text that came by the API is called in messages.
const TEXT: &str = "configuration";

/// What the pipeline needs of the controller and of the host; tests put doubles in their place.
pub(super) trait Balancer: Send + 'static {
    /// Makes a change the one that is in force, whole or not at all.
    fn commit(
        &mut self,
        edited: Edited,
        generation: u64,
    ) -> impl Future<Output = Result<Applied, ChangeError>> + Send;

    /// What a change would cost.
    fn plan(&mut self, desired: Desired) -> impl Future<Output = Result<PlanView, ChangeError>> + Send;

    /// The host's own addresses and their interfaces.
    fn addresses(&mut self) -> impl Future<Output = Result<Vec<(IpAddr, String)>, ChangeError>> + Send;
}

/// The files that the daemon was started with.
#[derive(Clone, Debug)]
pub struct Files {
    /// The main file.
    pub path: PathBuf,
    /// Its `[daemon]` as it was at start.
    pub settings: DaemonSettings,
}

/// The owner of what is wanted.
pub(super) struct Pipeline<B, S> {
    balancer: B,
    /// Where it is told what happens.
    journal: Journal,
    /// `None` if there is no state directory to be had: then nothing can be changed.
    store: Result<Arc<Mutex<S>>, String>,
    files: Files,
    desired: Desired,
    generation: Generation,
    /// The highest number that was ever used.
    last: u64,
    status: watch::Sender<ConfigStatus>,
    /// When an unconfirmed generation goes away.
    deadline: Option<Instant>,
}

/// A change that has been thought through.
struct Step {
    edited: Edited,
    origin: Origin,
    base: Digest,
    changes: Vec<String>,
    confirm_within: Option<Duration>,
    /// Whether it must be made even if it cannot be kept.
    must: bool,
}

impl<B: Balancer, S: Store> Pipeline<B, S> {
    /// Goes on from a beginning that is in force already.
    pub(super) fn new(
        balancer: B,
        journal: Journal,
        store: Result<S, String>,
        files: Files,
        Beginning { generation, desired, .. }: Beginning,
        last: u64,
        problems: Vec<String>,
    ) -> (Self, watch::Receiver<ConfigStatus>) {
        let status = ConfigStatus { reload_time: unix_now(), problems, ..ConfigStatus::default() };
        let (status, watched) = watch::channel(status);
        let store = store.map(|store| Arc::new(Mutex::new(store)));
        let mut pipeline =
            Self { balancer, journal, store, files, desired, generation, last, status, deadline: None };
        pipeline.tell();
        pipeline.set_deadline();
        (pipeline, watched)
    }

    /// Works until nobody can ask any more.
    pub(super) async fn run(mut self, mut wishes: mpsc::Receiver<Wish>, mut hangups: impl Hangups) {
        loop {
            let deadline = self.deadline;
            let over = async move {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(wish) => self.grant(wish).await,
                    None => return,
                },
                () = hangups.recv() => self.reload_on_signal().await,
                () = over => self.undo_unconfirmed().await,
            }
        }
    }

    /// Does what is asked. Whoever asked may have gone in the meantime; what was done stays done.
    async fn grant(&mut self, wish: Wish) {
        let present = self.generation.number;
        match wish {
            Wish::If(expected, wish) if expected == present => Box::pin(self.grant(*wish)).await,
            Wish::If(expected, wish) => wish.refuse(ChangeError::Superseded { present, expected }),
            Wish::Change(change, answer) => {
                let edited = self.ensure_confirmed().and_then(|()| Edited::by(&self.desired, change));
                let result = self.take_edit(edited).await;
                drop(answer.send(result));
            }
            Wish::ChangeList(change, answer) => {
                let edited = self.ensure_confirmed().and_then(|()| Edited::by_list(&self.desired, &change));
                let result = self.take_edit(edited).await;
                drop(answer.send(result));
            }
            Wish::Show(answer) => drop(answer.send(self.text())),
            Wish::Service(name, answer) => {
                let services = &self.desired.services;
                let found = services.get(&name).cloned().ok_or_else(|| no_service(services, &name));
                drop(answer.send(found));
            }
            Wish::Diff(text, answer) => drop(answer.send(self.difference(text).await)),
            Wish::Weigh(change, answer) => drop(answer.send(self.weigh(change).await)),
            Wish::Apply { text: Some(text), confirm_within, answer } => {
                let result = self.apply_text(text, confirm_within).await;
                drop(answer.send(result));
            }
            Wish::Apply { text: None, confirm_within, answer } => {
                let result = self.reload(confirm_within).await;
                drop(answer.send(result));
            }
            Wish::History(answer) => drop(answer.send(self.history().await)),
            Wish::Rollback(number, answer) => drop(answer.send(self.roll_back(number).await)),
            Wish::Confirm(answer) => drop(answer.send(self.confirm().await)),
        }
    }

    /// A small change by command.
    async fn take_edit(&mut self, edited: Result<Edited, ChangeError>) -> Result<Applied, ChangeError> {
        let edited = edited?;
        let changes = vec![edited.summary.clone()];
        let base = self.generation.base;
        let step = Step { edited, origin: Origin::Api, base, changes, confirm_within: None, must: false };
        self.take(step).await.map(|applied| applied.applied)
    }

    /// The one way: checks, keeps and commits a step, and answers with what it did.
    async fn take(&mut self, step: Step) -> Result<ConfigApplied, ChangeError> {
        let Step { edited, origin, base, changes, confirm_within, must } = step;
        if edited.desired == self.desired && base == self.generation.base && confirm_within.is_none() {
            return Ok(self.unchanged(edited.summary));
        }
        self.check(&edited.desired).await?;
        let mut generation = Generation::new(self.last + 1, origin, base, changes.clone());
        generation.confirm = confirm_within.map(|within| Confirm {
            until: generation.time + within.as_secs(),
            back_to: self.generation.number,
        });
        let desired = edited.desired.clone();
        if let Err(error) = self.keep(&generation, &desired).await {
            if !must {
                return Err(error);
            }
            tracing::error!("{error}; yet it is made, and a restart will make it again");
        }
        self.last = generation.number;
        let applied = match self.balancer.commit(edited, generation.number).await {
            Ok(applied) => applied,
            Err(error) => {
                self.take_back(generation.number).await;
                return Err(error);
            }
        };
        tracing::info!("generation {}: {}", generation.number, applied.summary);
        self.tell_change(generation.number, &applied.summary, &changes);
        self.enter(generation, desired);
        Ok(ConfigApplied {
            applied,
            changes,
            confirm_by: self.generation.confirm.map(|confirm| confirm.until),
        })
    }

    /// Tells all who follow the events what has changed.
    fn tell_change(&self, generation: u64, summary: &str, changes: &[String]) {
        let details = match changes {
            [one] if one == summary => String::new(),
            changes => format!(": {}", changes.join("; ")),
        };
        self.journal.tell(EventKind::Change, None, format!("generation {generation}: {summary}{details}"));
    }

    /// A step that leads nowhere is no generation.
    fn unchanged(&self, summary: String) -> ConfigApplied {
        let generation = self.generation.number;
        let applied = Applied { generation, summary, slots_moved: 0, slots_least: 0, slots_total: 0 };
        ConfigApplied { applied, changes: Vec::new(), confirm_by: None }
    }

    /// Takes note of what is in force now.
    fn enter(&mut self, generation: Generation, desired: Desired) {
        (self.generation, self.desired) = (generation, desired);
        self.set_deadline();
        self.status.send_modify(|status| status.problems.clear());
        self.tell();
    }

    fn tell(&self) {
        let Generation { number, origin, time, confirm, .. } = &self.generation;
        self.status.send_modify(|status| {
            status.generation = *number;
            status.origin = origin.to_string();
            status.time = *time;
            status.confirm_by = confirm.map(|confirm| confirm.until);
        });
    }

    fn set_deadline(&mut self) {
        let left = self.generation.confirm.map(|confirm| confirm.left(unix_now()));
        self.deadline = left.map(|left| Instant::now() + left);
    }

    async fn check(&mut self, desired: &Desired) -> Result<(), ChangeError> {
        checks::check(&self.desired, desired).map_err(ChangeError::Refused)?;
        let new = checks::new_vips(&self.desired, desired);
        if new.is_empty() {
            return Ok(());
        }
        let addresses = self.balancer.addresses().await?;
        check_local_vips(&new, &addresses).map_err(|error| ChangeError::Refused(error.to_string()))
    }

    /// Nothing else happens while a generation waits to be confirmed.
    fn ensure_confirmed(&self) -> Result<(), ChangeError> {
        let Some(confirm) = self.generation.confirm else { return Ok(()) };
        let (number, left) = (self.generation.number, confirm.left(unix_now()).as_secs());
        Err(ChangeError::Refused(format!(
            "generation {number} waits for another {left}s to be confirmed; keep it with `lb config confirm` or undo it \
             with `lb config rollback` first"
        )))
    }

    /// The configuration that is in force, as one text.
    fn text(&self) -> String {
        format!(
            "{}\n{}",
            crate::config::render_settings(&self.files.settings),
            crate::config::render(&self.desired)
        )
    }

    /// What a text, or else the files, would change.
    async fn difference(&mut self, text: Option<String>) -> Result<ConfigDiff, ChangeError> {
        let Text { daemon, desired } = if let Some(text) = text {
            self.parse(text).await?
        } else {
            let config = self.load().await?;
            Text { desired: config.desired(), daemon: Some(config.daemon) }
        };
        let restart = daemon.map(|daemon| self.changed_settings(&daemon)).unwrap_or_default();
        let differences = diff(&self.desired, &desired);
        if differences.is_empty() {
            return Ok(ConfigDiff { restart, ..ConfigDiff::default() });
        }
        self.check(&desired).await?;
        let plan = Some(self.balancer.plan(desired).await?);
        Ok(ConfigDiff { changes: lines(&differences), count: differences.len(), plan, restart })
    }

    /// What a change would cost that could be made.
    async fn weigh(&mut self, change: Change) -> Result<PlanView, ChangeError> {
        let Edited { desired, .. } = Edited::by(&self.desired, change)?;
        self.check(&desired).await?;
        self.balancer.plan(desired).await
    }

    async fn apply_text(
        &mut self,
        text: String,
        confirm_within: Option<Duration>,
    ) -> Result<ConfigApplied, ChangeError> {
        self.ensure_confirmed()?;
        let Text { daemon, desired } = self.parse(text).await?;
        self.refuse_settings(daemon.as_ref())?;
        // Whoever applies what the files say has seen them: then a restart does not bring them back by itself.
        let base = match self.load().await {
            Ok(config) => Some(digest(&config.desired())).filter(|base| *base == digest(&desired)),
            Err(_) => None,
        };
        self.take_whole(desired, Origin::Api, base.unwrap_or(self.generation.base), confirm_within).await
    }

    /// Makes what is wanted equal to what the files say.
    async fn reload(&mut self, confirm_within: Option<Duration>) -> Result<ConfigApplied, ChangeError> {
        let result = self.try_reload(confirm_within).await;
        self.status.send_modify(|status| {
            status.reload_time = unix_now();
            status.reload_error = result.as_ref().err().map(ToString::to_string);
        });
        result
    }

    async fn try_reload(&mut self, confirm_within: Option<Duration>) -> Result<ConfigApplied, ChangeError> {
        self.ensure_confirmed()?;
        let config = self.load().await?;
        self.refuse_settings(Some(&config.daemon))?;
        let desired = config.desired();
        let base = digest(&desired);
        let origin = Origin::Reload { file: self.files.path.clone() };
        self.take_whole(desired, origin, base, confirm_within).await
    }

    async fn reload_on_signal(&mut self) {
        supervisor::reloading();
        match self.reload(None).await {
            Ok(applied) => {
                for line in &applied.changes {
                    tracing::info!("reload: {line}");
                }
                if applied.changes.is_empty() {
                    tracing::info!("reload: nothing changed");
                }
            }
            Err(error) => {
                let text = format!("the reload changed nothing: {error}");
                tracing::error!("{text}");
                self.journal.tell(EventKind::Change, None, text);
            }
        }
        supervisor::ready(&format!("generation {}", self.generation.number));
    }

    async fn take_whole(
        &mut self,
        desired: Desired,
        origin: Origin,
        base: Digest,
        confirm_within: Option<Duration>,
    ) -> Result<ConfigApplied, ChangeError> {
        let differences = diff(&self.desired, &desired);
        let summary = match differences.len() {
            0 => "nothing changed".to_owned(),
            1 => format!("{origin}: 1 change"),
            count => format!("{origin}: {count} changes"),
        };
        let changes = lines(&differences);
        let confirm_within = confirm_within.filter(|_| !differences.is_empty());
        let must = matches!(origin, Origin::Unconfirmed { .. });
        let edited = Edited::whole(desired, summary);
        let applied = self.take(Step { edited, origin, base, changes, confirm_within, must }).await;
        // Reading a whole configuration has taken much more than what stays of it.
        heap::give_back();
        applied
    }

    /// The keys of `[daemon]` that take a restart.
    fn changed_settings(&self, daemon: &DaemonSettings) -> Vec<String> {
        changed_settings(&self.files.settings, daemon).into_iter().map(str::to_owned).collect()
    }

    fn refuse_settings(&self, daemon: Option<&DaemonSettings>) -> Result<(), ChangeError> {
        let changed = daemon.map(|daemon| self.changed_settings(daemon)).unwrap_or_default();
        if changed.is_empty() {
            return Ok(());
        }
        Err(ChangeError::Refused(format!(
            "[daemon] {} cannot change while the daemon runs; restart it, or leave them as they are",
            changed.join(", ")
        )))
    }

    /// Reads the files, off this thread: they may be long and their disk slow.
    async fn load(&self) -> Result<Config, ChangeError> {
        let path = self.files.path.clone();
        let loaded = spawn_blocking(move || load(&path)).await.map_err(|_| ChangeError::Gone)?;
        loaded.map_err(|error: ConfigError| ChangeError::Refused(error.to_string()))
    }

    async fn parse(&self, text: String) -> Result<Text, ChangeError> {
        let parsed = spawn_blocking(move || parse_text(&text, TEXT.as_ref()));
        parsed.await.map_err(|_| ChangeError::Gone)?.map_err(|error| ChangeError::Refused(error.to_string()))
    }
}

/// SIGHUP, or what stands for it.
pub(super) trait Hangups: Send {
    /// Waits for the next. Cancel safe.
    fn recv(&mut self) -> impl Future<Output = ()> + Send;
}

impl Hangups for tokio::signal::unix::Signal {
    async fn recv(&mut self) {
        // There is always a next one.
        let _ = Self::recv(self).await;
    }
}

#[cfg(test)]
mod tests;
