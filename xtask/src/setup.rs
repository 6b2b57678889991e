//! Making the machine ready: on Debian as root by installing, elsewhere by naming what is missing.

use std::{
    env,
    fmt::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use lb_ebpf_build::{DEBIAN_PACKAGES, Incomplete, Recipe, Toolchain, is_debian, linker};

use crate::{cargo, debian, validator, vm};

/// What the machine is made ready for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building and running.
    Run,
    /// That, and comparing with others.
    Measure,
    /// That, and checking and testing.
    Test,
}

/// The programs that the lab runs, and Debian's packages that have them.
const PROGRAMS: [(&str, &str); 2] = [("ip", "iproute2"), ("nsenter", "util-linux")];
/// The programs of those that the load balancer is compared with.
const RIVALS: [(&str, &str); 1] = [("nft", "nftables")];

/// Programs that are not ours, for tests of what the programs write and of what the pages say.
const WITNESSES: [(&str, &str); 6] = [
    ("tshark", "tshark"),
    ("ipvsadm", "ipvsadm"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("sysctl", "procps"),
    ("systemctl", "systemd"),
];

/// Makes the machine ready, or says what it lacks. Silent and quick if it is ready.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    if purpose == Purpose::Test && is_debian() && is_root() && !vm::is_ready() {
        // Without them, what they would tell is a counted skip.
        if let Err(error) = vm::prepare() {
            eprintln!("Other kernels cannot be fetched: {error:#}");
        }
    }
    if missing(purpose).is_empty() {
        return Ok(());
    }
    if is_debian() && is_root() {
        install_packages(purpose)?;
    }
    build_linker()?;
    if purpose == Purpose::Test && validator::has_venv() {
        validator::install()?;
    }
    match missing(purpose) {
        missing if missing.is_empty() => Ok(()),
        missing => bail!("{}", render(&missing)),
    }
}

/// One thing that is not there, and the command that gets it.
struct Item {
    what: String,
    command: String,
}

fn missing(purpose: Purpose) -> Vec<Item> {
    let recipe =
        Recipe::find(cargo::root()).err().into_iter().flat_map(|incomplete| recipe_items(&incomplete));
    let programs = missing_programs(purpose).map(|(program, package)| program_item(program, package));
    let components = if purpose == Purpose::Test { missing_components() } else { Vec::new() };
    let validator = (purpose == Purpose::Test && !validator::is_ready())
        .then(|| Item { what: "the API's validator".to_owned(), command: validator::commands() });
    recipe.chain(programs).chain(components).chain(validator).collect()
}

fn recipe_items(incomplete: &Incomplete) -> Vec<Item> {
    let debian = is_debian();
    incomplete
        .missing
        .iter()
        .map(|item| Item { what: item.to_string(), command: item.command(debian) })
        .collect()
}

fn program_item(program: &str, package: &str) -> Item {
    let command = if is_debian() {
        format!("apt-get install {package}")
    } else {
        format!("install your system's package {package}")
    };
    Item { what: format!("the program `{program}`"), command }
}

fn missing_programs(purpose: Purpose) -> impl Iterator<Item = (&'static str, &'static str)> {
    let rivals = RIVALS.into_iter().filter(move |_| purpose != Purpose::Run);
    let witnesses = WITNESSES.into_iter().filter(move |_| purpose == Purpose::Test);
    PROGRAMS.into_iter().chain(rivals).chain(witnesses).filter(|(program, _)| !is_on_path(program))
}

/// Where a program is. A user's `PATH` may lack the directories of administration programs, which are found all the same.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn is_on_path(program: &str) -> bool {
    find_program(program).is_some()
}

fn missing_components() -> Vec<Item> {
    [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(subcommand, _)| !cargo_knows(subcommand))
        .map(|(_, name)| Item { what: format!("the component {name}"), command: component_command(name) })
        .collect()
}

fn cargo_knows(subcommand: &str) -> bool {
    let mut cargo = Command::new("cargo");
    let status = cargo.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn component_command(name: &str) -> String {
    if is_on_path("rustup") {
        return format!("rustup component add {name}");
    }
    let package = if name == "clippy" { "rust-web-clippy" } else { "rustfmt-web" };
    format!("apt-get install {package}, or get Rust from https://rustup.rs")
}

fn render(missing: &[Item]) -> String {
    let mut text = "this machine lacks (get each with the command below it, then run this again):".to_owned();
    for Item { what, command } in missing {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {what}\n      {command}");
    }
    text
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Two rounds at most: the package of LLVM is known only when the compiler is there to be asked.
fn install_packages(purpose: Purpose) -> Result<()> {
    if packages_to_install(purpose)?.is_empty() {
        return Ok(());
    }
    debian::update()?;
    for _ in 0..2 {
        let packages = packages_to_install(purpose)?;
        if packages.is_empty() {
            break;
        }
        debian::install(&packages)?;
    }
    Ok(())
}

fn packages_to_install(purpose: Purpose) -> Result<Vec<String>> {
    let wanted = wanted_packages(purpose);
    if wanted.is_empty() { Ok(wanted) } else { debian::not_installed(&wanted) }
}

/// No C compiler is among them: without one there would be no xtask to ask for it.
fn wanted_packages(purpose: Purpose) -> Vec<String> {
    let programs = missing_programs(purpose).map(|(_, package)| package.to_owned());
    let recipe = if Recipe::find(cargo::root()).is_err() { recipe_packages() } else { Vec::new() };
    let venv = (purpose == Purpose::Test && !validator::is_ready() && !validator::has_venv())
        .then(|| "python3-venv".to_owned());
    recipe.into_iter().chain(programs).chain(venv).collect()
}

/// LLVM for the first toolchain that Debian has it for, else Debian's own toolchain; nothing if LLVM is there.
fn recipe_packages() -> Vec<String> {
    if buildable_linker().is_some() {
        return Vec::new();
    }
    let llvm = Toolchain::candidates()
        .iter()
        .map(|toolchain| format!("llvm-{}-dev", toolchain.llvm()))
        .find(|package| debian::is_available(package));
    llvm.map_or_else(|| DEBIAN_PACKAGES.map(str::to_owned).to_vec(), |package| vec![package])
}

/// The first toolchain's LLVM that is installed: its major version and where it is.
fn buildable_linker() -> Option<(u32, PathBuf)> {
    Toolchain::candidates()
        .iter()
        .map(Toolchain::llvm)
        .find_map(|llvm| Some((llvm, linker::llvm_prefix(llvm)?)))
}

/// Builds `bpf-linker` if it is not there and the LLVM of a toolchain is.
fn build_linker() -> Result<()> {
    if Recipe::find(cargo::root()).is_ok() {
        return Ok(());
    }
    let Some((llvm, prefix)) = buildable_linker() else { return Ok(()) };
    println!(
        "Building bpf-linker {} for LLVM {llvm}, once, under target/tools (less than a minute)",
        linker::VERSION
    );
    linker::install(cargo::root(), llvm, &prefix).context("the eBPF programs need bpf-linker")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_thing_is_followed_by_its_command() {
        let item = |what: &str, command: &str| Item { what: what.to_owned(), command: command.to_owned() };
        let text =
            render(&[item("the program `ip`", "apt-get install iproute2"), item("clippy", "rustup ...")]);
        let lines: Vec<_> = text.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines, ["the program `ip`", "apt-get install iproute2", "clippy", "rustup ..."]);
    }

    #[test]
    fn administration_programs_are_found_outside_of_path() {
        assert!(is_on_path("sh"));
        assert!(!is_on_path("no-such-program"));
    }
}
