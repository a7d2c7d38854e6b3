//! Services: addresses and ports are taken in the write and given back with it.

use std::time::Duration;

use futures::FutureExt;
use meta::{GroupVersionKind, ObjectKey};
use serde_json::{Value, json};

use super::fixture::Fixture;
use crate::bootstrap::client_authority;
use crate::bootstrap::kubernetes_service::{one_goes, publish};
use crate::registry::Target;

fn body(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["ports"] = json!([{"port": 80}]);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_service_gets_an_address_that_nobody_else_gets() {
    let fixture = Fixture::new().await;
    let made = fixture.create("", "v1", "services", body("s", json!({}))).await.unwrap();
    let address = made.str_at(&["spec", "clusterIP"]).to_string();
    assert!(address.starts_with("10.43."), "{address}");
    let record = fixture.get(&fixture.target("networking.k8s.io", "v1", "ipaddresses", &address)).await.unwrap();
    assert_eq!(record.str_at(&["spec", "parentRef", "name"]), "s");
    let error = fixture.create("", "v1", "services", body("t", json!({"clusterIP": address}))).await.unwrap_err();
    assert_eq!(error.code, 422);
    assert!(error.message.contains("provided IP is already allocated"), "{error}");
    fixture.delete(&fixture.target("", "v1", "services", "s")).await.unwrap();
    let taken = fixture.create("", "v1", "services", body("t", json!({"clusterIP": address}))).await.unwrap();
    assert_eq!(taken.str_at(&["spec", "clusterIP"]), address);
}

#[tokio::test]
async fn a_refused_service_takes_nothing() {
    let fixture = Fixture::new().await;
    let spec = json!({"type": "NodePort", "clusterIP": "10.43.7.7"});
    let mut with_port = body("s", spec);
    with_port["spec"]["ports"][0]["nodePort"] = 30_080.into();
    fixture.create("", "v1", "services", with_port.clone()).await.unwrap();
    with_port["metadata"]["name"] = "t".into();
    with_port["spec"]["clusterIP"] = "10.43.7.8".into();
    let error = fixture.create("", "v1", "services", with_port).await.unwrap_err();
    assert!(error.message.contains("provided port is already allocated"), "{error}");
    let free = body("u", json!({"clusterIP": "10.43.7.8"}));
    fixture.create("", "v1", "services", free).await.unwrap();
}

#[tokio::test]
async fn an_update_gives_back_what_it_no_longer_needs() {
    let fixture = Fixture::new().await;
    let made = fixture.create("", "v1", "services", body("s", json!({"type": "NodePort"}))).await.unwrap();
    let port = made.list_at(&["spec", "ports"])[0]["nodePort"].as_u64().unwrap();
    assert!((30_000..=32_767).contains(&port));
    let target = fixture.target("", "v1", "services", "s");
    let mut plain = made.clone();
    plain.set(&["spec", "type"], "ClusterIP");
    plain.set(&["spec", "ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    let plain = fixture.update(&target, plain).await.unwrap();
    assert_eq!(plain.str_at(&["spec", "clusterIP"]), made.str_at(&["spec", "clusterIP"]));
    let mut other = body("t", json!({"type": "NodePort"}));
    other["spec"]["ports"][0]["nodePort"] = port.into();
    fixture.create("", "v1", "services", other).await.unwrap();
}

#[tokio::test]
async fn the_kubernetes_service_is_there_and_comes_back() {
    let fixture = Fixture::new().await;
    publish(&fixture.registry, "192.0.2.1:6443".parse().unwrap()).await.unwrap();
    let target = fixture.target("", "v1", "services", "kubernetes");
    let service = fixture.get(&target).await.unwrap();
    assert_eq!(service.str_at(&["spec", "clusterIP"]), "10.43.0.1");
    let slice = fixture.get(&fixture.target("discovery.k8s.io", "v1", "endpointslices", "kubernetes")).await.unwrap();
    assert_eq!(slice.list_at(&["endpoints"])[0]["addresses"], json!(["192.0.2.1"]));
    let endpoints = fixture.get(&fixture.target("", "v1", "endpoints", "kubernetes")).await.unwrap();
    assert_eq!(endpoints.list_at(&["subsets"])[0]["ports"][0]["port"], 6443);
    fixture.delete(&target).await.unwrap();
    let key = ObjectKey::new("default", "kubernetes");
    let again = fixture.registry.appears("services/specs", &key, Duration::from_secs(30)).await.unwrap();
    assert_eq!(again.stored_object().unwrap().str_at(&["spec", "clusterIP"]), "10.43.0.1");
}

#[tokio::test]
async fn the_authority_of_clients_is_published_and_comes_back() {
    let fixture = Fixture::new().await;
    let made = rcgen::generate_simple_self_signed(["a".to_string()]).unwrap().cert.pem().replace('\r', "");
    client_authority::publish(&fixture.registry, made.clone()).await.unwrap();
    let key = ObjectKey::new("kube-system", "extension-apiserver-authentication");
    let kinds = fixture.registry.kinds();
    let kind = kinds.by_gvk(&GroupVersionKind::new("", "v1", "ConfigMap")).unwrap();
    let target = Target::object(kind, &key);
    let map = fixture.get(&target).await.unwrap();
    assert_eq!(map.str_at(&["data", "client-ca-file"]), made);
    fixture.delete(&target).await.unwrap();
    let again = fixture.registry.appears("configmaps", &key, Duration::from_secs(30)).await.unwrap();
    assert_eq!(again.stored_object().unwrap().str_at(&["data", "client-ca-file"]), made);
}

#[tokio::test]
async fn a_server_on_loopback_does_not_wait_for_endpoints_that_it_never_makes() {
    let fixture = Fixture::new().await;
    let at = "127.0.0.1:6443".parse().unwrap();
    publish(&fixture.registry, at).await.unwrap();
    let key = ObjectKey::new("default", "kubernetes");
    for made in ["services/specs", "endpointslices"] {
        fixture.registry.appears(made, &key, Duration::from_secs(30)).await.unwrap();
    }
    assert_eq!(one_goes(&fixture.registry, at).now_or_never(), None, "nothing was deleted");
}
