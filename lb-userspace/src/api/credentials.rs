//! Who may come over the network: the daemon's certificate, the authorities of its clients' certificates, and the tokens, all
//! from files that are read again when they change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;

use super::connections::Certified;
use crate::config::{ApiSettings, ConfigError, Role, Token, TokenDigest, read_tokens};
use crate::pem::{PemError, authorities, read_certificates, read_key};

/// How long a change of a file may stay unseen.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a file of credentials cannot be used. No message has anything of what is in a file.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A certificate or a key cannot.
    #[error("{0}; [daemon.api] names it")]
    Pem(#[from] PemError),
    /// The tokens have mistakes.
    #[error(transparent)]
    Tokens(#[from] ConfigError),
}

/// What the files of `[daemon.api]` say now.
#[derive(Debug)]
pub(super) struct Credentials {
    settings: ApiSettings,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    looked: Instant,
    stamps: Vec<Option<Stamp>>,
    tls: Arc<Tls>,
    tokens: Arc<[Token]>,
}

/// Tells one content of a file from another, as far as one may know without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
        }
    }
}

/// How connections are encrypted, and what their clients' certificates are worth.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    writers: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// The way into the connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config).into()
    }

    /// What the certificates that a client has proved to have are worth.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>]) -> Option<Certified> {
        let (own, between) = chain.split_first()?;
        let may_write = self
            .writers
            .as_ref()
            .is_some_and(|writers| writers.verify_client_cert(own, between, UnixTime::now()).is_ok());
        let digest: TokenDigest = Sha256::digest(own).into();
        let mark = digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        Some(Certified { role: if may_write { Role::Writer } else { Role::Reader }, mark })
    }
}

impl Credentials {
    /// Reads all files.
    pub(super) fn load(settings: ApiSettings) -> Result<Self, CredentialsError> {
        // Before they are read: what changes meanwhile is read once more.
        let stamps = stamps(&settings);
        let (tls, tokens) = read(&settings)?;
        Ok(Self { settings, last: Mutex::new(Last { looked: Instant::now(), stamps, tls, tokens }) })
    }

    /// How the next connection is encrypted.
    pub(super) fn tls(&self) -> Arc<Tls> {
        self.now(|last| Arc::clone(&last.tls))
    }

    /// The token of this text, if there is one; it may have expired.
    ///
    /// Digests are compared, and how long that takes says nothing of a token.
    pub(super) fn token(&self, text: &[u8]) -> Option<Token> {
        let digest: TokenDigest = Sha256::digest(text).into();
        let tokens = self.now(|last| Arc::clone(&last.tokens));
        tokens.iter().find(|token| token.digest == digest).cloned()
    }

    /// Whether there are tokens at all.
    pub(super) fn takes_tokens(&self) -> bool {
        self.settings.tokens.is_some()
    }

    /// Looks at five small files at most, once in [`LOOK_AGAIN`]: nothing that a thread of the runtime would notice.
    fn now<T>(&self, wanted: impl FnOnce(&Last) -> T) -> T {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.looked.elapsed() >= LOOK_AGAIN {
            last.looked = Instant::now();
            let stamps = stamps(&self.settings);
            if stamps != last.stamps {
                last.stamps = stamps;
                match read(&self.settings) {
                    Ok((tls, tokens)) => {
                        (last.tls, last.tokens) = (tls, tokens);
                        tracing::info!("the credentials of [daemon.api] have been read again");
                    }
                    Err(error) => tracing::warn!("{error}; the credentials before are still in force"),
                }
            }
        }
        wanted(&last)
    }
}

fn stamps(settings: &ApiSettings) -> Vec<Option<Stamp>> {
    let ApiSettings { listen: _, certificate, key, tokens, writers, readers } = settings;
    let files = [Some(certificate), Some(key), tokens.as_ref(), writers.as_ref(), readers.as_ref()];
    let stamp = |file: &PathBuf| std::fs::metadata(file).ok().map(|metadata| Stamp::of(&metadata));
    files.into_iter().flatten().map(stamp).collect()
}

fn read(settings: &ApiSettings) -> Result<(Arc<Tls>, Arc<[Token]>), CredentialsError> {
    let tokens = settings.tokens.as_ref().map_or(Ok(Vec::new()), |file| read_tokens(file))?;
    let ApiSettings { writers, readers, .. } = settings;
    let clients = match writers.as_ref().or(readers.as_ref()) {
        Some(first) => {
            let all = authorities([writers, readers].into_iter().flatten())?;
            let verifier = WebPkiClientVerifier::builder_with_provider(all, ring::default_provider().into());
            verifier.allow_unauthenticated().build().map_err(PemError::useless(first))?
        }
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let writers = writers.as_ref().map(|file| {
        let provider = ring::default_provider().into();
        let verifier = WebPkiClientVerifier::builder_with_provider(authorities([file])?, provider);
        verifier.build().map_err(PemError::useless(file))
    });
    let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(PemError::useless(&settings.certificate))?
        .with_client_cert_verifier(clients)
        .with_single_cert(read_certificates(&settings.certificate)?, read_key(&settings.key)?)
        .map_err(PemError::useless(&settings.certificate))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = Tls { config: config.into(), writers: writers.transpose()? };
    Ok((tls.into(), tokens.into()))
}
