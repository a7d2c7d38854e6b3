//! Who is asking: client certificates, then bearer tokens, then nobody.
//!
//! ```text
//! client certificate ─► service account token ─► bootstrap token ─► anonymous (health, version and cluster-info only)
//! ```
//!
//! An authenticator that recognizes its credential answers for it; one whose credential is absent passes on. A credential
//! that is present but wrong is a `401`, never anonymous.

pub mod bootstrap_token;
pub mod impersonate;
pub mod remembered;
pub mod service_account;

use std::sync::Arc;

use async_trait::async_trait;
use base::Clock;
use meta::Status;

use crate::context::Identity;
use crate::http::Received;
use crate::http::websocket::BEARER_PROTOCOL_PREFIX;

pub const ANONYMOUS_USER: &str = "system:anonymous";
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";

/// Paths that may be read without a credential. What they show is decided by authorization as for everyone. The config map is what
/// a joining machine reads before it knows whom to trust.
const ANONYMOUS_PATHS: [&str; 5] =
    ["/healthz", "/livez", "/readyz", "/version", "/api/v1/namespaces/kube-public/configmaps/cluster-info"];

/// Checks a bearer token. `Ok(None)` when it is not of the kind that this authenticator knows.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// `audiences` are those the asker accepts; empty for the API server's own. The identity comes with the audiences
    /// that both token and asker name.
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<Authenticated>, String>;
}

/// A recognized credential.
#[derive(Clone, Debug, PartialEq)]
pub struct Authenticated {
    pub identity: Identity,
    pub audiences: Vec<String>,
}

/// All authenticators of a server.
pub struct Authentication {
    pub tokens: Vec<Arc<dyn TokenAuthenticator>>,
    pub clock: Clock,
}

impl Authentication {
    /// Who sent the request.
    pub async fn identify(&self, received: &Received) -> Result<Identity, Status> {
        if let Some(leaf) = received.peer.certificates.first()
            && let Some(subject) = pki::peer::identity(leaf, &self.clock)
        {
            return Ok(with_authenticated(Identity {
                name: subject.common_name.into(),
                groups: subject.organizations.into_iter().map(Into::into).collect(),
                uid: subject.uid.unwrap_or_default().into(),
                ..Identity::default()
            }));
        }
        if let Some(token) = bearer_token(received) {
            return match self.identify_token(&token, &[]).await {
                Ok(Some(found)) => Ok(found.identity),
                Ok(None) => Err(Status::unauthorized()),
                Err(why) => {
                    tracing::debug!(why, "token refused");
                    Err(Status::unauthorized())
                }
            };
        }
        if ANONYMOUS_PATHS.iter().any(|path| is_at_or_below(&received.path, path)) {
            return Ok(anonymous());
        }
        Err(Status::unauthorized())
    }

    /// Whose token it is; none when nobody knows it, an error when it is known and wrong.
    pub async fn identify_token(&self, token: &str, audiences: &[String]) -> Result<Option<Authenticated>, String> {
        let mut errors = Vec::new();
        for authenticator in &self.tokens {
            match authenticator.authenticate(token, audiences).await {
                Ok(Some(found)) => {
                    let identity = with_authenticated(found.identity);
                    return Ok(Some(Authenticated { identity, ..found }));
                }
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(None) } else { Err(errors.join(", ")) }
    }
}

/// The identity of a request without credentials.
pub fn anonymous() -> Identity {
    Identity { name: ANONYMOUS_USER.into(), groups: vec![UNAUTHENTICATED_GROUP.into()], ..Identity::default() }
}

/// Adds the group of everybody with a credential.
pub fn with_authenticated(mut identity: Identity) -> Identity {
    let marked = identity.groups.iter().any(|group| matches!(&**group, AUTHENTICATED_GROUP | UNAUTHENTICATED_GROUP));
    if !marked && &*identity.name != ANONYMOUS_USER {
        identity.groups.push(AUTHENTICATED_GROUP.into());
    }
    identity
}

fn is_at_or_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The token of the `Authorization` header, or of the WebSocket protocol that browsers use because they cannot set headers.
fn bearer_token(received: &Received) -> Option<String> {
    let header = received.header("authorization");
    if let Some((scheme, token)) = header.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
        && !token.trim().is_empty()
    {
        return Some(token.trim().to_string());
    }
    if !received.wants_websocket() {
        return None;
    }
    let encoded = received
        .header("sec-websocket-protocol")
        .split(',')
        .find_map(|protocol| protocol.trim().strip_prefix(BEARER_PROTOCOL_PREFIX))?;
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    String::from_utf8(bytes).ok()
}
