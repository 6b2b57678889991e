//! What a machine lacks to compile `lb-ebpf`, and the command that gets it.

use std::{error, fmt, path::Path};

use crate::{
    linker::{self, VERSION},
    toolchain::{DEBIAN_PACKAGES, Toolchain},
};

/// One thing that is needed to compile `lb-ebpf` and is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A toolchain that can build `core`.
    Toolchain,
    /// `bpf-linker`, for the LLVM of the toolchain if there is one.
    Linker {
        /// LLVM's major version.
        llvm: Option<u32>,
    },
}

impl Missing {
    /// The command that gets it, on Debian or on another system.
    pub fn command(&self, debian: bool) -> String {
        match self {
            Self::Toolchain if debian => format!("apt-get install {}", DEBIAN_PACKAGES.join(" ")),
            Self::Toolchain => "rustup toolchain install nightly --component rust-src".to_owned(),
            Self::Linker { llvm: Some(llvm) } => linker_command(*llvm, debian),
            Self::Linker { llvm: None } => {
                "cargo xtask setup (again, once the toolchain is there)".to_owned()
            }
        }
    }
}

fn linker_command(llvm: u32, debian: bool) -> String {
    if linker::llvm_prefix(llvm).is_some() {
        "cargo xtask setup".to_owned()
    } else if debian {
        format!("apt-get install llvm-{llvm}-dev && cargo xtask setup")
    } else {
        format!("LLVM_PREFIX=<directory of LLVM {llvm}> cargo {}", linker::install_args(llvm).join(" "))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toolchain => {
                write!(
                    f,
                    "a Rust toolchain, {} or later, with the source of `core`",
                    env!("CARGO_PKG_RUST_VERSION")
                )
            }
            Self::Linker { llvm: Some(llvm) } => write!(f, "bpf-linker {VERSION} or later for LLVM {llvm}"),
            Self::Linker { llvm: None } => {
                write!(f, "bpf-linker {VERSION} or later for that toolchain's LLVM")
            }
        }
    }
}

/// Why no [`Recipe`](crate::Recipe) was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// What is not there; never empty.
    pub missing: Vec<Missing>,
}

impl Incomplete {
    /// What is missing when none of `candidates` has a linker.
    pub(crate) fn of(candidates: &[Toolchain]) -> Self {
        let missing = match candidates.first() {
            Some(toolchain) => vec![Missing::Linker { llvm: Some(toolchain.llvm()) }],
            None => vec![Missing::Toolchain, Missing::Linker { llvm: None }],
        };
        Self { missing }
    }
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the eBPF programs cannot be compiled on this machine yet: run `cargo xtask setup`. Missing:"
        )?;
        let debian = is_debian();
        self.missing.iter().try_for_each(|item| write!(f, "\n  {item}\n      {}", item.command(debian)))
    }
}

impl error::Error for Incomplete {}

/// Whether this system's packages come from apt.
pub fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_machine_lacks_both_and_is_told_how_to_get_them() {
        let bare = Incomplete::of(&[]);
        assert_eq!(bare.missing, [Missing::Toolchain, Missing::Linker { llvm: None }]);
        let text = bare.to_string();
        assert!(text.contains("run `cargo xtask setup`"), "{text}");
        assert_eq!(text.lines().count(), 1 + 2 * 2, "{text}");
    }

    #[test]
    fn each_system_gets_its_own_command() {
        assert_eq!(Missing::Toolchain.command(true), "apt-get install rustc-web cargo-web rust-web-src");
        assert!(Missing::Toolchain.command(false).starts_with("rustup toolchain install nightly"));
    }

    #[test]
    fn the_linker_needs_the_llvm_of_the_compiler() {
        let unreleased = Missing::Linker { llvm: Some(999) };
        assert_eq!(unreleased.command(true), "apt-get install llvm-999-dev && cargo xtask setup");
        assert!(unreleased.command(false).contains("--features llvm-999"));
    }
}
