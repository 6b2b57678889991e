//! `lb deny` and `lb allow`.

use clap::Subcommand;

use super::{Exit, Failure, Screen, block_on, screens};
use crate::client::Client;
use crate::controller::ListAction;
use crate::model::{ListName, Prefix, PrefixError};
use crate::view::PrefixList;

/// Show and change a list of source prefixes.
#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// Put prefixes on the list, all of them or none
    #[command(after_help = "Examples:\n  lb deny add 198.51.100.0/24 2001:db8:bad::/48\n  lb allow add \
                            203.0.113.7\n  lb deny add $(cat prefixes.txt)")]
    Add {
        /// Addresses, or prefixes as ADDRESS/BITS
        // Texts: a wrong prefix is refused in the words of the configuration, not as a mistake in usage.
        #[arg(required = true, value_name = "PREFIX")]
        prefixes: Vec<String>,
    },
    /// Take prefixes off the list, all of them or none
    #[command(after_help = "Example:\n  lb deny remove 198.51.100.0/24")]
    Remove {
        /// Addresses, or prefixes as ADDRESS/BITS, as they are listed
        #[arg(required = true, value_name = "PREFIX")]
        prefixes: Vec<String>,
    },
    /// List the prefixes, one a line
    #[command(after_help = "Examples:\n  lb deny list\n  lb allow list -o json | jq '.prefixes | length'")]
    List,
}

/// Runs one of the commands.
pub(super) fn run(
    list: ListName,
    command: &ListCommand,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let (action, prefixes) = match command {
        ListCommand::List => {
            let prefixes = block_on(client.list(list))??;
            return screen.show(&prefixes, screens::prefixes);
        }
        ListCommand::Add { prefixes } => (ListAction::Add, prefixes),
        ListCommand::Remove { prefixes } => (ListAction::Remove, prefixes),
    };
    let prefixes = prefixes.iter().map(|text| Ok(text.parse::<Prefix>()?.to_string()));
    let prefixes = prefixes
        .collect::<Result<_, PrefixError>>()
        .map_err(|error| Failure::new(Exit::Refused, format!("{list} prefix {error}")))?;
    let applied = block_on(client.change_list(list, action, &PrefixList { prefixes }))??;
    screen.show(&applied, screens::applied)
}
