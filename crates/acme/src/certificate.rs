//! The content of a certificate: its names, its life, and its key.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, pem::Pem, prelude::X509Certificate};

use crate::names::{DnsName, Names};

/// Why a chain of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The text has no certificate in PEM format.
    #[error("the chain has no certificate in PEM format")]
    NoCertificate,
    /// The first certificate cannot be parsed.
    #[error("the certificate cannot be parsed: {0}")]
    Invalid(String),
    /// The certificate is for another key.
    #[error("the certificate is for another key")]
    OtherKey,
    /// The certificate lacks a name that was ordered.
    #[error("the certificate lacks the name {0}")]
    LacksName(DnsName),
}

/// The first certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its DNS names.
    pub names: Names,
    /// The begin of its life.
    pub not_before: DateTime<Utc>,
    /// The end of its life.
    pub not_after: DateTime<Utc>,
    /// The issuer, for people.
    pub issuer: String,
    public_key: Vec<u8>,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Parses the first certificate of a chain in PEM format.
    pub fn parse(chain: &[u8]) -> Result<Self, CertificateError> {
        let pem = Pem::iter_from_buffer(chain).next().ok_or(CertificateError::NoCertificate)?;
        let pem = pem.map_err(|error| CertificateError::Invalid(error.to_string()))?;
        let invalid = |error: &dyn std::fmt::Display| CertificateError::Invalid(error.to_string());
        let parsed = pem.parse_x509().map_err(|error| invalid(&error))?;
        let time = |time: x509_parser::time::ASN1Time| {
            let found = DateTime::from_timestamp(time.timestamp(), 0);
            found.ok_or_else(|| CertificateError::Invalid("a time out of range".to_owned()))
        };
        Ok(Self {
            names: names_of(&parsed)?,
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            issuer: parsed.issuer().to_string(),
            public_key: parsed.public_key().raw.to_vec(),
            der: CertificateDer::from(pem.contents.clone()),
        })
    }

    /// Checks that the certificate belongs to a key and has these names, so that a defect of the CA or of the network
    /// cannot replace a working certificate.
    pub(crate) fn check(&self, public_key: &[u8], names: &Names) -> Result<(), CertificateError> {
        if self.public_key != public_key {
            return Err(CertificateError::OtherKey);
        }
        match names.difference(&self.names).next() {
            Some(missing) => Err(CertificateError::LacksName(missing.clone())),
            None => Ok(()),
        }
    }

    /// The certificate in DER format.
    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The length of its life.
    pub fn life(&self) -> Duration {
        (self.not_after - self.not_before).to_std().unwrap_or_default()
    }

    /// The part of its life that is left at `now`: 1 before it begins, 0 after its end.
    pub fn fraction_left(&self, now: DateTime<Utc>) -> f64 {
        let left = (self.not_after - now).to_std().unwrap_or_default();
        let life = self.life();
        if life.is_zero() { 0.0 } else { (left.as_secs_f64() / life.as_secs_f64()).min(1.0) }
    }
}

fn names_of(parsed: &X509Certificate<'_>) -> Result<Names, CertificateError> {
    let extension = parsed
        .subject_alternative_name()
        .map_err(|error| CertificateError::Invalid(error.to_string()))?;
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    // Other kinds of names, and names that no setting can contain, are not ours.
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => name.parse().ok(),
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placeholder::placeholder;

    #[test]
    fn a_certificate_has_its_names_and_its_life() {
        let names: Names = ["a.example.com", "b.example.com"].map(|n| n.parse().unwrap()).into();
        let issued = placeholder(&names).unwrap();
        let certificate = Certificate::parse(issued.chain.as_bytes()).unwrap();
        assert_eq!(certificate.names, names);
        assert!(certificate.check(&issued.public_key, &names).is_ok());
        let (begin, end) = (certificate.not_before, certificate.not_after);
        assert!((certificate.fraction_left(begin) - 1.0).abs() < 1e-9);
        assert!((certificate.fraction_left(begin + (end - begin) / 2) - 0.5).abs() < 1e-6);
        assert_eq!(certificate.fraction_left(end).to_bits(), 0.0_f64.to_bits());
        assert!((certificate.fraction_left(begin - chrono::TimeDelta::days(1)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_certificate_for_another_key_or_without_a_name_is_refused() {
        let name = |text: &str| Names::from([text.parse().unwrap()]);
        let (one, two) = (placeholder(&name("a.example.com")), placeholder(&name("a.example.com")));
        let certificate = Certificate::parse(one.unwrap().chain.as_bytes()).unwrap();
        let other = two.unwrap().public_key;
        let error = certificate.check(&other, &name("a.example.com"));
        assert!(matches!(error, Err(CertificateError::OtherKey)));
        let own = certificate.public_key.clone();
        let error = certificate.check(&own, &name("b.example.com"));
        assert!(matches!(error, Err(CertificateError::LacksName(_))));
    }

    #[test]
    fn text_without_a_certificate_is_refused() {
        assert!(matches!(Certificate::parse(b""), Err(CertificateError::NoCertificate)));
        let pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Certificate::parse(pem), Err(CertificateError::Invalid(_))));
    }
}
