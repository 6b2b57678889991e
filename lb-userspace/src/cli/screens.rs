//! What people see: views as lines and tables.

mod suggestions;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::look::{Column, Look};
use super::units::{count, duration, grouped, moment, percent, plural, rate, share};
use crate::config::Config;
use crate::decap::InterfaceReport;
use crate::doctor::{Finding, Severity, Step};
use crate::view::{
    Applied, BackendView, ConfigStatus, FlowsView, HealthState, InterfaceView, LimitView, LimitedView,
    ListsView, PrefixList, ReasonCount, ServiceView, Status, XdpInterface, XdpStatus,
};

mod bpf;
mod config;
mod flows;

pub(super) use bpf::{entries, maps};
pub(super) use config::{config_applied, config_diff, explained, history};
pub(super) use flows::{checks, disruption, flow_counts, flows, lookup, slots};
pub(super) use suggestions::suggestions;

/// The daemon at a glance.
pub(super) fn status(status: &Status) -> String {
    let state =
        if status.warnings.is_empty() { "well".to_owned() } else { plural(status.warnings.len(), "warning") };
    let interfaces: Vec<String> =
        status.interfaces.iter().map(|one| format!("{} {}", one.name, one.mode)).collect();
    let uptime = duration(status.uptime_seconds);
    let lines = [
        format!(
            "lb {}  up {uptime}  generation {} {}  {state}",
            status.version,
            status.generation,
            origin(&status.config)
        ),
        format!("XDP       {}", interfaces.join("  ")),
        format!("SERVICES  {}", services_line(&status.services)),
        format!("SLOTS     {}", slots_line(&status.services, &status.flows)),
        format!("PACKETS   {}", packets_line(&status.services)),
        format!("PASSES    {}", reasons_line(&status.interfaces, |one| &one.passes)),
        format!("DROPS     {}", reasons_line(&status.interfaces, |one| &one.drops)),
        format!("ANSWERS   {}", reasons_line(&status.interfaces, |one| &one.answers)),
    ];
    let warnings = status.warnings.iter().map(|warning| format!("! {warning}"));
    let lists = lists_line(&status.lists).map(|line| format!("LISTS     {line}"));
    let lines: Vec<String> = lines.into_iter().chain(lists).chain(warnings).collect();
    lines.join("\n") + "\n"
}

/// Where a generation comes from, and since when it is.
fn origin(config: &ConfigStatus) -> String {
    format!("({}, {})", config.origin, moment(config.time))
}

/// The program on each interface, and who looks after it.
pub(super) fn xdp(look: Look, status: &XdpStatus) -> String {
    if status.interfaces.is_empty() {
        return format!("nothing is attached by way of {}\n", status.pins.display());
    }
    let row = |one: &XdpInterface| {
        let mode = one.mode.clone().unwrap_or_else(|| "gone".to_owned());
        [
            one.name.clone(),
            mode,
            one.program.to_string(),
            one.since_seconds.map_or_else(String::new, duration),
        ]
    };
    let rows = status.interfaces.iter().map(row);
    let table = look.table(
        &[
            Column::words("INTERFACE"),
            Column::words("MODE"),
            Column::number("PROGRAM"),
            Column::number("SINCE"),
        ],
        rows,
    );
    let daemon = match status.daemon {
        Some(id) => format!("a daemon looks after it: process {id}"),
        None => "no daemon looks after it: packets are forwarded as they were when it ended".to_owned(),
    };
    format!("{table}{daemon}\n")
}

/// What was found, the worst last: that is what a terminal shows.
pub(super) fn findings(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|one| one.severity);
    let mut text = String::new();
    for Finding { check, severity, found, why, mend } in sorted {
        let sign = match severity {
            Severity::Well => "ok  ",
            Severity::Note => "note",
            Severity::Bad => "BAD ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{sign}  {check}: {found}");
        if !why.is_empty() {
            let _ = writeln!(text, "      {why}");
        }
        if let Some(mend) = mend {
            let _ = writeln!(text, "      -> {mend}");
        }
    }
    text
}

/// Nothing while both lists are empty.
fn lists_line(ListsView { denied, allowed, capacity }: &ListsView) -> Option<String> {
    let [denied, allowed, capacity] = [*denied, *allowed, *capacity].map(grouped);
    let line = format!("{denied} prefixes denied  {allowed} allowed  of {capacity} there is room for");
    (denied != "0" || allowed != "0").then_some(line)
}

fn services_line(services: &[ServiceView]) -> String {
    let (well, degraded): (Vec<_>, Vec<_>) =
        services.iter().partition(|service| service.backends_serving > 0 && !lacks_backends(service));
    let serving: usize = services.iter().map(|service| service.backends_serving).sum();
    let total: usize = services.iter().map(|service| service.backends_total).sum();
    format!("{} well  {} degraded     BACKENDS {serving} of {total} serving", well.len(), degraded.len())
}

fn lacks_backends(service: &ServiceView) -> bool {
    service.backends_serving < service.backends_total
}

