//! Service account tokens for pods: asked for through `TokenRequest`, bound to the pod, renewed at 80% of their life.

use std::collections::HashMap;
use std::time::Duration;

use base::{Clock, Timestamp};
use client::{Client, Response};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use meta::{GroupVersionKind, GroupVersionResource, Object, ObjectKey, time};
use parking_lot::Mutex;
use serde_json::json;

use crate::pod;

/// The life that is asked for when the pod does not say.
const EXPIRATION_SECONDS: i64 = 3600;
/// A token is renewed at the latest after a day, however long it lives.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    pod_uid: String,
    account: String,
    audience: String,
    expiration_seconds: i64,
}

/// A token with the time at which another should take its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub text: String,
    pub refresh_at: Timestamp,
}

/// The tokens of this node's pods.
pub struct Tokens {
    client: Client,
    clock: Clock,
    cache: Mutex<HashMap<Asked, Token>>,
}

impl Tokens {
    pub fn new(client: Client, clock: Clock) -> Self {
        Tokens { client, clock, cache: Mutex::default() }
    }

    /// The token a projection asks for; a fresh one when the one at hand is due.
    pub async fn get(&self, pod: &Pod, projection: &ServiceAccountTokenProjection) -> Result<Token, String> {
        let account = pod::spec(pod).service_account_name.clone().unwrap_or_else(|| "default".to_string());
        let asked = Asked {
            pod_uid: pod::uid(pod).to_string(),
            account,
            audience: projection.audience.clone().unwrap_or_default(),
            expiration_seconds: projection.expiration_seconds.unwrap_or(EXPIRATION_SECONDS),
        };
        let known = self.cache.lock().get(&asked).cloned();
        match known {
            Some(token) if self.clock.now() < token.refresh_at => Ok(token),
            _ => {
                let token = self.request(pod, &asked).await?;
                self.cache.lock().insert(asked, token.clone());
                Ok(token)
            }
        }
    }

    /// Forgets the tokens of a pod.
    pub fn release(&self, pod_uid: &str) {
        self.cache.lock().retain(|asked, _| asked.pod_uid != pod_uid);
    }

    async fn request(&self, pod: &Pod, asked: &Asked) -> Result<Token, String> {
        let mut request = Object::new(&GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest"));
        let audiences = if asked.audience.is_empty() { json!([]) } else { json!([asked.audience]) };
        request.set(&["spec", "audiences"], audiences);
        request.set(&["spec", "expirationSeconds"], asked.expiration_seconds);
        request.set(
            &["spec", "boundObjectRef"],
            json!({"apiVersion": "v1", "kind": "Pod", "name": pod::name(pod), "uid": pod::uid(pod)}),
        );
        let accounts = GroupVersionResource::new("", "v1", "serviceaccounts");
        let key = ObjectKey::new(pod::namespace(pod), &asked.account);
        let failed = |why: String| format!("failed to fetch token: {why}");
        let issued_at = self.clock.now();
        let answer = self.client.create_subresource(&accounts, &key, "token", request).await;
        let Response::Object(encoded) = answer.map_err(|status| failed(status.to_string()))? else {
            return Err(failed("the server answered without a token".to_string()));
        };
        let answer = encoded.object().map_err(|status| failed(status.to_string()))?;
        let text = answer.str_at(&["status", "token"]).to_string();
        let expires = time::parse(answer.str_at(&["status", "expirationTimestamp"]));
        let expires = expires.filter(|_| !text.is_empty()).ok_or_else(|| failed("the token is empty".to_string()))?;
        Ok(Token { text, refresh_at: refresh_at(issued_at, expires) })
    }
}

fn refresh_at(issued_at: Timestamp, expires: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires.duration_since(issued_at)).unwrap_or_default();
    issued_at + (life * 4 / 5).min(AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_four_fifths_of_the_life_or_after_a_day() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let issued = at("2026-01-01T00:00:00Z");
        for (expires, refresh) in
            [("2026-01-01T01:00:00Z", "2026-01-01T00:48:00Z"), ("2027-01-01T00:00:00Z", "2026-01-02T00:00:00Z")]
        {
            assert_eq!(refresh_at(issued, at(expires)), at(refresh));
        }
    }
}
