//! Datagrams that expect an answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{REQUEST_TIMEOUT, Report, Request};
use crate::interrupt;
use crate::net::Namespace;

/// Asks a UDP echo.
#[derive(Debug)]
pub struct Asker(UdpSocket);

impl Asker {
    /// A socket of its own, hence a flow of its own, inside a namespace.
    pub fn open(namespace: &Namespace, target: SocketAddr) -> Result<Self> {
        let opened = namespace.run(|| connect(target))?;
        opened.map(Self).with_context(|| format!("cannot ask {target}"))
    }

    /// The same from one of several addresses.
    pub fn open_from(namespace: &Namespace, source: IpAddr, target: SocketAddr) -> Result<Self> {
        let opened = namespace.run(|| connect_from(source, target))?;
        opened.map(Self).with_context(|| format!("{source} cannot ask {target}"))
    }

    /// Sends `question` and returns the name of who echoed it.
    pub fn ask(&self, question: impl AsRef<[u8]>) -> io::Result<String> {
        let question = question.as_ref();
        self.0.send(question)?;
        let mut buffer = vec![0; 64 * 1024];
        let length = self.0.recv(&mut buffer)?;
        let answer = &buffer[..length];
        let space = answer.iter().position(|byte| *byte == b' ').unwrap_or(0);
        if answer.get(space + 1..) == Some(question) {
            return Ok(String::from_utf8_lossy(&answer[..space]).into_owned());
        }
        let answer = String::from_utf8_lossy(&answer[..length.min(80)]);
        let what = format!("the answer to {} bytes is {length} bytes: {answer:?}", question.len());
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// Sends a datagram for which no answer is expected.
    pub fn tell(&self, what: &[u8]) -> io::Result<()> {
        self.0.send(what).map(drop)
    }

    /// The port that it sends from.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.0.local_addr()?.port())
    }

    /// `count` questions one after the other, each from a socket of its own.
    pub fn requests(namespace: &Namespace, target: SocketAddr, count: usize) -> Result<Report> {
        Self::paced(namespace, target, count, Duration::ZERO)
    }

    /// Like [`requests`](Self::requests), with a pause before each question.
    pub fn paced(namespace: &Namespace, target: SocketAddr, count: usize, gap: Duration) -> Result<Report> {
        let mut report = Report::default();
        for number in 0..count {
            interrupt::pause(gap)?;
            let asker = Self::open(namespace, target)?;
            let begun = Instant::now();
            let answer = asker.ask(format!("question {number}")).map_err(|error| error.to_string());
            report.requests.push(Request { begun, answer });
        }
        Ok(report)
    }
}

/// A connected socket in the calling thread's namespace.
pub(super) fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    connect_from(any, target)
}

fn connect_from(source: IpAddr, target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((source, 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    Ok(socket)
}
