//! The command `lb`: arguments in, data on stdout, sentences on stderr, an exit code that scripts can trust.

mod args;
mod bpf;
mod config;
mod doctor;
mod events;
mod flows;
mod health;
mod import;
mod keys;
mod limits;
mod lists;
mod look;
mod manual;
mod output;
mod screens;
mod services;
mod slots;
mod units;
mod xdp;

use std::error::Error;
use std::future::Future;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use serde::Serialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

pub use self::args::{
    Args, BackendArgs, BackendCommand, Command, DaemonArgs, DecapArgs, LimitArgs, LimitCommand, RemoteArgs,
};
pub use self::bpf::BpfCommand;
pub use self::config::ConfigCommand;
pub use self::flows::FlowCommand;
pub use self::health::HealthCommand;
pub use self::lists::ListCommand;
use self::look::{Look, terminal_columns};
pub use self::output::Output;
pub use self::services::ServiceCommand;
pub use self::slots::SlotsCommand;
pub use self::xdp::{PinsArgs, XdpCommand};

use crate::client::{Client, ClientError, Remote, Trust};
use crate::config::{DEFAULT_SOCKET, load, show_duration};
use crate::daemon;
use crate::datapath::Attachment;
use crate::decap;
use crate::heap;
use crate::model::{Endpoint, ListName, Prefix, Weight};
use crate::view::{AddBackend, Applied, BackendState, DrainBackend, SetBackend};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// As wished.
    Ok = 0,
    /// The answer is no: a check failed, the daemon could not start.
    Negative = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The daemon does not answer.
    Unreachable = 3,
    /// What was asked is invalid or conflicts with what is.
    Refused = 4,
    /// What was asked about does not exist.
    NotFound = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the process's command line.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let exit = match args.watch {
        Some(period) if args.command.only_shows() => watch(period),
        Some(_) => {
            eprintln!("lb: --watch goes with commands that only show something, such as lb status");
            Exit::Usage
        }
        // The streams are not locked: the daemon's log goes to the same stderr from other threads.
        None => run(args, &mut io::stdout(), terminal_columns(), &mut io::stderr()),
    };
    exit.into()
}

/// Runs the process's command line every so often, until it fails. A terminal shows the last answer alone.
fn watch(period: Duration) -> Exit {
    /// Cursor to the upper left corner, and nothing from there on (ECMA-48, CUP and ED).
    const CLEAR: &[u8] = b"\x1b[H\x1b[J";
    let mut out = io::stdout();
    let before: &[u8] = if out.is_terminal() { CLEAR } else { b"" };
    loop {
        let mut page = before.to_vec();
        let exit = run(Args::parse(), &mut page, terminal_columns(), &mut io::stderr());
        let written = out.write_all(&page).and_then(|()| out.flush());
        if exit != Exit::Ok || written.is_err() {
            return exit;
        }
        std::thread::sleep(period);
    }
}

/// Runs one command line with its data on `out`, whose lines have room for so many `columns`, and its complaints on `err`.
pub fn run(args: Args, out: &mut dyn Write, columns: Option<u16>, err: &mut dyn Write) -> Exit {
    let mut screen = Screen { out, output: args.output, columns };
    let Err(failure) = execute(args.command, args.daemon, &mut screen) else { return Exit::Ok };
    if !failure.message.is_empty() {
        // There is nobody left to tell that stderr is gone.
        drop(writeln!(err, "{}", failure.message));
    }
    failure.exit
}