fn slots_line(services: &[ServiceView], flows: &FlowsView) -> String {
    let sum = |field: fn(&ServiceView) -> u64| grouped(services.iter().map(field).sum());
    let (settled, moving) = (sum(|service| service.slots.settled), sum(|service| service.slots.moving));
    let (remembered, capacity) = (grouped(flows.remembered), grouped(flows.capacity));
    format!(
        "{settled} settled  {moving} moving     FLOWS {remembered} / {capacity} remembered  {} evicted",
        grouped(flows.evicted)
    )
}

fn packets_line(services: &[ServiceView]) -> String {
    let sum = |field: fn(&ServiceView) -> u64| count(services.iter().map(field).sum());
    let (received, limited) = (sum(|service| service.packets), sum(|service| service.limited));
    format!("{received} for services  {limited} limited  {} new flows", sum(|service| service.new_flows))
}

fn reasons_line(interfaces: &[InterfaceView], counts: fn(&InterfaceView) -> &[ReasonCount]) -> String {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for reason in interfaces.iter().flat_map(counts) {
        *sums.entry(&reason.reason).or_default() += reason.packets;
    }
    if sums.is_empty() {
        return "none".to_owned();
    }
    let mut sums: Vec<(&str, u64)> = sums.into_iter().collect();
    sums.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
    let words: Vec<String> =
        sums.iter().map(|(reason, packets)| format!("{reason} {}", count(*packets))).collect();
    words.join("  ")
}

/// All services, a line each.
pub(super) fn services(look: Look, services: &[ServiceView]) -> String {
    let columns = [
        Column::words("SERVICE"),
        Column::words("VIP"),
        Column::words("PROTOCOL"),
        Column::words("MODE"),
        Column::number("BACKENDS"),
        Column::number("PACKETS"),
        Column::number("BYTES"),
        Column::number("NEW FLOWS"),
        Column::number("LIMITED"),
        Column::words("LIMIT"),
        Column::words("OPTIONS"),
        Column::number("TABLE SIZE").extra(),
        Column::number("MOVING").extra(),
        Column::number("CONTENDED").extra(),
    ];
    let rows = services.iter().map(|service| {
        [
            service.name.clone(),
            service.vip.clone(),
            service.protocol.to_string(),
            service.mode.to_string(),
            format!("{}/{}", service.backends_serving, service.backends_total),
            count(service.packets),
            count(service.bytes),
            count(service.new_flows),
            count(service.limited),
            service.limit.clone().unwrap_or_else(|| "none".to_owned()),
            service.options.to_string(),
            grouped(service.table_size.into()),
            grouped(service.slots.moving),
            count(service.contended),
        ]
    });
    look.table(&columns, rows)
}

/// Limiters, a line each.
pub(super) fn limits(look: Look, limits: &[LimitView]) -> String {
    let columns = [
        Column::words("SERVICE"),
        Column::words("LIMITER"),
        Column::words("LIMIT"),
        Column::words("CLOCK"),
        Column::number("ADMITTED"),
        Column::number("OVER"),
        Column::number("UNMARKED"),
        Column::number("CONTENDED"),
    ];
    let rows = limits.iter().map(|limit| {
        [
            limit.service.clone().unwrap_or_else(|| "*".to_owned()),
            limit.name.clone(),
            limit.words.clone(),
            limit.clock.clone(),
            count(limit.admitted),
            count(limit.over),
            count(limit.unmarked),
            count(limit.contended),
        ]
    });
    look.table(&columns, rows)
}

/// Those who are over limits, a line each; or what can be said if none can be named.
pub(super) fn limited(look: Look, limited: &LimitedView) -> String {
    let LimitedView { seconds, packets_per_second, samples_lost, sources_total, ref sources, .. } = *limited;
    let total = format!("{} packets/s over limits in the last {seconds:.0} s", rate(packets_per_second));
    let lost = match samples_lost {
        0 => String::new(),
        lost => format!("! {} samples were lost: rates are higher than shown\n", grouped(lost)),
    };
    if sources.is_empty() {
        let nobody = if packets_per_second > 0.0 {
            format!("{total}, of so many sources that none stands out.\n")
        } else {
            format!("Nothing was over a limit in the last {seconds:.0} s.\n")
        };
        return nobody + &lost;
    }
    let columns = [
        Column::words("SOURCE"),
        Column::number("RATE"),
        Column::number("+/-"),
        Column::words("SERVICE"),
        Column::words("LIMITER"),
        Column::words("ACTION"),
    ];
    let rows = sources.iter().map(|one| {
        let everybody = if one.service.is_some() { "the whole service" } else { "all services" };
        [
            one.source.clone().unwrap_or_else(|| everybody.to_owned()),
            rate(one.packets_per_second),
            rate(one.uncertainty),
            one.service.clone().unwrap_or_else(|| "*".to_owned()),
            one.limiter.clone(),
            one.action.name().to_owned(),
        ]
    });
    let more = match sources_total.saturating_sub(sources.len()) {
        0 => String::new(),
        more => format!("; {more} more not shown"),
    };
    format!("{}{total}{more}\n{lost}", look.table(&columns, rows))
}

