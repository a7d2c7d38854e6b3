//! Whom to trust: the cluster's public description, read from a server that nobody vouches for yet.
//!
//! One GET goes out over TLS that takes any certificate, and carries no credential. The answer is worth nothing until the token's
//! signature on it is verified, which is why this is safe; nothing else may ever use this configuration.

use std::sync::Arc;

use anyhow::Result;
use client::Client;
use meta::{Object, Status};
use pki::bootstrap_token::BootstrapToken;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::cluster_info;

/// The description, once it carries a signature of the token. The signature is not checked here.
pub async fn look_up(client: &Client, token: &BootstrapToken) -> Result<Object, Status> {
    let description = client.get_object(&cluster_info::config_maps(), &cluster_info::description()).await?;
    if description.str_at(&["data", &format!("jws-kubeconfig-{}", token.id)]).is_empty() {
        let why = format!("the cluster does not know the token {} (yet, or any more)", token.id);
        return Err(Status::unavailable(why));
    }
    Ok(description)
}

/// TLS that encrypts and proves nothing.
pub fn trusting_anybody() -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
