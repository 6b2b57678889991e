use std::net::Ipv4Addr;
use std::time::Duration;

use lb_common::hash::HashKey;
use lb_common::pipeline::{ServiceEvent, Tables};

use super::super::edits::Edited;
use super::super::{Change, ListChange};
use super::*;
use crate::datapath::Changes;
use crate::datapath::faulty::Faulty;
use crate::datapath::{Capacity, MemoryDatapath};
use crate::health::CheckOutcome;
use crate::model::{AdminState, Desired, ForwardMode, Protocol, ServiceOptions, Weight};
use crate::neighbors::Unreachable;
use crate::placement::render;
use crate::view::Applied;

mod faults;
mod histories;
mod limited;
mod lists;
mod phases;
mod racing;
mod simulation;
mod suggestions;
mod world;

/// Changes as the pipeline makes them, with no state directory in between.
impl<D: Datapath> Core<D> {
    fn desired(&self) -> Desired {
        Desired { services: self.services.clone(), lists: Arc::clone(&self.lists) }
    }

    fn set_services(&mut self, services: Services) -> Result<Applied, ChangeError> {
        let desired = Desired { services, lists: Arc::clone(&self.lists) };
        self.commit(Edited::whole(desired, String::new()), self.generation + 1)
    }

    fn set_lists(&mut self, lists: Lists) -> Result<Applied, ChangeError> {
        let desired = Desired { services: self.services.clone(), lists: lists.into() };
        self.commit(Edited::whole(desired, String::new()), self.generation + 1)
    }

    fn change(&mut self, change: Change) -> Result<Applied, ChangeError> {
        let edited = Edited::by(&self.desired(), change)?;
        self.commit(edited, self.generation + 1)
    }

    /// What a look at all services would store, which a look at those that something has touched has not.
    fn overlooked(&self) -> Option<String> {
        let due = self.until_next_step().is_some_and(|wait| wait.is_zero());
        if self.behind || due || !self.begun {
            return None;
        }
        let (placement, ..) =
            self.next_placement(&self.services, Touched::All, |s, b| self.is_alive(s, b)).unwrap();
        let hop = |address| self.next_hops.get(&address)?.as_ref().ok();
        let mut image = render(&placement, &self.services, hop);
        image.interfaces.clone_from(&self.interfaces);
        ask_lists(&mut image, self.side);
        self.ledger.note(&mut image, &Touched::All);
        let changes = self.image.changes(&image);
        (changes != Changes::default()).then(|| format!("overlooked: {changes:?}"))
    }

    fn change_list(&mut self, change: &ListChange) -> Result<Applied, ChangeError> {
        let edited = Edited::by_list(&self.desired(), change)?;
        let changes = edited.desired != self.desired();
        self.commit(edited, self.generation + u64::from(changes))
    }
}

fn endpoint(last: u8) -> Endpoint {
    format!("10.0.1.{last}:80").parse().unwrap()
}

fn backend(last: u8) -> Backend {
    Backend { endpoint: endpoint(last), weight: Weight::default(), admin: AdminState::Ready }
}

fn hop(last: u8) -> NextHop {
    NextHop {
        interface: "eth0".into(),
        ifindex: 2,
        gateway: None,
        source: Ipv4Addr::new(10, 0, 1, 254).into(),
        source_mac: [2, 0, 0, 0, 0, 254],
        mac: [2, 0, 0, 0, 0, last],
        mtu: 1500,
    }
}

fn web(backends: impl IntoIterator<Item = u8>) -> Services {
    let health = HealthCheck {
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        rise: 2,
        fall: 3,
        port: None,
    };
    let service = Service {
        name: "web".to_owned(),
        vip: "192.0.2.10:80".parse().unwrap(),
        protocol: Protocol::Tcp,
        mode: ForwardMode::DsrL2,
        table_size: 1021,
        limits: Vec::new(),
        health: Some(health),
        options: ServiceOptions::default(),
        backends: backends.into_iter().map(backend).collect(),
    };
    Services::from([(service.name.clone(), service)])
}

fn tables() -> MemoryDatapath {
    let capacity = Capacity {
        services: 4,
        service_entries: 64,
        slots: 4096,
        backends: 64,
        limiters: 32,
        bucket_sets: 64,
        lists: 16,
        flow_sets: 16,
        fragment_sets: 16,
    };
    MemoryDatapath::new(HashKey::ZERO, capacity, &[])
}

