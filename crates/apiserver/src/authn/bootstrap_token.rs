//! Bootstrap tokens: the short-lived secret that a new node shows to ask for its certificate.
//!
//! A token `abcdef.0123456789abcdef` is the Secret `bootstrap-token-abcdef` in `kube-system`. It must say that it may be used
//! for authentication, must not have expired, and its secret half is compared in constant time.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::constant_time;
use base::Clock;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta::{GroupResource, Object, ObjectKey};

use super::{Authenticated, TokenAuthenticator};
use crate::context::Identity;
use crate::reader::Reader;

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
const DEFAULT_GROUP: &str = "system:bootstrappers";
const GROUP_PREFIX: &str = "system:bootstrappers:";

pub struct BootstrapTokens {
    pub reader: Arc<dyn Reader>,
    pub clock: Clock,
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<Authenticated>, String> {
        let Some((id, secret)) = split(token) else { return Ok(None) };
        let key = ObjectKey::new(NAMESPACE, &format!("bootstrap-token-{id}"));
        let object = match self.reader.get(&GroupResource::new("", "secrets"), &key).await {
            Ok(object) => object,
            Err(status) if status.is_not_found() => return Ok(None),
            Err(status) => return Err(status.message),
        };
        let identity = judge(&object, id, secret, &self.clock);
        Ok(identity.map(|identity| Authenticated { identity, audiences: audiences.to_vec() }))
    }
}

/// Id and secret of a token; none when it does not look like one.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn judge(object: &Object, id: &str, secret: &str, clock: &Clock) -> Option<Identity> {
    let data = |name: &str| {
        let bytes = STANDARD.decode(object.get(&["data", name])?.as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let right_secret = data("token-secret")
        .is_some_and(|own| constant_time::verify_slices_are_equal(own.as_bytes(), secret.as_bytes()).is_ok());
    let expired = match data("expiration") {
        None => false,
        // A date that cannot be read counts as past.
        Some(text) => text.parse::<base::Timestamp>().map_or(true, |at| at <= clock.now()),
    };
    if object.str_at(&["type"]) != SECRET_TYPE
        || object.is_being_deleted()
        || data("token-id").as_deref() != Some(id)
        || data("usage-bootstrap-authentication").as_deref() != Some("true")
        || !right_secret
        || expired
    {
        return None;
    }
    let mut groups = vec![DEFAULT_GROUP.into()];
    for group in data("auth-extra-groups").unwrap_or_default().split(',').map(str::trim) {
        if group.is_empty() {
            continue;
        }
        if !is_bootstrap_group(group) {
            return None;
        }
        groups.push(group.into());
    }
    Some(Identity { name: format!("system:bootstrap:{id}").into(), groups, ..Identity::default() })
}

fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP_PREFIX) else { return false };
    let allowed =
        |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b':' || letter == b'-';
    let last_is_plain = rest.bytes().last().is_some_and(|last| last.is_ascii_lowercase() || last.is_ascii_digit());
    rest.len() <= 256 && last_is_plain && rest.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::fake::FakeReader;
    use serde_json::{Value, json};

    fn tokens(change: impl Fn(&mut Value)) -> BootstrapTokens {
        let mut secret = json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
            "type": SECRET_TYPE, "data": {}});
        for (name, text) in [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2026-01-01T01:00:00Z"),
            ("auth-extra-groups", "system:bootstrappers:worker"),
        ] {
            secret["data"][name] = STANDARD.encode(text).into();
        }
        change(&mut secret);
        let reader = Arc::new(FakeReader::default().with("", "secrets", secret));
        BootstrapTokens { reader, clock: Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap()) }
    }

    async fn name(tokens: &BootstrapTokens, token: &str) -> Option<String> {
        let found = tokens.authenticate(token, &[]).await.unwrap()?;
        Some(format!("{} {:?}", found.identity.name, found.identity.groups))
    }

    #[tokio::test]
    async fn a_good_token_is_a_bootstrapper() {
        let known = name(&tokens(|_| {}), "abcdef.0123456789abcdef").await;
        let expected = r#"system:bootstrap:abcdef ["system:bootstrappers", "system:bootstrappers:worker"]"#;
        assert_eq!(known.as_deref(), Some(expected));
    }

    #[tokio::test]
    async fn a_token_without_a_date_does_not_end() {
        let endless = tokens(|secret| {
            secret["data"].as_object_mut().unwrap().remove("expiration");
        });
        assert!(name(&endless, "abcdef.0123456789abcdef").await.is_some());
    }

    #[tokio::test]
    async fn wrong_expired_and_disallowed_tokens_are_nobody() {
        assert_eq!(name(&tokens(|_| {}), "abcdef.0123456789abcdee").await, None);
        assert_eq!(name(&tokens(|_| {}), "abcdeg.0123456789abcdef").await, None);
        assert_eq!(name(&tokens(|_| {}), "not-a-token").await, None);
        for (field, value) in [
            ("expiration", "2025-12-31T00:00:00Z"),
            ("expiration", "soon"),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
        ] {
            let tokens = tokens(|secret| secret["data"][field] = STANDARD.encode(value).into());
            assert_eq!(name(&tokens, "abcdef.0123456789abcdef").await, None, "{field}={value}");
        }
    }
}
