//! The command line's grammar.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};

use super::bpf::BpfCommand;
use super::config::ConfigCommand;
use super::doctor::DoctorArgs;
use super::events::EventsArgs;
use super::flows::FlowCommand;
use super::health::HealthCommand;
use super::import::ImportCommand;
use super::lists::ListCommand;
use super::manual::{CompletionArgs, ManArgs};
use super::output::Output;
use super::services::ServiceCommand;
use super::slots::SlotsCommand;
use super::xdp::XdpCommand;
use crate::api::{MOST_SOURCES, USUAL_SOURCES};
use crate::config::{parse_drain_timeout, parse_duration};
use crate::model::{GUE_PORT, Weight};
use crate::suggestion::Quantile;

/// A layer-4 load balancer that forwards in XDP.
#[derive(Debug, Parser)]
#[command(
    name = "lb",
    version,
    arg_required_else_help = true,
    infer_subcommands = true,
    infer_long_args = true,
    after_help = "Examples:\n  lb config check lb.toml\n  lb run --config lb.toml\n  lb status\n  lb \
        backend drain web 10.0.1.2:80\n  lb decap --interface eth0 --from 192.0.2.5\n\nExit codes:\n  0 ok   1 a negative answer   2 usage   3 daemon \
        unreachable   4 refused   5 not found\n\nCommands and options can be \
        shortened where that is unambiguous: lb ba li web"
)]
pub struct Args {
    /// The form of the answer
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
    /// Show the answer again and again, every so often, until interrupted
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_name = "DURATION",
        value_parser = parse_period)]
    pub watch: Option<Duration>,
    /// Which daemon.
    // The last of the options: clap goes on with the heading that its own end with.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the daemon is that is asked.