/// All of one limiter.
pub(super) fn limit(limit: &LimitView) -> String {
    let clock = match limit.clock.as_str() {
        "exact" => "exact (to the nanosecond: the burst does not cover two ticks of the kernel's timer)",
        _ => "coarse (the kernel's timer, whose ticks the burst or window covers)",
    };
    let counts = format!(
        "{} admitted  {} {}  {} unmarked  {} contended",
        grouped(limit.admitted),
        grouped(limit.over),
        limit.action.verdict(),
        grouped(limit.unmarked),
        grouped(limit.contended)
    );
    let keys: Vec<String> = limit.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let lines = [
        ("SERVICE", limit.service.as_deref().unwrap_or("*").to_owned()),
        ("LIMITER", limit.name.clone()),
        ("LIMIT", limit.words.clone()),
        ("KEYS", keys.join(" ")),
        ("CLOCK", clock.to_owned()),
        ("PACKETS", counts),
    ];
    lines.map(|(title, text)| format!("{title:<9}{text}\n")).concat()
}

/// The backends of a service, a line each.
pub(super) fn backends(look: Look, backends: &[BackendView]) -> String {
    let columns = [
        Column::words("BACKEND"),
        Column::words("STATE"),
        Column::words("HEALTH"),
        Column::number("WEIGHT"),
        Column::number("SHARE"),
        Column::number("PACKETS"),
        Column::number("BYTES"),
        Column::words("SINCE"),
        Column::words("NEXT HOP"),
        Column::words("LAST CHECK"),
    ];
    let rows = backends.iter().map(|backend| {
        [
            backend.address.clone(),
            state(backend),
            health(backend.health).to_owned(),
            weight(backend),
            percent(backend.share),
            count(backend.packets),
            count(backend.bytes),
            backend.since_seconds.map_or_else(|| "-".to_owned(), duration),
            backend.next_hop.clone(),
            if backend.last_check.is_empty() { "-".to_owned() } else { backend.last_check.clone() },
        ]
    });
    look.table(&columns, rows)
}

/// What was asked of it, and how long a drain goes on.
fn state(backend: &BackendView) -> String {
    let word = backend.state.word();
    match backend.drain_seconds_left {
        None => word.to_owned(),
        Some(0) => format!("{word} (ended)"),
        Some(seconds) => format!("{word} ({})", duration(seconds)),
    }
}

fn health(health: HealthState) -> &'static str {
    match health {
        HealthState::Unchecked => "unchecked",
        HealthState::Up => "up",
        HealthState::Down => "down",
    }
}

/// The configured weight; where another one is in force, that one in front: `0/100`.
fn weight(backend: &BackendView) -> String {
    let (effective, configured) = (backend.effective_weight.0, backend.weight.0);
    if effective == configured { configured.to_string() } else { format!("{effective}/{configured}") }
}

/// The prefixes of a list, a line each.
pub(super) fn prefixes(list: &PrefixList) -> String {
    list.prefixes.iter().flat_map(|prefix| [prefix.as_str(), "\n"]).collect()
}

/// What a change did.
pub(super) fn applied(applied: &Applied) -> String {
    let Applied { generation, slots_moved, slots_least, slots_total, .. } = applied;
    let summary = applied.summary.trim_end_matches('.');
    if *slots_total == 0 {
        return format!("{summary} (generation {generation})\n");
    }
    let (moved, least) = (share(*slots_moved, *slots_total), share(*slots_least, *slots_total));
    format!(
        "{summary} (generation {generation}): {moved} of {slots_total} slots moved, the least possible is \
         {least}\n"
    )
}

/// What a decapsulator counted, without what never happened.
pub(super) fn decap(look: Look, interfaces: &[InterfaceReport]) -> String {
    let rows = interfaces.iter().flat_map(|interface| {
        let met = interface.results.iter().filter(|result| result.packets > 0);
        met.map(|result| {
            [interface.name.clone(), result.reason.clone(), count(result.packets), result.meaning.clone()]
        })
    });
    look.table(
        &[
            Column::words("INTERFACE"),
            Column::words("RESULT"),
            Column::number("PACKETS"),
            Column::words("MEANING"),
        ],
        rows,
    )
}

/// A configuration without mistakes.
pub(super) fn checked(file: &str, config: &Config) -> String {
    let backends = config.services.iter().map(|service| service.backends.len()).sum();
    let (services, backends) = (plural(config.services.len(), "service"), plural(backends, "backend"));
    let prefixes = match config.lists.len() {
        0 => String::new(),
        count => format!(", {count} listed prefixes"),
    };
    format!("{file}: ok: {services}, {backends}{prefixes} on {}\n", config.daemon.interfaces.join(", "))
}

/// Commands for a shell, each below what it is for. Those that not everybody needs are comments.
pub(super) fn setup(steps: &[Step]) -> String {
    let step = |step: &Step| {
        let of = match &step.backends[..] {
            [] => String::new(),
            backends => format!(" (on {})", backends.join(", ")),
        };
        let mark = if step.optional { "# " } else { "" };
        format!("# {}{of}\n{mark}{}\n", step.why, step.command)
    };
    steps.iter().map(step).collect()
}

#[cfg(test)]
pub(super) mod tests;
