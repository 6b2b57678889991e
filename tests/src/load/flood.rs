//! A flood of datagrams: as many as wanted, for as long as wanted, and not a moment longer.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::udp;
use crate::interrupt;
use crate::net::Namespace;

/// Datagrams are sent in a batch each such time.
const TICK: Duration = Duration::from_millis(2);

/// After the last datagram, an answer that is so long in coming is not coming.
const LAST_ANSWER: Duration = Duration::from_millis(200);

/// A flood from one source.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Whom it hits: a UDP echo.
    pub target: SocketAddr,
    /// Datagrams a second.
    pub rate: u32,
    /// How long.
    pub duration: Duration,
}

/// What became of a flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that were echoed.
    pub answered: u64,
    /// From the first to the last datagram.
    pub took: Duration,
}

/// A flood that is going on.
#[derive(Debug)]
pub struct Running(JoinHandle<Result<Result<FloodReport>>>);

impl Flood {
    /// Starts the flood from inside a namespace.
    pub fn start(self, namespace: &Namespace) -> Running {
        Running(namespace.spawn(move || self.run()))
    }

    /// Floods from the calling thread's namespace.
    pub fn run(self) -> Result<FloodReport> {
        let socket = udp::connect(self.target).context("cannot open the flood's socket")?;
        socket.set_nonblocking(true)?;
        let begun = Instant::now();
        let mut report = FloodReport::default();
        while begun.elapsed() < self.duration {
            let due = u64::from(self.rate) * begun.elapsed().as_micros() as u64 / 1_000_000;
            report.sent += send(&socket, due.saturating_sub(report.sent))?;
            report.answered += receive(&socket)?;
            interrupt::pause(TICK)?;
        }
        report.took = begun.elapsed();
        report.answered += receive_late(&socket)?;
        Ok(report)
    }
}

impl Running {
    /// Waits for the flood's end, which it knows itself.
    pub fn finish(self) -> Result<FloodReport> {
        self.0.join().map_err(|_| anyhow!("the flood panicked"))??
    }
}

/// Sends up to `count` datagrams, as many as the socket takes.
fn send(socket: &UdpSocket, count: u64) -> io::Result<u64> {
    for sent in 0..count {
        match socket.send(b"flood") {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(sent),
            result => drop(result?),
        }
    }
    Ok(count)
}

/// Counts the answers that are there.
fn receive(socket: &UdpSocket) -> io::Result<u64> {
    let mut buffer = [0; 256];
    let mut count = 0;
    loop {
        match socket.recv(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
            result => drop(result?),
        }
        count += 1;
    }
}

/// Counts answers until none has come for a while.
fn receive_late(socket: &UdpSocket) -> io::Result<u64> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LAST_ANSWER))?;
    let mut buffer = [0; 256];
    let mut count = 0;
    while socket.recv(&mut buffer).is_ok() {
        count += 1;
    }
    Ok(count)
}
