//! `cargo xtask deny`: licences, advisories and duplicates among other people's crates, by `deny.toml`.

use std::{env, fs, path::PathBuf, process::Stdio};

use anyhow::{Result, ensure};

use crate::cargo;

const NO_DENY: &str = "cargo-deny is missing: cargo install cargo-deny --locked";

/// Checks them all, but for advisories where there are none.
pub(crate) fn run() -> Result<()> {
    let there = cargo::command(&["deny", "--version"])?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ensure!(there.is_ok_and(|status| status.success()), "{NO_DENY}");
    cargo::run(&["deny", "check", "bans", "licenses", "sources"])?;
    // Without a network those count that were fetched last.
    let fetched = cargo::run(&["deny", "fetch", "db"]).is_ok();
    if !fetched && !has_advisories() {
        eprintln!("Advisories could neither be fetched now nor were they before: nothing is known of them.");
        return Ok(());
    }
    cargo::run(&["deny", "check", "--disable-fetch", "advisories"])
}

/// Whether advisories were ever fetched: cargo-deny keeps them below cargo's home.
fn has_advisories() -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let databases = home.and_then(|home| fs::read_dir(home.join("advisory-dbs")).ok());
    // Beside them is a file that locks them.
    databases.is_some_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
}