#[derive(Debug, ClapArgs)]
pub struct DaemonArgs {
    /// The daemon's socket; for `run` it takes precedence over the file's [default: /run/lb/lb.sock]
    #[arg(long, global = true, env = "LB_SOCKET", value_name = "PATH", conflicts_with = "url")]
    pub socket: Option<PathBuf>,
    /// One that is reached over the network.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// A daemon that is reached over the network, and what it is convinced with.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "A daemon elsewhere")]
pub struct RemoteArgs {
    /// A daemon elsewhere, as its [daemon.api] says: https://HOST:PORT
    #[arg(long, global = true, env = "LB_URL", value_name = "URL")]
    pub url: Option<String>,
    /// The token for --url, alone in a file
    #[arg(long, global = true, env = "LB_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The authorities to trust with --url, as PEM [default: those that the host trusts]
    #[arg(long, global = true, env = "LB_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A client's certificate for --url, as PEM
    #[arg(long, global = true, env = "LB_CERTIFICATE", value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// The private key of --certificate, as PEM
    #[arg(long, global = true, env = "LB_KEY", value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach to the interfaces and balance until SIGTERM or SIGINT
    #[command(
        after_help = "Example:\n  lb run --config lb.toml\n\nSIGHUP puts the files in force anew. LB_LOG sets what is logged, such as \
                            LB_LOG=debug or LB_LOG=lb_userspace::health=debug,info."
    )]
    Run {
        /// The configuration file; conf.d beside it is read, too
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// On a backend: unwrap what balancers send in tunnels (modes ipip and gue), until SIGTERM or SIGINT
    #[command(
        after_help = "Examples:\n  lb decap --interface eth0 --from 192.0.2.5\n  lb decap --interface eth0 \
                            --interface eth1 --from 10.99.0.0/16 --from fd00:1::/96 --metrics \
                            127.0.0.1:9442\n\nTunnel packets end at the addresses of this host's interfaces, without \
                            those of lo. Everything else is left alone."
    )]
    Decap(DecapArgs),
    /// Check, compare and apply configurations, and go back to earlier ones
    #[command(
        subcommand,
        after_help = "Examples:\n  lb config check lb.toml\n  lb config diff lb.toml\n  lb config apply lb.toml --confirm-within 5m"
    )]
    Config(ConfigCommand),
    /// Show how the daemon is
    #[command(after_help = "Examples:\n  lb status\n  lb status -o json | jq .warnings")]
    Status,
    /// Show and change services
    #[command(
        subcommand,
        after_help = "Examples:\n  lb service list\n  lb service add web 192.0.2.10:80 protocol=tcp mode=dsr-l2\n  lb service set web \
                            slow_start=30s"
    )]
    Service(ServiceCommand),
    /// Show and change the backends of a service
    #[command(
        subcommand,
        after_help = "Examples:\n  lb backend list web\n  lb backend add web 10.0.1.9:80 --weight 50\n  lb \
                            backend drain web 10.0.1.9:80 --timeout 5m\n  lb backend ready web 10.0.1.9:80"
    )]
    Backend(BackendCommand),
    /// Show and change which sources are denied: their packets for a VIP are dropped
    #[command(subcommand, after_help = "Examples:\n  lb deny add 198.51.100.0/24\n  lb deny list")]
    Deny(ListCommand),
    /// Show and change which sources are not limited; the longest prefix of both lists decides
    #[command(subcommand, after_help = "Examples:\n  lb allow add 203.0.113.7\n  lb allow list")]
    Allow(ListCommand),
    /// Show and change where the program is, with or without a daemon
    #[command(subcommand, after_help = "Examples:\n  lb xdp status\n  lb xdp detach")]
    Xdp(XdpCommand),
    /// Look at the maps that the program uses, with or without a daemon
    #[command(subcommand, after_help = "Examples:\n  lb bpf maps\n  lb bpf dump backends")]
    Bpf(BpfCommand),
    /// Show and change limiters
    #[command(
        subcommand,
        after_help = "Examples:\n  lb limit list\n  lb limit set web source-packets packets=2k/s burst=400"
    )]
    Limit(LimitCommand),
    /// Show health checks and how they end
    #[command(subcommand, after_help = "Examples:\n  lb health list\n  lb health list web")]
    Health(HealthCommand),
    /// Show what is remembered of flows, and where a flow goes
    #[command(
        subcommand,
        after_help = "Examples:\n  lb flow lookup tcp 198.51.100.7:40000 192.0.2.10:80\n  lb flow count"
    )]
    Flow(FlowCommand),
    /// Show who owns the slots of a service, and what a change would move
    #[command(
        subcommand,
        after_help = "Examples:\n  lb slots show web\n  lb slots disruption web --add 10.0.1.9:80"
    )]
    Slots(SlotsCommand),
    /// Follow what happens, a line each: changes, health, limits that were met, packets that were dropped
    #[command(
        after_help = "Examples:\n  lb events\n  lb events -o json | jq 'select(.kind == \"health\")'\n\nIt begins now and goes on \
                            until the daemon ends (exit code 3). Drops and limits are summed up every 10 seconds."
    )]
    Events(EventsArgs),
    /// Look for what stands in the way of packets: what was found, why it matters, and what mends it; exit code 1 if anything is bad
    #[command(
        after_help = "Examples:\n  lb doctor\n  lb doctor eth0 -o json | jq '.[] | select(.severity != \"well\")'\n  \
                            lb doctor --backend-setup web"
    )]
    Doctor(DoctorArgs),
    /// Turn services of another balancer into sections of the configuration
    #[command(
        subcommand,
        after_help = "Example:\n  ipvsadm-save -n | lb import ipvsadm > /etc/lb/conf.d/ipvs.toml"
    )]
    Import(ImportCommand),
    /// Write what makes a shell complete the words of lb
    #[command(
        after_help = "Examples:\n  lb completion bash > /usr/share/bash-completion/completions/lb\n  lb completion fish > \
                            ~/.config/fish/completions/lb.fish"
    )]
    Completion(CompletionArgs),
    /// Write manual pages: one for lb and one for each of its commands
    #[command(
        after_help = "Examples:\n  lb man /usr/local/share/man/man1\n  lb man --markdown > docs/cli.md"
    )]
    Man(ManArgs),
}

