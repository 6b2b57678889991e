//! `lb bpf`: the pinned maps, with or without a daemon.

use clap::Subcommand;

use super::xdp::PinsArgs;
use super::{Exit, Failure, Screen, screens, with_sources};
use crate::datapath::dump::{self, DumpError};

/// Look at the maps that the program uses, with or without a daemon.
#[derive(Debug, Subcommand)]
pub enum BpfCommand {
    /// List the pinned maps, and how much memory they take
    #[command(after_help = "Examples:\n  lb bpf maps\n  lb bpf maps -o json | jq 'map(.memory_bytes) | add'")]
    Maps {
        /// Where to look.
        #[command(flatten)]
        pins: PinsArgs,
    },
    /// Show the entries of a map that are not zero: their words and, where it is known, what they say
    #[command(
        after_help = "Examples:\n  lb bpf dump backends\n  lb bpf dump SLOTS --from 4096 --count 8 -o json\n\nIt is read while \
                      packets and a daemon change it. Counters are added up over all CPUs."
    )]
    Dump {
        /// Where to look.
        #[command(flatten)]
        pins: PinsArgs,
        /// The map's name, as lb bpf maps lists it
        map: String,
        /// The index to begin at
        #[arg(long, default_value_t = 0)]
        from: u32,
        /// How many entries to show at most
        #[arg(long, default_value_t = 100)]
        count: u32,
    },
}

pub(super) fn run(command: &BpfCommand, screen: &mut Screen<'_>) -> Result<(), Failure> {
    match command {
        BpfCommand::Maps { pins } => {
            let maps = dump::maps(&pins.pins)?;
            screen.show_fitted(&maps[..], screens::maps)
        }
        BpfCommand::Dump { pins, map, from, count } => {
            let entries = dump::dump(&pins.pins, map, *from, *count as usize)?;
            screen.show_fitted(&entries[..], screens::entries)
        }
    }
}

impl From<DumpError> for Failure {
    fn from(error: DumpError) -> Self {
        let exit = match error {
            DumpError::NoMaps { .. } | DumpError::NoMap { .. } => Exit::NotFound,
            _ => Exit::Refused,
        };
        Self::new(exit, with_sources(&error))
    }
}
