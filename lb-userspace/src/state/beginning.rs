//! What a daemon begins with: what it remembers, or what the files say.

use std::path::Path;

use super::{Found, Generation, Origin, StateError, Store};
use crate::config::digest;
use crate::model::Desired;
use crate::model::diff::{diff, lines};

/// What a daemon begins with.
#[derive(Debug)]
pub struct Beginning {
    /// The generation.
    pub generation: Generation,
    /// What is wanted in it.
    pub desired: Desired,
    /// Whether it is a new one, which is yet to be kept.
    pub is_new: bool,
    /// What whoever reads the log should know, a sentence each.
    pub notes: Vec<String>,
}

/// Decides between the newest generation that was `found` and what the files say.
///
/// * The generation is based on what the files still say: it stays in force, with all that was changed by command.
/// * It waited to be confirmed, and its time is over at `now`: the one before it comes back.
/// * The files say something else: that is a new generation, and what it drops is told.
pub fn begin(found: &Found, files: &Desired, file: &Path, store: Option<&impl Store>, now: u64) -> Beginning {
    let base = digest(files);
    let number = found.last + 1;
    let fresh = |from: &Desired, notes: Vec<String>| {
        let origin = Origin::Start { file: file.to_owned() };
        let generation = Generation::new(number, origin, base, lines(&diff(from, files)));
        Beginning { generation, desired: files.clone(), is_new: true, notes }
    };
    let Some((newest, desired)) = &found.newest else {
        return fresh(&Desired::default(), Vec::new());
    };
    if newest.base != base {
        let dropped = lines(&diff(desired, files));
        let head = format!(
            "the files say something else than when generation {} was made: they are in force, and this is dropped \
             or changed:",
            newest.number
        );
        return fresh(desired, std::iter::once(head).chain(dropped).collect());
    }
    let expired = newest.confirm.filter(|confirm| confirm.left(now).is_zero());
    let Some(confirm) = expired else {
        let generation = newest.clone();
        return Beginning { generation, desired: desired.clone(), is_new: false, notes: Vec::new() };
    };
    match store.map_or(Err(StateError::Absent), |store| store.read(confirm.back_to)) {
        Ok(before) => {
            let origin = Origin::Unconfirmed { to: confirm.back_to };
            let generation = Generation::new(number, origin, base, lines(&diff(desired, &before)));
            let note = format!(
                "generation {} was not confirmed in time: generation {} is in force again",
                newest.number, confirm.back_to
            );
            Beginning { generation, desired: before, is_new: true, notes: vec![note] }
        }
        Err(error) => {
            let note = format!(
                "generation {} was not confirmed in time, but what was before cannot be had ({error}): the files are in force",
                newest.number
            );
            fresh(desired, vec![note])
        }
    }
}

#[cfg(test)]
mod tests;
