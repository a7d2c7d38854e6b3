//! A client that takes any certificate: it encrypts and proves nothing.
//!
//! For those whose identity is not what is asked: a probe wants to know whether a container answers, a user of the proxy has
//! chosen to look at a pod or service with a certificate of its own, and a joining machine believes only what is signed with
//! its token. A credential must never be sent over it, except where the user said so.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::provider;

/// The configuration; there is one for all.
pub fn unverified_client_config() -> Arc<ClientConfig> {
    static CONFIG: LazyLock<Arc<ClientConfig>> =
        LazyLock::new(|| match ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions() {
            Ok(builder) => {
                let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate));
                Arc::new(builder.with_no_client_auth())
            }
            Err(error) => unreachable!("the provider has the default versions: {error}"),
        });
    CONFIG.clone()
}

/// The signature of the handshake is not looked at either. It would tie the connection to a certificate that nobody vouches for,
/// and the check refuses old forms of certificates (version 1, short keys) that upstream's clients put up with.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
