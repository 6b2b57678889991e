//! Echo requests by the kernel's ping sockets, which see to identifiers and checksums.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, connect, ipproto, recv, send, socket};

use super::REQUEST_TIMEOUT;
use crate::net::Namespace;

/// Kinds of requests (RFC 792, RFC 4443).
const REQUEST4: u8 = 8;
const REQUEST6: u8 = 128;
/// Kinds of their answers.
const REPLY4: u8 = 0;
const REPLY6: u8 = 129;

/// Pings an address from inside a namespace, with so many bytes of data, and waits for the answer.
pub fn ping(namespace: &Namespace, target: IpAddr, length: usize) -> Result<()> {
    let answer = namespace.run(|| exchange(target, length))?;
    let (request, answer) = answer.with_context(|| format!("{target} does not answer"))?;
    let expected = if target.is_ipv4() { REPLY4 } else { REPLY6 };
    // In between there are checksum and identifier.
    let same = answer.first() == Some(&expected) && answer.get(6..) == request.get(6..);
    ensure!(same, "the answer of {target} to {length} bytes is {answer:?}");
    Ok(())
}

fn exchange(target: IpAddr, length: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (family, protocol, kind) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, REQUEST4),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, REQUEST6),
    };
    let socket = socket(family, SocketType::DGRAM, Some(protocol))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(REQUEST_TIMEOUT))?;
    connect(&socket, &SocketAddr::new(target, 0))?;
    let mut request = vec![kind, 0, 0, 0, 0, 0, 0, 1];
    request.extend((0..length).map(|at| at as u8));
    send(&socket, &request, SendFlags::empty())?;
    let mut answer = vec![0; 64 * 1024];
    let (received, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    answer.truncate(received);
    Ok((request, answer))
}
