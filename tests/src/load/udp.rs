//! Datagrams that expect an answer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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

    /// Sends `question` and returns the name of who echoed it.
    pub fn ask(&self, question: &str) -> io::Result<String> {
        self.0.send(question.as_bytes())?;
        let mut buffer = vec![0; 64 * 1024];
        let length = self.0.recv(&mut buffer)?;
        let answer = String::from_utf8_lossy(&buffer[..length]);
        match answer.split_once(' ') {
            Some((name, echo)) if echo == question => Ok(name.to_owned()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the answer is {answer:?}"))),
        }
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
            let answer = asker.ask(&format!("question {number}")).map_err(|error| error.to_string());
            report.requests.push(Request { begun, answer });
        }
        Ok(report)
    }
}

/// A connected socket in the calling thread's namespace.
pub(super) fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    Ok(socket)
}
