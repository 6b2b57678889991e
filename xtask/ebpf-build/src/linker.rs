//! `bpf-linker`: where it is kept, and how it is built.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::probe::answer;

/// The version that is built under `target/`; a newer one on `PATH` will do as well.
pub const VERSION: &str = "0.13.0";

/// The linker for objects made with LLVM `llvm`: the one under `root/target`, else one on `PATH`.
pub(crate) fn find(root: &Path, llvm: u32) -> Option<PathBuf> {
    let built = install_dir(root, llvm).join("bin/bpf-linker");
    let on_path =
        env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    [built]
        .into_iter()
        .chain(on_path.map(|dir| dir.join("bpf-linker")))
        .find(|candidate| is_usable(candidate))
}

/// Running it finds more than looking at it: a linker outlives the LLVM library it was linked to.
fn is_usable(linker: &Path) -> bool {
    linker.is_file()
        && answer(Command::new(linker).arg("--version"))
            .is_some_and(|version| parse_version(&version) >= parse_version(VERSION))
}

/// `bpf-linker 0.13.0` and `0.13.0` are both `[0, 13, 0]`.
fn parse_version(text: &str) -> Option<Vec<u32>> {
    let number = text.split_whitespace().last()?;
    number.split('.').map(|part| part.parse().ok()).collect()
}

/// Builds the linker under `root/target`, with the libraries of LLVM `llvm` that are installed in `llvm_prefix`.
pub fn install(root: &Path, llvm: u32, llvm_prefix: &Path) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let dir = install_dir(root, llvm);
    let status = Command::new(cargo)
        .args(install_args(llvm))
        .arg("--root")
        .arg(&dir)
        .arg("--target-dir")
        .arg(tools_dir(root).join("build"))
        .env("LLVM_PREFIX", llvm_prefix)
        // In half the time that optimising it takes: what works for long is LLVM, which is installed.
        .args(["--profile", "dev"])
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env("PATH", path_with(&dir.join("bin"))?)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "cannot build bpf-linker {VERSION} for LLVM {llvm}: see cargo's message above");
    Ok(())
}

/// With the new program's directory on `PATH`, cargo does not tell people to put it there.
fn path_with(dir: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(env::split_paths(&path).chain([dir.to_owned()]))
        .context("the workspace's path has a colon")
}

/// The arguments that make cargo build the linker for LLVM `llvm`.
pub(crate) fn install_args(llvm: u32) -> Vec<String> {
    let feature = format!("llvm-{llvm}");
    [
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--no-default-features",
        "--features",
        &feature,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Where LLVM `llvm` is installed, with its development files.
pub fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let debian = format!("/usr/lib/llvm-{llvm}");
    [format!("{debian}/bin/llvm-config"), format!("llvm-config-{llvm}"), "llvm-config".to_owned()]
        .iter()
        .filter(|config| is_of_major(config, llvm))
        .filter_map(|config| answer(Command::new(config).arg("--prefix")).map(PathBuf::from))
        .find(|prefix| ["lib64", "lib"].iter().any(|lib| prefix.join(lib).join("libLLVM.so").exists()))
}

fn is_of_major(llvm_config: &str, llvm: u32) -> bool {
    answer(Command::new(llvm_config).arg("--version"))
        .is_some_and(|version| version.split('.').next() == Some(llvm.to_string().as_str()))
}

fn tools_dir(root: &Path) -> PathBuf {
    root.join("target/tools")
}

/// Named after all that it depends on, so that a new version of either is a new build.
fn install_dir(root: &Path, llvm: u32) -> PathBuf {
    tools_dir(root).join(format!("bpf-linker-{VERSION}-llvm-{llvm}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(parse_version("bpf-linker 0.13.0") >= parse_version(VERSION));
        assert!(parse_version("bpf-linker 0.9.15") < parse_version("0.13.0"));
        assert!(parse_version("bpf-linker") < parse_version("0.13.0"), "unreadable is older than anything");
    }

    #[test]
    fn the_linker_is_built_for_one_llvm_only() {
        let args = install_args(22).join(" ");
        assert!(args.contains("--no-default-features --features llvm-22"), "{args}");
    }
}