fn next_hops() -> NextHops {
    (1..=10).map(|last| (endpoint(last).address, Ok(hop(last)))).collect()
}

/// A service `web` with backends 10.0.1.1 and 10.0.1.2, both reachable.
fn core() -> Core<MemoryDatapath> {
    core_of(tables())
}

fn core_of<D: Datapath>(datapath: D) -> Core<D> {
    let mut core = Core::new(datapath);
    core.set_services(web([1, 2])).unwrap();
    core.set_next_hops(next_hops()).unwrap();
    core
}

/// The backends in the order of the configuration, and the percentage of slots each owns.
fn shares<D: Datapath>(core: &Core<D>) -> Vec<String> {
    let share = |backend: BackendView| format!("{} {:.0}", backend.address, backend.share * 100.0);
    core.backends("web").unwrap().into_iter().map(share).collect()
}

fn checked(last: u8, passed: bool) -> CheckReport {
    let took = Duration::from_micros(400);
    let outcome = if passed {
        CheckOutcome::Connected { took }
    } else {
        CheckOutcome::Failed { reason: "refused".to_owned(), took }
    };
    CheckReport { target: CheckTarget { service: "web".to_owned(), endpoint: endpoint(last) }, outcome }
}

fn add(last: u8) -> Change {
    Change::AddBackend { service: "web".to_owned(), backend: backend(last) }
}

fn remove(last: u8) -> Change {
    Change::RemoveBackend { service: "web".to_owned(), endpoint: endpoint(last) }
}

fn drain(last: u8) -> Change {
    ask(last, AdminState::Drain { timeout: None })
}

fn ask(last: u8, state: AdminState) -> Change {
    Change::SetState { service: "web".to_owned(), endpoint: endpoint(last), state }
}

#[test]
fn a_change_tells_what_it_moved() {
    let mut core = core();
    let applied = core.change(add(3)).unwrap();
    assert_eq!((applied.generation, applied.slots_total), (2, 1021));
    assert_eq!(applied.summary, "web: backend 10.0.1.3:80 added");
    assert!((340..400).contains(&applied.slots_moved), "{} slots moved", applied.slots_moved);
    assert!((339..=341).contains(&applied.slots_least), "{} slots had to move", applied.slots_least);
    assert_eq!(shares(&core), ["10.0.1.1:80 33", "10.0.1.2:80 33", "10.0.1.3:80 33"]);
}

#[test]
fn adding_an_unreachable_backend_says_so() {
    let mut core = core();
    let summary = core.change(add(77)).unwrap().summary;
    assert_eq!(summary, "web: backend 10.0.1.77:80 added, but takes no traffic yet: not looked up yet");
    assert_eq!(shares(&core), ["10.0.1.1:80 50", "10.0.1.2:80 50", "10.0.1.77:80 0"]);
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut core = core();
    let before = core.datapath().words();
    let not_found = |error: ChangeError| matches!(error, ChangeError::NotFound(_));
    let refused = |error: ChangeError| matches!(error, ChangeError::Refused(_));
    assert!(refused(core.change(add(1)).unwrap_err()));
    assert!(not_found(core.change(remove(7)).unwrap_err()));
    assert!(not_found(core.change(drain(7)).unwrap_err()));
    assert!(not_found(core.change(ask(7, AdminState::Maintenance)).unwrap_err()));
    assert!(not_found(core.change(ask(7, AdminState::Ready)).unwrap_err()));
    let elsewhere = Change::RemoveBackend { service: "wbe".to_owned(), endpoint: endpoint(1) };
    let error = core.change(elsewhere).unwrap_err();
    assert_eq!(error.to_string(), "there is no service \"wbe\"; did you mean web?");
    let other_port = Backend { endpoint: "10.0.1.5:81".parse().unwrap(), ..backend(5) };
    assert!(refused(
        core.change(Change::AddBackend { service: "web".to_owned(), backend: other_port }).unwrap_err()
    ));
    assert_eq!(core.datapath().words(), before);
    assert_eq!(core.generation, 1);
}

/// Two `nat` services without backends: `web` on 192.0.2.10:80 and `api` on 192.0.2.11:80.
fn nat_services() -> Services {
    let service = |name: &str, vip: &str| {
        let web = Service::clone(&web([]).remove("web").unwrap());
        let vip = vip.parse().unwrap();
        (name.to_owned(), Service { name: name.to_owned(), vip, mode: ForwardMode::Nat, ..web })
    };
    Services::from([service("web", "192.0.2.10:80"), service("api", "192.0.2.11:80")])
}

