//! Flows, slots and health checks.

use super::{count, duration, grouped, health, percent, share};
use crate::cli::look::{Column, Look};
use crate::view::{CheckView, FlowCount, FlowLookup, FlowStage, FlowView, PlanView, ServiceSlots};

/// A backend that was removed has no address any more.
fn backend(address: Option<&String>) -> String {
    address.cloned().unwrap_or_else(|| "removed".to_owned())
}

fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

fn stage(stage: FlowStage) -> &'static str {
    match stage {
        FlowStage::Fresh => "fresh",
        FlowStage::Confirmed => "confirmed",
    }
}

/// Remembered flows, a line each.
pub(in crate::cli) fn flows(look: Look, flows: &[FlowView], more: bool) -> String {
    if flows.is_empty() {
        return look.fold("No flow is remembered: no slot is on the move, or none has flows.\n");
    }
    let columns = [
        Column::words("HASH"),
        Column::words("SERVICE"),
        Column::number("SLOT"),
        Column::words("BACKEND"),
        Column::words("STAGE"),
        Column::number("IDLE"),
    ];
    let rows = flows.iter().map(|flow| {
        [
            flow.hash.clone(),
            flow.service.clone(),
            flow.slot.to_string(),
            backend(flow.backend.as_ref()),
            stage(flow.stage).to_owned(),
            duration(flow.idle_seconds),
        ]
    });
    let more = if more { "There are more (--limit shows them).\n" } else { "" };
    look.table(&columns, rows) + more
}

/// Remembered flows by backend.
pub(in crate::cli) fn flow_counts(look: Look, counts: &[FlowCount]) -> String {
    let columns = [
        Column::words("SERVICE"),
        Column::words("BACKEND"),
        Column::number("FLOWS"),
        Column::number("FRESH"),
        Column::number("CONFIRMED"),
    ];
    let rows = counts.iter().map(|one| {
        [
            one.service.clone(),
            backend(one.backend.as_ref()),
            grouped(one.fresh + one.confirmed),
            grouped(one.fresh),
            grouped(one.confirmed),
        ]
    });
    let total: u64 = counts.iter().map(|one| one.fresh + one.confirmed).sum();
    let total = format!("{} remembered\n", counted(total, "flow"));
    if counts.is_empty() { total } else { look.table(&columns, rows) + &total }
}

/// Where a flow goes.
pub(in crate::cli) fn lookup(look: Look, found: &FlowLookup) -> String {
    let slot = match found.slot {
        None => "none".to_owned(),
        Some(slot) => format!("{slot}, {}", if found.moving { "moving" } else { "settled" }),
    };
    let mut lines = vec![
        ("BACKEND", found.backend.clone().unwrap_or_else(|| "none".to_owned())),
        ("WHY", found.reason.clone()),
        ("SERVICE", found.service.clone()),
        ("SLOT", slot),
        ("HASH", found.hash.clone()),
    ];
    if found.opens_at != found.backend {
        let opens =
            found.opens_at.clone().unwrap_or_else(|| "nowhere: no backend takes new flows".to_owned());
        lines.insert(2, ("OPENING", format!("a packet that opens it anew goes to {opens}")));
    }
    if let Some(flow) = &found.remembered {
        lines.push(("KNOWN", format!("{}, idle for {}", stage(flow.stage), duration(flow.idle_seconds))));
    }
    let lines = lines.iter().map(|(title, text)| format!("{title:<9}{text}\n"));
    look.fold(&lines.collect::<String>())
}

/// How a service's slots are shared out.
pub(in crate::cli) fn slots(look: Look, slots: &ServiceSlots) -> String {
    let columns = [
        Column::words("BACKEND"),
        Column::number("SLOTS"),
        Column::number("SHARE"),
        Column::number("WANTED"),
        Column::number("ARRIVING"),
        Column::number("LEAVING"),
    ];
    let rows = slots.backends.iter().map(|one| {
        [
            one.address.clone(),
            grouped(one.owned.into()),
            percent(one.share),
            percent(one.wanted_share),
            grouped(one.arriving.into()),
            grouped(one.leaving.into()),
        ]
    });
    let total = format!(
        "{} slots: {} settled, {} moving\n",
        grouped(slots.table_size.into()),
        grouped(slots.settled),
        grouped(slots.moving)
    );
    look.table(&columns, rows) + &look.fold(&total)
}

/// What a change would move.
pub(in crate::cli) fn disruption(look: Look, plan: &PlanView) -> String {
    let PlanView { slots_moved, slots_least, slots_total, flows, .. } = *plan;
    if slots_total == 0 {
        return look.fold("No slot would move. Nothing was changed.\n");
    }
    let line = format!(
        "{} of {} slots would move ({}; {} is the least possible); {} remembered in them. Nothing was changed.\n",
        grouped(slots_moved),
        grouped(slots_total),
        share(slots_moved, slots_total),
        share(slots_least, slots_total),
        counted(flows, "flow"),
    );
    look.fold(&line)
}

/// Health checks, a line each.
pub(in crate::cli) fn checks(look: Look, checks: &[CheckView]) -> String {
    let columns = [
        Column::words("SERVICE"),
        Column::words("BACKEND"),
        Column::words("HEALTH"),
        Column::number("SINCE"),
        Column::words("TARGET"),
        Column::number("EVERY MS").extra(),
        Column::number("RISE").extra(),
        Column::number("FALL").extra(),
        Column::words("LAST CHECK"),
    ];
    let rows = checks.iter().map(|one| {
        [
            one.service.clone(),
            one.backend.clone(),
            health(one.health).to_owned(),
            one.since_seconds.map_or_else(|| "-".to_owned(), duration),
            one.target.clone(),
            count(one.interval_ms),
            one.rise.to_string(),
            one.fall.to_string(),
            if one.last_check.is_empty() { "-".to_owned() } else { one.last_check.clone() },
        ]
    });
    look.table(&columns, rows)
}
