//! What is secret: values at rest, tokens, rights.

use std::sync::Arc;

use client::Verb;
use serde_json::{Value, json};

use super::fixture::{Fixture, object};
use crate::authz::{Attributes, Authorizer, Decision, Rule, RuleList};
use crate::context::{Context, Identity};

#[tokio::test]
async fn secrets_are_sealed_at_rest_and_read_back() {
    let fixture = Fixture::new().await;
    let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "cGFzc3dvcmQ="}});
    fixture.create("", "v1", "secrets", body).await.unwrap();
    let key = store::Key::from("/registry/secrets/default/s");
    let entry = fixture.store.get(&key, None).await.unwrap().unwrap();
    assert!(entry.value.starts_with(b"k8s:enc:"));
    assert!(!entry.value.windows(8).any(|window| window == b"password"));
    let read = |fixture: Fixture| async move {
        let secret = fixture.get(&fixture.target("", "v1", "secrets", "s")).await.unwrap();
        secret.str_at(&["data", "k"]).to_string()
    };
    assert_eq!(read(fixture.restarted().await).await, "cGFzc3dvcmQ=");
    // The same bytes under another key are not that key's.
    let other = store::Key::from("/registry/secrets/default/t");
    fixture.store.commit(store::Txn::create(other, entry.value)).await.unwrap();
    let copied = fixture.restarted().await;
    assert!(copied.get(&copied.target("", "v1", "secrets", "t")).await.unwrap_err().is_not_found());
}

async fn token(fixture: &Fixture, user: Identity, spec: Value) -> Result<Value, meta::Status> {
    let target = fixture.target("", "v1", "serviceaccounts", "default").with_subresource("token");
    let request = object(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}));
    let outcome = fixture.registry.create(&Context::of(user, Verb::Create), &target, request).await?;
    Ok(outcome.object("authentication.k8s.io/v1").unwrap().unwrap().into_value())
}

#[tokio::test]
async fn a_token_is_for_the_pod_it_is_bound_to_and_a_node_gets_only_its_own() {
    let fixture = Fixture::new().await;
    let admin = || Identity::new("admin", &["system:masters"]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    let pod = fixture.create("", "v1", "pods", pod).await.unwrap();
    let bound = |uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}});
    let made = token(&fixture, admin(), bound(pod.uid())).await.unwrap();
    assert!(made["status"]["token"].as_str().unwrap().contains(pod.uid()));
    assert_eq!((&made["spec"]["expirationSeconds"], &made["spec"]["audiences"]), (&json!(3600), &json!(["api"])));
    assert_eq!(token(&fixture, admin(), bound("other")).await.unwrap_err().code, 409);
    assert_eq!(token(&fixture, admin(), json!({"expirationSeconds": 5})).await.unwrap_err().code, 422);
    let node = |name: &str| Identity::new(&format!("system:node:{name}"), &["system:nodes"]);
    token(&fixture, node("n"), bound(pod.uid())).await.unwrap();
    let error = token(&fixture, node("m"), bound(pod.uid())).await.unwrap_err();
    assert!(error.message.contains("bound to a pod scheduled on a different node"), "{error}");
    let error = token(&fixture, node("n"), json!({})).await.unwrap_err();
    assert!(error.message.contains("not bound to a pod"), "{error}");
}

/// Gives everybody the same rules.
struct Everybody(Vec<Rule>);

impl Authorizer for Everybody {
    fn authorize(&self, attributes: &Attributes<'_>) -> (Decision, String) {
        let allowed = self.0.iter().any(|rule| rule.allows(attributes));
        (if allowed { Decision::Allow } else { Decision::NoOpinion }, String::new())
    }

    fn rules_for(&self, _: &Identity, _: &str) -> RuleList {
        RuleList { rules: self.0.clone(), ..RuleList::default() }
    }
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let whole = Fixture::new().await;
    let fixture = whole.ruled_by(Arc::new(Everybody(vec![Rule::on("get", "", "pods")]))).await;
    let target = fixture.target("rbac.authorization.k8s.io", "v1", "roles", "");
    let create = |name: &str, verbs: Value| {
        let role =
            object(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]}));
        let (fixture, target) = (&fixture, &target);
        let cx = Context::of(Identity::new("eve", &["g"]), Verb::Create);
        async move { fixture.registry.create(&cx, target, role).await }
    };
    create("held", json!(["get"])).await.unwrap();
    assert_eq!(
        create("more", json!(["get", "delete"])).await.unwrap_err().message,
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"eve\" (groups=[\"g\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    let target = fixture.target("rbac.authorization.k8s.io", "v1", "rolebindings", "");
    let binding = object(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}}));
    let cx = Context::of(Identity::new("eve", &[]), Verb::Create);
    assert_eq!(fixture.registry.create(&cx, &target, binding).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let fixture = Fixture::new().await;
    let admin = |verb| Context::of(Identity::new("admin", &["system:masters"]), verb);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    fixture.create("", "v1", "pods", pod).await.unwrap();
    let status = fixture.target("", "v1", "pods", "p").with_subresource("status");
    fixture.merge(&status, json!({"status": {"phase": "Running"}})).await.unwrap();
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    fixture.create("policy", "v1", "poddisruptionbudgets", budget).await.unwrap();
    let counted = fixture.target("policy", "v1", "poddisruptionbudgets", "b").with_subresource("status");
    let count = |allowed: i64| {
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed,
        "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}})
    };
    fixture.merge(&counted, count(0)).await.unwrap();
    let target = fixture.target("", "v1", "pods", "p").with_subresource("eviction");
    let evict = || {
        let eviction = object(json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}));
        let (fixture, target, cx) = (&fixture, &target, admin(Verb::Create));
        async move { fixture.registry.create(&cx, target, eviction).await }
    };
    let refused = evict().await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    );
    fixture.merge(&counted, count(1)).await.unwrap();
    evict().await.unwrap();
    let going = fixture.get(&fixture.target("", "v1", "pods", "p")).await.unwrap();
    assert!(going.is_being_deleted());
    let conditions = going.list_at(&["status", "conditions"]);
    assert!(conditions.iter().any(|condition| condition["reason"] == "EvictionByEvictionAPI"), "{conditions:?}");
    let budget = fixture.get(&fixture.target("policy", "v1", "poddisruptionbudgets", "b")).await.unwrap();
    assert_eq!(budget.i64_at(&["status", "disruptionsAllowed"]), Some(0));
    assert!(budget.get(&["status", "disruptedPods", "p"]).is_some());
}
