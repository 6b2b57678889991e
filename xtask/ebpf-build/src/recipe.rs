//! Compiling `lb-ebpf`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{linker, missing::Incomplete, toolchain::Toolchain};

/// The eBPF programs, by the name of their binary in `lb-ebpf`.
pub const PROGRAMS: [&str; 4] = ["balancer", "stopped", "decap", "bench"];

const TARGET: &str = "bpfel-unknown-none";

const FLAGS: [&str; 4] = [
    // The programs' maps are described by BTF, which is made from debug information.
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    // Compare-and-swap.
    "-Ctarget-cpu=v3",
    // Packet fields are at odd places. Without this, LLVM (from 22 on) reads each of them byte by byte.
    "-Ctarget-feature=+allows-misaligned-mem-access",
];

/// A toolchain and the linker that goes with it.
#[derive(Clone, Debug)]
pub struct Recipe {
    toolchain: Toolchain,
    linker: PathBuf,
}

/// The compiled programs.
#[derive(Clone, Debug)]
pub struct Objects {
    dir: PathBuf,
}

impl Objects {
    /// The ELF file of the binary `program` of `lb-ebpf`.
    pub fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }
}

impl Recipe {
    /// The preferred toolchain of those that have a linker. `root` is the workspace.
    pub fn find(root: &Path) -> Result<Self, Incomplete> {
        let candidates = Toolchain::candidates();
        candidates
            .iter()
            .find_map(|toolchain| {
                let linker = linker::find(root, toolchain.llvm())?;
                Some(Self { toolchain: toolchain.clone(), linker })
            })
            .ok_or_else(|| Incomplete::of(&candidates))
    }

    /// Compiles `lb-ebpf`; `extra` are further arguments for cargo, such as `--features` or `--bin`.
    pub fn build(&self, root: &Path, extra: &[&str]) -> Result<Objects> {
        // A directory of its own: cargo holds a lock on the outer one while it waits for this build.
        let target_dir = root.join("target/ebpf");
        let mut cargo = self.toolchain.cargo();
        detach(&mut cargo)
            .args(["build", "--release", "--package", "lb-ebpf", "-Zbuild-std=core", "--target", TARGET])
            .args(extra)
            .arg("--target-dir")
            .arg(&target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags()?)
            .current_dir(root);
        let output =
            cargo.output().with_context(|| format!("cannot start {}", cargo.get_program().display()))?;
        ensure!(
            output.status.success(),
            "cannot compile lb-ebpf (LLVM {}, linker {}):\n{}",
            self.toolchain.llvm(),
            self.linker.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Objects { dir: target_dir.join(TARGET).join("release") })
    }

    /// Separated as cargo wants them in `CARGO_ENCODED_RUSTFLAGS`, where a path may contain spaces.
    fn rustflags(&self) -> Result<String> {
        let linker = self.linker.to_str().context("the path of bpf-linker is not UTF-8")?;
        let linker = format!("-Clinker={linker}");
        Ok(FLAGS.into_iter().chain([linker.as_str()]).collect::<Vec<_>>().join("\x1f"))
    }
}

/// Removes what an outer cargo, rustup or clippy left in the environment and would steer this build by.
fn detach(command: &mut Command) -> &mut Command {
    // What the toolchain was told on purpose stays.
    let chosen: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| !chosen.contains(name) && name.to_str().is_some_and(is_of_outer_build))
        .fold(command, |command, name| command.env_remove(name))
}

fn is_of_outer_build(name: &str) -> bool {
    const STEERING: [&str; 5] = ["CARGO", "CLIPPY_", "RUSTC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
    /// The person's own settings: where cargo keeps its files, how it reaches registries.
    const PERSONAL: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    let begins_with = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    begins_with(&STEERING) && !begins_with(&PERSONAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_build_is_forgotten_and_the_person_is_not() {
        for outer in
            ["CARGO", "CARGO_MAKEFLAGS", "CARGO_TARGET_DIR", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"]
        {
            assert!(is_of_outer_build(outer), "{outer}");
        }
        for personal in ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "PATH"] {
            assert!(!is_of_outer_build(personal), "{personal}");
        }
    }
}
