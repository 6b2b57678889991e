//! `lb xdp`: the program on the interfaces, with or without a daemon.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{Exit, Failure, Screen, screens, with_sources};
use crate::datapath::attach::interface_index;
use crate::datapath::pinned::{self, PinnedError};
use crate::datapath::{DEFAULT_PINS, Pins, PinsError};

/// Show and change where the program is, with or without a daemon.
#[derive(Debug, Subcommand)]
pub enum XdpCommand {
    /// Show on which interfaces the program is, since when, and whether a daemon looks after it
    #[command(
        after_help = "Examples:\n  lb xdp status\n  lb xdp status --pins /sys/fs/bpf/lb-internal -o json"
    )]
    Status {
        /// Where to look.
        #[command(flatten)]
        pins: PinsArgs,
    },
    /// Put the pinned program on interfaces again, such as one that was removed and came back
    #[command(after_help = "Example:\n  lb xdp attach eth0")]
    Attach {
        /// Where to look.
        #[command(flatten)]
        pins: PinsArgs,
        /// The interfaces' names
        #[arg(required = true, value_name = "INTERFACE")]
        interfaces: Vec<String>,
    },
    /// Take the program off interfaces; off all, with everything it knows, if none is named
    #[command(after_help = "Examples:\n  lb xdp detach eth0\n  lb xdp detach")]
    Detach {
        /// Where to look.
        #[command(flatten)]
        pins: PinsArgs,
        /// The interfaces' names
        #[arg(value_name = "INTERFACE")]
        interfaces: Vec<String>,
    },
}

/// Where to look.
#[derive(Debug, ClapArgs)]
pub struct PinsArgs {
    /// Where program and tables are pinned: [daemon] pins
    #[arg(long, default_value = DEFAULT_PINS, value_name = "PATH")]
    pub(super) pins: PathBuf,
}

/// Runs one of the commands.
pub(super) fn run(command: &XdpCommand, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let pins = match command {
        XdpCommand::Status { pins } => pins,
        XdpCommand::Attach { pins, interfaces } => {
            let held = hold(&pins.pins)?;
            for interface in interfaces {
                let index = interface_index(interface).ok_or_else(|| {
                    Failure::new(
                        Exit::NotFound,
                        format!("there is no interface {interface}; `ip link` lists those there are"),
                    )
                })?;
                held.put_back(interface, index).map_err(|error| refused(&error))?;
            }
            pins
        }
        XdpCommand::Detach { pins, interfaces } => {
            let held = hold(&pins.pins)?;
            for interface in interfaces {
                if !held.detach(interface)? {
                    let sentence = format!("there is no program of {} on {interface}", pins.pins.display());
                    return Err(Failure::new(Exit::NotFound, sentence));
                }
            }
            if interfaces.is_empty() {
                held.clear()?;
            }
            pins
        }
    };
    let status = pinned::status(&pins.pins)?;
    screen.show_fitted(&status, screens::xdp)
}

/// Keeps daemons away, if there is anything to keep them from.
fn hold(pins: &std::path::Path) -> Result<Pins, Failure> {
    if !pins.exists() {
        return Err(Failure::new(Exit::NotFound, format!("nothing is pinned at {}", pins.display())));
    }
    Ok(Pins::open(pins)?)
}

fn refused(error: &PinnedError) -> Failure {
    Failure::new(Exit::Refused, with_sources(error))
}

impl From<PinsError> for Failure {
    fn from(error: PinsError) -> Self {
        Self::new(Exit::Refused, with_sources(&error))
    }
}
