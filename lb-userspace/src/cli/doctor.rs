//! `lb doctor`: what stands in the way.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{Exit, Failure, Screen, block_on, screens};
use crate::client::{Client, ClientError};
use crate::datapath::{DEFAULT_PINS, pinned};
use crate::doctor::{
    Files, Finding, Severity, Told, backend_setup, host, interface, interfaces, occupant, services,
};
use crate::neighbors::{NeighborsError, local_addresses, xdp_programs};

/// What to look at.
#[derive(Debug, ClapArgs)]
pub struct DoctorArgs {
    /// The interfaces that packets come in by [default: the daemon's, else all of Ethernet that are up]
    #[arg(value_name = "INTERFACE")]
    interfaces: Vec<String>,
    /// Where program and tables are pinned: [daemon] pins
    #[arg(long, default_value = DEFAULT_PINS, value_name = "PATH")]
    pins: PathBuf,
    /// Instead, print the commands that make a host a backend of this service, for a shell there
    #[arg(long, value_name = "SERVICE", conflicts_with = "interfaces")]
    backend_setup: Option<String>,
}

/// What a backend of the service has to do, as a script.
fn setup(service: &str, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    // Whoever mistypes a name is told the one that he may have meant.
    let backends = block_on(client.backends(service))??;
    let services = block_on(client.services())??;
    let addresses = block_on(local_addresses())?;
    let addresses = addresses.map_err(|error| Failure::new(Exit::Negative, error.to_string()))?;
    let one = services.iter().find(|one| one.name == service);
    let one = one.ok_or_else(|| Failure::new(Exit::NotFound, format!("service {service} was removed")))?;
    let steps = backend_setup(one, &backends, &addresses);
    let steps = steps.map_err(|sentence| Failure::new(Exit::Negative, sentence))?;
    screen.show(&steps, |steps| screens::setup(steps))
}

/// Looks at everything; what is bad makes the answer a negative one.
pub(super) fn run(args: &DoctorArgs, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if let Some(service) = &args.backend_setup {
        return setup(service, client, screen);
    }
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
    for name in &names {
        found.extend(interface(&files, name, Told::by(name)).ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                format!("there is no interface {name}; `ip link` lists those there are"),
            )
        })?);
    }
    let unknown = |error: NeighborsError| Failure::new(Exit::Negative, error.to_string());
    if let Some(status) = status {
        let addresses = block_on(local_addresses())?.map_err(unknown)?;
        found.extend(services(&status, &addresses));
    } else {
        // Where a daemon answers, the program on them is its own.
        let programs = block_on(xdp_programs())?.map_err(unknown)?;
        // Only root sees what is pinned.
        let ours = pinned::status(&args.pins).ok();
        found.extend(names.iter().map(|name| occupant(name, &programs, ours.as_ref())));
    }
    screen.show(&found, |found| screens::findings(found))?;
    if found.iter().any(|one: &Finding| one.severity == Severity::Bad) {
        return Err(Failure { exit: Exit::Negative, message: String::new() });
    }
    Ok(())
}
