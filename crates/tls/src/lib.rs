//! CA files, and the reasons for which a TLS handshake fails, for every connection to PostgreSQL, Redis and the collector.
//!
//! Invariants:
//! - A CA file is read and checked once, when a process starts. A changed file takes effect after a restart.
//! - `rustls` has one cryptographic provider (`ring`), so a configuration never depends on a process-wide choice.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, InvalidMessage, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Largest CA file, in bytes. The bundle of all public CAs has 220 kB.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a CA file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// The file cannot be read.
    #[error("must be a readable file: {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than a bundle of certificates.
    #[error("must be a file of at most {MAX_BYTES} bytes: {}", .0.display())]
    TooLarge(PathBuf),
    /// The file has no certificate.
    #[error("must contain a certificate in PEM format: {}", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate of the file is damaged.
    #[error("must contain valid certificates only: {}: {reason}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The certificates of a CA file.
#[derive(Debug, Clone)]
pub struct CaFile {
    pem: Vec<u8>,
    roots: Arc<RootCertStore>,
}

impl CaFile {
    /// Reads a file of one or more certificates in PEM format, and checks each of them.
    pub fn read(path: &Path) -> Result<Self, CaFileError> {
        let unreadable = |source| CaFileError::Unreadable { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_BYTES {
            return Err(CaFileError::TooLarge(path.to_owned()));
        }
        let pem = std::fs::read(path).map_err(unreadable)?;
        let invalid = |reason: String| CaFileError::Invalid { path: path.to_owned(), reason };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
            roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(CaFileError::NoCertificate(path.to_owned()));
        }
        Ok(Self { pem, roots: Arc::new(roots) })
    }

    /// The file's content.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// A client that trusts these certificates only.
    pub fn client_config(&self) -> ClientConfig {
        ClientConfig::builder()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth()
    }
}

/// Why a TLS handshake failed, for logs, readiness and the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// No trusted CA has signed the certificate.
    #[error("no trusted CA has signed the server's certificate")]
    UnknownCa,
    /// The certificate is not for the host name of the URL.
    #[error("the server's certificate is for another host name")]
    OtherHost,
    /// The certificate has expired, or is not valid yet.
    #[error("the server's certificate has expired or is not valid yet")]
    Expired,
    /// The certificate is invalid for another reason.
    #[error("the server's certificate is invalid")]
    InvalidCertificate,
    /// The server responds, but not with TLS.
    #[error("the server does not use TLS")]
    PlainServer,
    /// The handshake failed for another reason, for example because the server requires a client certificate.
    #[error("the TLS handshake failed")]
    Handshake,
}

impl TlsFault {
    /// Finds the failed handshake among an error and its causes.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Some(Self::from(error));
            }
            // An error in an `Arc`, as Redis errors contain it, returns only the causes of the inner error, not that
            // error.
            let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>();
            if let Some(fault) = shared.and_then(|shared| Self::find(&**shared)) {
                return Some(fault);
            }
            // An I/O error also returns only the causes of the error that it wraps.
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(fault) = wrapped.and_then(|wrapped| Self::find(wrapped)) {
                return Some(fault);
            }
            cause = error.source();
        }
        None
    }
}

impl From<&rustls::Error> for TlsFault {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => match error {
                // `BadSignature`: a trusted CA has the issuer's name, but another CA with the same name has signed.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownCa,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::OtherHost,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired,
                _ => Self::InvalidCertificate,
            },
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::PlainServer,
            _ => Self::Handshake,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_file_may_have_several_certificates() {
        let bundle = file(format!("# a comment\n{}{}", certificate(), certificate()));
        assert_eq!(CaFile::read(bundle.path()).unwrap().roots.len(), 2);
    }

    #[test]
    fn a_file_without_a_valid_certificate_is_refused_with_the_reason() {
        let reason = |path: &Path| CaFile::read(path).unwrap_err().to_string();
        assert!(
            reason(Path::new("/nonexistent/ca.pem"))
                .contains("must be a readable file: /nonexistent/ca.pem")
        );
        assert!(reason(Path::new("/")).starts_with("must be a readable file"));
        for text in
            ["", "no certificate", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            assert!(
                reason(file(text).path()).starts_with("must contain a certificate in PEM format"),
                "{text}"
            );
        }
        let damaged = certificate().replacen("MII", "MIJ", 1);
        for text in
            [damaged.as_str(), "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n"]
        {
            assert!(
                reason(file(text).path()).starts_with("must contain valid certificates only"),
                "{text}"
            );
        }
        let huge = file(certificate().repeat(3_000));
        assert!(reason(huge.path()).starts_with("must be a file of at most"));
    }

    #[test]
    fn a_fault_is_found_below_io_errors() {
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let io = io::Error::new(io::ErrorKind::InvalidData, expired);
        assert_eq!(TlsFault::find(&io), Some(TlsFault::Expired));
        let outer = io::Error::other(io);
        assert_eq!(TlsFault::find(&outer), Some(TlsFault::Expired));
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(outer);
        assert_eq!(TlsFault::find(&shared), Some(TlsFault::Expired));
        assert_eq!(TlsFault::find(&io::Error::from(io::ErrorKind::TimedOut)), None);
    }
}
