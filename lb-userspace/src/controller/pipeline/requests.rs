//! What can be asked of the pipeline.

use std::time::Duration;

use tokio::sync::oneshot;

use super::super::{Change, ChangeError, ListChange};
use crate::model::Service;
use crate::view::{Applied, ConfigApplied, ConfigDiff, GenerationView, PlanView};

/// Where an answer is waited for.
pub(in crate::controller) type Answer<T> = oneshot::Sender<Result<T, ChangeError>>;

/// One request.
pub(in crate::controller) enum Wish {
    /// A change by command.
    Change(Change, Answer<Applied>),
    /// A change of a list by command.
    ChangeList(ListChange, Answer<Applied>),
    /// What is in force, as text.
    Show(oneshot::Sender<String>),
    /// A service as it is wanted.
    Service(String, Answer<Service>),
    /// What a text, or else the files, would change.
    Diff(Option<String>, Answer<ConfigDiff>),
    /// What a change by command would cost.
    Weigh(Change, Answer<PlanView>),
    /// Put a text, or else the files, in force.
    Apply {
        /// The text.
        text: Option<String>,
        /// Undo it unless it is confirmed within this time.
        confirm_within: Option<Duration>,
        /// Where the answer goes.
        answer: Answer<ConfigApplied>,
    },
    /// The generations that are kept.
    History(oneshot::Sender<Vec<GenerationView>>),
    /// Go back to a generation, or to the one before.
    Rollback(Option<u64>, Answer<ConfigApplied>),
    /// Keep an unconfirmed generation.
    Confirm(Answer<ConfigApplied>),
    /// Whatever it is, if this generation is in force.
    If(u64, Box<Self>),
}

impl Wish {
    /// Refuses to do it. What only asks is not refused: then whoever asks sees that nobody answers.
    pub(super) fn refuse(self, error: ChangeError) {
        match self {
            Self::Change(_, answer) | Self::ChangeList(_, answer) => drop(answer.send(Err(error))),
            Self::Apply { answer, .. } | Self::Rollback(_, answer) | Self::Confirm(answer) => {
                drop(answer.send(Err(error)));
            }
            Self::Service(_, answer) => drop(answer.send(Err(error))),
            Self::Diff(_, answer) => drop(answer.send(Err(error))),
            Self::Weigh(_, answer) => drop(answer.send(Err(error))),
            Self::If(_, wish) => wish.refuse(error),
            Self::Show(_) | Self::History(_) => {}
        }
    }
}
