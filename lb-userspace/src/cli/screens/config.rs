//! Configurations: what would change, what did, and what was before.

use super::{applied, moment, plural, share};
use crate::cli::look::{Column, Look};
use crate::config::keys::{Explained, Found};
use crate::view::{ConfigApplied, ConfigDiff, GenerationView, PlanView};

/// What would change, and what it would cost.
pub(in crate::cli) fn config_diff(diff: &ConfigDiff) -> String {
    let changes = diff.changes.iter().map(|line| format!("{line}\n"));
    let restart = diff.restart.iter().map(|key| format!("! [daemon] {key} differs, which takes a restart\n"));
    let plan = diff.plan.map(|plan| plan_line(diff.count, plan));
    changes.chain(restart).chain(plan).collect()
}

fn plan_line(count: usize, plan: PlanView) -> String {
    let PlanView { tables, slots_moved, slots_least, slots_total, flows } = plan;
    let changes = plural(count, "change");
    let slots = if slots_moved == 0 {
        "no slot moves".to_owned()
    } else {
        let whose = if tables == 1 { "its" } else { "their" };
        let (moved, least) = (share(slots_moved, slots_total), share(slots_least, slots_total));
        format!("{}, {moved} of {whose} slots move ({least} is the least possible)", plural(tables, "table"))
    };
    let flows = if flows == 0 { String::new() } else { format!(", {flows} remembered flows are concerned") };
    format!("  plan: {changes}, {slots}{flows}\n")
}

/// What a whole configuration changed.
pub(in crate::cli) fn config_applied(result: &ConfigApplied) -> String {
    let changes: String = result.changes.iter().flat_map(|line| [line, "\n"]).collect();
    let confirm = result.confirm_by.map(|until| {
        format!("it goes away by itself at {} unless it is confirmed: lb config confirm\n", moment(until))
    });
    changes + &applied(&result.applied) + &confirm.unwrap_or_default()
}

/// Keys of the configuration in lines, or what is said of those of one name.
pub(in crate::cli) fn explained(look: Look, found: &Found) -> String {
    const COLUMNS: [Column; 3] = [Column::words("KEY"), Column::words("TYPE"), Column::words("DEFAULT")];
    match found {
        Found::Table(keys) => look.table(
            &COLUMNS,
            keys.iter().map(|key| {
                let default = key.default.as_deref().unwrap_or("required");
                [key.key.clone(), plain(&key.kind), plain(default)]
            }),
        ),
        Found::Keys(keys) => keys.iter().map(|key| described(look, key)).collect::<Vec<_>>().join("\n"),
    }
}

fn described(look: Look, key: &Explained) -> String {
    let facts = key.facts();
    let mut text = format!("{}\n", key.key);
    // Lines of a paragraph are one, but examples and tables stay as they are.
    let blocks = [facts.as_str()].into_iter().chain(key.text.split("\n\n").filter(|block| !block.is_empty()));
    let mut is_code = false;
    for block in blocks {
        is_code |= block.starts_with("```");
        text.push('\n');
        if is_code || block.starts_with('|') {
            for line in block.lines().filter(|line| !line.starts_with("```")) {
                text.extend(["    ", line, "\n"]);
            }
        } else {
            text += &look.fold(&format!("{}\n", plain(&block.replace('\n', " "))));
        }
        is_code &= !block.ends_with("```");
    }
    text + "\n" + &look.fold(&format!("Refused: {}.\n", plain(key.refused)))
}

/// Markdown without the marks: links are their text, code is as it is written.
fn plain(markdown: &str) -> String {
    let text = markdown.replace('`', "");
    let mut parts = text.split('[');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("](") {
            Some((label, rest)) => {
                plain += label;
                plain += rest.split_once(')').map_or(rest, |(_, after)| after);
            }
            None => plain = plain + "[" + part,
        }
    }
    plain
}

/// The generations that are kept, the newest first.
pub(in crate::cli) fn history(look: Look, generations: &[GenerationView]) -> String {
    let rows = generations.iter().rev().map(|view| {
        let more = view.changes.len().saturating_sub(1);
        let first = view.changes.first().cloned().unwrap_or_else(|| "nothing".to_owned());
        let changes = if more == 0 { first } else { format!("{first} and {more} more") };
        let number = format!("{}{}", if view.current { "* " } else { "" }, view.generation);
        [number, moment(view.time), view.origin.clone(), changes]
    });
    look.table(
        &[
            Column::number("GENERATION"),
            Column::words("TIME"),
            Column::words("ORIGIN"),
            Column::words("CHANGES"),
        ],
        rows,
    )
}
