//! Service account tokens: JSON Web Tokens bound to an account and, mostly, to a pod.
//!
//! ```text
//! header  { alg: ES256, kid: base64url(sha256(public key)) }
//! claims  { iss, sub: system:serviceaccount:NAMESPACE:NAME, aud, iat, nbf, exp, jti,
//!           kubernetes.io: { namespace, serviceaccount { name, uid }, pod | secret | node { name, uid }, warnafter } }
//! ```
//!
//! Checked here: issuer, signature, dates, audience. Not checked here: whether the account and what the token is bound to
//! still exist with that uid; that takes the API server's cache.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base::{Clock, Timestamp, chance};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{PkiError, Result, SigningKey};

/// Who issues tokens, unless told otherwise; also the audience of the API server.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How far the checking clock may be off; as upstream.
const LEEWAY_SECONDS: i64 = 60;
/// No token of ours is longer; nothing longer is looked at.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// The keys that sign (the first) and verify (all) tokens.
pub struct TokenKeys(Vec<TokenKey>);

struct TokenKey {
    id: String,
    key: SigningKey,
    /// The public point's coordinates, base64url.
    x: String,
    y: String,
}

impl TokenKeys {
    pub fn generate() -> Result<Self> {
        Ok(TokenKeys(vec![TokenKey::new(SigningKey::generate()?)?]))
    }

    /// From one or more private key blocks; the first one signs.
    pub fn from_pem(text: &str) -> Result<Self> {
        let blocks = text.split_inclusive("-----END PRIVATE KEY-----").filter(|block| block.contains("-----BEGIN"));
        let keys: Vec<_> = blocks.map(|block| TokenKey::new(SigningKey::from_pem(block)?)).collect::<Result<_>>()?;
        if keys.is_empty() { Err(PkiError::malformed("token key file", "no key in it")) } else { Ok(TokenKeys(keys)) }
    }

    pub(crate) fn to_pem(&self) -> String {
        self.0.iter().map(|key| key.key.to_pem()).collect()
    }
}

impl TokenKey {
    fn new(key: SigningKey) -> Result<Self> {
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, &key.public_der()?));
        let point = key.public_point();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        Ok(TokenKey { id, key, x, y })
    }
}

/// A named object with its uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    #[serde(default)]
    pub uid: String,
}

/// What Kubernetes puts into a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    #[serde(default)]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default)]
    pub serviceaccount: Reference,
    /// Seconds since 1970 from which on use of the token is warned about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// All of a token's claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    pub exp: i64,
    #[serde(default)]
    pub iat: i64,
    pub iss: String,
    /// The token's own id.
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io", default)]
    pub kubernetes: Binding,
    #[serde(default)]
    pub nbf: i64,
    pub sub: String,
}

/// A new token.
#[derive(Clone, Debug)]
pub struct Minted {
    pub token: String,
    pub id: String,
    pub expires: Timestamp,
}

/// Why a token of this issuer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("invalid bearer token: {0}")]
    Malformed(String),
    #[error("service account token was signed with an unknown key or changed")]
    BadSignature,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYetValid,
    #[error("token audiences {actual:?} is invalid for the target audiences {wanted:?}")]
    Audience { actual: Vec<String>, wanted: Vec<String> },
}

/// A token that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub claims: Claims,
    /// The audiences that both the token and the asker name.
    pub audiences: Vec<String>,
}

/// Issues and checks tokens under one issuer URL.
pub struct TokenIssuer {
    keys: TokenKeys,
    url: String,
    clock: Clock,
}

impl TokenIssuer {
    pub fn new(keys: TokenKeys, url: &str, clock: Clock) -> Self {
        TokenIssuer { keys, url: url.to_string(), clock }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// A token for the account in `binding`, good for `lifetime` from now. No audience means this issuer's own.
    pub fn mint(&self, binding: Binding, audiences: &[String], lifetime: Duration) -> Result<Minted> {
        let now = self.clock.now().as_second();
        let exp = now.saturating_add_unsigned(lifetime.as_secs());
        let own = || vec![self.url.clone()];
        let claims = Claims {
            aud: if audiences.is_empty() { own() } else { audiences.to_vec() },
            exp,
            iat: now,
            iss: self.url.clone(),
            jti: chance::uuid(),
            nbf: now,
            sub: format!("system:serviceaccount:{}:{}", binding.namespace, binding.serviceaccount.name),
            kubernetes: binding,
        };
        let signer = &self.keys.0[0];
        let header = Header { typ: None, kid: Some(signer.id.clone()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(signer.key.der()))
            .map_err(|_| PkiError::Crypto("cannot sign a token"))?;
        let expires = Timestamp::from_second(exp).map_err(|error| PkiError::malformed("token lifetime", error))?;
        Ok(Minted { token, id: claims.jti, expires })
    }

    /// Checks a token for an asker that goes by `audiences` (none means this issuer's own). `Ok(None)` for what is no
    /// token of this issuer at all: another authenticator may know it.
    pub fn verify(&self, token: &str, audiences: &[String]) -> std::result::Result<Option<Verified>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX || unverified_issuer(token).as_deref() != Some(&self.url) {
            return Ok(None);
        }
        let claims = self.signed_claims(token)?;
        let now = self.clock.now().as_second();
        if now > claims.exp.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::Expired);
        }
        if now < claims.nbf.saturating_sub(LEEWAY_SECONDS) {
            return Err(TokenError::NotYetValid);
        }
        let own = std::slice::from_ref(&self.url);
        let wanted = if audiences.is_empty() { own } else { audiences };
        let shared: Vec<String> = wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if shared.is_empty() {
            return Err(TokenError::Audience { actual: claims.aud, wanted: wanted.to_vec() });
        }
        let Binding { namespace, serviceaccount, .. } = &claims.kubernetes;
        if claims.sub != format!("system:serviceaccount:{namespace}:{}", serviceaccount.name) {
            return Err(TokenError::Malformed("sub does not match the kubernetes.io claim".to_string()));
        }
        Ok(Some(Verified { claims, audiences: shared }))
    }

    fn signed_claims(&self, token: &str) -> std::result::Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| TokenError::Malformed(error.to_string()))?;
        // Dates and audience are checked by us, on our clock.
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let candidates = self.keys.0.iter().filter(|key| header.kid.as_ref().is_none_or(|id| *id == key.id));
        let mut outcome = Err(TokenError::BadSignature);
        for candidate in candidates {
            let key = DecodingKey::from_ec_components(&candidate.x, &candidate.y);
            let key = key.map_err(|error| TokenError::Malformed(error.to_string()))?;
            match jsonwebtoken::decode::<Claims>(token, &key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => outcome = Err(refusal(&error)),
            }
        }
        outcome
    }

    /// `/.well-known/openid-configuration`: where others find the keys. `jwks_uri` is where they can reach the API server.
    pub fn openid_configuration(&self, jwks_uri: &str) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// `/openid/v1/jwks`: the public keys.
    pub fn jwks(&self) -> Value {
        let key = |key: &TokenKey| json!({"use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256", "x": key.x, "y": key.y});
        json!({"keys": self.keys.0.iter().map(key).collect::<Vec<_>>()})
    }
}

fn refusal(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        _ => TokenError::Malformed(error.to_string()),
    }
}

/// The issuer that a token claims, before anything about it is believed.
fn unverified_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Issuer>(&payload).ok().map(|claims| claims.iss)
}

/// `aud` may be one text or a list of them.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

#[cfg(test)]
mod tests;