impl Command {
    /// Whether it asks the daemon something and changes nothing.
    pub(super) fn only_shows(&self) -> bool {
        match self {
            Self::Status
            | Self::Bpf(_)
            | Self::Doctor(_)
            | Self::Health(_)
            | Self::Flow(_)
            | Self::Slots(_) => true,
            Self::Service(command) => matches!(command, ServiceCommand::List | ServiceCommand::Show { .. }),
            Self::Backend(command) => matches!(command, BackendCommand::List { .. }),
            Self::Deny(command) | Self::Allow(command) => matches!(command, ListCommand::List),
            Self::Limit(command) => {
                !matches!(command, LimitCommand::Set { .. } | LimitCommand::Remove { .. })
            }
            Self::Xdp(command) => matches!(command, XdpCommand::Status { .. }),
            Self::Config(command) => matches!(command, ConfigCommand::History | ConfigCommand::Show),
            Self::Run { .. }
            | Self::Decap(_)
            | Self::Events(_)
            | Self::Import(_)
            | Self::Completion(_)
            | Self::Man(_) => false,
        }
    }
}

/// Show and change limiters.
#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// List the limiters of a service, or all there are
    #[command(after_help = "Examples:\n  lb limit list\n  lb limit list web -o json")]
    List {
        /// The service's name
        service: Option<String>,
    },
    /// Show who is over the limits of a service, or over any: the sources that send most, as of the last 10 to 20 seconds
    #[command(
        after_help = "Examples:\n  lb limit top\n  lb limit top web --count 5\n\nRates are estimates from samples of the \
                            packets over a limit; +/- is how far the truth may be from them, in 19 of 20 cases."
    )]
    Top {
        /// The service's name
        service: Option<String>,
        /// Sources to show
        #[arg(
            short, long, default_value_t = USUAL_SOURCES, value_name = "NUMBER",
            value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_SOURCES))
        )]
        count: u16,
    },
    /// Show all of one limiter: its keys, its clock, what it counted
    #[command(after_help = "Examples:\n  lb limit show web source-packets\n  lb limit show '*' source-bits")]
    Show {
        /// Which limiter.
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Add a limiter, or change some keys of one; buckets are kept if they mean the same
    #[command(after_help = "Examples:\n  lb limit set web syn scope=source new_connections=200/s burst=400 \
                            action=drop\n  lb limit set web syn new_connections=500/s")]
    Set {
        /// Which limiter.
        #[command(flatten)]
        limit: LimitArgs,
        /// Keys of the configuration and their values, such as burst=400; `KEY=` takes a key away
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_key)]
        keys: Vec<(String, String)>,
    },
    /// Propose a limiter from what one with action=shadow has measured, and say how many sources it would have limited
    #[command(
        after_help = "Examples:\n  lb limit set web probe scope=source packets=1k/s burst=2000 action=shadow\n  lb \
                            limit suggest web\n  lb limit suggest web --limiter probe --quantile 99 -o json | jq -r \
                            '.[].command'\n\nThe longer it has measured, the better. It measures from when it is set, or \
                            gets another unit or scope."
    )]
    Suggest {
        /// The service's name, or '*' for limiters of all services
        service: String,
        /// The limiter's name; all that measure if absent
        #[arg(long, value_name = "NAME")]
        limiter: Option<String>,
        /// Of 100 sources, how many are never to be limited: 50 to 100
        #[arg(long, value_name = "PERCENT", default_value_t)]
        quantile: Quantile,
    },
    /// Remove a limiter
    #[command(after_help = "Example:\n  lb limit remove web syn")]
    Remove {
        /// Which limiter.
        #[command(flatten)]
        limit: LimitArgs,
    },
}

/// A limiter of a service or of all.
#[derive(Debug, ClapArgs)]
pub struct LimitArgs {
    /// The service's name, or '*' for a limiter of all services
    pub service: String,
    /// The limiter's name
    pub name: String,
}

