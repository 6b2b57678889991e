//! `lb import`: services of other balancers as sections of the configuration.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{Exit, Failure, Screen};
use crate::config::{render_service, service_keys};
use crate::ipvs::{Imported, import};

/// Turn services of another balancer into sections of the configuration.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Read what `ipvsadm-save -n` has written, and write sections for lb.toml
    #[command(
        after_help = "Examples:\n  ipvsadm-save -n | lb import ipvsadm > /etc/lb/conf.d/ipvs.toml\n  lb import ipvsadm \
                      /etc/ipvsadm.rules\n\nNothing is changed. What has no counterpart is refused, line by line."
    )]
    Ipvsadm {
        /// The file [default: standard input]
        file: Option<PathBuf>,
    },
}

/// What `-o json` says: the keys of each service.
#[derive(Serialize)]
struct Sections {
    service: Vec<crate::config::ServiceKeys>,
}

pub(super) fn run(command: &ImportCommand, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let ImportCommand::Ipvsadm { file } = command;
    let text = match file {
        Some(file) => std::fs::read_to_string(file).map_err(|error| unreadable(&file.display(), &error)),
        None => {
            std::io::read_to_string(std::io::stdin()).map_err(|error| unreadable(&"standard input", &error))
        }
    }?;
    let Imported { services, notes } = import(&text).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Failure { exit: Exit::Refused, message: lines.join("\n") }
    })?;
    let sections = Sections { service: services.iter().map(service_keys).collect() };
    screen.show(&sections, |_| {
        let notes = notes.iter().map(|note| format!("# {note}\n"));
        let sections: Vec<String> = services.iter().map(render_service).collect();
        notes.chain([sections.join("\n")]).collect()
    })
}

fn unreadable(what: &dyn std::fmt::Display, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Negative, format!("{what} cannot be read: {error}"))
}
