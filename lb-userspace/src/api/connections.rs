//! Connections: who is at their other end, how many there may be, and how long they may take.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use crate::config::Role;

/// Connections of one listener at a time; more wait until the kernel's queue is full too.
const MOST: usize = 512;

/// The most bytes of a request before its body; with more it is answered 431.
const MOST_OF_A_HEAD: usize = 32 << 10;
/// How long a request's head may take, and a connection may wait for one.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take none of its answer.
const READER_PATIENCE: Duration = Duration::from_secs(10);

/// What requests under way get when the daemon stops.
const GRACE: Duration = Duration::from_secs(1);

/// Between attempts to accept when the process has no descriptors left.
const BREATH: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process of this host, as the kernel vouches for it (`SO_PEERCRED`, unix(7)).
    Local {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// The process, if it is in a namespace that this one sees.
        pid: Option<i32>,
    },
    /// Anybody who reaches the address.
    Remote {
        /// Where he seems to be.
        address: SocketAddr,
        /// What his certificate is worth, if he has one.
        certificate: Option<Certified>,
    },
}

/// A client's certificate that an authority has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    /// What its authority makes of him.
    pub(crate) role: Role,
    /// The beginning of its SHA-256, which tells it from others in logs.
    pub(crate) mark: u64,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local { uid, pid: Some(pid), .. } => write!(f, "uid {uid} pid {pid}"),
            Self::Local { uid, pid: None, .. } => write!(f, "uid {uid}"),
            Self::Remote { address, certificate: Some(Certified { mark, .. }) } => {
                write!(f, "{address} certificate {mark:016x}")
            }
            Self::Remote { address, certificate: None } => address.fmt(f),
        }
    }
}

/// A listening socket.
pub(crate) trait Door: Send {
    /// Who has knocked.
    type Guest: Send + 'static;
    /// What is spoken over.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection. Cancel safe.
    fn open(&self) -> impl Future<Output = io::Result<Self::Guest>> + Send;

    /// Finds out who it is; that may take as long as the guest likes.
    fn greet(guest: Self::Guest) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Door for UnixListener {
    type Guest = UnixStream;
    type Stream = UnixStream;

    async fn open(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }

    async fn greet(stream: UnixStream) -> io::Result<(UnixStream, Peer)> {
        let credentials = stream.peer_cred()?;
        let peer = Peer::Local { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
        Ok((stream, peer))
    }
}

impl Door for TcpListener {
    type Guest = (TcpStream, SocketAddr);
    type Stream = TcpStream;

    async fn open(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }

    async fn greet((stream, address): Self::Guest) -> io::Result<(TcpStream, Peer)> {
        Ok((stream, Peer::Remote { address, certificate: None }))
    }
}

/// Serves `router` until `shutdown` completes and the requests under way are answered or [`GRACE`] is over. Each request has
/// the [`Peer`] among its extensions.
pub(crate) async fn serve_http<D: Door>(door: D, router: Router, shutdown: impl Future<Output = ()> + Send) {
    let mut shutdown = pin!(shutdown);
    // Connections look at it, and it is closed when none of them is left.
    let (stop, stopped) = watch::channel(());
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let entered = async {
            // Never closed, so there is always one in the end.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, door.open().await)
        };
        let (place, opened) = tokio::select! {
            entered = entered => entered,
            () = &mut shutdown => break,
        };
        match opened {
            Ok(guest) => {
                let (stopped, router) = (stopped.clone(), router.clone());
                tokio::spawn(async move {
                    match timeout(HEAD_PATIENCE, D::greet(guest)).await {
                        Ok(Ok((stream, peer))) => serve_connection(stream, peer, router, stopped).await,
                        Ok(Err(error)) => tracing::debug!("a client gave up, or was given up: {error}"),
                        Err(_) => tracing::debug!("a client did not say who it is within {HEAD_PATIENCE:?}"),
                    }
                    drop(place);
                });
            }
            // Clients that are gone already are no reason to wait; descriptors come back when other clients go.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::debug!("accept: {error}");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    // A client that never ends its request must not keep the daemon from stopping.
    drop(stopped);
    stop.send_replace(());
    if timeout(GRACE, stop.closed()).await.is_err() {
        tracing::warn!("clients still connected were cut off");
    }
}

/// Serves one connection until its client has had enough, or the request under way is answered when the daemon stops.
///
/// What goes wrong on it is its client's business.
async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    router: Router,
    mut stopped: watch::Receiver<()>,
) {
    let service = router.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        request
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(READER_PATIENCE));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MOST_OF_A_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    /// A server of one long page, and a client of it. It stops when the sender goes.
    async fn served() -> (tempfile::TempDir, UnixStream, oneshot::Sender<()>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().route("/", get(async || "x".repeat(16 << 20)));
        tokio::spawn(serve_http(listener, router, async { drop(stopped.await) }));
        (folder, UnixStream::connect(&path).await.unwrap(), stop)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_say_what_he_wants_is_cut_off() {
        for said in ["", "GET / HTTP/1.1\r\nHost: lb\r\n"] {
            let (_folder, mut client, _stop) = served().await;
            client.write_all(said.as_bytes()).await.unwrap();
            let begun = Instant::now();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            let waited = begun.elapsed();
            assert!(waited >= HEAD_PATIENCE && waited < 2 * HEAD_PATIENCE, "{said:?}: {waited:?}");
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_reads_his_answer_is_cut_off() {
        let (_folder, mut client, _stop) = served().await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: lb\r\n\r\n").await.unwrap();
        let mut first = [0; 15];
        client.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        tokio::time::sleep(2 * READER_PATIENCE).await;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() < 16 << 20, "all of it has come");
    }

    #[tokio::test]
    async fn a_peer_is_who_the_kernel_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).await.unwrap();
        let guest = listener.open().await.unwrap();
        let (_, peer) = UnixListener::greet(guest).await.unwrap();
        let [uid, gid] = [nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()];
        let pid = std::process::id().cast_signed();
        assert_eq!(peer, Peer::Local { uid, gid, pid: Some(pid) });
        assert_eq!(peer.to_string(), format!("uid {uid} pid {pid}"));
    }
}
