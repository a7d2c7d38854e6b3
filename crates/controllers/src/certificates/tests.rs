//! What is approved, what is signed, how long it is kept.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use client::Projection;
use meta::{Media, ObjectKey};
use serde_json::{Value, json};

use super::*;

fn node_client() -> RequestFacts {
    RequestFacts {
        common_name: "system:node:n1".into(),
        organizations: vec!["system:nodes".into()],
        ..RequestFacts::default()
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn judged(signer: &str, facts: &RequestFacts, usages: &[&str]) -> Result<(), String> {
    rules::judge(signer, facts, &words(usages)).expect("a signer of ours")
}

#[test]
fn a_nodes_client_certificate_is_its_subject_and_nothing_else() {
    let usages = ["digital signature", "client auth"];
    let judge = |facts: RequestFacts| judged(rules::KUBELET_CLIENT, &facts, &usages);
    assert_eq!(judge(node_client()), Ok(()));
    let wrong = [
        (RequestFacts { organizations: words(&["system:nodes", "system:masters"]), ..node_client() }, "organization"),
        (RequestFacts { common_name: "admin".into(), ..node_client() }, "common name does not begin"),
        (RequestFacts { dns_names: words(&["n1"]), ..node_client() }, "DNS subjectAltNames are not allowed"),
        (RequestFacts { ips: vec![IpAddr::from([127, 0, 0, 1])], ..node_client() }, "IP subjectAltNames"),
        (RequestFacts { uris: words(&["a:b"]), ..node_client() }, "URI subjectAltNames"),
        (RequestFacts { email_addresses: words(&["a@b"]), ..node_client() }, "email subjectAltNames"),
    ];
    for (facts, part) in wrong {
        assert!(judge(facts.clone()).unwrap_err().contains(part), "{facts:?}");
    }
    let server = judged(rules::KUBELET_CLIENT, &node_client(), &["digital signature", "server auth"]);
    assert_eq!(server.unwrap_err(), "usages did not match [client auth digital signature key encipherment]");
}

#[test]
fn signers_differ_in_what_they_sign() {
    let serving = RequestFacts { dns_names: words(&["n1"]), ..node_client() };
    let usages = ["key encipherment", "digital signature", "server auth"];
    assert_eq!(judged(rules::KUBELET_SERVING, &serving, &usages), Ok(()));
    assert!(judged(rules::KUBELET_SERVING, &node_client(), &usages).unwrap_err().contains("is required"));
    assert_eq!(judged(rules::CLIENT, &serving, &["client auth"]), Ok(()));
    assert_eq!(
        judged(rules::CLIENT, &serving, &["client auth", "code signing"]).unwrap_err(),
        "invalid usage for client certificate: code signing"
    );
    assert!(judged(rules::CLIENT, &serving, &["digital signature"]).unwrap_err().contains("missing required usage"));
    assert_eq!(rules::judge("example.com/other", &serving, &[]), None);
}

#[test]
fn a_node_serves_under_its_own_names_only() {
    let addresses = [("InternalIP".to_string(), "10.1.2.3".to_string()), ("Hostname".into(), "host-1".into())];
    let judge = |names: &[&str], ips: &[&str]| {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        rules::belongs_to("n1", &addresses, &RequestFacts { dns_names: words(names), ips, ..node_client() })
    };
    assert_eq!(judge(&["n1", "localhost", "host-1"], &["10.1.2.3", "127.0.0.1", "::1"]), Ok(()));
    assert_eq!(judge(&["n2"], &[]).unwrap_err(), "\"n2\" is no name of node \"n1\"");
    assert_eq!(judge(&["n1"], &["10.1.2.4"]).unwrap_err(), "10.1.2.4 is no address of node \"n1\"");
    assert!(judge(&["10.1.2.3"], &[]).is_err(), "an address is not a name");
}

#[test]
fn validity_is_what_was_asked_for_within_limits() {
    for (asked, seconds) in [(None, 31_536_000), (Some(3600), 3600), (Some(1), 600), (Some(i32::MAX), 31_536_000)] {
        assert_eq!(signer::validity(asked), Duration::from_secs(seconds), "{asked:?}");
    }
}

fn asked(status: Value) -> Asked {
    let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"request": "", "signerName": "a/b", "usages": []}, "status": status});
    Asked::project(&Encoded {
        key: ObjectKey::cluster("a"),
        revision: 1,
        media: Media::Json,
        bytes: Bytes::from(object.to_string()),
    })
    .unwrap()
}

#[test]
fn requests_are_kept_for_as_long_as_somebody_may_want_them() {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T01:00:00Z"});
    let due = |status: Value| cleaner::due(&asked(status)).map(|at| at.to_string());
    assert_eq!(due(json!({})).as_deref(), Some("2026-01-02T00:00:00Z"));
    assert_eq!(due(json!({"conditions": [condition("Approved")]})), None);
    let issued = json!({"conditions": [condition("Approved")], "certificate": "YQ=="});
    assert_eq!(due(issued).as_deref(), Some("2026-01-01T02:00:00Z"));
    assert_eq!(due(json!({"conditions": [condition("Denied")]})).as_deref(), Some("2026-01-01T02:00:00Z"));
    let failed = json!({"conditions": [condition("Approved"), condition("Failed")]});
    assert_eq!(due(failed).as_deref(), Some("2026-01-01T02:00:00Z"));
}
