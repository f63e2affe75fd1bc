//! A self-signed certificate, with which nginx starts before the first real one exists.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};

use crate::{
    names::{DnsName, Names},
    store::Issued,
};

/// Creates a placeholder for these names. Browsers show a warning for it.
pub(crate) fn placeholder(names: &Names) -> Result<Issued, rcgen::Error> {
    let mut params = params(names)?;
    params.distinguished_name.push(DnType::CommonName, "Linnet placeholder");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Issued {
        chain: certificate.pem(),
        key: key.serialize_pem(),
        public_key: key.subject_public_key_info(),
        directory: None,
        is_trusted: false,
    })
}

/// Parameters of a certificate or of a request for one, without a subject: CAs read the names only.
pub(crate) fn params(names: &Names) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(DnsName::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}
