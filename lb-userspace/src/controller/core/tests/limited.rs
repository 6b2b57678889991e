//! Who is over which limit: by the limiter's name, and only while it is the limiter that it was.

use lb_common::layout::VipKey;
use lb_common::wire::{Ipv4Address, Ipv6Address};

use super::*;
use crate::config::packets_per_source;
use crate::model::{Action, Policy, Scope};

fn set(core: &mut Core<MemoryDatapath>, service: Option<&str>, name: &str, policy: Policy) {
    let limit = Limit::try_new(name, policy).unwrap();
    core.change(Change::SetLimit { service: service.map(str::to_owned), limit }).unwrap();
}

/// As the program does when a packet is over a limit.
fn exceed(core: &mut Core<MemoryDatapath>, service: Option<&str>, name: &str, source: VipKey, packets: u32) {
    let key = LimiterKey { service: service.map(str::to_owned), name: name.to_owned() };
    let salt = core.placement.limiter_salt(&key).unwrap();
    (0..packets).for_each(|_| core.datapath().over(salt, source));
}

fn v4(address: [u8; 4]) -> VipKey {
    VipKey::v4(Ipv4Address::new(address))
}

fn v6(first: [u8; 6]) -> VipKey {
    let mut address = [0; 16];
    address[..6].copy_from_slice(&first);
    VipKey::v6(Ipv6Address::new(address))
}

/// Sources, limiters and actions, in the order told.
fn told(core: &mut Core<MemoryDatapath>, service: Option<&str>) -> Vec<String> {
    let view = core.limited(service, 100).unwrap();
    assert_eq!(view.sources_total, view.sources.len());
    let words = |one: &crate::view::LimitedSource| {
        let [source, service] = [&one.source, &one.service].map(|name| name.as_deref().unwrap_or("-"));
        format!("{source} {service} {} {}", one.limiter, one.action.name())
    };
    view.sources.iter().map(words).collect()
}

#[test]
fn who_is_over_a_limit_is_told_by_names() {
    let mut core = core();
    let policy = packets_per_source(1_000, 200);
    assert!(!core.has_limiters());
    let prefix = Policy { scope: Scope::Prefix { v4: 24, v6: 48 }, action: Action::Mark, ..policy };
    set(&mut core, Some("web"), "each", policy);
    set(&mut core, Some("web"), "nets", prefix);
    set(&mut core, Some("web"), "all", Policy { scope: Scope::Service, action: Action::Shadow, ..policy });
    set(&mut core, None, "shared", policy);
    assert!(core.has_limiters());
    exceed(&mut core, Some("web"), "each", v4([198, 51, 100, 7]), 15);
    exceed(&mut core, None, "shared", v4([198, 51, 100, 8]), 14);
    exceed(&mut core, Some("web"), "each", v6([0x20, 1, 0x0d, 0xb8, 0, 1]), 1);
    exceed(&mut core, Some("web"), "nets", v4([198, 51, 100, 0]), 13);
    exceed(&mut core, Some("web"), "nets", v6([0x20, 1, 0x0d, 0xb8, 0, 1]), 2);
    exceed(&mut core, Some("web"), "all", VipKey { high: 0, low: 0 }, 12);
    let expected = [
        "198.51.100.7 web each drop",
        "198.51.100.8 - shared drop",
        "198.51.100.0/24 web nets mark",
        "- web all shadow",
        "2001:db8:1::/48 web nets mark",
        "2001:db8:1::/64 web each drop",
    ];
    assert_eq!(told(&mut core, Some("web")), expected);
    assert_eq!(told(&mut core, None), expected);
    let first = core.limited(None, 1).unwrap();
    assert_eq!((first.sources.len(), first.sources_total, first.samples), (1, 6, 57));
    assert_eq!(first.sources[0].packets_per_second.to_bits(), 15.0_f64.to_bits());
    let unknown = core.limited(Some("wbe"), 1).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no service \"wbe\"; did you mean web?");
}

/// The rows and the name are the old limiter's, and so may be samples under way; its sources are nobody's.
#[test]
fn what_another_limiter_said_is_not_told_under_its_heirs_name() {
    let mut core = core();
    let policy = packets_per_source(1_000, 200);
    set(&mut core, Some("web"), "each", policy);
    exceed(&mut core, Some("web"), "each", v4([198, 51, 100, 7]), 10);
    assert_eq!(told(&mut core, None), ["198.51.100.7 web each drop"]);
    set(&mut core, Some("web"), "each", Policy { action: Action::Shadow, rate: 500, ..policy });
    assert_eq!(told(&mut core, None), ["198.51.100.7 web each shadow"]);
    exceed(&mut core, Some("web"), "each", v4([198, 51, 100, 8]), 10);
    set(&mut core, Some("web"), "each", Policy { scope: Scope::Service, ..policy });
    assert!(told(&mut core, None).is_empty());
    core.change(Change::RemoveLimit { service: Some("web".to_owned()), name: "each".to_owned() }).unwrap();
    set(&mut core, Some("web"), "each", policy);
    assert!(told(&mut core, None).is_empty());
    let view = core.limited(None, 5).unwrap();
    assert_eq!(view.packets_per_second.to_bits(), 0.0_f64.to_bits());
}
