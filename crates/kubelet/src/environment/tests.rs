//! Order, precedence and messages.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::pod::tests::pod_of;

struct Fixed;

impl Sources for Fixed {
    fn config_map(&self, name: &str) -> Result<Option<Data>, String> {
        Ok((name == "c").then(|| Data::from([("A".into(), b"from-c".to_vec()), ("B".into(), b"b".to_vec())])))
    }

    fn secret(&self, name: &str) -> Result<Option<Data>, String> {
        Ok((name == "s").then(|| Data::from([("A".into(), b"from-s".to_vec())])))
    }
}

fn services() -> Vec<(String, String)> {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "my-db", "namespace": "n"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "name": "web-ui"}, {"port": 53, "protocol": "UDP"}]},
    }))
    .unwrap();
    services::variables(&pod_of(json!({"containers": []})), [&service].into_iter())
}

fn environment(container: Value, links: Vec<(String, String)>) -> Result<Vec<(String, String)>, String> {
    let pod = pod_of(json!({"containers": [container]}));
    let node = Node { name: "node1", ips: &[], pod_ips: &["10.1.1.1".to_string()], allocatable: &BTreeMap::new() };
    make(&pod, &pod::containers(&pod)[0], &node, links, &Fixed)
}

#[test]
fn env_wins_over_env_from_which_wins_over_services() {
    let made = environment(
        json!({"name": "x", "envFrom": [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}, "prefix": ""}],
               "env": [{"name": "B", "value": "own-$(A)-$(MY_DB_SERVICE_PORT)"}, {"name": "C", "value": "$(B)"},
                       {"name": "MY_DB_SERVICE_HOST", "value": "mine"},
                       {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}),
        services(),
    )
    .unwrap();
    let find = |name: &str| made.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(find("A"), Some("from-s"));
    assert_eq!(find("B"), Some("own-from-s-80"));
    assert_eq!(find("C"), Some("own-from-s-80"));
    assert_eq!(find("MY_DB_SERVICE_HOST"), Some("mine"));
    assert_eq!(find("MY_DB_SERVICE_PORT_WEB_UI"), Some("80"));
    assert_eq!(find("MY_DB_PORT_53_UDP"), Some("udp://10.0.0.1:53"));
    assert_eq!(find("IP"), Some("10.1.1.1"));
}

#[test]
fn what_is_missing_is_named_unless_optional() {
    for (source, expected) in [
        (json!({"configMapKeyRef": {"name": "gone", "key": "k"}}), Err("configmap \"gone\" not found")),
        (json!({"secretKeyRef": {"name": "gone", "key": "k"}}), Err("secret \"gone\" not found")),
        (json!({"configMapKeyRef": {"name": "c", "key": "k"}}), Err("couldn't find key k in ConfigMap n/c")),
        (json!({"secretKeyRef": {"name": "s", "key": "k"}}), Err("couldn't find key k in Secret n/s")),
        (json!({"secretKeyRef": {"name": "s", "key": "k", "optional": true}}), Ok(0)),
        (json!({"configMapKeyRef": {"name": "gone", "key": "k", "optional": true}}), Ok(0)),
        (json!({"configMapKeyRef": {"name": "c", "key": "A"}}), Ok(1)),
    ] {
        let made = environment(json!({"name": "x", "env": [{"name": "V", "valueFrom": source}]}), Vec::new());
        assert_eq!(made.map(|made| made.len()), expected.map_err(String::from), "{source}");
    }
}
