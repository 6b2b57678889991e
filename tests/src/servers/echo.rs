//! Echo with a signature.

use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};

/// Says the name on a line of its own, then returns what comes.
pub(super) fn converse(mut stream: TcpStream, name: &str) -> io::Result<()> {
    writeln!(stream, "{name}")?;
    let mut reader = stream.try_clone()?;
    io::copy(&mut reader, &mut stream).map(drop)
}

/// Returns each datagram with the name and a space in front.
pub(super) fn datagrams(socket: &UdpSocket, name: &str) {
    let mut datagram = vec![0; 64 * 1024];
    loop {
        let answered = socket.recv_from(&mut datagram).and_then(|(length, sender)| {
            socket.send_to(&[name.as_bytes(), b" ", &datagram[..length]].concat(), sender)
        });
        if let Err(error) = answered {
            // An ICMP error about an earlier answer arrives here; the next datagram is none the worse for it.
            eprintln!("{name}: {error}");
        }
    }
}
