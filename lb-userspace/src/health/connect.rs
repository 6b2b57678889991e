//! One check: a TCP connection that is opened and closed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout};

/// What one check found out about a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The backend accepted the connection.
    Connected {
        /// From the first packet to the acceptance.
        took: Duration,
    },
    /// It did not, or it could not be reached.
    Failed {
        /// `refused`, `timed out after 500 ms`, `no route to host` and the like.
        reason: String,
        /// From the first packet to the failure.
        took: Duration,
    },
}

impl CheckOutcome {
    /// Whether the check passed.
    pub fn passed(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}

/// `connected in 0.4 ms`, `refused`, `timed out after 500 ms`.
impl fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { took } => write!(f, "connected in {:.1} ms", took.as_secs_f64() * 1000.0),
            Self::Failed { reason, .. } => f.write_str(reason),
        }
    }
}

/// Makes one check; `None` if this host lacked the means for it, which says nothing about the backend.
pub(super) async fn check(address: SocketAddr, limit: Duration) -> Option<CheckOutcome> {
    let start = Instant::now();
    let result = timeout(limit, connect(address)).await;
    let took = start.elapsed();
    let reason = match result {
        Ok(Ok(())) => return Some(CheckOutcome::Connected { took }),
        Ok(Err(error)) if is_own_shortage(&error) => {
            tracing::warn!(%address, %error, "a health check was skipped");
            return None;
        }
        Ok(Err(error)) => reason(&error),
        Err(_) => format!("timed out after {} ms", limit.as_millis()),
    };
    Some(CheckOutcome::Failed { reason, took })
}

async fn connect(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Closed by a reset, the connection leaves no TIME_WAIT behind on either side.
    socket.set_zero_linger()?;
    socket.connect(address).await.map(drop)
}

/// Out of file descriptors or memory: trouble of this host alone.
fn is_own_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

fn reason(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => "refused".to_owned(),
        Some(Errno::CONNRESET) => "reset".to_owned(),
        Some(Errno::HOSTUNREACH) => "no route to host, or the host does not answer".to_owned(),
        Some(Errno::NETUNREACH) => "no route to its network".to_owned(),
        Some(Errno::ADDRNOTAVAIL) => "no address or port of this host to connect from".to_owned(),
        Some(Errno::TIMEDOUT) => "timed out".to_owned(),
        Some(Errno::PERM | Errno::ACCESS) => "blocked by this host's firewall or routes".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn listen(backlog: u32) -> (tokio::net::TcpListener, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(backlog).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_listener_passes_and_sees_a_reset() {
        let (listener, address) = listen(8);
        let outcome = check(address, LIMIT).await.unwrap();
        assert!(outcome.passed(), "{outcome}");
        let (connection, _) = listener.accept().await.unwrap();
        connection.readable().await.unwrap();
        let read = connection.try_read(&mut [0; 1]);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let (listener, address) = listen(8);
        drop(listener);
        let outcome = check(address, LIMIT).await.unwrap();
        assert_eq!(outcome.to_string(), "refused");
    }

    #[tokio::test]
    async fn silence_times_out() {
        // A backlog of zero has room for one connection; the kernel ignores who comes next.
        let (_listener, address) = listen(0);
        let _guest = tokio::net::TcpStream::connect(address).await.unwrap();
        let outcome = check(address, Duration::from_millis(50)).await.unwrap();
        assert_eq!(outcome.to_string(), "timed out after 50 ms");
        let CheckOutcome::Failed { took, .. } = outcome else { panic!("it did not fail") };
        assert!((Duration::from_millis(50)..LIMIT).contains(&took), "{took:?}");
    }

    #[test]
    fn outcomes_read_well() {
        let took = Duration::from_micros(430);
        assert_eq!(CheckOutcome::Connected { took }.to_string(), "connected in 0.4 ms");
        assert_eq!(reason(&Errno::HOSTUNREACH.into()), "no route to host, or the host does not answer");
    }

    #[test]
    fn own_shortages_are_no_failures_of_the_backend() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS] {
            assert!(is_own_shortage(&errno.into()), "{errno}");
        }
        for errno in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::ADDRNOTAVAIL] {
            assert!(!is_own_shortage(&errno.into()), "{errno}");
        }
    }
}
