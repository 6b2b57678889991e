//! What time does to backends, by a clock that the tests turn.

use super::racing::SECOND;
use super::world::World;
use super::*;
use crate::datapath::double::Double as _;
use crate::view::BackendState;

/// A service `web` at work, with 10.0.1.1 and 10.0.1.2, these options and a clock at 1000 s.
fn at_work(options: ServiceOptions) -> Core<MemoryDatapath> {
    let tables = tables();
    tables.set_now(1_000 * SECOND);
    let mut services = web([1, 2]);
    services.get_mut("web").unwrap().options = options;
    let mut core = Core::new(tables);
    core.set_services(services).unwrap();
    core.set_next_hops(next_hops()).unwrap();
    core.open();
    core
}

fn slowly() -> ServiceOptions {
    ServiceOptions { slow_start: Some(Duration::from_secs(10)), ..ServiceOptions::default() }
}

fn drain_for(last: u8, seconds: u64) -> Change {
    ask(last, AdminState::Drain { timeout: Some(Duration::from_secs(seconds)) })
}

/// Time passes, and the daemon follows when it said that it would.
fn wait(core: &mut Core<MemoryDatapath>, duration: Duration) {
    let end = core.now() + duration;
    while let Some(step) = core.until_next_step().filter(|step| core.now() + *step <= end) {
        let then = core.now() + step;
        core.datapath().set_now(u64::try_from(then.as_nanos()).unwrap());
        core.follow_time().unwrap();
        assert_ne!(core.until_next_step(), Some(Duration::ZERO), "a step was not taken");
    }
    core.datapath().set_now(u64::try_from(end.as_nanos()).unwrap());
}

fn view(core: &Core<MemoryDatapath>, last: u8) -> BackendView {
    core.backends("web").unwrap().into_iter().find(|view| view.address == endpoint(last).to_string()).unwrap()
}

fn weights(core: &Core<MemoryDatapath>) -> Vec<u16> {
    core.backends("web").unwrap().iter().map(|view| view.effective_weight.0).collect()
}

/// Whether packets of flows that it has reach a backend.
fn is_usable(core: &Core<MemoryDatapath>, last: u8) -> bool {
    let row = core.placement.service("web").unwrap().backend_row(&endpoint(last)).unwrap();
    core.image.backends.get(row).is_some_and(|entry| entry.flags & USABLE != 0)
}

#[test]
fn a_drain_ends() {
    let mut core = at_work(ServiceOptions::default());
    assert_eq!(core.change(drain_for(1, 5)).unwrap().summary, "web: backend 10.0.1.1:80 drains for 5s");
    assert_eq!(core.until_next_step(), Some(Duration::from_secs(5)));
    wait(&mut core, Duration::from_millis(4_999));
    assert_eq!((view(&core, 1).drain_seconds_left, is_usable(&core, 1)), (Some(1), true));
    wait(&mut core, Duration::from_millis(1));
    let drained = view(&core, 1);
    assert_eq!((drained.state, drained.drain_seconds_left), (BackendState::Drain, Some(0)));
    assert_eq!((drained.health, is_usable(&core, 1)), (HealthState::Up, false));
    assert_eq!(shares(&core), ["10.0.1.1:80 0", "10.0.1.2:80 100"]);
    assert_eq!(core.until_next_step(), None);
    core.change(drain_for(1, 5)).unwrap();
    assert_eq!(view(&core, 1).drain_seconds_left, Some(0), "the same again begins nothing");
    core.change(ask(1, AdminState::Ready)).unwrap();
    assert_eq!((view(&core, 1).drain_seconds_left, is_usable(&core, 1)), (None, true));
    assert_eq!(shares(&core), ["10.0.1.1:80 50", "10.0.1.2:80 50"]);
}

#[test]
fn a_drain_begins_anew_with_another_timeout_and_only_then() {
    let mut core = at_work(ServiceOptions::default());
    core.change(drain_for(1, 10)).unwrap();
    wait(&mut core, Duration::from_secs(6));
    core.change(drain_for(1, 10)).unwrap();
    assert_eq!(view(&core, 1).drain_seconds_left, Some(4));
    core.change(drain_for(1, 20)).unwrap();
    assert_eq!(view(&core, 1).drain_seconds_left, Some(20));
    core.change(drain(1)).unwrap();
    assert_eq!((view(&core, 1).drain_seconds_left, core.until_next_step()), (None, None));
    core.change(drain_for(1, 1)).unwrap();
    assert_eq!(view(&core, 1).drain_seconds_left, Some(1), "an old drain does not end at once");
}

