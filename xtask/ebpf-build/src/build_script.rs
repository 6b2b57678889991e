//! The build script of the crate that embeds the eBPF programs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::recipe::{PROGRAMS, Recipe};

/// What the objects are made from; the recipe itself is a dependency of the build script.
const SOURCES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "lb-common", "lb-ebpf"];

/// Compiles `lb-ebpf` and leaves an object of each of [`PROGRAMS`] in `OUT_DIR`: all that the build script's `main` does.
///
/// On failure, cargo shows what is missing and what to run, or the compiler's message.
#[must_use]
pub fn for_build_script() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not the error's debug format, as from `main`: that has a backtrace of this script, which nobody needs.
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<()> {
    let root = workspace_root()?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let objects = Recipe::find(&root)?.build(&root, &[])?;
    let out_dir = dir_from_env("OUT_DIR")?;
    for program in PROGRAMS {
        let (from, to) = (objects.path(program), out_dir.join(format!("{program}.o")));
        fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

fn workspace_root() -> Result<PathBuf> {
    let package = dir_from_env("CARGO_MANIFEST_DIR")?;
    let root = package.ancestors().find(|dir| dir.join("lb-ebpf/Cargo.toml").is_file());
    root.map(Path::to_owned)
        .with_context(|| format!("no workspace with lb-ebpf around {}", package.display()))
}

fn dir_from_env(name: &str) -> Result<PathBuf> {
    env::var_os(name)
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set: run this from a build script"))
}
