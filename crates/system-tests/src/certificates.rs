//! Certificates for tests: a CA, and server certificates that it signs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

use crate::services::path_text;

/// A flaw of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing: it is for 127.0.0.1 and `localhost`, and valid.
    None,
    /// It is for another host.
    OtherHost,
    /// It expired in 2021.
    Expired,
}

/// A CA and the certificate of a server, in a folder of their own.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    /// Creates a CA, and a valid certificate in `server.crt` and `server.key`.
    pub fn create(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "CA of tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("a CA");
        fs::write(folder.join("ca.crt"), ca.pem()).expect("a CA file");
        let certificates = Self { folder, ca };
        certificates.issue(Flaw::None);
        certificates
    }

    /// Replaces the server's certificate. A server uses it from its next start.
    pub fn issue(&self, flaw: Flaw) {
        let names: &[&str] = match flaw {
            Flaw::OtherHost => &["other.example"],
            Flaw::None | Flaw::Expired => &["127.0.0.1", "localhost"],
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        if flaw == Flaw::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate");
        fs::write(self.folder.join("server.crt"), certificate.pem()).expect("a certificate file");
        fs::write(self.folder.join("server.key"), key.serialize_pem()).expect("a key file");
    }

    /// The folder with `ca.crt`, `server.crt` and `server.key`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The CA file.
    pub fn ca_file(&self) -> String {
        path_text(&self.folder.join("ca.crt"))
    }
}
