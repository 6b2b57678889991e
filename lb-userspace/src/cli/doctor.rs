//! `lb doctor`: what stands in the way.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{Exit, Failure, Screen, block_on, screens};
use crate::client::{Client, ClientError};
use crate::datapath::{DEFAULT_PINS, pinned};
use crate::doctor::{Files, Finding, Severity, host, interface, interfaces, occupant, programs, services};
use crate::neighbors::local_addresses;

/// What to look at.
#[derive(Debug, ClapArgs)]
pub struct DoctorArgs {
    /// The interfaces that packets come in by [default: the daemon's, else all of Ethernet that are up]
    #[arg(value_name = "INTERFACE")]
    interfaces: Vec<String>,
    /// Where program and tables are pinned: [daemon] pins
    #[arg(long, default_value = DEFAULT_PINS, value_name = "PATH")]
    pins: PathBuf,
}

/// Looks at everything; what is bad makes the answer a negative one.
pub(super) fn run(args: &DoctorArgs, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let files = Files::below("/");
    let mut found = host(&files, &args.pins);
    let status = match block_on(client.status())? {
        Ok(status) => Some(status),
        // A host is looked at before there is a daemon, too.
        Err(ClientError::Unreachable { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let names = match &status {
        _ if !args.interfaces.is_empty() => args.interfaces.clone(),
        Some(status) => status.interfaces.iter().map(|one| one.name.clone()).collect(),
        None => interfaces(&files),
    };
    let programs = block_on(programs())?.map_err(|error| Failure::new(Exit::Negative, error))?;
    // Only root sees what is pinned; a daemon that detaches has pinned nothing, and says where it is.
    let ours = pinned::status(&args.pins).ok().filter(|_| status.is_none());
    for name in names {
        found.extend(interface(&files, &name).ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                format!("there is no interface {name}; `ip link` lists those there are"),
            )
        })?);
        if status.is_none() {
            found.push(occupant(&name, &programs, ours.as_ref()));
        }
    }
    if let Some(status) = status {
        let addresses = block_on(local_addresses())?;
        let addresses = addresses.map_err(|error| Failure::new(Exit::Negative, error.to_string()))?;
        found.extend(services(&status, &addresses));
    }
    screen.show(&found, |found| screens::findings(found))?;
    if found.iter().any(|one: &Finding| one.severity == Severity::Bad) {
        return Err(Failure { exit: Exit::Negative, message: String::new() });
    }
    Ok(())
}
