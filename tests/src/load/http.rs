//! As much of an HTTP/1.1 client (RFC 9112) as asking for a name needs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result};

use super::{REQUEST_TIMEOUT, Report, Request};
use crate::interrupt;
use crate::net::Namespace;

/// An answer longer than this is not from one of our servers.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// A connection that asks again and again.
#[derive(Debug)]
pub struct KeepAlive {
    reader: BufReader<TcpStream>,
    host: SocketAddr,
}

impl KeepAlive {
    /// Connects from inside a namespace.
    pub fn open(namespace: &Namespace, target: SocketAddr) -> Result<Self> {
        let connected = namespace.run(|| Self::connect(target))?;
        connected.with_context(|| format!("cannot connect to {target}"))
    }

    /// Connects from the calling thread's namespace.
    pub fn connect(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, REQUEST_TIMEOUT)?;
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream), host: target })
    }

    /// Asks for `/`; the answer's body without its line end.
    pub fn ask(&mut self) -> io::Result<String> {
        Ok(self.exchange("/", "keep-alive")?.trim_end().to_owned())
    }

    fn exchange(&mut self, path: &str, connection: &str) -> io::Result<String> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n", self.host);
        self.reader.get_mut().write_all(request.as_bytes())?;
        read_answer(&mut self.reader)
    }
}

/// Fetches a page over a connection of its own, from the calling thread's namespace.
pub fn get(target: SocketAddr, path: &str) -> io::Result<String> {
    KeepAlive::connect(target)?.exchange(path, "close")
}

/// `count` requests one after the other, each over a connection of its own.
pub fn requests(namespace: &Namespace, target: SocketAddr, count: usize) -> Result<Report> {
    namespace.run(|| {
        let mut report = Report::default();
        for _ in 0..count {
            interrupt::check()?;
            report.requests.push(one_request(target));
        }
        Ok(report)
    })?
}

/// One request over a connection of its own, from the calling thread's namespace.
pub(super) fn one_request(target: SocketAddr) -> Request {
    let begun = Instant::now();
    let answer = get(target, "/").map(|name| name.trim_end().to_owned()).map_err(|error| error.to_string());
    Request { begun, answer }
}

fn read_answer(reader: &mut impl BufRead) -> io::Result<String> {
    let status = read_line(reader)?;
    if status.split(' ').nth(1) != Some("200") {
        return Err(invalid(format!("the server said {status:?}")));
    }
    let mut length = None;
    loop {
        let line = read_line(reader)?.to_ascii_lowercase();
        match line.split_once(':') {
            _ if line.is_empty() => return read_body(reader, length),
            Some(("content-length", value)) => length = value.trim().parse().ok(),
            _ => {}
        }
    }
}

/// A body of the announced length, else all there is until the server closes.
fn read_body(reader: &mut impl BufRead, length: Option<usize>) -> io::Result<String> {
    let mut body = Vec::new();
    reader.take(length.unwrap_or(LONGEST_ANSWER).min(LONGEST_ANSWER) as u64).read_to_end(&mut body)?;
    if length.is_some_and(|length| body.len() < length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    String::from_utf8(body).map_err(|_| invalid("the answer is not text".to_owned()))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.take(LONGEST_ANSWER as u64).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<String> {
        read_answer(&mut text.as_bytes())
    }

    #[test]
    fn a_body_is_read_to_its_announced_length() {
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab--").unwrap(), "ab");
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\nall").unwrap(), "all");
    }

    #[test]
    fn broken_answers_are_errors() {
        for text in ["", "HTTP/1.1 503 No\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
