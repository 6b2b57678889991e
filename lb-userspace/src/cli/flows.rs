//! `lb flow`: what is remembered of flows, and where a flow goes.

use clap::Subcommand;

use super::{Failure, Screen, block_on, screens};
use crate::client::Client;
use crate::model::Protocol;

/// Show what is remembered of flows, and where a flow goes.
#[derive(Debug, Subcommand)]
pub enum FlowCommand {
    /// List flows that are remembered: those in slots that change their owner
    #[command(
        after_help = "Examples:\n  lb flow list\n  lb flow list web --limit 20 -o json\n\nA flow in a settled slot is not \
                      remembered: its hash alone says where it goes. What is remembered is a keyed hash; lb flow lookup \
                      finds a flow by its addresses."
    )]
    List {
        /// The service's name; all services if absent
        service: Option<String>,
        /// How many to list at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
    },
    /// Count the flows that are remembered, by backend
    #[command(after_help = "Examples:\n  lb flow count\n  lb flow count web -o json")]
    Count {
        /// The service's name; all services if absent
        service: Option<String>,
    },
    /// Tell where the packets of a flow go, and why
    #[command(
        after_help = "Examples:\n  lb flow lookup tcp 198.51.100.7:40000 192.0.2.10:80\n  lb flow lookup udp \
                      '[2001:db8::7]:5353' '[2001:db8::53]:53' -o json\n\nLimiters and lists are not asked."
    )]
    Lookup {
        /// The protocol
        #[arg(value_parser = parse_protocol)]
        protocol: Protocol,
        /// Where its packets come from, as ADDRESS:PORT
        source: String,
        /// The service they are for, as ADDRESS:PORT
        vip: String,
    },
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(format!("{other:?} is not tcp or udp")),
    }
}

pub(super) fn run(command: &FlowCommand, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    match command {
        FlowCommand::List { service, limit } => {
            let (flows, more) = block_on(client.flows(service.as_deref(), *limit as usize))??;
            screen.show_fitted(&flows[..], |look, flows| screens::flows(look, flows, more))
        }
        FlowCommand::Count { service } => {
            let counts = block_on(client.count_flows(service.as_deref()))??;
            screen.show_fitted(&counts[..], screens::flow_counts)
        }
        FlowCommand::Lookup { protocol, source, vip } => {
            let found = block_on(client.lookup(*protocol, source, vip))??;
            screen.show_fitted(&found, screens::lookup)
        }
    }
}