#[test]
fn an_added_backend_goes_with_the_other_services() {
    let mut core = Core::new(tables());
    core.set_services(nat_services()).unwrap();
    let mut add = |service: &str, address: &str| {
        let backend = Backend { endpoint: address.parse().unwrap(), ..backend(1) };
        core.change(Change::AddBackend { service: service.to_owned(), backend })
    };
    add("web", "10.0.1.1:8080").unwrap();
    add("api", "10.0.1.1:8081").unwrap();
    assert_eq!(
        add("api", "10.0.1.1:8080").unwrap_err().to_string(),
        "service api: 10.0.1.1:8080 tcp is a backend of service web already, and which service a nat \
         backend's reply belongs to is told by its source alone: let it listen on another port for this \
         service"
    );
    assert_eq!(
        add("api", "192.0.2.10:80").unwrap_err().to_string(),
        "service api: 192.0.2.10 is the VIP of service web; a nat backend needs an address of its own"
    );
    assert_eq!(core.generation, 3);
}

#[test]
fn an_added_backend_goes_with_the_outer_source() {
    let mut services = web([]);
    let service = services.get_mut("web").unwrap();
    service.mode = ForwardMode::Ipip;
    service.options.outer_source = Some("10.99.0.0/16".parse().unwrap());
    let mut core = Core::new(tables());
    core.set_services(services).unwrap();
    let v6 = Backend { endpoint: "[2001:db8::1]:80".parse().unwrap(), ..backend(1) };
    let add_v6 = Change::AddBackend { service: "web".to_owned(), backend: v6 };
    assert_eq!(
        core.change(add_v6.clone()).unwrap_err().to_string(),
        "service web: outer_source: 10.99.0.0/16 is IPv4, but every backend of the service is IPv6, and so \
         are the outer headers towards them: write a prefix such as fd00:1::/96"
    );
    core.change(add(1)).unwrap();
    core.change(add_v6).unwrap();
    assert_eq!(core.status(&[]).unwrap().services[0].options.outer_source.as_deref(), Some("10.99.0.0/16"));
}

#[test]
fn a_vip_is_announced_if_one_of_its_services_says_so() {
    let mut core = Core::new(tables());
    let mut services = nat_services();
    core.set_services(services.clone()).unwrap();
    assert!(core.announced_vips().is_empty());
    let mut other_port = services.get("web").unwrap().clone();
    (other_port.name, other_port.vip) = ("tls".to_owned(), "192.0.2.10:443".parse().unwrap());
    other_port.options.announce = true;
    services.insert("tls".to_owned(), other_port);
    core.set_services(services).unwrap();
    assert_eq!(core.announced_vips(), BTreeSet::from([Ipv4Addr::new(192, 0, 2, 10).into()]));
}

#[test]
fn a_change_without_room_changes_nothing() {
    let mut core = core();
    let before = core.datapath().words();
    let error = core.set_services(web(1..=80)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "service web: the table of backends is full (64 in all); remove something first"
    );
    assert_eq!(core.datapath().words(), before);
    assert_eq!(shares(&core), ["10.0.1.1:80 50", "10.0.1.2:80 50"]);
}

#[test]
fn a_drained_backend_has_no_slots_and_can_come_back() {
    let mut core = core();
    core.change(drain(1)).unwrap();
    assert_eq!(shares(&core), ["10.0.1.1:80 0", "10.0.1.2:80 100"]);
    assert_eq!(
        core.change(add(1)).unwrap_err().to_string(),
        "service web: backend 10.0.1.1:80 is there already, in state drain: put it back to work with `lb backend \
         ready web 10.0.1.1:80`"
    );
    let ready = core.change(ask(1, AdminState::Ready)).unwrap();
    assert_eq!(ready.summary, "web: backend 10.0.1.1:80 is ready");
    assert_eq!(shares(&core)[0], "10.0.1.1:80 50");
}

