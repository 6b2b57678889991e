use super::super::{Confirm, StateError};
use super::*;
use crate::config::parse_text;

/// A deny list of one prefix.
fn denying(prefix: &str) -> Desired {
    parse_text(&format!("[lists]\ndeny = [\"{prefix}\"]\n"), "text".as_ref()).unwrap().desired
}

/// Has generation 1, and nothing else.
struct One(Desired);

impl Store for One {
    fn write(&mut self, _: &Generation, _: &Desired) -> Result<(), StateError> {
        Ok(())
    }

    fn remove(&mut self, _: u64) -> Result<(), StateError> {
        Ok(())
    }

    fn read(&self, number: u64) -> Result<Desired, StateError> {
        if number == 1 { Ok(self.0.clone()) } else { Err(StateError::Missing { number }) }
    }

    fn history(&self) -> Vec<Generation> {
        Vec::new()
    }
}

/// Generation 2, based on `base`, to be confirmed until second 100 if it goes back to some.
fn found(base: &Desired, desired: &Desired, back_to: Option<u64>) -> Found {
    let mut generation = Generation::new(2, Origin::Api, digest(base), Vec::new());
    generation.confirm = back_to.map(|back_to| Confirm { until: 100, back_to });
    Found { newest: Some((generation, desired.clone())), damaged: Vec::new(), last: 2 }
}

fn at(found: &Found, files: &Desired, now: u64) -> Beginning {
    begin(found, files, "lb.toml".as_ref(), Some(&One(denying("10.1.0.0/16"))), now)
}

#[test]
fn without_a_memory_the_files_are_in_force() {
    let files = denying("10.0.0.0/8");
    let beginning = at(&Found::default(), &files, 0);
    assert_eq!((beginning.generation.number, beginning.is_new), (1, true));
    assert_eq!(beginning.generation.changes, ["+ deny: 10.0.0.0/8"]);
    assert_eq!(beginning.generation.origin.to_string(), "file lb.toml");
    assert_eq!((beginning.desired, beginning.notes), (files, Vec::<String>::new()));
}

#[test]
fn what_was_changed_by_command_stays_while_the_files_say_the_same() {
    let (files, changed) = (denying("10.0.0.0/8"), denying("10.2.0.0/16"));
    let beginning = at(&found(&files, &changed, None), &files, 0);
    assert_eq!((beginning.generation.number, beginning.is_new), (2, false));
    assert_eq!((beginning.desired, beginning.notes), (changed, Vec::<String>::new()));
}

#[test]
fn files_that_say_something_else_are_in_force_and_what_they_drop_is_told() {
    let (files, changed) = (denying("10.0.0.0/8"), denying("10.2.0.0/16"));
    let beginning = at(&found(&denying("10.3.0.0/16"), &changed, None), &files, 0);
    assert_eq!((beginning.generation.number, beginning.is_new), (3, true));
    assert_eq!(beginning.desired, files);
    assert_eq!(beginning.notes[1..], ["- deny: 10.2.0.0/16", "+ deny: 10.0.0.0/8"]);
}

#[test]
fn what_was_not_confirmed_in_time_goes_away_while_the_daemon_is_down() {
    let (files, changed) = (denying("10.0.0.0/8"), denying("10.2.0.0/16"));
    let found_now = found(&files, &changed, Some(1));
    let waiting = at(&found_now, &files, 99);
    assert_eq!((waiting.generation.number, waiting.is_new), (2, false));
    assert!(waiting.generation.confirm.is_some());
    let over = at(&found_now, &files, 100);
    assert_eq!((over.generation.number, over.is_new, over.desired), (3, true, denying("10.1.0.0/16")));
    assert_eq!(over.generation.origin, Origin::Unconfirmed { to: 1 });
    assert_eq!(over.notes, ["generation 2 was not confirmed in time: generation 1 is in force again"]);
    let lost = at(&found(&files, &changed, Some(7)), &files, 100);
    assert_eq!((lost.generation.number, lost.desired), (3, files));
    assert!(lost.notes[0].contains("generation 7 is not kept"), "{:?}", lost.notes);
}
