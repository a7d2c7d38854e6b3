//! Certificates that were issued, and when to renew them.

use std::sync::Arc;

use base::Timestamp;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{PkiError, Result, pem};

/// A certificate with its private key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, then what is needed to reach the authority (nothing: ours sign directly).
    pub chain_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

/// What is worth knowing about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<std::net::IpAddr>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub is_authority: bool,
}

impl Issued {
    pub fn facts(&self) -> Result<CertificateFacts> {
        CertificateFacts::from_pem(&self.chain_pem)
    }

    /// The pair as rustls serves it. Also checks that the key belongs to the certificate.
    pub fn certified_key(&self) -> Result<Arc<CertifiedKey>> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| PkiError::malformed("private key", format!("{error:?}")))?;
        let certified = CertifiedKey::new(pem::certificates(&self.chain_pem)?, any_supported_type(&key)?);
        certified.keys_match()?;
        Ok(Arc::new(certified))
    }
}

impl CertificateFacts {
    /// Of the first certificate of a PEM bundle.
    pub fn from_pem(text: &str) -> Result<Self> {
        let der = pem::certificates(text)?;
        CertificateFacts::from_der(&der[0])
    }

    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self> {
        let malformed = |error: &dyn ToString| PkiError::malformed("certificate", error.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        let alt_names = certificate.subject_alternative_name().map_err(|error| malformed(&error))?;
        let general = alt_names.map(|names| crate::request::AltNames::read(names.value)).unwrap_or_default();
        let subject = crate::peer::subject(certificate.subject());
        let time =
            |at: x509_parser::time::ASN1Time| Timestamp::from_second(at.timestamp()).map_err(|error| malformed(&error));
        Ok(CertificateFacts {
            common_name: subject.common_name,
            organizations: subject.organizations,
            dns_names: general.dns_names,
            ips: general.ips,
            not_before: time(certificate.validity().not_before)?,
            not_after: time(certificate.validity().not_after)?,
            is_authority: certificate.is_ca(),
        })
    }

    /// When to replace it.
    pub fn renew_at(&self) -> Timestamp {
        renew_at(self.not_before, self.not_after)
    }
}

/// Two thirds into the certificate's life.
pub fn renew_at(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let life_seconds = (not_after.as_second() - not_before.as_second()).max(0);
    Timestamp::from_second(not_before.as_second() + life_seconds / 3 * 2).unwrap_or(not_after)
}