#[test]
fn health_decides_by_rise_and_fall() {
    let mut core = core();
    core.record(vec![checked(1, true), checked(2, true)]).unwrap();
    core.record(vec![checked(1, false), checked(1, false)]).unwrap();
    assert_eq!(shares(&core)[0], "10.0.1.1:80 50");
    core.record(vec![checked(1, false)]).unwrap();
    assert_eq!(shares(&core)[0], "10.0.1.1:80 0");
    assert_eq!(
        core.status(&[]).unwrap().warnings,
        ["service web: 1 of 2 backends down (lb backend list web)"]
    );
    core.record(vec![checked(1, true)]).unwrap();
    assert_eq!(shares(&core)[0], "10.0.1.1:80 0");
    core.record(vec![checked(1, true)]).unwrap();
    assert_eq!(shares(&core)[0], "10.0.1.1:80 50");
    assert_eq!(core.backends("web").unwrap()[0].last_check, "connected in 0.4 ms");
}

#[test]
fn what_the_tables_could_not_follow_is_made_up_for() {
    let mut core = core_of(Faulty::new(tables(), 0));
    core.datapath().refuse(1);
    assert!(core.record(vec![checked(1, false)]).is_err());
    assert_eq!(shares(&core)[0], "10.0.1.1:80 50");
    core.set_next_hops(next_hops()).unwrap();
    assert_eq!(shares(&core)[0], "10.0.1.1:80 0");
}

#[test]
fn a_change_that_could_not_be_stored_is_refused_and_taken_back() {
    let mut core = core_of(Faulty::new(tables(), 0));
    let before = core.datapath().tables().words();
    core.datapath().refuse(5);
    assert!(matches!(core.change(add(3)), Err(ChangeError::Refused(_))));
    assert_eq!(core.datapath().tables().words(), before);
    assert_eq!(core.change(add(3)).unwrap().generation, 2);
}

#[test]
fn a_report_of_a_backend_that_is_gone_is_ignored() {
    let mut core = core();
    core.change(remove(1)).unwrap();
    core.record(vec![checked(1, false)]).unwrap();
    assert_eq!(shares(&core), ["10.0.1.2:80 100"]);
}

#[test]
fn an_unreachable_backend_has_no_slots() {
    let mut core = core();
    let silent = Unreachable::NoNeighbor { interface: "eth0".into(), address: endpoint(1).address };
    let behind_router = NextHop { gateway: Some(Ipv4Addr::new(10, 0, 1, 253).into()), ..hop(2) };
    core.set_next_hops(NextHops::from([
        (endpoint(1).address, Err(silent)),
        (endpoint(2).address, Ok(behind_router)),
    ]))
    .unwrap();
    assert!(core.placement.service("web").unwrap().table().is_empty());
    let warnings = core.status(&[]).unwrap().warnings.join("\n");
    assert!(warnings.contains("no backend takes traffic"), "{warnings}");
    assert!(warnings.contains("10.0.1.1 has not answered ARP on eth0"), "{warnings}");
    assert!(warnings.contains("dsr-l2 reaches only backends on a link of this host"), "{warnings}");
}

#[test]
fn totals_never_go_back() {
    let mut core = core();
    let row = |core: &Core<MemoryDatapath>, last| {
        core.placement.service("web").unwrap().backend_row(&endpoint(last)).unwrap()
    };
    let packets = |core: &Core<MemoryDatapath>| core.status(&[]).unwrap().services[0].packets;
    let (first, second) = (row(&core, 1), row(&core, 2));
    core.datapath().count_forwarded(first, 100, true);
    core.datapath().count_forwarded(second, 50, false);
    core.datapath().count_service(0, ServiceEvent::Limited);
    assert_eq!(packets(&core), 3);
    core.change(remove(1)).unwrap();
    assert_eq!(packets(&core), 3, "the removed backend's packets stay with the service");
    core.change(add(3)).unwrap();
    core.change(add(4)).unwrap();
    assert_eq!(row(&core, 3), first, "the row is used again");
    let of_third = core.backends("web").unwrap().into_iter().find(|b| b.address == "10.0.1.3:80").unwrap();
    assert_eq!(of_third.packets, 0, "and starts from zero for its new owner");
    for last in 5..=10 {
        core.change(add(last)).unwrap();
    }
    assert_ne!(row(&core, 2), second, "the service has outgrown its rows");
    assert_eq!(packets(&core), 3);
    let view = core.status(&[]).unwrap().services.remove(0);
    assert_eq!((view.bytes, view.new_flows, view.limited), (150, 1, 1));
}
