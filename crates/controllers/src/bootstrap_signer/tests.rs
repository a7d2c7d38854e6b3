//! Which tokens sign, and what is left of the signatures of those that do not any more.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::*;

fn secret(changes: &[(&str, &str)]) -> Secret {
    let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
    let usual = [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")];
    for (name, value) in usual.iter().chain(changes) {
        data.insert((*name).to_string(), ByteString(value.as_bytes().to_vec()));
    }
    let metadata = ObjectMeta { name: Some("bootstrap-token-abcdef".into()), ..ObjectMeta::default() };
    Secret { metadata, data: Some(data), ..Secret::default() }
}

#[test]
fn a_token_signs_until_its_date_and_only_when_it_may() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(token(&secret(&[]), now).unwrap().id, "abcdef");
    let later = token(&secret(&[("expiration", "2026-01-01T00:00:01Z")]), now).unwrap();
    assert_eq!(later.expires.unwrap().to_string(), "2026-01-01T00:00:01Z");
    let refused = [
        ("expiration", "2026-01-01T00:00:00Z"),
        ("expiration", "soon"),
        ("usage-bootstrap-signing", "yes"),
        ("token-id", "fedcba"),
        ("token-secret", ""),
    ];
    for change in refused {
        assert_eq!(token(&secret(&[change]), now), None, "{change:?}");
    }
}

#[test]
fn signatures_follow_the_tokens() {
    let data = json!({"kubeconfig": "k", "jws-kubeconfig-gone00": "x", "other": "o"});
    let token = Token { id: "abcdef".into(), secret: "s".into(), expires: None };
    let after = signed(data.as_object().unwrap(), &[token], |token, content| format!("{}:{content}", token.secret));
    assert_eq!(Value::Object(after), json!({"kubeconfig": "k", "other": "o", "jws-kubeconfig-abcdef": "s:k"}));
}
