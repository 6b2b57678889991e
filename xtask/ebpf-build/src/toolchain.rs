//! Finding a Rust toolchain that can build `core` for the BPF target.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::probe::answer;

/// Debian's second Rust toolchain, which comes with the source of `core`.
pub const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A Rust toolchain with the source of `core` that accepts `-Z build-std`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    origin: Origin,
    llvm: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// `rustup run nightly`, with the component `rust-src`.
    RustupNightly,
    /// `/usr/bin/rustc` and `/usr/bin/cargo`: a stable release, told to accept unstable options.
    System,
}

impl Toolchain {
    /// Every toolchain of this machine that will do, the preferred one first.
    pub fn candidates() -> Vec<Self> {
        [Origin::RustupNightly, Origin::System].into_iter().filter_map(Self::probe).collect()
    }

    /// The major version of the LLVM that it generates code with; `bpf-linker` must be on the same one.
    pub fn llvm(&self) -> u32 {
        self.llvm
    }

    /// Its cargo, to be completed with arguments. Expects an environment cleared of another toolchain's traces.
    pub(crate) fn cargo(&self) -> Command {
        match self.origin {
            Origin::RustupNightly => rustup_nightly("cargo"),
            Origin::System => {
                let mut cargo = Command::new("/usr/bin/cargo");
                cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }

    fn probe(origin: Origin) -> Option<Self> {
        let rustc = || match origin {
            Origin::RustupNightly => rustup_nightly("rustc"),
            Origin::System => Command::new("/usr/bin/rustc"),
        };
        let version = Version::parse(&answer(rustc().arg("-vV"))?)?;
        let sysroot = PathBuf::from(answer(rustc().args(["--print", "sysroot"]))?);
        (version.is_recent_enough() && has_core_source(&sysroot))
            .then_some(Self { origin, llvm: version.llvm })
    }
}

fn rustup_nightly(program: &str) -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", "nightly", program]);
    rustup
}

/// `-Z build-std` starts from this lock file.
fn has_core_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

/// What `rustc -vV` says about itself.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    release: (u32, u32),
    llvm: u32,
}

impl Version {
    fn parse(verbose: &str) -> Option<Self> {
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            release: major_minor(field("release: ")?)?,
            llvm: field("LLVM version: ")?.split('.').next()?.parse().ok()?,
        })
    }

    fn is_recent_enough(&self) -> bool {
        major_minor(env!("CARGO_PKG_RUST_VERSION")).is_some_and(|minimum| self.release >= minimum)
    }
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
        commit-date: 2026-05-19\nhost: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn reads_release_and_llvm_of_a_nightly() {
        assert_eq!(Version::parse(NIGHTLY), Some(Version { release: (1, 97), llvm: 22 }));
    }

    #[test]
    fn refuses_a_compiler_that_does_not_name_its_llvm() {
        assert_eq!(Version::parse("rustc 1.95.0\nrelease: 1.95.0\n"), None);
    }

    #[test]
    fn refuses_a_compiler_older_than_the_workspace_needs() {
        assert!(!Version { release: (1, 85), llvm: 19 }.is_recent_enough());
        assert!(Version::parse(NIGHTLY).unwrap().is_recent_enough());
    }
}
