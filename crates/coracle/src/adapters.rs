//! Where `pki` meets the traits by which the API server asks for keys: it never holds one.

use std::sync::Arc;
use std::time::Duration;

use apiserver::authn::service_account::{Bound, Claims, Verifier};
use apiserver::subresources::token::{Reference, TokenClaims, TokenSigner};
use apiserver::transformer::Seal;
use base::Clock;
use controllers::certificates::{RequestFacts, Signer};
use meta::Status;
use pki::bootstrap_token::BootstrapToken;
use pki::service_account::{self as tokens, Binding, TokenIssuer};
use pki::{EncryptionKeys, SigningRequest, Usages};

use crate::control_plane::Authority;

/// Service account tokens, made and checked with the cluster's keys.
#[derive(Clone)]
pub struct Tokens(pub Arc<TokenIssuer>);

/// The cluster's authority, for those who ask it for certificates through the API.
pub struct ClusterSigner {
    pub authority: Arc<Authority>,
    pub clock: Clock,
}

/// Secrets at rest.
pub struct Secrets(pub EncryptionKeys);

impl Verifier for Tokens {
    fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Claims>, String> {
        let own = [self.0.url().to_string()];
        let audiences = if audiences.is_empty() { &own } else { audiences };
        let verified = self.0.verify(token, audiences).map_err(|error| error.to_string())?;
        Ok(verified.map(|verified| {
            let bound = |reference: tokens::Reference| Bound { name: reference.name, uid: reference.uid };
            let claims = verified.claims.kubernetes;
            Claims {
                id: verified.claims.jti,
                namespace: claims.namespace,
                service_account: bound(claims.serviceaccount),
                pod: claims.pod.map(bound),
                node: claims.node.map(bound),
                secret: claims.secret.map(bound),
                audiences: verified.audiences,
            }
        }))
    }
}

impl TokenSigner for Tokens {
    fn default_audiences(&self) -> Vec<String> {
        vec![self.0.url().to_string()]
    }

    fn sign(&self, claims: &TokenClaims) -> Result<String, Status> {
        let bound =
            |reference: &Reference| tokens::Reference { name: reference.name.clone(), uid: reference.uid.clone() };
        let binding = Binding {
            namespace: claims.namespace.clone(),
            node: claims.node.as_ref().map(bound),
            pod: claims.pod.as_ref().map(bound),
            secret: claims.secret.as_ref().map(bound),
            serviceaccount: bound(&claims.account),
            warnafter: claims.warn_after.map(|at| at.as_second()),
        };
        let lifetime = Duration::try_from(claims.expires.duration_since(claims.issued)).map_err(Status::internal)?;
        self.0.mint(binding, &claims.audiences, lifetime).map(|minted| minted.token).map_err(Status::internal)
    }
}

impl Seal for Secrets {
    fn seal(&self, plain: &[u8], associated: &[u8]) -> Result<Vec<u8>, String> {
        self.0.seal(plain, associated).map_err(|error| error.to_string())
    }

    fn open(&self, sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, String> {
        self.0.open(sealed, associated).map(|opened| opened.plain).map_err(|error| error.to_string())
    }
}

impl Signer for ClusterSigner {
    fn read(&self, request: &[u8]) -> Result<RequestFacts, String> {
        let read = SigningRequest::from_pem(request).map_err(|error| error.to_string())?;
        if read.alt_names.others > 0 {
            return Err("it has alternative names of an unknown kind".to_string());
        }
        Ok(RequestFacts {
            common_name: read.common_name,
            organizations: read.organizations,
            dns_names: read.alt_names.dns_names,
            ips: read.alt_names.ips,
            email_addresses: read.alt_names.email_addresses,
            uris: read.alt_names.uris,
        })
    }

    fn sign(&self, request: &[u8], usages: &[String], validity: Duration) -> Result<String, String> {
        let read = SigningRequest::from_pem(request).map_err(|error| error.to_string())?;
        let usages = Usages::from_words(usages.iter().map(String::as_str)).map_err(|error| error.to_string())?;
        self.authority.cluster.sign(&read, &usages, validity, &self.clock).map_err(|error| error.to_string())
    }

    fn sign_with_token(&self, token_id: &str, token_secret: &str, content: &str) -> String {
        BootstrapToken { id: token_id.to_string(), secret: token_secret.to_string() }.sign(content)
    }
}
