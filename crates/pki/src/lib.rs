//! Keys, certificates and tokens: everything that proves who somebody is, and nothing that decides what they may do.
//!
//! ```text
//! Authorities (a folder) ──► Authority "kubernetes-ca"      ──► serving and client certificates, signed CSRs
//!                        ├─► Authority "front-proxy-ca"     ──► the aggregator's client certificate
//!                        └─► TokenKeys                      ──► TokenIssuer: service account tokens, discovery documents
//! Issued ──► LiveCertificate ──► rustls configurations that never need a restart
//! EncryptionKeys (a file) ──► Secrets at rest
//! ```
//!
//! All keys of ours are ECDSA P-256: made in under a millisecond and understood by every client. Signature algorithms come from
//! `aws-lc-rs`; certificates are written by [`x509`](self) here, because no crate on our list can write a subject with
//! several organizations, which is how Kubernetes carries groups, and a CSR's subject must be copied to the byte.
//!
//! **Invariants.** No I/O but its own folder; private keys are files of mode 0600, replaced as a whole; time comes from
//! `base::Clock`; whether an account, pod or node of a token still exists is the API server's to ask.

mod authorities;
mod authority;
pub mod bootstrap_token;
mod certificate;
pub mod encryption;
mod error;
mod folder;
mod key;
mod kubeconfig;
pub mod peer;
mod pem;
mod request;
pub mod service_account;
pub mod tls;
mod usage;
mod x509;

pub use authorities::Authorities;
pub use authority::Authority;
pub use certificate::{CertificateFacts, Issued, renew_at};
pub use encryption::EncryptionKeys;
pub use error::PkiError;
pub use key::SigningKey;
pub use kubeconfig::Kubeconfig;
pub use request::{AltNames, CertRequest, SigningRequest, signing_request};
pub use service_account::{TokenIssuer, TokenKeys};
pub use tls::LiveCertificate;
pub use usage::{UnknownUsage, Usages};

/// The result of every call.
pub type Result<T> = std::result::Result<T, PkiError>;
