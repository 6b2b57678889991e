//! Where a daemon is, and how it is trusted and convinced.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Uri;
use hyper::header::HeaderValue;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::pem::{PemError, authorities, read_certificates, read_key};

/// The authorities that a Debian host trusts (package ca-certificates).
const HOST_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where a daemon is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Socket(PathBuf),
    Remote(Arc<Remote>),
}

impl Place {
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Socket(_) => "lb",
            Self::Remote(remote) => &remote.authority,
        }
    }

    pub(super) fn bearer(&self) -> Option<&HeaderValue> {
        match self {
            Self::Socket(_) => None,
            Self::Remote(remote) => remote.bearer.as_ref(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Remote(remote) => write!(f, "https://{}", remote.authority),
        }
    }
}

/// Whom to believe, and with what to be believed. Files are PEM, but for the token's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Authorities of daemons; those that the host trusts if absent.
    pub authorities: Option<PathBuf>,
    /// A bearer token, alone in its file.
    pub token: Option<PathBuf>,
    /// A client's certificate, and its private key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Why a daemon elsewhere cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The URL is none of this API.
    #[error("{url:?} is no https://HOST:PORT; only TLS keeps tokens secret")]
    Url {
        /// What was given.
        url: String,
    },
    /// A file of PEM cannot be used.
    #[error(transparent)]
    File(#[from] PemError),
    /// There is no token in the file.
    #[error("the token file {} {reason}", file.display())]
    Token {
        /// The file.
        file: PathBuf,
        /// What is wrong with it; nothing of what is in it.
        reason: String,
    },
    /// The certificate and its key, or the authorities, cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// A daemon that is reached over TLS.
#[derive(Debug)]
pub struct Remote {
    authority: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    /// Marked as sensitive: no debug output has it.
    bearer: Option<HeaderValue>,
}

impl Remote {
    /// A daemon at `https://HOST[:PORT]`; nothing is connected before the first call.
    pub fn new(url: &str, trust: &Trust) -> Result<Self, RemoteError> {
        let wrong = || RemoteError::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let (Some(authority), Some("https"), "/", None) =
            (authority, uri.scheme_str(), uri.path(), uri.query())
        else {
            return Err(wrong());
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let port = authority.port_u16().unwrap_or(443);
        let bearer = trust.token.as_deref().map(read_token).transpose()?;
        Ok(Self { authority: authority.to_string(), host, port, name, config: config(trust)?, bearer })
    }

    pub(super) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), stream).await
    }
}

fn config(trust: &Trust) -> Result<Arc<ClientConfig>, RemoteError> {
    let roots = if let Some(file) = &trust.authorities {
        authorities([file])?
    } else {
        let mut roots = RootCertStore::empty();
        // One that cannot be used is no reason not to trust the others.
        let _ = roots.add_parsable_certificates(read_certificates(HOST_AUTHORITIES.as_ref())?);
        roots.into()
    };
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match &trust.certificate {
        Some((certificate, key)) => {
            config.with_client_auth_cert(read_certificates(certificate)?, read_key(key)?)?
        }
        None => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn read_token(file: &Path) -> Result<HeaderValue, RemoteError> {
    let wrong = |reason: String| RemoteError::Token { file: file.to_owned(), reason };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let token = text.trim();
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
        .ok()
        .filter(|_| !token.is_empty() && !token.contains(char::is_whitespace))
        .ok_or_else(|| wrong("does not hold one token and nothing else".to_owned()))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, trust: &Trust) -> String {
        Remote::new(url, trust).unwrap_err().to_string()
    }

    #[test]
    fn only_https_and_only_a_host_is_a_place() {
        for url in ["http://h:1", "h:1", "https://h/v1", "https://u:p@h", "https://h?x", "", "https://"] {
            assert!(refused(url, &Trust::default()).ends_with("only TLS keeps tokens secret"), "{url}");
        }
    }

    #[test]
    fn a_token_is_read_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_token(&file)
        };
        let bearer = read("hunter2\n").unwrap();
        assert_eq!(bearer.to_str().unwrap(), "Bearer hunter2");
        assert!(!format!("{bearer:?}").contains("hunter2"));
        for wrong in ["", "\n", "hunter2 hunter3", "hunter2\nhunter3", "hunter2\0"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.ends_with("does not hold one token and nothing else"), "{error}");
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn files_that_are_no_pem_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let trust = Trust { authorities: Some(file.clone()), ..Trust::default() };
        let place = file.display();
        let absent = refused("https://h", &trust);
        assert_eq!(absent, format!("cannot read {place}: No such file or directory (os error 2)"));
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n").unwrap();
        let garbled = refused("https://h", &trust);
        assert_eq!(garbled, format!("{place} cannot be used: invalid peer certificate: BadEncoding"));
        std::fs::write(&file, "hunter2").unwrap();
        assert_eq!(refused("https://h", &trust), format!("{place} holds no certificate in PEM"));
    }
}
