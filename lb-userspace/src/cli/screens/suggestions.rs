//! What meters have measured.

use super::super::units::{count, duration, grouped, share};
use crate::view::Suggestion;

/// What limiters propose that only count, a paragraph each.
pub(in crate::cli) fn suggestions(suggestions: &[Suggestion]) -> String {
    suggestions.iter().map(suggestion).collect::<Vec<_>>().join("\n")
}

fn suggestion(suggestion: &Suggestion) -> String {
    let Suggestion { sources, hits, contended, .. } = *suggestion;
    let has = |key| suggestion.settings.contains_key(key);
    let noun = if has("prefix4") { "prefixes" } else { "sources" };
    let unit = if has("bits") { "bit/s" } else { "/s" };
    let missing = match contended {
        0 => String::new(),
        packets => format!("; {} packets found no room and are missing here", grouped(packets)),
    };
    let busiest =
        suggestion.busiest.iter().map(|one| format!("{} %: {}{unit}", one.percent, count(one.rate)));
    let lines = [
        ("LIMITER", format!("{} {}", suggestion.service.as_deref().unwrap_or("*"), suggestion.limiter)),
        (
            "MEASURED",
            format!("about {} {noun} in {}{missing}", grouped(sources), duration(suggestion.watched_seconds)),
        ),
        ("BUSIEST", format!("second of each, at most: {}", busiest.collect::<Vec<_>>().join("  "))),
        ("PROPOSED", format!("{} ({} %)", suggestion.words, suggestion.quantile)),
        (
            "HITS",
            format!("{} {noun} at most ({}), the others never", grouped(hits), share(hits, sources.max(1))),
        ),
        ("COMMAND", suggestion.command.clone()),
    ];
    lines.map(|(title, text)| format!("{title:<10}{text}\n")).concat()
}