#[test]
fn a_service_says_how_long_its_backends_drain() {
    let options = ServiceOptions { drain_timeout: Some(Duration::from_mins(5)), ..ServiceOptions::default() };
    let mut core = at_work(options);
    assert_eq!(core.change(drain(1)).unwrap().summary, "web: backend 10.0.1.1:80 drains for 5m");
    core.change(drain_for(2, 7)).unwrap();
    let left = [1, 2].map(|last| view(&core, last).drain_seconds_left);
    assert_eq!(left, [Some(300), Some(7)]);
}

/// A drain's clock runs on while the backend is down, and a backend that is well again still drains.
#[test]
fn health_is_kept_apart_from_a_drain() {
    let mut core = at_work(ServiceOptions::default());
    core.change(drain_for(1, 10)).unwrap();
    core.record(vec![checked(1, false)]).unwrap();
    assert_eq!((view(&core, 1).state, view(&core, 1).health), (BackendState::Drain, HealthState::Down));
    wait(&mut core, Duration::from_secs(4));
    core.record(vec![checked(1, true), checked(1, true)]).unwrap();
    assert_eq!((view(&core, 1).drain_seconds_left, is_usable(&core, 1)), (Some(6), true));
    assert_eq!(shares(&core)[0], "10.0.1.1:80 0");
}

#[test]
fn maintenance_is_out_of_service_and_still_checked() {
    let mut core = at_work(ServiceOptions::default());
    core.record(vec![checked(1, true), checked(2, true)]).unwrap();
    let said = core.change(ask(1, AdminState::Maintenance)).unwrap().summary;
    assert_eq!(said, "web: backend 10.0.1.1:80 is in maintenance");
    assert_eq!((shares(&core)[0].as_str(), is_usable(&core, 1)), ("10.0.1.1:80 0", false));
    assert_eq!((view(&core, 1).state, view(&core, 1).health), (BackendState::Maintenance, HealthState::Up));
    assert_eq!(core.wanted_checks().len(), 2);
    core.record((0..3).map(|_| checked(1, false)).collect()).unwrap();
    assert_eq!(view(&core, 1).health, HealthState::Down);
    assert_eq!(core.status(&[]).unwrap().warnings, [""; 0], "nobody wants it to be well");
    core.change(ask(1, AdminState::Ready)).unwrap();
    assert_eq!(shares(&core)[0], "10.0.1.1:80 0");
    assert_eq!(core.status(&[]).unwrap().warnings.len(), 1);
    core.record(vec![checked(1, true), checked(1, true)]).unwrap();
    assert_eq!(shares(&core)[0], "10.0.1.1:80 50");
}

#[test]
fn the_last_backend_may_drain_and_its_drain_may_end() {
    let mut core = at_work(ServiceOptions::default());
    core.change(drain_for(1, 5)).unwrap();
    core.change(drain_for(2, 9)).unwrap();
    let warning = |core: &Core<MemoryDatapath>| core.status(&[]).unwrap().warnings.join("\n");
    assert!(
        warning(&core).contains("no backend takes new flows, those there are go on"),
        "{}",
        warning(&core)
    );
    wait(&mut core, Duration::from_secs(5));
    assert_eq!([1, 2].map(|last| is_usable(&core, last)), [false, true]);
    assert!(warning(&core).contains("those there are go on"), "{}", warning(&core));
    wait(&mut core, Duration::from_secs(4));
    assert!(warning(&core).contains("no backend takes traffic"), "{}", warning(&core));
}

#[test]
fn nobody_starts_slowly_with_the_daemon() {
    let mut core = at_work(slowly());
    assert_eq!((weights(&core), core.until_next_step()), (vec![100, 100], None));
    core.record(vec![checked(1, true), checked(2, true)]).unwrap();
    assert_eq!(weights(&core), [100, 100]);
}

#[test]
fn an_added_backend_rises_in_ten_steps() {
    let mut core = at_work(slowly());
    core.change(add(3)).unwrap();
    let mut rises = Vec::new();
    for _ in 0..=10 {
        rises.push(view(&core, 3).effective_weight.0);
        let (share, weight) = (view(&core, 3).share, f64::from(view(&core, 3).effective_weight.0));
        assert!((share - weight / (200.0 + weight)).abs() < 0.002, "{share} at weight {weight}");
        wait(&mut core, Duration::from_secs(1));
    }
    assert_eq!(rises, [10, 19, 28, 37, 46, 55, 64, 73, 82, 91, 100]);
    assert_eq!((core.until_next_step(), weights(&core)), (None, vec![100; 3]));
}

