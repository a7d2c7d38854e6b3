//! Pods: admission, binding, graceful deletion.

use client::Verb;
use client::door::DeleteOptions;
use meta::Object;
use serde_json::{Value, json};

use super::fixture::{Fixture, admin, object, shown};
use crate::context::{Context, Identity};
use crate::registry::{Outcome, Target};

fn body() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
           "spec": {"containers": [{"name": "c", "image": "busybox:1.36"}]}})
}

async fn pod(fixture: &Fixture) -> Object {
    fixture.create("", "v1", "pods", body()).await.unwrap()
}

async fn bind(fixture: &Fixture, node: &str) -> Result<Outcome, meta::Status> {
    let target = fixture.target("", "v1", "pods", "p").with_subresource("binding");
    let binding = object(json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
                                "target": {"kind": "Node", "name": node}}));
    fixture.registry.create(&admin(Verb::Create), &target, binding).await
}

#[tokio::test]
async fn a_new_pod_has_account_token_tolerations_and_priority() {
    let fixture = Fixture::new().await;
    let pod = pod(&fixture).await.into_value();
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    assert_eq!((&spec["restartPolicy"], &pod["status"]["phase"]), (&json!("Always"), &json!("Pending")));
}

#[tokio::test]
async fn a_pod_of_an_unknown_account_or_class_is_refused() {
    let fixture = Fixture::new().await;
    let with = |field: &str, value: &str| {
        let mut pod = body();
        pod["spec"][field] = value.into();
        pod
    };
    let error = fixture.create("", "v1", "pods", with("serviceAccountName", "x")).await.unwrap_err();
    assert_eq!(
        error.message,
        "pods \"p\" is forbidden: error looking up service account default/x: serviceaccount \"x\" not found"
    );
    let error = fixture.create("", "v1", "pods", with("priorityClassName", "x")).await.unwrap_err();
    assert_eq!(error.message, "pods \"p\" is forbidden: no PriorityClass with name x was found");
}

#[tokio::test]
async fn binding_sets_the_node_once() {
    let fixture = Fixture::new().await;
    pod(&fixture).await;
    assert!(matches!(bind(&fixture, "n").await.unwrap(), Outcome::Success { created: true, .. }));
    let bound = fixture.get(&fixture.target("", "v1", "pods", "p")).await.unwrap();
    assert_eq!(bound.str_at(&["spec", "nodeName"]), "n");
    let again = bind(&fixture, "m").await.unwrap_err();
    assert_eq!(
        again.message,
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
    );
}

#[tokio::test]
async fn a_pod_on_a_node_goes_gracefully_and_one_without_goes_at_once() {
    let fixture = Fixture::new().await;
    let target = fixture.target("", "v1", "pods", "p");
    pod(&fixture).await;
    fixture.delete(&target).await.unwrap();
    assert!(fixture.get(&target).await.unwrap_err().is_not_found());
    pod(&fixture).await;
    bind(&fixture, "n").await.unwrap();
    let going = shown(&target, fixture.delete(&target).await.unwrap()).unwrap();
    assert_eq!(going.deletion_grace_period_seconds(), Some(30));
    let again = shown(&target, fixture.delete(&target).await.unwrap()).unwrap();
    assert_eq!(again.resource_version(), going.resource_version());
    let shorter = DeleteOptions { grace_period_seconds: Some(5), ..DeleteOptions::default() };
    let cx = admin(Verb::Delete);
    let sooner = shown(&target, fixture.registry.delete(&cx, &target, shorter).await.unwrap()).unwrap();
    assert_eq!(sooner.deletion_grace_period_seconds(), Some(5));
    assert!(sooner.deletion_timestamp() < going.deletion_timestamp());
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    fixture.registry.delete(&cx, &target, now).await.unwrap();
    assert!(fixture.get(&target).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_node_agent_writes_the_status_of_its_own_pods_only() {
    let fixture = Fixture::new().await;
    pod(&fixture).await;
    bind(&fixture, "n").await.unwrap();
    let target: Target = fixture.target("", "v1", "pods", "p").with_subresource("status");
    let pod = fixture.get(&fixture.target("", "v1", "pods", "p")).await.unwrap();
    let update = |node: &str| {
        let cx = Context::of(Identity::new(&format!("system:node:{node}"), &["system:nodes"]), Verb::Update);
        let mut pod = pod.clone();
        pod.set(&["status", "phase"], "Running");
        let (fixture, target) = (&fixture, &target);
        async move { fixture.registry.update(&cx, target, pod).await }
    };
    let error = update("other").await.unwrap_err();
    assert!(error.message.contains("can only update pod status for pods with spec.nodeName set to itself"), "{error}");
    let updated = shown(&target, update("n").await.unwrap()).unwrap();
    assert_eq!(updated.str_at(&["status", "phase"]), "Running");
}

#[tokio::test]
async fn a_node_agent_asks_for_certificates_of_its_own_pods_and_of_signers_that_they_mount_only() {
    let fixture = Fixture::new().await;
    let volume = json!({"name": "v", "projected": {"sources": [
        {"podCertificate": {"signerName": "a.io/b", "keyType": "ED25519", "credentialBundlePath": "x"}}]}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n",
        "containers": [{"name": "c", "image": "i"}], "volumes": [volume]}});
    let pod = fixture.create("", "v1", "pods", pod).await.unwrap();
    let target = fixture.target("certificates.k8s.io", "v1", "podcertificaterequests", "");
    let account = fixture.get(&fixture.target("", "v1", "serviceaccounts", "default")).await.unwrap();
    let ask = |agent: &str, changed: Value, node_uid: &str| {
        let cx = Context::of(Identity::new(&format!("system:node:{agent}"), &["system:nodes"]), Verb::Create);
        let mut spec = json!({"nodeName": "n", "nodeUID": node_uid, "podName": "p", "podUID": pod.uid(),
            "serviceAccountName": "default", "serviceAccountUID": account.uid(), "signerName": "a.io/b"});
        spec.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        let request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
            "metadata": {"name": "r", "namespace": "default"}, "spec": spec});
        let (fixture, target, request) = (&fixture, &target, Object::from_value(request).unwrap());
        async move {
            match fixture.registry.create(&cx, target, request).await {
                Ok(_) => String::new(),
                Err(status) => format!("{} {}", status.code, status.message),
            }
        }
    };
    let error = ask("n", json!({}), "").await;
    assert!(error.starts_with("500") && error.contains("while retrieving nodes"), "{error}");
    let node =
        fixture.create("", "v1", "nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}));
    let uid = node.await.unwrap().uid().to_string();
    for (agent, changed, code, words) in [
        ("m", json!({}), "403", "which is not the requesting node"),
        ("n", json!({"nodeUID": "x"}), "500", "differs from the running one"),
        ("n", json!({"podName": "q"}), "500", "while retrieving pods"),
        ("n", json!({"podUID": "x"}), "500", "differs from the running one"),
        ("n", json!({"serviceAccountName": "s"}), "403", "differs from running pod"),
        ("n", json!({"serviceAccountUID": "x"}), "500", "differs from the running one"),
        ("n", json!({"signerName": "a.io/c"}), "403", "does not mount a podCertificate projected volume"),
    ] {
        let error = ask(agent, changed, &uid).await;
        assert!(error.starts_with(code) && error.contains(words), "{error}");
    }
    // Admitted: what is left to say is about the request itself.
    let error = ask("n", json!({}), &uid).await;
    assert!(error.is_empty() || error.starts_with("422"), "{error}");
}
