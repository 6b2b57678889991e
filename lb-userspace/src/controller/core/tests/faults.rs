//! Whole transactions when the tables refuse some store: all or nothing, and the next attempt works.

use super::*;
use crate::config::parse_text;

fn wanted(text: &str) -> Desired {
    parse_text(text, "text".as_ref()).unwrap_or_else(|error| panic!("{error}")).desired
}

fn service(name: &str, vip: &str, backends: &[u8]) -> String {
    let backends: Vec<String> =
        backends.iter().map(|last| format!("{{ address = \"10.0.1.{last}:80\" }}")).collect();
    format!(
        "[[service]]\nname = \"{name}\"\nvip = \"{vip}:80\"\nprotocol = \"tcp\"\nmode = \"dsr-l2\"\ntable_size = 251\n\
         limit = [{{ scope = \"source\", packets = \"1k/s\", burst = 200, action = \"drop\" }}]\nbackends = [{}]\n",
        backends.join(", ")
    )
}

/// Each step changes lists, services, backends and limiters at once.
fn steps() -> Vec<Desired> {
    let lists = |prefix: &str| format!("[lists]\ndeny = [\"{prefix}\"]\nallow = [\"192.0.2.0/24\"]\n");
    vec![
        wanted(&(lists("10.0.0.0/8") + &service("web", "192.0.2.10", &[1, 2]))),
        wanted(
            &(lists("11.0.0.0/8")
                + &service("web", "192.0.2.10", &[2, 3])
                + &service("api", "192.0.2.11", &[4])),
        ),
        wanted(&service("api", "192.0.2.12", &[5, 6])),
        wanted(&(lists("2001:db8::/32") + &service("web", "192.0.2.10", &[1]))),
        Desired::default(),
    ]
}

/// What packets can meet with: every word of the tables, and whether some sources are listed.
fn seen(core: &mut Core<Faulty>) -> (Vec<u64>, Vec<lb_common::lists::Listed>) {
    let tables = core.datapath().tables();
    let sources = ["10.0.0.1", "11.0.0.1", "192.0.2.1", "2001:db8::1"];
    let listed = sources.map(|source| tables.listed(crate::placement::vip_key(source.parse().unwrap())));
    (tables.words(), listed.to_vec())
}

fn commit(core: &mut Core<Faulty>, desired: &Desired) -> Result<Applied, ChangeError> {
    let generation = core.generation + 1;
    let result = core.commit(Edited::whole(desired.clone(), "all".to_owned()), generation);
    core.tidy();
    result
}

#[test]
fn whichever_store_fails_a_transaction_changes_nothing_and_can_be_tried_again() {
    let steps = steps();
    let mut failures = 0;
    for (number, step) in steps.iter().enumerate() {
        for nth in 1.. {
            let mut core = core_of(Faulty::new(tables(), 0));
            steps[..number].iter().for_each(|step| drop(commit(&mut core, step).unwrap()));
            let (before, wanted, generation) = (seen(&mut core), core.desired(), core.generation);
            core.datapath().refuse(nth);
            let refused = match commit(&mut core, step) {
                Ok(_) => false,
                Err(error) => {
                    assert!(matches!(error, ChangeError::Refused(_)), "{error}");
                    true
                }
            };
            if refused {
                failures += 1;
                assert!(seen(&mut core) == before, "step {number}, store {nth}: the tables are others");
                assert!(core.desired() == wanted && core.generation == generation);
                commit(&mut core, step).unwrap();
            }
            let mut straight = core_of(Faulty::new(tables(), 0));
            steps[..=number].iter().for_each(|step| drop(commit(&mut straight, step).unwrap()));
            assert!(core.desired() == *step);
            // If clearing up failed, it has not been given up.
            core.tidy();
            assert!(core.retiring.is_empty() && !core.ledger.is_closing());
            assert_eq!(seen(&mut core).1, seen(&mut straight).1, "step {number}, store {nth}");
            if core.datapath().is_unspent() {
                break;
            }
        }
    }
    assert!(failures > 100, "only {failures} failed");
}

#[test]
fn a_plan_is_what_the_change_then_does() {
    let mut core = core_of(Faulty::new(tables(), 0));
    let (mut moved, mut tables) = (0, 0);
    for step in steps() {
        let before = seen(&mut core);
        let plan = core.plan(&step).unwrap();
        assert!(seen(&mut core) == before && plan == core.plan(&step).unwrap());
        let applied = commit(&mut core, &step).unwrap();
        assert_eq!(
            (plan.slots_moved, plan.slots_least, plan.slots_total),
            (applied.slots_moved, applied.slots_least, applied.slots_total)
        );
        moved += plan.slots_moved;
        tables += plan.tables;
    }
    assert!(moved > 200 && tables >= 2, "{moved} slots of {tables} tables moved");
    let many: Vec<u8> = (1..=80).collect();
    assert!(core.plan(&wanted(&service("web", "192.0.2.10", &many))).is_err());
}
