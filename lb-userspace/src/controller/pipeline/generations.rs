//! Generations kept, and gone back to.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::super::ChangeError;
use super::{Balancer, Pipeline};
use crate::model::Desired;
use crate::state::{Confirm, Generation, Origin, StateError, Store};
use crate::view::{ConfigApplied, EventKind, GenerationView};

/// How long to wait with undoing what nobody confirmed if it cannot be undone now.
const AGAIN: Duration = Duration::from_secs(5);

impl<B: Balancer, S: Store> Pipeline<B, S> {
    /// The generations that are kept, the oldest first.
    pub(super) async fn history(&self) -> Vec<GenerationView> {
        let kept = self.with_store(|store| Ok(store.history())).await.unwrap_or_default();
        let view = |Generation { number, time, origin, changes, .. }: Generation| GenerationView {
            generation: number,
            current: number == self.generation.number,
            time,
            origin: origin.to_string(),
            changes,
        };
        kept.into_iter().map(view).collect()
    }

    /// Goes back to a generation, or to the one before the present one.
    pub(super) async fn roll_back(&mut self, number: Option<u64>) -> Result<ConfigApplied, ChangeError> {
        let current = self.generation.number;
        let to = match (number, self.generation.confirm) {
            (Some(number), _) => number,
            (None, Some(confirm)) => confirm.back_to,
            (None, None) => {
                let kept =
                    self.with_store(|store| Ok(store.history())).await.map_err(|error| refused(&error))?;
                let before = kept.iter().map(|kept| kept.number).rfind(|number| *number < current);
                let none = || ChangeError::NotFound("there is no generation before this one".to_owned());
                before.ok_or_else(none)?
            }
        };
        self.go_back(to, Origin::Rollback { to }).await
    }

    async fn go_back(&mut self, to: u64, origin: Origin) -> Result<ConfigApplied, ChangeError> {
        let desired = self.with_store(move |store| store.read(to)).await.map_err(|error| match error {
            StateError::Missing { .. } => ChangeError::NotFound(error.to_string()),
            _ => refused(&error),
        })?;
        let base = self.generation.base;
        let unconfirmed = self.generation.confirm.take();
        let result = self.take_whole(desired, origin, base, None).await;
        if result.is_err() {
            self.generation.confirm = unconfirmed;
        }
        result
    }

    /// Goes back since nobody confirmed. It must happen, so a disk that is full does not keep it from happening: a restart
    /// would do the same again.
    pub(super) async fn undo_unconfirmed(&mut self) {
        let Some(Confirm { back_to, .. }) = self.generation.confirm else { return };
        let number = self.generation.number;
        tracing::warn!("generation {number} was not confirmed in time: going back to generation {back_to}");
        if let Err(error) = self.go_back(back_to, Origin::Unconfirmed { to: back_to }).await {
            tracing::error!("cannot go back to generation {back_to}: {error}; trying again within {AGAIN:?}");
            self.status.send_modify(|status| {
                status.problems =
                    vec![format!("generation {number} was not confirmed and cannot be undone: {error}")];
            });
            self.deadline = Some(Instant::now() + AGAIN);
        }
    }

    /// Keeps the present generation for good.
    pub(super) async fn confirm(&mut self) -> Result<ConfigApplied, ChangeError> {
        if self.generation.confirm.is_none() {
            let number = self.generation.number;
            return Err(ChangeError::Refused(format!("generation {number} does not wait to be confirmed")));
        }
        let confirmed = Generation { confirm: None, ..self.generation.clone() };
        let desired = self.desired.clone();
        self.keep(&confirmed, &desired).await?;
        let summary = format!("generation {} stays", confirmed.number);
        tracing::info!("{summary}");
        self.journal.tell(EventKind::Change, None, summary.clone());
        self.enter(confirmed, desired);
        Ok(self.unchanged(summary))
    }

    /// Keeps a generation, durably.
    pub(super) async fn keep(&self, generation: &Generation, desired: &Desired) -> Result<(), ChangeError> {
        if let Err(reason) = &self.store {
            return Err(ChangeError::Refused(format!("{NOT_KEPT}: {reason}")));
        }
        let (generation, desired) = (generation.clone(), desired.clone());
        let kept = self.with_store(move |store| store.write(&generation, &desired)).await;
        kept.map_err(|error| ChangeError::Refused(format!("{NOT_KEPT}: {error}")))
    }

    /// Takes a generation back that the tables did not take.
    pub(super) async fn take_back(&self, number: u64) {
        if let Err(error) = self.with_store(move |store| store.remove(number)).await {
            tracing::error!(
                "{error}; generation {number} was refused by the tables, but the next start would find it"
            );
        }
    }

    /// Does something with the state directory where it may take its time.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let Ok(store) = self.store.as_ref().map(Arc::clone) else { return Err(StateError::Absent) };
        let work = move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner));
        spawn_blocking(work).await.unwrap_or(Err(StateError::Absent))
    }
}

/// Why a change that cannot be kept is refused.
const NOT_KEPT: &str = "nothing was changed, since it could not be kept over a restart";

fn refused(error: &StateError) -> ChangeError {
    ChangeError::Refused(error.to_string())
}
