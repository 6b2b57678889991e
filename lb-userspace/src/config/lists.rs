//! The `[lists]` section, and the files that it names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::document::Node;
use super::keys;
use super::{ConfigError, Mistake};
use crate::datapath::MAX_PREFIXES;
use crate::model::{ListName, Lists, OnBothLists, Prefix};

const LISTS: [(ListName, &str, &str); 2] =
    [(ListName::Deny, "deny", "deny_file"), (ListName::Allow, "allow", "allow_file")];

/// Mistakes of one file that are told. A file of another kind has one in each line.
const TOLD: usize = 20;

/// The lists of the sections of all files, and the files whose prefixes are to be added to them.
pub(super) fn read_lists(nodes: &[Node<'_>]) -> (Lists, Vec<(ListName, PathBuf)>) {
    let (mut lists, mut files, mut seen) = (Lists::default(), Vec::new(), HashMap::new());
    for node in nodes {
        read_section(node, &mut lists, &mut files, &mut seen);
    }
    (lists, files)
}

/// Adds a section to what was read before.
fn read_section<'d>(
    node: &Node<'d>,
    lists: &mut Lists,
    files: &mut Vec<(ListName, PathBuf)>,
    seen: &mut HashMap<Prefix, Node<'d>>,
) {
    let Some(section) = node.section(&keys::LISTS.names()) else { return };
    for (list, prefixes, file) in LISTS {
        let items = section.optional(prefixes).and_then(|node| node.items("[\"198.51.100.0/24\"]"));
        for item in items.unwrap_or_default() {
            let Some(prefix) = item.parsed() else { continue };
            match (lists.add(list, prefix), seen.get(&prefix)) {
                (Ok(_), _) => drop(seen.insert(prefix, item)),
                (Err(error), Some(first)) if !item.is_beside(first) => {
                    item.note(format!("{error}; the other one is on {}", item.place_of(first)));
                }
                (Err(error), _) => item.note(error.to_string()),
            }
        }
        let file = section.optional(file).and_then(|node| node.path());
        files.extend(file.map(|path| (list, path)));
    }
    if let Err(error) = check_lists(lists) {
        node.note(error);
    }
}

/// Refuses more prefixes than there is room for.
fn check_lists(lists: &Lists) -> Result<(), String> {
    let count = lists.len();
    if count <= MAX_PREFIXES as usize {
        return Ok(());
    }
    Err(format!("{count} prefixes are listed, but there is room for {MAX_PREFIXES} on both lists together"))
}

/// Adds to a list what a file says: a prefix a line, `#` and what follows are a comment.
pub(super) fn add_file(lists: &mut Lists, list: ListName, file: &Path) -> Result<(), ConfigError> {
    let fail = |mistakes| Err(ConfigError { mistakes });
    let mistake = |line, message| Mistake { file: file.to_owned(), line, field: String::new(), message };
    let whole = |message| vec![mistake(None, message)];
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return fail(whole(format!("cannot be read: {error}"))),
    };
    let mut mistakes: Vec<Mistake> = (1..)
        .zip(text.lines())
        .filter_map(|(line, text)| {
            let message = add_line(lists, list, text).err()?;
            Some(mistake(Some(line), message))
        })
        .collect();
    if let Some(more) = mistakes.len().checked_sub(TOLD).filter(|more| *more > 0) {
        mistakes.truncate(TOLD);
        mistakes.extend(whole(format!("and {more} more mistakes; is it a list of prefixes?")));
    }
    if !mistakes.is_empty() {
        return fail(mistakes);
    }
    check_lists(lists).or_else(|error| fail(whole(error)))
}

fn add_line(lists: &mut Lists, list: ListName, line: &str) -> Result<(), String> {
    let text = line.split('#').next().unwrap_or_default().trim();
    if text.is_empty() {
        return Ok(());
    }
    let prefix: Prefix = text.parse().map_err(|error: crate::model::PrefixError| error.to_string())?;
    lists.add(list, prefix).map(drop).map_err(|error: OnBothLists| error.to_string())
}
