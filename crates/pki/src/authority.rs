//! A certificate authority: a key, a certificate that says so, and what it signs.

use std::time::Duration;

use base::{Clock, Timestamp};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::x509::{self, Template};
use crate::{CertRequest, Issued, PkiError, Result, SigningKey, SigningRequest, Usages, pem};

/// Certificates are good from a little before now, for machines whose clocks are behind; as upstream.
const BACKDATE: Duration = Duration::from_secs(300);
/// An authority's life: ten years.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// See the module.
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: SigningKey,
    subject: Vec<u8>,
    key_id: Vec<u8>,
    public_key: Vec<u8>,
    not_after: Timestamp,
}

impl Authority {
    /// A new authority that signs itself.
    pub fn generate(common_name: &str, clock: &Clock) -> Result<Self> {
        let key = SigningKey::generate()?;
        let (subject, public_key) = (x509::name([(x509::COMMON_NAME, common_name)]), key.public_der()?);
        let now = clock.now();
        let certificate = x509::certificate(
            &Template {
                subject: &subject,
                public_key: &public_key,
                issuer: &subject,
                issuer_key_id: &x509::key_id(&public_key)?,
                not_before: now - BACKDATE,
                not_after: now + AUTHORITY_VALIDITY,
                usages: &Usages::authority(),
                is_authority: true,
                alt_names: None,
            },
            &key,
        )?;
        Self::new(certificate.into(), key)
    }

    /// From a certificate and its key.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let mut chain = pem::certificates(certificate)?;
        Self::new(chain.swap_remove(0), SigningKey::from_pem(key)?)
    }

    fn new(certificate: CertificateDer<'static>, key: SigningKey) -> Result<Self> {
        let malformed = |reason: &str| PkiError::malformed("authority", reason);
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|error| malformed(&error.to_string()))?;
        if !parsed.is_ca() {
            return Err(malformed("the certificate is not one of an authority"));
        }
        let public_key = key.public_der()?;
        if parsed.public_key().raw != public_key {
            return Err(malformed("the key is not the certificate's"));
        }
        let key_id = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp());
        Ok(Authority {
            subject: parsed.subject().as_raw().to_vec(),
            key_id: key_id.map_or_else(|| x509::key_id(&public_key), Ok)?,
            not_after: not_after.map_err(|error| malformed(&error.to_string()))?,
            public_key,
            certificate,
            key,
        })
    }

    /// The authority's certificate, for those who trust it.
    pub fn certificate_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.certificate)
    }

    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.to_pem()
    }

    /// `sha256:` and the hash of the public key in hex: how a joining node recognizes the authority, as kubeadm writes it.
    pub fn public_key_hash(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.public_key);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }

    /// A certificate with a new key.
    pub fn issue(&self, request: &CertRequest, clock: &Clock) -> Result<Issued> {
        let key = SigningKey::generate()?;
        let (subject, public_key) = (request.subject(), key.public_der()?);
        let alt_names = x509::alt_names(&request.alt_names())?;
        let names = (subject.as_slice(), public_key.as_slice(), alt_names.as_deref());
        let chain_pem = self.sign_parts(names, &request.usages, request.validity, clock)?;
        Ok(Issued { chain_pem, key_pem: key.to_pem() })
    }

    /// The certificate (PEM) that somebody asked for, with the usages that were granted. Whether it may have them is decided
    /// before. Never good for longer than the authority itself.
    pub fn sign(&self, request: &SigningRequest, usages: &Usages, validity: Duration, clock: &Clock) -> Result<String> {
        let alt_names = x509::alt_names(&request.alt_names)?;
        let names = (request.subject.as_slice(), request.public_key.as_slice(), alt_names.as_deref());
        self.sign_parts(names, usages, validity, clock)
    }

    fn sign_parts(
        &self,
        (subject, public_key, alt_names): (&[u8], &[u8], Option<&[u8]>),
        usages: &Usages,
        validity: Duration,
        clock: &Clock,
    ) -> Result<String> {
        let now = clock.now();
        let template = Template {
            subject,
            public_key,
            issuer: &self.subject,
            issuer_key_id: &self.key_id,
            not_before: now - BACKDATE,
            not_after: now.saturating_add(validity).unwrap_or(self.not_after).min(self.not_after),
            usages,
            is_authority: false,
            alt_names,
        };
        Ok(pem::encode("CERTIFICATE", &x509::certificate(&template, &self.key)?))
    }
}

#[cfg(test)]
mod tests;
