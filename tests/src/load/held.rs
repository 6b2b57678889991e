//! TCP connections that stay open and ask now and then.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::REQUEST_TIMEOUT;
use crate::net::Namespace;

/// A connection to a TCP echo that says its name first.
#[derive(Debug)]
pub struct Held {
    reader: BufReader<TcpStream>,
    backend: String,
}

impl Held {
    /// Connects from inside a namespace and waits for the name of who answers.
    pub fn open(namespace: &Namespace, target: SocketAddr) -> Result<Self> {
        let mut opened = Self::open_many(namespace, target, 1)?;
        opened.pop().context("one connection was opened")
    }

    /// Opens `count` connections one after the other.
    pub fn open_many(namespace: &Namespace, target: SocketAddr, count: usize) -> Result<Vec<Self>> {
        let opened: io::Result<Vec<Self>> =
            namespace.run(|| (0..count).map(|_| Self::connect(target)).collect())?;
        opened.with_context(|| format!("cannot hold a connection to {target}"))
    }

    fn connect(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, REQUEST_TIMEOUT)?;
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::with_capacity(64, stream);
        let mut name = String::new();
        reader.read_line(&mut name)?;
        Ok(Self { reader, backend: name.trim_end().to_owned() })
    }

    /// The name of its backend.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Where its packets come from.
    pub fn source(&self) -> io::Result<SocketAddr> {
        self.reader.get_ref().local_addr()
    }

    /// Sends a byte and waits until it comes back.
    pub fn ask(&mut self) -> io::Result<()> {
        let mut answer = [0];
        self.reader.get_mut().write_all(b"?")?;
        self.reader.read_exact(&mut answer)?;
        if answer == *b"?" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// Lets this process and those that it will start open as many files as the system lets it.
pub fn allow_many_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot raise the limit of open files")
}
