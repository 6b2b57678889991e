//! `lb decap`: the other end of tunnels, on backends whose kernel has no tunnel device, or whose operator wants none.
//!
//! It needs neither the daemon nor its configuration. What the program decides is `lb_common::decap`.

mod addresses;
mod program;
mod report;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use lb_common::layout::{MAX_ATTACHED, MAX_SENDERS};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use self::program::{Counters, Decapsulator, EndpointError};
pub use self::report::InterfaceReport;

use self::addresses::Addresses;
use self::report::Reporter;
use crate::api::serve_http;
use crate::datapath::attach::interface_index;
use crate::datapath::{AttachError, Attachment, LoadError, TableError, check_host};
use crate::metrics;
use crate::model::Prefix;
use crate::stop::Stop;

/// How long to wait when the kernel did not list the addresses.
const RETRY: Duration = Duration::from_secs(1);

/// What to unwrap.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where tunnel packets arrive.
    pub interfaces: Vec<String>,
    /// Which balancers' packets are taken.
    pub senders: Vec<Prefix>,
    /// UDP port of GUE.
    pub gue_port: NonZeroU16,
    /// Where to serve metrics.
    pub metrics: Option<SocketAddr>,
}

/// Why nothing is unwrapped, or no more.
#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    /// None or too many of something.
    #[error("{number} {what} are named; expected from 1 to {most}")]
    Number {
        /// How many there are.
        number: usize,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// An interface is named twice.
    #[error("--interface {name} is named twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// An interface does not exist.
    #[error("there is no interface {name}; `ip link` lists those there are")]
    NoInterface {
        /// The name.
        name: String,
    },
    /// Signals cannot be received.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// The metrics address cannot be bound.
    #[error(transparent)]
    Metrics(#[from] metrics::BindError),
    /// The program cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The program cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The kernel does not tell this host's addresses.
    #[error("cannot follow this host's addresses, at which tunnels end: {0}")]
    Follow(#[source] io::Error),
    /// As above, of a single question.
    #[error("cannot list this host's addresses, at which tunnels end: {0}")]
    List(#[source] rtnetlink::Error),
    /// The program cannot be told of an address.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The counters cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Unwraps until SIGTERM or SIGINT, and reports what was counted. `ready` is called once, when packets are unwrapped.
///
/// Whatever fails leaves nothing behind: the program is attached last, and detached when this function returns.
pub async fn run(
    options: Options,
    ready: impl FnOnce(&[Attachment]),
) -> Result<Vec<InterfaceReport>, DecapError> {
    let indices = indices(&options)?;
    check_host()?;
    let stop = Stop::install().map_err(DecapError::Signals)?;
    let listener = match options.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let (mut program, counters) = Decapsulator::load(options.gue_port, &options.senders, &indices)?;
    let addresses = Addresses::watch().map_err(DecapError::Follow)?;
    program.set_endpoints(&addresses.list().await.map_err(DecapError::List)?)?;
    let attachments = options.interfaces.iter().zip(indices);
    let attachments: Vec<_> =
        attachments.map(|(name, index)| program.attach(name, index)).collect::<Result<_, _>>()?;
    let reporter = Reporter::new(counters, &attachments);
    let mut servers = JoinSet::new();
    if let Some(listener) = listener {
        servers.spawn(serve(listener, reporter.clone()));
    }
    ready(&attachments);
    keep_true(&mut program, addresses, stop).await;
    Ok(reporter.report()?)
}

fn indices(options: &Options) -> Result<Vec<u32>, DecapError> {
    check_number("interfaces", options.interfaces.len(), MAX_ATTACHED)?;
    // One place of the table says that IPv4 is no part of IPv6.
    check_number("balancers", options.senders.len(), MAX_SENDERS - 1)?;
    let mut names = BTreeSet::new();
    if let Some(name) = options.interfaces.iter().find(|name| !names.insert(*name)) {
        return Err(DecapError::Twice { name: name.clone() });
    }
    let index =
        |name: &String| interface_index(name).ok_or_else(|| DecapError::NoInterface { name: name.clone() });
    options.interfaces.iter().map(index).collect()
}

fn check_number(what: &'static str, number: usize, most: usize) -> Result<(), DecapError> {
    if (1..=most).contains(&number) { Ok(()) } else { Err(DecapError::Number { number, what, most }) }
}

/// Tells the program of every change of the host's addresses until it is time to stop.
async fn keep_true(program: &mut Decapsulator, mut addresses: Addresses, mut stop: Stop) {
    let follow = async {
        if let Err(error) = follow(program, &mut addresses).await.map_err(DecapError::Follow) {
            tracing::error!("{error}; tunnels go on to end at the addresses that were there before");
        }
        // Better to unwrap with the addresses there were than not at all.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = follow => {}
        () = stop.wait() => {}
    }
}

async fn follow(program: &mut Decapsulator, addresses: &mut Addresses) -> io::Result<()> {
    loop {
        match addresses.list().await {
            Ok(now) => {
                program.set_endpoints(&now).unwrap_or_else(|error| tracing::error!("{error}"));
                addresses.changed().await?;
            }
            Err(error) => {
                tracing::warn!("{}; trying again in {} s", DecapError::List(error), RETRY.as_secs());
                sleep(RETRY).await;
            }
        }
    }
}

async fn serve(listener: TcpListener, reporter: Reporter) {
    let scrape = async |State(reporter): State<Reporter>| metrics::answer(reporter.metrics());
    // Ends with the process: a scrape that is cut off is tried again.
    serve_http(listener, metrics::pages(get(scrape)).with_state(reporter), std::future::pending()).await;
}
