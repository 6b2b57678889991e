//! Whatever happens to the backends, a live flow stays where it is as long as its backend is alive.

use proptest::prelude::*;

use super::racing::SERVICES;
use super::world::World;

/// More than fit the rows that a service of two backends begins with.
const BACKENDS: u8 = 9;

#[derive(Clone, Debug)]
enum Step {
    Add(usize, u8),
    Remove(usize, u8),
    Drain(usize, u8, Option<u64>),
    Ready(usize, u8),
    Maintain(usize, u8),
    Weigh(usize, u8, u16),
    Check(usize, u8, bool),
    Reach(u8, bool),
    Open(usize, usize),
    Talk(Vec<prop::sample::Index>),
    End(Vec<prop::sample::Index>),
    Wait(u64),
    Sweep,
    Restart,
    Kill(usize, Box<Step>),
}

fn step() -> impl Strategy<Value = Step> {
    let (service, last) = (|| 0..SERVICES.len(), || 1..=BACKENDS);
    let timeout = prop::option::of(1u64..30);
    let some = || prop::collection::vec(any::<prop::sample::Index>(), 1..8);
    prop_oneof![
        3 => (service(), last()).prop_map(|(s, b)| Step::Add(s, b)),
        2 => (service(), last()).prop_map(|(s, b)| Step::Ready(s, b)),
        1 => (service(), last()).prop_map(|(s, b)| Step::Maintain(s, b)),
        2 => (service(), last()).prop_map(|(s, b)| Step::Remove(s, b)),
        3 => (service(), last(), timeout).prop_map(|(s, b, timeout)| Step::Drain(s, b, timeout)),
        2 => (service(), last(), 0u16..4).prop_map(|(s, b, w)| Step::Weigh(s, b, w * 50)),
        2 => (service(), last(), any::<bool>()).prop_map(|(s, b, passes)| Step::Check(s, b, passes)),
        2 => (last(), prop::bool::weighted(0.7)).prop_map(|(b, found)| Step::Reach(b, found)),
        5 => (service(), 1usize..8).prop_map(|(s, count)| Step::Open(s, count)),
        5 => some().prop_map(Step::Talk),
        2 => some().prop_map(Step::End),
        4 => (1u64..40).prop_map(Step::Wait),
        4 => Just(Step::Sweep),
        2 => Just(Step::Restart),
    ]
}

/// A step, now and then with a daemon that does not survive it.
fn mortal_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => step(),
        1 => (0usize..60, step()).prop_map(|(stores, step)| Step::Kill(stores, Box::new(step))),
    ]
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Add(service, last) => world.add(*service, *last),
        Step::Remove(service, last) => world.remove(*service, *last),
        Step::Drain(service, last, timeout) => world.drain(*service, *last, *timeout),
        Step::Ready(service, last) => world.ready(*service, *last),
        Step::Maintain(service, last) => world.maintain(*service, *last),
        Step::Weigh(service, last, weight) => world.weigh(*service, *last, *weight),
        Step::Check(service, last, passes) => world.check(*service, *last, *passes),
        Step::Reach(last, found) => world.reach(*last, *found),
        Step::Open(service, count) => (0..*count).for_each(|_| _ = world.open(*service)),
        Step::Talk(some) if world.flows() > 0 => {
            let flows = world.flows();
            for flow in some {
                world.talk(flow.index(flows));
            }
        }
        Step::End(some) if world.flows() > 0 => {
            let flows = world.flows();
            for flow in some {
                world.end(flow.index(flows));
            }
        }
        Step::Talk(_) | Step::End(_) => {}
        Step::Wait(seconds) => (0..*seconds).for_each(|_| world.wait_a_second()),
        Step::Sweep => world.sweep(),
        Step::Restart => world.restart(),
        Step::Kill(stores, step) => {
            world.kill_after = Some(*stores);
            take(world, step);
            world.kill_after = None;
        }
    }
}

proptest! {
    #[test]
    fn no_live_flow_moves(
        history in prop::collection::vec(step(), 1..60),
        slow_start in prop::option::of(1u64..60),
        seed: u64,
        odds in 0usize..6,
    ) {
        let mut world = World::new(31, 128, odds, seed);
        if let Some(seconds) = slow_start {
            world.start_slowly(seconds);
        }
        for step in &history {
            take(&mut world, step);
            prop_assume!(world.evicted() == 0);
            let mistakes = world.mistakes();
            prop_assert!(mistakes.is_empty(), "after {:?}: {}", step, mistakes.join("\n"));
        }
    }
}

proptest! {
    /// The daemon is killed between two stores now and then, and another one goes on.
    #[test]
    fn no_live_flow_notices_that_the_daemon_is_killed(
        history in prop::collection::vec(mortal_step(), 1..60), seed: u64, odds in 0usize..6,
    ) {
        let mut world = World::new(31, 128, odds, seed);
        for step in &history {
            take(&mut world, step);
            prop_assume!(world.evicted() == 0);
            let mistakes = world.mistakes();
            prop_assert!(mistakes.is_empty(), "after {:?}: {}", step, mistakes.join("\n"));
        }
    }
}

/// A slot moves away and back while packets are under way that have seen it away: what they remember counts.
#[test]
fn a_sweep_waits_for_what_is_under_way() {
    let mut world = World::new(31, 128, 0, 1);
    world.add(0, 3);
    let flows: Vec<usize> = (0..40).map(|_| world.open_slowly(0)).collect();
    world.drain(0, 3, None);
    world.core.sweep().unwrap();
    for flow in &flows {
        world.talk(*flow);
    }
    assert_eq!(world.mistakes(), [""; 0]);
    let third =
        flows.iter().filter(|flow| world.flow(**flow).is_some_and(|flow| flow.backend == Some(3))).count();
    assert!(third > 0 && world.core.has_moving_slots());
}

/// A service outgrows its rows while packets are under way to the old ones.
#[test]
fn what_is_given_up_outlasts_what_is_under_way() {
    let mut world = World::new(31, 128, 0, 1);
    let flows: Vec<usize> = (0..40).map(|_| world.open(0)).collect();
    for last in 3..=BACKENDS {
        for flow in &flows {
            world.hold_up(*flow);
        }
        world.add(0, last);
        world.wait_a_second();
    }
    assert_eq!(world.mistakes(), [""; 0]);
}

/// Left alone, every slot comes to rest and no flow needs to be remembered.
#[test]
fn slots_settle() {
    let mut world = World::new(31, 128, 3, 7);
    (0..40).for_each(|_| _ = world.open(0));
    world.add(0, 3);
    world.drain(0, 1, None);
    assert!(world.core.has_moving_slots());
    (0..40).for_each(|_| _ = world.open(0));
    for number in 0..80 {
        if world.flow(number).is_some_and(|flow| flow.backend == Some(1)) {
            world.end(number);
        }
    }
    let mut seconds = 0;
    while world.core.needs_sweeping() {
        world.wait_a_second();
        seconds += 1;
        assert!(seconds < 600, "slots still move after ten minutes");
        if seconds == 60 {
            // Flows that stay with their old owner have kept their slots moving. One with a packet under way would not end.
            world.tables().finish_all();
            (0..world.flows()).for_each(|number| world.end(number));
        }
    }
    assert!(seconds > 60);
    assert_eq!(world.mistakes(), [""; 0]);
    let view = world.core.status(&[]).unwrap();
    assert_eq!((view.flows.remembered, view.services[1].slots.settled), (0, 31));
}
