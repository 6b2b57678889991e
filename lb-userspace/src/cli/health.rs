//! `lb health`: how the checks end.

use clap::Subcommand;

use super::{Failure, Screen, block_on, screens};
use crate::client::Client;

/// Show health checks.
#[derive(Debug, Subcommand)]
pub enum HealthCommand {
    /// List the health checks of a service, or all there are, and how the last ones ended
    #[command(
        after_help = "Examples:\n  lb health list\n  lb health list web -o json | jq '.[] | select(.health == \"down\")'"
    )]
    List {
        /// The service's name; all services if absent
        service: Option<String>,
    },
}

pub(super) fn run(command: &HealthCommand, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let HealthCommand::List { service } = command;
    let checks = block_on(client.checks(service.as_deref()))??;
    screen.show_fitted(&checks[..], screens::checks)
}