fn execute(command: Command, daemon: DaemonArgs, screen: &mut Screen<'_>) -> Result<(), Failure> {
    match command {
        Command::Run { config } => run_daemon(&config, daemon.socket),
        Command::Decap(args) => decap(args, screen),
        Command::Config(command) => config::run(&command, &daemon.client()?, screen),
        Command::Status => {
            let status = block_on(daemon.client()?.status())??;
            screen.show_fitted(&status, |look, status| look.fold(&screens::status(status)))
        }
        Command::Service(command) => services::run(&command, &daemon.client()?, screen),
        Command::Backend(command) => backend(&command, &daemon.client()?, screen),
        Command::Deny(command) => lists::run(ListName::Deny, &command, &daemon.client()?, screen),
        Command::Allow(command) => lists::run(ListName::Allow, &command, &daemon.client()?, screen),
        Command::Bpf(command) => bpf::run(&command, screen),
        Command::Xdp(command) => xdp::run(&command, screen),
        Command::Limit(command) => limits::run(&command, &daemon.client()?, screen),
        Command::Health(command) => health::run(&command, &daemon.client()?, screen),
        Command::Flow(command) => flows::run(&command, &daemon.client()?, screen),
        Command::Slots(command) => slots::run(&command, &daemon.client()?, screen),
        Command::Events(args) => events::run(&args, &daemon.client()?, screen),
        Command::Doctor(args) => doctor::run(&args, &daemon.client()?, screen),
        Command::Import(command) => import::run(&command, screen),
        Command::Completion(args) => manual::completion(&args, screen),
        Command::Man(args) => manual::pages(&args, screen),
    }
}

fn backend(command: &BackendCommand, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let applied: Applied = match command {
        BackendCommand::List { service } => {
            let backends = block_on(client.backends(service))??;
            return screen.show_fitted(&backends[..], screens::backends);
        }
        BackendCommand::Add { backend, weight } => {
            let new = AddBackend { address: endpoint(backend)?.to_string(), weight: *weight };
            block_on(client.add_backend(&backend.service, &new))??
        }
        BackendCommand::Set { backend, weight } => {
            let new = SetBackend { weight: *weight };
            block_on(client.set_backend(&backend.service, endpoint(backend)?, &new))??
        }
        BackendCommand::Remove { backend } => {
            block_on(client.remove_backend(&backend.service, endpoint(backend)?))??
        }
        BackendCommand::Drain { backend, timeout, wait } => {
            let drain = DrainBackend { timeout: timeout.map(show_duration) };
            let endpoint = endpoint(backend)?;
            let applied = block_on(client.drain_backend(&backend.service, endpoint, &drain))??;
            screen.show(&applied, screens::applied)?;
            return if *wait {
                block_on(drained(&backend.service, endpoint, client, screen))?
            } else {
                Ok(())
            };
        }
        BackendCommand::Ready { backend } => {
            block_on(client.ready_backend(&backend.service, endpoint(backend)?))??
        }
        BackendCommand::Maintenance { backend } => {
            block_on(client.retire_backend(&backend.service, endpoint(backend)?))??
        }
    };
    screen.show(&applied, screens::applied)
}

impl DaemonArgs {
    fn client(self) -> Result<Client, Failure> {
        let Self { socket, remote } = self;
        let RemoteArgs { url, token_file: token, ca: authorities, certificate, key } = remote;
        let Some(url) = url else {
            return Ok(Client::new(socket.unwrap_or_else(|| DEFAULT_SOCKET.into())));
        };
        let trust = Trust { authorities, token, certificate: certificate.zip(key) };
        let remote =
            Remote::new(&url, &trust).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        Ok(Client::remote(remote))
    }
}

