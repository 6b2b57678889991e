//! Certificates and keys in files of PEM (RFC 7468), for both ends of TLS. No message has anything of what is in a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} holds no {what} in PEM", file.display())]
    Without {
        /// The file.
        file: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// It holds something that cannot be used.
    #[error("{} cannot be used: {reason}", file.display())]
    Useless {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl PemError {
    fn reading(file: &Path, what: &'static str) -> impl FnOnce(pem::Error) -> Self {
        move |error| {
            let file = file.to_owned();
            match error {
                pem::Error::Io(source) => Self::Unreadable { file, source },
                // The others quote lines of the file.
                _ => Self::Without { file, what },
            }
        }
    }

    /// What to say of a file whose content somebody refuses.
    pub(crate) fn useless<E: std::fmt::Display>(file: &Path) -> impl FnOnce(E) -> Self {
        move |error| Self::Useless { file: file.to_owned(), reason: error.to_string() }
    }
}

/// The certificates of a file; at least one.
pub(crate) fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let what = "certificate";
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(PemError::reading(file, what))?;
    if certificates.is_empty() {
        return Err(PemError::Without { file: file.to_owned(), what });
    }
    Ok(certificates)
}

/// The private key of a file.
pub(crate) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_file(file).map_err(PemError::reading(file, "private key"))
}

/// The authorities of several files together.
pub(crate) fn authorities<'f>(
    files: impl IntoIterator<Item = &'f PathBuf>,
) -> Result<Arc<RootCertStore>, PemError> {
    let mut store = RootCertStore::empty();
    for file in files {
        for certificate in read_certificates(file)? {
            store.add(certificate).map_err(PemError::useless(file))?;
        }
    }
    Ok(store.into())
}
