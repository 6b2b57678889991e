//! `cargo xtask`: every command of a developer's day. Each one sets the machine up first.

mod cargo;
mod debian;
mod deny;
mod fuzz;
mod lab;
mod libtest;
mod miri;
mod setup;
mod test;
mod validator;
mod vm;

use std::{
    ffi::OsString,
    num::{NonZeroU64, NonZeroUsize},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, show and test the load balancer")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install or build what is missing on this machine; say nothing if nothing is
    Setup,
    /// Build the load balancer, optimised: target/release/lb
    Build,
    /// Show the load balancer at work between network namespaces
    Demo {
        /// Passed on to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Keep the demo's network up to play with
    Lab {
        /// What to do; `up` if nothing is said
        #[command(subcommand)]
        action: Option<Lab>,
    },
    /// Measure what packets and tables cost beside programs that do the least, or how fast packets are forwarded
    Bench {
        /// Passed on to the harness: names of cases, or `forward` [--seconds N]; --json FILE
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Let everything happen to a balancer, in any order, while packets flow, and see whether anybody notices
    Chaos {
        /// For how long, to the end of a round
        #[arg(long, default_value = "60")]
        seconds: NonZeroU64,
        /// Which events: the same seed makes the same
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Show host and kernel, or a fuzzer, things until they differ or something breaks
    Fuzz {
        /// What to fuzz
        #[command(subcommand)]
        what: Fuzz,
    },
    /// Check licences, advisories and duplicates among other people's crates; needs cargo-deny
    Deny,
    /// Run the tests of what decides about packets in an interpreter that watches memory; needs a nightly toolchain
    Miri,
    /// Run the tests on other kernels, in virtual machines
    Vm {
        /// Fetch kernels, or let machines fail in every way and see whether it is noticed; run tests if nothing is said
        #[command(subcommand)]
        action: Option<Vm>,
        /// Which kernels
        #[arg(long, value_delimiter = ',', value_parser = vm::series, default_values_t = vm::SERIES.map(str::to_owned), global = true)]
        kernel: Vec<String>,
        /// How many machines at once
        #[arg(long, default_value = "1")]
        jobs: NonZeroUsize,
        /// A part of the names of tests; without, the packet fixtures, delivery in every mode, the kernel's own devices, and IPVS
        #[arg(last = true)]
        filter: Option<String>,
    },
    /// Check formatting and lints and run every test, or those that FILTER names
    Test {
        /// A step (format, lints, docs, host, a test target of lb-tests, or kernels), or a part of a test's name
        filter: Option<String>,
    },
}

#[derive(Subcommand)]
enum Vm {
    /// Fetch the newest kernels that Debian has
    Fetch,
    /// Let machines fail in every way
    SelfTest,
}

#[derive(Subcommand)]
enum Fuzz {
    /// The pipeline on the host beside the program in the kernel: the same packets, tables, clocks and memories
    Differential {
        /// How many packets
        #[arg(long, default_value = "10000000")]
        packets: NonZeroU64,
        /// Which ones: the same seed makes the same run
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// What a fuzzer makes of its corpus, guided by what it reaches of the code
    #[command(flatten)]
    Guided(fuzz::Target),
}

#[derive(Subcommand)]
enum Lab {
    /// Make the namespaces and start the balancer and its backends
    Up {
        /// Passed on to the lab
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a command, or a shell, in one of the namespaces
    Enter {
        /// client1, client2, balancer, backend1, backend2 or backend3
        name: OsString,
        /// The command and its arguments; a shell if there is none
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Stop it all and remove the namespaces
    Down,
}

impl Default for Lab {
    fn default() -> Self {
        Self::Up { args: Vec::new() }
    }
}

impl Lab {
    fn into_args(self) -> Vec<OsString> {
        let (verb, rest) = match self {
            Self::Up { args } => ("up", args),
            Self::Enter { name, command } => ("enter", [vec![name], command].concat()),
            Self::Down => ("down", Vec::new()),
        };
        [vec![OsString::from(verb)], rest].concat()
    }
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => setup::ensure(setup::Purpose::Test)?,
        Command::Build => lab::build()?,
        Command::Demo { args } => lab::exec([vec![OsString::from("demo")], args].concat())?,
        Command::Lab { action } => lab::exec(action.unwrap_or_default().into_args())?,
        Command::Chaos { seconds, seed } => fuzz::chaos(seconds, seed)?,
        Command::Fuzz { what: Fuzz::Differential { packets, seed } } => fuzz::differential(packets, seed)?,
        Command::Fuzz { what: Fuzz::Guided(target) } => fuzz::guided(&target)?,
        Command::Deny => deny::run()?,
        Command::Miri => miri::run()?,
        Command::Vm { action: Some(Vm::Fetch), kernel, .. } => vm::fetch(&kernel)?,
        Command::Vm { action: Some(Vm::SelfTest), kernel, .. } => {
            vm::self_test(kernel.first().map_or(vm::SERIES[0], String::as_str))?;
        }
        Command::Vm { action: None, kernel, jobs, filter } => {
            let tests = filter.map_or(vm::Tests::Usual, vm::Tests::Named);
            let rows = vm::run(&vm::Plan { series: kernel, jobs, tests })?;
            let all_passed = rows.iter().all(|(_, outcome)| outcome.failure.is_none());
            return Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Bench { args } => lab::exec_bench(&args)?,
        Command::Test { filter } => return test::run(filter.as_deref()),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_for_a_namespace_keeps_its_own_flags() {
        let cli = Cli::parse_from(["xtask", "lab", "enter", "client1", "curl", "-s", "192.0.2.10"]);
        let Command::Lab { action: Some(lab) } = cli.command else { panic!("not a lab command") };
        assert_eq!(lab.into_args(), ["enter", "client1", "curl", "-s", "192.0.2.10"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_begins() {
        for (line, why) in [
            ("vm --kernel ../..", "a series of kernels is two numbers, such as 6.12"),
            ("vm --kernel 6.12,6", "a series of kernels is two numbers, such as 6.12"),
            ("vm --kernel 6.1 fetch --kernel 6.1.", "a series of kernels is two numbers, such as 6.12"),
            ("vm --jobs 0", "zero"),
            ("chaos --seconds 0", "zero"),
            ("fuzz differential --packets 0", "zero"),
            ("fuzz pipeline --seconds 0", "zero"),
        ] {
            let error = Cli::try_parse_from(["xtask"].into_iter().chain(line.split(' ')));
            let error = error.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(why), "{line}: {error:?}");
        }
        assert!(Cli::try_parse_from(["xtask", "vm", "--kernel", "6.1,7.3", "self-test"]).is_ok());
    }
}
