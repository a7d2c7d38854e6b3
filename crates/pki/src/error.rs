//! What can go wrong with keys and certificates.

use std::path::PathBuf;

/// Why a call failed. Token checks have their own error, [`crate::service_account::TokenError`].
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {action} {path}: {source}")]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A file of the folder is gone while its other half is there.
    #[error("{path} is missing: restore it from a backup, or remove the whole folder to start with a new authority")]
    Missing { path: PathBuf },
    /// Text or bytes that are not what they should be.
    #[error("not a valid {what}: {reason}")]
    Malformed { what: &'static str, reason: String },
    /// The crypto library refused; this is a defect, not bad input.
    #[error("cryptography failed: {0}")]
    Crypto(&'static str),
    /// Who was asked for a certificate did not give one.
    #[error("no certificate: {0}")]
    Refused(String),
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    /// What was encrypted was changed, or belongs elsewhere, or was encrypted with a key that is not there.
    #[error("cannot decrypt: {0}")]
    Undecryptable(&'static str),
}

impl PkiError {
    pub(crate) fn malformed(what: &'static str, reason: impl ToString) -> Self {
        PkiError::Malformed { what, reason: reason.to_string() }
    }
}
