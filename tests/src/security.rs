//! Holds SECURITY.md to tests that exist.

use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../SECURITY.md");

/// The text of all Rust files below a folder.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_claim_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut text = String::new();
    for folder in ["tests", "lb-common/src", "lb-userspace/src"] {
        sources(&root.join(folder), &mut text);
    }
    let (_, claims) = PAGE.split_once("| Claim | Test |").unwrap();
    let rows: Vec<&str> = claims.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "{} claims", rows.len());
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test holds {row}");
        for name in names {
            assert!(text.contains(&format!("fn {name}(")), "{name} is no test: {row}");
        }
    }
}