/// How often it is looked whether a backend still has flows.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Waits until a backend that drains has no flows any more: its slots are others' and none of the service's is on its way, or its
/// time-out is over. The last backend's flows cannot be told from silence.
async fn drained(
    service: &str,
    endpoint: Endpoint,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let address = endpoint.to_string();
    let gone = |what: &str| {
        Failure::new(Exit::Negative, format!("backend {address} {what}: it does not drain any more"))
    };
    loop {
        let backends = client.backends(service).await?;
        let backend =
            backends.iter().find(|one| one.address == address).ok_or_else(|| gone("was removed"))?;
        if backend.state == BackendState::Ready {
            return Err(gone("was put back to work"));
        }
        let services = client.services().await?;
        let service = services.iter().find(|one| one.name == service).ok_or_else(|| gone("was removed"))?;
        // The last backend's slots stay its own, settled, for as long as there is nobody to take them.
        let is_last = service.backends_serving == 0;
        if is_last && backend.drain_seconds_left.is_none() {
            let sentence = format!(
                "no other backend takes new flows, so nobody can tell when those of {address} have ended; with --timeout it \
                 can be waited for"
            );
            return Err(Failure::new(Exit::Negative, sentence));
        }
        let is_quiet = !is_last && backend.effective_weight == Weight(0) && service.slots.moving == 0;
        if is_quiet || backend.drain_seconds_left == Some(0) {
            screen.say(&format!("backend {address} is drained"));
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn endpoint(backend: &BackendArgs) -> Result<Endpoint, Failure> {
    let parsed = backend.address.parse();
    parsed.map_err(|error| Failure::new(Exit::Refused, format!("backend address {error}")))
}

fn run_daemon(file: &Path, socket: Option<PathBuf>) -> Result<(), Failure> {
    heap::share();
    let config = load(file).map_err(|error| Failure { exit: Exit::Refused, message: error.to_string() })?;
    start_log()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime(&error))?;
    let ended = runtime.block_on(daemon::run(config, file.to_owned(), socket));
    ended.map_err(|error| Failure::new(Exit::Negative, with_sources(&error)))
}

fn decap(args: DecapArgs, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let DecapArgs { interfaces, from, gue_port, metrics } = args;
    let sender = |text: &String| text.parse::<Prefix>();
    let senders = from.iter().map(sender).collect::<Result<_, _>>();
    let senders = senders.map_err(|error| Failure::new(Exit::Refused, format!("--from {error}")))?;
    start_log()?;
    let options = decap::Options { interfaces, senders, gue_port, metrics };
    let counted = block_on(decap::run(options, |attachments| screen.say(&decapsulating(attachments))))?;
    let report = counted.map_err(|error| Failure::new(Exit::Negative, with_sources(&error)))?;
    screen.show_fitted(&report[..], screens::decap)
}

fn decapsulating(attachments: &[Attachment]) -> String {
    let on: Vec<_> =
        attachments.iter().map(|one| format!("{} ({})", one.interface, one.mode.name())).collect();
    format!("decapsulating on {}", on.join(", "))
}

fn start_log() -> Result<(), Failure> {
    let filter = EnvFilter::builder().with_env_var("LB_LOG").with_default_directive(LevelFilter::INFO.into());
    let filter = filter.from_env().map_err(|error| Failure::new(Exit::Usage, format!("LB_LOG: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    log.with_ansi(io::stderr().is_terminal()).with_target(false).init();
    Ok(())
}

/// One thread suffices for one call.
fn block_on<T>(call: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime(&error))?;
    Ok(runtime.block_on(call))
}

/// An error and its sources in one line; a source that is part of the sentence already is not repeated.
fn with_sources(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        source = error.source();
    }
    sentence
}

/// Why a command did not do what was asked.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    /// What stderr gets; nothing if empty.
    message: String,
}

impl Failure {
    fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, message: format!("lb: {}", sentence.into()) }
    }

    fn runtime(error: &io::Error) -> Self {
        Self::new(Exit::Negative, format!("cannot start the runtime: {error}"))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Problem(problem) => match problem.status {
                404 => Exit::NotFound,
                400..500 => Exit::Refused,
                _ => Exit::Unreachable,
            },
            ClientError::Unreachable { .. }
            | ClientError::Silent { .. }
            | ClientError::Protocol { .. }
            | ClientError::Version { .. } => Exit::Unreachable,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<io::Error> for Failure {
    /// Of writing to stdout. A reader that has seen enough, such as `head`, is no failure.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Ok, message: String::new() },
            _ => Self::new(Exit::Negative, format!("cannot write the answer: {error}")),
        }
    }
}

/// Where data goes, and in which form.
struct Screen<'o> {
    out: &'o mut dyn Write,
    output: Output,
    /// What a line has room for, if that is known.
    columns: Option<u16>,
}

impl Screen<'_> {
    /// A line for people while a command goes on; programs get only what it ends with.
    fn say(&mut self, line: &str) {
        if matches!(self.output, Output::Table | Output::Wide) {
            // Whoever does not listen any more can still be served.
            drop(writeln!(self.out, "{line}").and_then(|()| self.out.flush()));
        }
    }

    /// [`Self::show`], of which the table is made for the room that there is.
    fn show_fitted<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        table: impl FnOnce(Look, &T) -> String,
    ) -> Result<(), Failure> {
        let look = Look { wide: matches!(self.output, Output::Wide), columns: self.columns };
        self.show(value, |value| table(look, value))
    }

    fn show<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = self.output.render(value, table)?;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
