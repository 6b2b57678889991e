//! `schemathesis`, which asks an API what its own description promises: Python's, in a place of its own under `target`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo;

const VERSION: &str = "4.32.5";

/// Where it is. Another version is another place, so what is there is what is wanted.
fn home() -> PathBuf {
    cargo::root().join(format!("target/tools/schemathesis-{VERSION}"))
}

pub(crate) fn is_ready() -> bool {
    home().join("ready").is_file()
}

/// The commands that get it.
pub(crate) fn commands() -> String {
    let home = home();
    let home = home.display();
    format!("python3 -m venv {home} && {home}/bin/pip install schemathesis=={VERSION} && touch {home}/ready")
}

/// Whether this machine's Python can make places of its own: Debian has that in a package by itself.
pub(crate) fn has_venv() -> bool {
    let output = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Gets it if it is not there.
pub(crate) fn install() -> Result<()> {
    if is_ready() {
        return Ok(());
    }
    println!("Installing schemathesis {VERSION}, once, under target/tools");
    let output = Command::new("sh").args(["-c", &commands()]).output().context("cannot run sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "schemathesis cannot be installed: {said}");
    Ok(())
}
