//! How `lb-ebpf` is compiled: which Rust toolchain, which linker, which flags.
//!
//! Stable Rust ships no `core` for `bpfel-unknown-none`, so the eBPF programs need a second toolchain that can build
//! `core` from source, and `bpf-linker` on the same LLVM. [`Recipe::find`] looks for both, [`Recipe::build`] uses
//! them, [`for_build_script`] does the two for the build script of the crate that embeds the objects.

mod build_script;
pub mod linker;
mod missing;
mod probe;
mod recipe;
mod toolchain;

pub use build_script::for_build_script;
pub use missing::{Incomplete, Missing, is_debian};
pub use recipe::{Objects, PROGRAMS, Recipe};
pub use toolchain::{DEBIAN_PACKAGES, Toolchain};
