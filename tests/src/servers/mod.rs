//! Small servers that say who they are: HTTP/1.1, a TCP echo and a UDP echo. They need nothing to be installed.

mod echo;
mod http;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, thread};

use anyhow::{Context, Result, bail};

use crate::net::{Namespace, Node, VIP4, VIP6};
use crate::process::Process;

/// Where HTTP is served.
pub const HTTP_PORT: u16 = 80;
/// Where TCP and UDP are echoed (RFC 862).
pub const ECHO_PORT: u16 = 7;

/// How much further up a backend of mode `nat` serves the same on its own addresses.
pub const NAT_OFFSET: u16 = 8000;

/// Where health checks connect that are to fail by themselves, without anything happening to the service.
pub const PULSE_PORT: u16 = 81;

/// A connection on which nothing happens for so long is closed.
const IDLE: Duration = Duration::from_mins(5);
const START: Duration = Duration::from_secs(10);

/// What to serve, and as whom.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Serve {
    /// The name to answer with
    #[arg(long)]
    pub name: String,
    /// Serve HTTP here
    #[arg(long)]
    pub http: Vec<SocketAddr>,
    /// Say the name, then echo TCP here
    #[arg(long)]
    pub tcp_echo: Vec<SocketAddr>,
    /// Echo UDP here, with the name in front
    #[arg(long)]
    pub udp_echo: Vec<SocketAddr>,
}

impl Serve {
    /// What a backend of the lab serves. TCP listens everywhere; a UDP reply leaves from the address that its socket
    /// is bound to, so there is a socket for each VIP and each address of its own.
    pub fn backend(node: Node) -> Self {
        let everywhere =
            |port| [port, port + NAT_OFFSET].map(|port| SocketAddr::from(([0u16; 8], port))).to_vec();
        let vips = [(VIP4, ECHO_PORT).into(), (VIP6, ECHO_PORT).into()];
        let own = [ECHO_PORT, ECHO_PORT + NAT_OFFSET]
            .map(|port| [(node.ipv4(), port).into(), (node.ipv6(), port).into()]);
        Self {
            name: node.to_string(),
            http: everywhere(HTTP_PORT),
            tcp_echo: everywhere(ECHO_PORT),
            udp_echo: [vips, own[0], own[1]].concat(),
        }
    }

    /// What only health checks connect to.
    pub fn pulse(node: Node) -> Self {
        let http = vec![SocketAddr::from(([0u16; 8], PULSE_PORT))];
        Self { name: node.to_string(), http, ..Self::default() }
    }

    /// Starts `lb-lab serve` in a namespace and waits until it listens.
    pub fn start(&self, lab_program: &Path, namespace: &Namespace, log: &Path) -> Result<Process> {
        let mut command = namespace.command(lab_program);
        command.args(["serve", "--name", &self.name]);
        let lists = [("--http", &self.http), ("--tcp-echo", &self.tcp_echo), ("--udp-echo", &self.udp_echo)];
        for (option, addresses) in lists {
            for address in addresses {
                command.arg(option).arg(address.to_string());
            }
        }
        Process::spawn_ready(&format!("the servers of {}", self.name), command, log, START)
    }

    /// Binds everything, says so on standard output, and serves until the process is killed.
    pub fn run(&self) -> Result<()> {
        let name: Arc<str> = self.name.as_str().into();
        let http = bind(&self.http, TcpListener::bind)?;
        let tcp = bind(&self.tcp_echo, TcpListener::bind)?;
        let udp = bind(&self.udp_echo, UdpSocket::bind)?;
        if http.is_empty() && tcp.is_empty() && udp.is_empty() {
            bail!("nothing to serve: give --http, --tcp-echo or --udp-echo");
        }
        println!("{name} is ready");
        io::stdout().flush().context("cannot say that it is ready")?;
        thread::scope(|scope| {
            for listener in &http {
                scope.spawn(|| accept(listener, &name, http::converse));
            }
            for listener in &tcp {
                scope.spawn(|| accept(listener, &name, echo::converse));
            }
            for socket in &udp {
                scope.spawn(|| echo::datagrams(socket, &name));
            }
        });
        Ok(())
    }
}

fn bind<S>(addresses: &[SocketAddr], bind: impl Fn(SocketAddr) -> io::Result<S>) -> Result<Vec<S>> {
    addresses
        .iter()
        .map(|&address| bind(address).with_context(|| format!("cannot listen on {address}")))
        .collect()
}

/// Serves each connection on a thread of its own.
fn accept(listener: &TcpListener, name: &Arc<str>, converse: fn(TcpStream, &str) -> io::Result<()>) {
    for stream in listener.incoming() {
        let name = Arc::clone(name);
        match stream {
            Ok(stream) => drop(thread::spawn(move || report(&name, serve_one(stream, &name, converse)))),
            Err(error) => report(&name, Err(error)),
        }
    }
}

fn serve_one(
    stream: TcpStream,
    name: &str,
    converse: fn(TcpStream, &str) -> io::Result<()>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    converse(stream, name)
}

/// A connection that breaks is a client's right; the log may know of it.
fn report(name: &impl fmt::Display, result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("{name}: {error}");
    }
}
