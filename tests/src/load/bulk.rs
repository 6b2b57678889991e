//! Much over one TCP connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::net::Namespace;

/// Whoever is silent for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends `length` bytes to a TCP echo over one connection and gets all of them back.
pub fn echoes_much(client: &Namespace, target: SocketAddr, length: usize) -> Result<()> {
    let mut stream = client.run(|| TcpStream::connect_timeout(&target, PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let sent: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
    let mut received = Vec::new();
    let (read, written) = thread::scope(|scope| {
        let mut writer = stream.try_clone()?;
        let writing = scope.spawn({
            let sent = &sent;
            move || writer.write_all(sent).and_then(|()| writer.shutdown(Shutdown::Write))
        });
        let read = stream.read_to_end(&mut received);
        Ok::<_, anyhow::Error>((read, writing.join().map_err(|_| anyhow!("the writer panicked"))?))
    })?;
    read.with_context(|| format!("{} of {length} bytes were read back", received.len()))?;
    written.with_context(|| format!("{} of {length} bytes were read back", received.len()))?;
    let name_length = received.iter().position(|byte| *byte == b'\n').context("no name")? + 1;
    ensure!(received[name_length..] == sent[..], "{} bytes came back wrong", received.len());
    Ok(())
}
