//! Certificate requests: approved, signed and cleaned up after.
//!
//! ```text
//! request ─▶ approver: is it a node's own, and may who asks have it? ─▶ condition Approved
//!         ─▶ signer:   does it fit what the named signer is for?     ─▶ status.certificate, or condition Failed
//!         ─▶ cleaner:  nobody needs it any more                      ─▶ deleted
//! ```
//!
//! Only the API server's own signers (`kubernetes.io/...`) are looked after here; a request for anybody else's is left alone.
//! Keys stay with whoever fills [`Signer`]: nothing in this crate can sign.

mod approver;
mod cleaner;
mod rules;
mod signer;

use std::net::IpAddr;
use std::time::Duration;

use client::{Encoded, Projection};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use meta::{Object, Status, time};
use serde_json::json;

use crate::Context;

/// Who all three are, as upstream.
const NAME: &str = "certificate-controller";

/// What certificates are made with.
pub trait Signer: Send + Sync + 'static {
    /// Reads a request (PEM) and checks that who made it holds its key.
    ///
    /// # Errors
    /// Says what is wrong with the request.
    fn read(&self, request: &[u8]) -> Result<RequestFacts, String>;

    /// Makes the certificate (PEM) that was asked for: subject and names of the request, these usages (words of the API),
    /// good for `validity` from now.
    ///
    /// # Errors
    /// Says why not.
    fn sign(&self, request: &[u8], usages: &[String], validity: Duration) -> Result<String, String>;

    /// A detached JSON Web Signature of `content` with the secret of a bootstrap token.
    fn sign_with_token(&self, token_id: &str, token_secret: &str, content: &str) -> String;
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub email_addresses: Vec<String>,
    pub uris: Vec<String>,
}

/// A request in the cache: its view, the bytes it came as, and which node it is for.
struct Asked {
    view: CertificateSigningRequest,
    encoded: Encoded,
}

impl Projection for Asked {
    fn project(encoded: &Encoded) -> Result<Self, Status> {
        Ok(Asked { view: encoded.typed()?, encoded: encoded.clone() })
    }
}

impl Asked {
    fn is_issued(&self) -> bool {
        let certificate = self.view.status.as_ref().and_then(|status| status.certificate.as_ref());
        certificate.is_some_and(|certificate| !certificate.0.is_empty())
    }

    fn has(&self, condition: &str) -> bool {
        let conditions = self.view.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|found| found.type_ == condition)
    }

    fn signer(&self) -> &str {
        &self.view.spec.signer_name
    }

    fn usages(&self) -> &[String] {
        self.view.spec.usages.as_deref().unwrap_or_default()
    }

    /// The tree with one more condition.
    fn with_condition(&self, cx: &Context, kind: &str, reason: &str, message: &str) -> Result<Object, Status> {
        let mut object = self.encoded.object()?;
        let mut conditions = object.list_at(&["status", "conditions"]).to_vec();
        let now = time::rfc3339(cx.clock.now());
        conditions.push(json!({"type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": now}));
        object.set(&["status", "conditions"], conditions);
        Ok(object)
    }
}

pub fn start(cx: &Context) {
    approver::start(cx);
    signer::start(cx);
    cleaner::start(cx);
}

#[cfg(test)]
mod tests;
