//! TLS configurations whose certificate can be replaced while connections come and go.
//!
//! A [`LiveCertificate`] is looked up at every handshake; [`LiveCertificate::keep_fresh`] replaces it at two thirds of its
//! life. Old connections go on with what they began with.
//!
//! A server asks for a client certificate but does not demand one. One that is shown must be of a client authority and in its
//! dates, else the handshake fails.

mod unverified;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::{Backoff, BackoffPolicy, Clock, Tasks};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::UnixTime;

use crate::{CertificateFacts, Issued, PkiError, Result, pem};
pub use unverified::unverified_client_config;

/// What we speak, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Between tries to renew.
const RENEWAL_BACKOFF: BackoffPolicy = BackoffPolicy::doubling(Duration::from_secs(5), Duration::from_secs(600));

/// A certificate with its key that can be replaced.
pub struct LiveCertificate {
    current: ArcSwap<CertifiedKey>,
}

impl LiveCertificate {
    pub fn new(issued: &Issued) -> Result<Arc<Self>> {
        Ok(Arc::new(LiveCertificate { current: ArcSwap::new(issued.certified_key()?) }))
    }

    /// Handshakes from now on use this one.
    pub fn replace(&self, issued: &Issued) -> Result<()> {
        self.current.store(issued.certified_key()?);
        Ok(())
    }

    /// What is known of the one in use.
    pub fn facts(&self) -> Result<CertificateFacts> {
        let current = self.current.load();
        CertificateFacts::from_der(current.end_entity_cert()?)
    }

    /// Renews at two thirds of each certificate's life, by `issue`, until the tasks are stopped. A failure is logged and
    /// tried again with back-off.
    pub fn keep_fresh<F, I>(self: &Arc<Self>, name: &'static str, clock: Clock, tasks: &Tasks, mut issue: I)
    where
        F: Future<Output = Result<Issued>> + Send,
        I: FnMut() -> F + Send + 'static,
    {
        let live = self.clone();
        tasks.spawn("certificate-renewal", async move {
            let mut backoff = Backoff::new(RENEWAL_BACKOFF);
            let mut wait = live.until_renewal(&clock);
            loop {
                clock.sleep(wait).await;
                let renewed = async { live.replace(&issue().await?) }.await;
                wait = match renewed {
                    Ok(()) => {
                        tracing::info!(name, "renewed a certificate");
                        backoff.reset();
                        live.until_renewal(&clock)
                    }
                    Err(error) => {
                        let wait = backoff.next(clock.instant());
                        tracing::warn!(name, %error, ?wait, "cannot renew a certificate, trying again");
                        wait
                    }
                };
            }
        });
    }

    fn until_renewal(&self, clock: &Clock) -> Duration {
        // One that cannot be read is replaced at once; it was read when it was put here.
        self.facts().map_or(Duration::ZERO, |facts| clock.until(facts.renew_at()))
    }
}

impl std::fmt::Debug for LiveCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LiveCertificate").field(&self.facts()).finish()
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl ResolvesClientCert for LiveCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A server's configuration; client certificates are checked against the authorities (PEM, one or more).
pub fn server_config(
    certificate: Arc<LiveCertificate>,
    client_authorities_pem: &str,
    clock: &Clock,
) -> Result<Arc<ServerConfig>> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(client_authorities_pem)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| PkiError::malformed("client authority", error))?;
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(ClockTime(clock.clone())))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// A client's configuration: whom it trusts (PEM) and, if it has one, its certificate. Sets no application protocol: that
/// is the HTTP client's to choose.
pub fn client_config(
    authorities_pem: &str,
    certificate: Option<Arc<LiveCertificate>>,
    clock: &Clock,
) -> Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock.clone())))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(authorities_pem)?);
    Ok(Arc::new(match certificate {
        Some(certificate) => builder.with_client_cert_resolver(certificate),
        None => builder.with_no_client_auth(),
    }))
}

/// Authorities (PEM, one or more) as what certificates are checked against.
pub fn roots(authorities_pem: &str) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for authority in pem::certificates(authorities_pem)? {
        roots.add(authority)?;
    }
    Ok(Arc::new(roots))
}

/// Dates are judged by our clock.
#[derive(Debug)]
struct ClockTime(Clock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

#[cfg(test)]
mod tests;