#[test]
fn whoever_comes_back_rises() {
    let mut core = at_work(slowly());
    let falls = |core: &mut Core<MemoryDatapath>, last| {
        core.record((0..3).map(|_| checked(last, false)).collect()).unwrap();
    };
    core.change(drain(1)).unwrap();
    core.change(ask(1, AdminState::Ready)).unwrap();
    assert_eq!(weights(&core), [10, 100], "from a drain");
    wait(&mut core, Duration::from_secs(10));
    core.change(ask(1, AdminState::Maintenance)).unwrap();
    core.change(ask(1, AdminState::Ready)).unwrap();
    assert_eq!(weights(&core), [10, 100], "from maintenance");
    wait(&mut core, Duration::from_secs(5));
    assert_eq!(weights(&core), [55, 100]);
    falls(&mut core, 1);
    core.record(vec![checked(1, true), checked(1, true)]).unwrap();
    assert_eq!(weights(&core), [10, 100], "from its failure, anew");
    wait(&mut core, Duration::from_secs(10));
    let mut hops = next_hops();
    hops.remove(&endpoint(2).address);
    core.set_next_hops(hops).unwrap();
    core.set_next_hops(next_hops()).unwrap();
    assert_eq!(weights(&core), [100, 10], "from where nobody could reach it");
    core.change(Change::SetWeight { service: "web".to_owned(), endpoint: endpoint(2), weight: Weight(5) })
        .unwrap();
    assert_eq!(weights(&core), [100, 1], "another weight rises on");
    wait(&mut core, Duration::from_secs(10));
    assert_eq!(weights(&core), [100, 5]);
}

#[test]
fn all_that_rise_together_share_everything() {
    let mut core = at_work(slowly());
    core.record((0..3).flat_map(|_| [checked(1, false), checked(2, false)]).collect()).unwrap();
    assert!(core.placement.service("web").unwrap().table().is_empty());
    core.record((0..2).flat_map(|_| [checked(1, true), checked(2, true)]).collect()).unwrap();
    assert_eq!(weights(&core), [10, 10]);
    assert_eq!(shares(&core), ["10.0.1.1:80 50", "10.0.1.2:80 50"]);
    assert_eq!(core.placement.service("web").unwrap().table().len(), 1021);
}

/// A new service has nobody else, and one that learns to start slowly goes on as it was.
#[test]
fn those_who_were_first_do_not_rise() {
    let mut core = at_work(ServiceOptions::default());
    let mut services = core.services.clone();
    let web = services.get_mut("web").unwrap();
    web.options = slowly();
    let api = Service { name: "api".to_owned(), vip: "192.0.2.11:80".parse().unwrap(), ..web.clone() };
    services.insert("api".to_owned(), api);
    core.set_services(services).unwrap();
    assert_eq!((weights(&core), core.until_next_step()), (vec![100, 100], None));
}

#[test]
fn a_step_that_the_tables_could_not_follow_is_made_up_for() {
    let tables = tables();
    tables.set_now(1_000 * SECOND);
    let mut core = core_of(Faulty::new(tables, 0));
    core.open();
    core.change(drain_for(1, 5)).unwrap();
    core.datapath().inner().set_now(1_005 * SECOND);
    core.datapath().refuse(1);
    assert!(core.follow_time().is_err());
    assert_eq!(core.until_next_step(), None, "it is not tried in a loop");
    assert_eq!(core.backends("web").unwrap()[0].drain_seconds_left, Some(1));
    core.set_next_hops(next_hops()).unwrap();
    assert_eq!(core.backends("web").unwrap()[0].drain_seconds_left, Some(0));
}

/// A service whose backends all weigh nothing lets nobody in, and those who are there go on.
#[test]
fn weights_of_zero_close_a_service() {
    let mut world = World::new(31, 128, 0, 1);
    let flows: Vec<usize> = (0..20).map(|_| world.open(0)).collect();
    for last in [1, 2] {
        world.weigh(0, last, 0);
    }
    let late = world.open(0);
    for flow in &flows {
        world.talk(*flow);
    }
    assert!(world.flow(late).is_none() && flows.iter().all(|flow| world.flow(*flow).is_some()));
    assert_eq!(world.mistakes(), [""; 0]);
    let warnings = world.core.status(&[]).unwrap().warnings.join("\n");
    assert!(warnings.contains("service web: no backend takes new flows"), "{warnings}");
}
