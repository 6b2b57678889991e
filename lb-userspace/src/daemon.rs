//! `lb run`: brings everything up in an order in which nothing is ever half attached, and down again.

mod plane;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use lb_common::flow::WAYS;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::plane::DataPlane;
use crate::announce::Announcer;
use crate::api::{self, ApiSocket, Network, Shared};
use crate::config::{Config, HashKeyError, read_hash_key};
use crate::controller::{
    Controller, ControllerError, Files, Handle, LocalVip, Start, check_no_local_vip, start_pipeline,
};
use crate::datapath::attach::interface_index;
use crate::datapath::{
    AttachError, Attachment, Capacity, KernelDatapath, LoadError, PinsError, Room, SmokeError, check_host,
};
use crate::heap;
use crate::journal::summarize;
use crate::metrics;
use crate::model::Services;
use crate::neighbors::local_addresses;
use crate::placement::hash_key;
use crate::state::{self, Beginning, Directory, Found, StateError, Store as _, unix_now};
use crate::stop::Stop;
use crate::supervisor;

/// Why the daemon could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// An interface does not exist.
    #[error(
        "there is no interface {name}; `ip link` lists those there are, [daemon] interfaces names those to use"
    )]
    NoInterface {
        /// The name that was configured.
        name: String,
    },
    /// Signals cannot be received.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// The key of the flow hash cannot be had.
    #[error(transparent)]
    HashKey(#[from] HashKeyError),
    /// The API socket cannot be bound.
    #[error(transparent)]
    Api(#[from] api::BindError),
    /// The API cannot be served over the network.
    #[error(transparent)]
    Network(#[from] api::NetworkError),
    /// The metrics address cannot be bound.
    #[error(transparent)]
    Metrics(#[from] metrics::BindError),
    /// The program cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The program cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The state directory belongs to another daemon.
    #[error(transparent)]
    State(#[from] StateError),
    /// A VIP is an address of the host.
    #[error(transparent)]
    LocalVip(#[from] LocalVip),
    /// What is to outlive the daemon cannot be pinned, or what is pinned cannot be used.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The program does not do what it should.
    #[error(transparent)]
    Smoke(#[from] SmokeError),
    /// The controller could not start, or stopped.
    #[error(transparent)]
    Controller(#[from] ControllerError),
}

/// Runs the daemon with the configuration of `file` until SIGTERM or SIGINT; `socket` takes precedence over the file's.
///
/// Whatever fails before the first packet is let in leaves everything as it was: sockets are bound and tables filled before
/// the program is attached. What is pinned outlives this function, everything else is given back when it returns.
pub async fn run(config: Config, file: PathBuf, socket: Option<PathBuf>) -> Result<(), DaemonError> {
    check_host()?;
    let stop = Stop::install().map_err(DaemonError::Signals)?;
    let hangups = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    let daemon = &config.daemon;
    let indices = daemon.interfaces.iter().map(|name| index_of(name)).collect::<Result<Vec<_>, _>>()?;
    let secret = secret(&config)?;
    let api = api::bind(socket.as_ref().unwrap_or(&daemon.socket))?;
    let network = match daemon.api.clone() {
        Some(settings) => Some(Network::open(settings).await?),
        None => None,
    };
    let metrics = match daemon.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let mut start = begin(&config, file)?;
    let Beginning { desired, generation, .. } = &start.beginning;
    check_no_local_vip(desired, &local_addresses().await.map_err(ControllerError::from)?)?;
    let room = Room {
        wanted: capacity(daemon.flows, &desired.services),
        least: needed(daemon.flows, &desired.services),
    };
    let plane = DataPlane::find(daemon, hash_key(secret), &room, &indices)?;
    let (mut controller, tables) =
        Controller::start(plane.load()?, desired.clone(), generation.number).await?;
    let interfaces: Vec<(String, u32)> = config.daemon.interfaces.into_iter().zip(indices).collect();
    let vips = controller.vips();
    let attachments = plane.attach(controller.datapath(), &vips, &interfaces)?;
    keep(&mut start);
    let mut tasks = JoinSet::new();
    let handle = start_pipeline(tables, start, hangups, &mut tasks);
    let _announcer = Announcer::start(interfaces, controller.announced());
    let result =
        serve(controller, handle, Listeners { api, network, metrics }, &attachments, stop, tasks).await;
    plane.leave();
    result
}

/// What the daemon remembers and what the files say, and which of them it begins with.
fn begin(config: &Config, file: PathBuf) -> Result<Start, DaemonError> {
    let desired = config.desired();
    let settings = config.daemon.clone();
    let files = Files { path: file, settings };
    let (store, found, problem) = match Directory::open(&config.daemon.state) {
        Ok((directory, found)) => (Ok(directory), found, None),
        Err(error @ StateError::InUse { .. }) => return Err(error.into()),
        Err(error) => (Err(error.to_string()), Found::default(), Some(unkept(&error))),
    };
    let beginning = state::begin(&found, &desired, &files.path, store.as_ref().ok(), unix_now());
    let last = found.last.max(beginning.generation.number);
    let problems: Vec<String> = found.damaged.into_iter().chain(problem).collect();
    for sentence in problems.iter().chain(&beginning.notes) {
        tracing::warn!("{sentence}");
    }
    Ok(Start { store, files, beginning, last, problems })
}

/// Keeps a new beginning. The daemon forwards packets also when that fails; it only takes no changes.
fn keep(start: &mut Start) {
    let Beginning { generation, desired, is_new, .. } = &start.beginning;
    tracing::info!("generation {}: {}", generation.number, generation.origin);
    let Ok(store) = &mut start.store else { return };
    if *is_new && let Err(error) = store.write(generation, desired) {
        let sentence = unkept(&error);
        tracing::warn!("{sentence}");
        start.problems.push(sentence);
    }
}

/// What it means that nothing can be kept.
fn unkept(error: &StateError) -> String {
    format!("{error}; packets are forwarded, but no change is taken, since a restart would forget it")
}

/// Where clients come in.
struct Listeners {
    api: ApiSocket,
    network: Option<Network>,
    metrics: Option<TcpListener>,
}

/// Serves until told to stop. Dropping `attachments` afterwards, in the caller, detaches the program.
async fn serve(
    controller: Controller<KernelDatapath>,
    handle: Handle,
    listeners: Listeners,
    attachments: &[Attachment],
    mut stop: Stop,
    mut pipeline: JoinSet<()>,
) -> Result<(), DaemonError> {
    let (stopping, stopped) = watch::channel(false);
    let wait = || {
        let mut stopped = stopped.clone();
        // An error means that the sender is gone, which is a stop too.
        async move { drop(stopped.wait_for(|stopped| *stopped).await) }
    };
    let mut servers = JoinSet::new();
    let pulse = handle.clone();
    let control: Shared = Arc::new(handle);
    let Listeners { api, network, metrics } = listeners;
    servers.spawn(api::serve(api, Arc::clone(&control), wait()));
    if let Some(network) = network {
        servers.spawn(network.serve(Arc::clone(&control), wait()));
    }
    if let Some(listener) = metrics {
        servers.spawn(metrics::serve(listener, Arc::clone(&control), wait()));
    }
    servers.spawn(summarize(control, pulse.journal().clone(), wait()));
    let names: Vec<_> = attachments.iter().map(|a| format!("{} ({})", a.interface, a.mode.name())).collect();
    tracing::info!("forwarding on {}", names.join(", "));
    heap::give_back();
    supervisor::ready(&format!("forwarding on {}", names.join(", ")));
    let result = tokio::select! {
        result = controller.run(attachments) => result.map_err(DaemonError::from),
        () = stop.wait() => Ok(()),
        never = supervisor::watch(|| pulse.is_well()) => match never {},
    };
    // Whoever follows what happens would stay for ever.
    pulse.journal().close();
    drop(pulse);
    supervisor::stopping();
    tracing::info!("stopping");
    // The controller is gone, so requests under way are answered at once: nothing here can take long.
    drop(stopping);
    while servers.join_next().await.is_some() {}
    // Nobody is left to ask: what was not made yet is taken back.
    while pipeline.join_next().await.is_some() {}
    result
}

fn index_of(name: &str) -> Result<u32, DaemonError> {
    interface_index(name).ok_or_else(|| DaemonError::NoInterface { name: name.to_owned() })
}

/// The secret of the flow hash: the configured one, else one that this host has kept to itself since it was installed.
///
/// It must survive a restart, or every flow would be hashed anew.
fn secret(config: &Config) -> Result<[u8; 16], DaemonError> {
    if let Some(path) = &config.daemon.hash_key {
        return Ok(read_hash_key(path)?);
    }
    if let Ok(key) = read_hash_key("/etc/machine-id".as_ref()) {
        return Ok(key);
    }
    tracing::warn!(
        "no [daemon] hash_key and no /etc/machine-id: flows are hashed with a key of this run, and a restart will move them"
    );
    let mut key = [0; 16];
    let random =
        std::fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut key));
    random.map_err(|source| HashKeyError::unreadable("/dev/urandom".as_ref(), source))?;
    Ok(key)
}

/// Room for the services that are wanted and some more, never less than the default, and for as many flows as is said.
fn capacity(flows: u32, services: &Services) -> Capacity {
    let default = Capacity::default();
    let needed = needed(flows, services);
    Capacity {
        services: roomy(needed.services).max(default.services),
        slots: roomy(needed.slots).max(default.slots),
        backends: roomy(needed.backends).max(default.backends),
        limiters: roomy(needed.limiters).max(default.limiters),
        ..needed
    }
}

/// Room for the services that are wanted, and no more: tables that have it are not left for others.
fn needed(flows: u32, services: &Services) -> Capacity {
    let rows = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let backends =
        services.values().map(|service| (service.backends.len() * 2).next_power_of_two().max(8)).sum();
    Capacity {
        services: rows(services.len()),
        slots: rows(services.values().map(|service| service.table_size as usize + 16).sum()),
        backends: rows(backends),
        limiters: rows(services.values().map(|service| services.limiters_met(service).count()).sum()),
        flow_sets: flows.div_ceil(WAYS as u32).next_power_of_two(),
        ..Capacity::default()
    }
}

/// A quarter more, rounded up by an eighth at most.
fn roomy(needed: u32) -> u32 {
    let more = needed.saturating_add(needed / 4);
    let step = more.checked_next_power_of_two().map_or(1 << 28, |power| power / 8).max(1);
    more.checked_next_multiple_of(step).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_flows_as_is_said() {
        let sets = |flows: u32| capacity(flows, &Services::new()).flow_sets;
        assert_eq!([8, 9, 5_000, 1 << 20, 1 << 26].map(sets), [1, 2, 1_024, 1 << 17, 1 << 23]);
    }

    #[test]
    fn there_is_room_for_a_quarter_more_and_little_beyond() {
        for needed in [0, 1, 7, 1_000, 16_397_000, u32::MAX / 2, u32::MAX] {
            let (room, quarter) = (u64::from(roomy(needed)), u64::from(needed) * 5 / 4);
            assert!(
                room >= quarter.min(u32::MAX.into()) && room <= quarter + quarter / 4 + 1,
                "{needed}: {room}"
            );
        }
        assert_eq!(capacity(8, &Services::new()), Capacity { flow_sets: 1, ..Capacity::default() });
    }
}
