//! The API over the network: TLS, and whoever has proved to be somebody.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use super::connections::{Door, Peer, serve_http};
use super::credentials::{Credentials, CredentialsError, Tls};
use super::{Shared, router};
use crate::config::ApiSettings;

/// Why the API cannot be served over the network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The address cannot be had.
    #[error(
        "cannot serve the API on {address}: {source}; `ss -ltnp` tells who has it, [daemon.api] listen chooses another"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// A listening socket behind which TLS is spoken.
#[derive(Debug)]
pub struct Network {
    listener: TcpListener,
    credentials: Arc<Credentials>,
}

impl Network {
    /// Reads the credentials and binds the address.
    pub async fn open(settings: ApiSettings) -> Result<Self, NetworkError> {
        let address = settings.listen;
        let credentials = Arc::new(Credentials::load(settings)?);
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| NetworkError::Bind { address, source })?;
        Ok(Self { listener, credentials })
    }

    /// Serves the API until `shutdown` completes.
    pub async fn serve(self, control: Shared, shutdown: impl Future<Output = ()> + Send) {
        let router = router(control, Some(Arc::clone(&self.credentials)));
        serve_http(self, router, shutdown).await;
    }
}

impl Door for Network {
    type Guest = (TcpStream, SocketAddr, Arc<Tls>);
    type Stream = TlsStream<TcpStream>;

    async fn open(&self) -> io::Result<Self::Guest> {
        let (stream, address) = self.listener.accept().await?;
        Ok((stream, address, self.credentials.tls()))
    }

    async fn greet((stream, address, tls): Self::Guest) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        // Answers are small; one that waits for another packet would be late.
        stream.set_nodelay(true)?;
        let stream = tls.acceptor().accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| tls.judge(chain));
        Ok((stream, Peer::Remote { address, certificate }))
    }
}

#[cfg(test)]
mod tests;
