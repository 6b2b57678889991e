//! As much of HTTP/1.1 (RFC 9112) as answering any request with a name needs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// A request head longer than this is not from one of our clients.
const LONGEST_HEAD: u64 = 16 * 1024;

/// Answers requests until the client closes or asks for it.
pub(super) fn converse(stream: TcpStream, name: &str) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(keep_alive) = read_head(&mut reader)? {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let length = name.len() + 1;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n");
        writer.write_all(format!("{head}Connection: {connection}\r\n\r\n{name}\n").as_bytes())?;
        if !keep_alive {
            break;
        }
    }
    Ok(())
}

/// Reads one request without a body. Whether the connection shall stay open; `None` if the client closed it.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<bool>> {
    let mut head = reader.take(LONGEST_HEAD);
    let mut request = String::new();
    if head.read_line(&mut request)? == 0 {
        return Ok(None);
    }
    let mut keep_alive = request.trim_end().ends_with("HTTP/1.1");
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(':') {
            _ if line.is_empty() => return Ok(Some(keep_alive)),
            Some(("connection", value)) => keep_alive = value.trim() == "keep-alive",
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_open_unless_the_client_says_otherwise() {
        let read = |text: &str| read_head(&mut text.as_bytes()).unwrap();
        assert_eq!(read("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Some(true));
        assert_eq!(read("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"), Some(false));
        assert_eq!(read("GET / HTTP/1.0\r\n\r\n"), Some(false));
        assert_eq!(read(""), None);
    }

    #[test]
    fn half_a_request_is_an_error() {
        assert!(read_head(&mut "GET / HTTP/1.1\r\nHost".as_bytes()).is_err());
    }
}