pub(super) fn parse_key(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE such as burst=400")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What to unwrap.
#[derive(Debug, ClapArgs)]
pub struct DecapArgs {
    /// Where tunnel packets arrive; can be repeated
    #[arg(short, long = "interface", required = true, value_name = "NAME")]
    pub interfaces: Vec<String>,
    /// The balancers: an address or a prefix of their outer headers' sources; can be repeated
    // A text, as of a backend's address.
    #[arg(short, long, required = true, value_name = "ADDRESS[/BITS]")]
    pub from: Vec<String>,
    /// The UDP port that GUE tunnels end at
    #[arg(long, value_parser = parse_port, default_value_t = GUE_PORT, value_name = "PORT")]
    pub gue_port: NonZeroU16,
    /// Where to serve Prometheus metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
}

/// Show and change the backends of a service.
#[derive(Debug, Subcommand)]
pub enum BackendCommand {
    /// List the backends of a service
    #[command(after_help = "Example:\n  lb backend list web")]
    List {
        /// The service's name
        service: String,
    },
    /// Add a backend
    #[command(
        after_help = "Examples:\n  lb backend add web 10.0.1.9:80\n  lb backend add dns '[2001:db8::9]:53' \
                            --weight 50"
    )]
    Add {
        /// Which backend.
        #[command(flatten)]
        backend: BackendArgs,
        /// Its share relative to its siblings; 0 takes no new flows
        #[arg(long, value_parser = parse_weight, default_value = "100", value_name = "0..65535")]
        weight: Weight,
    },
    /// Change a backend's share of new flows; the flows there are stay
    #[command(after_help = "Example:\n  lb backend set web 10.0.1.9:80 --weight 50")]
    Set {
        /// Which backend.
        #[command(flatten)]
        backend: BackendArgs,
        /// Its share relative to its siblings; 0 takes no new flows
        #[arg(long, value_parser = parse_weight, value_name = "0..65535")]
        weight: Weight,
    },
    /// Remove a backend at once, with the flows it has
    #[command(
        after_help = "Example:\n  lb backend drain web 10.0.1.9:80 --timeout 5m --wait && lb backend remove web \
                            10.0.1.9:80"
    )]
    Remove {
        /// Which backend.
        #[command(flatten)]
        backend: BackendArgs,
    },
    /// Send a backend no new flows; those it has go on, until the time-out ends if there is one
    #[command(
        after_help = "Examples:\n  lb backend drain web 10.0.1.9:80\n  lb backend drain web 10.0.1.9:80 --timeout \
                            5m\n\nWhen the time-out has ended the backend is out of service: its flows are given up. \
                            A drain begins anew when it is given another time-out."
    )]
    Drain {
        /// Which backend.
        #[command(flatten)]
        backend: BackendArgs,
        /// How long its flows go on, from 1s to 168h [default: as the service has it, else for ever]
        #[arg(long, value_parser = parse_drain_timeout, value_name = "DURATION")]
        timeout: Option<Duration>,
        /// Come back when none of its flows goes on any more, or its time-out has ended
        #[arg(long)]
        wait: bool,
    },
    /// Put a backend back to work that drains or is in maintenance
    #[command(
        after_help = "Example:\n  lb backend ready web 10.0.1.9:80\n\nIf the service has a slow_start its weight \
                            rises slowly. Its health decides as ever."
    )]
    Ready {
        /// Which backend.
        #[command(flatten)]
        backend: BackendArgs,
    },
    /// Take a backend out of service at once, with the flows it has; it stays listed and checked
    #[command(after_help = "Examples:\n  lb backend maintenance web 10.0.1.9:80\n  lb backend ready web \
                            10.0.1.9:80\n\nTo let its flows end first, use lb backend drain.")]
    Maintenance {
        /// Which backend.
        #[command(flatten)]
        backend: BackendArgs,
    },
}

/// A backend of a service.
#[derive(Debug, ClapArgs)]
pub struct BackendArgs {
    /// The service's name
    pub service: String,
    /// The backend's ADDRESS:PORT, with * for every port
    // A text: a wrong address is refused in the words of the configuration, not as a mistake in usage.
    pub address: String,
}

fn parse_port(text: &str) -> Result<NonZeroU16, String> {
    text.parse().map_err(|_| "expected a number from 1 to 65535".to_owned())
}

fn parse_period(text: &str) -> Result<Duration, String> {
    let period = parse_duration(text).map_err(|error| error.to_string())?;
    let range = Duration::from_millis(100)..=Duration::from_hours(1);
    if range.contains(&period) { Ok(period) } else { Err("expected from 100ms to 1h".to_owned()) }
}

fn parse_weight(text: &str) -> Result<Weight, String> {
    text.parse().map(Weight).map_err(|_| "expected a number from 0 to 65535".to_owned())
}
