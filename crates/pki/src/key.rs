//! Private keys: ECDSA on P-256, kept as PKCS #8.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::{PkiError, Result, pem};

/// A private key that signs.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
}

impl SigningKey {
    pub fn generate() -> Result<Self> {
        let failed = |_| PkiError::Crypto("cannot make a key");
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec();
        Ok(SigningKey { pair, pkcs8 })
    }

    /// Reads a `PRIVATE KEY` or `EC PRIVATE KEY` block.
    pub fn from_pem(text: &str) -> Result<Self> {
        let malformed = |reason: String| PkiError::malformed("ECDSA P-256 private key", reason);
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| malformed(format!("{error:?}")))?;
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pair = match &der {
            PrivateKeyDer::Pkcs8(der) => EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(der) => EcdsaKeyPair::from_private_key_der(algorithm, der.secret_sec1_der()),
            _ => return Err(malformed("another kind of key".to_string())),
        };
        let pair = pair.map_err(|error| malformed(error.to_string()))?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| PkiError::Crypto("cannot encode a key"))?.as_ref().to_vec();
        Ok(SigningKey { pair, pkcs8 })
    }

    pub fn to_pem(&self) -> String {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// PKCS #8.
    pub(crate) fn der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half as SubjectPublicKeyInfo (DER).
    pub(crate) fn public_der(&self) -> Result<Vec<u8>> {
        let der: PublicKeyX509Der<'_> =
            self.pair.public_key().as_der().map_err(|_| PkiError::Crypto("cannot encode a public key"))?;
        Ok(der.as_ref().to_vec())
    }

    /// The public half as a point: 4, x, y.
    pub(crate) fn public_point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// An ECDSA signature over the SHA-256 of the message (DER).
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| PkiError::Crypto("cannot sign"))?;
        Ok(signature.as_ref().to_vec())
    }
}
