//! What is read of objects as the API sends them, in both encodings.

use super::*;
use meta::Object;
use serde_json::{Value, json};

/// Read from protobuf and from JSON, which has to come to the same.
fn project<P: Projection + PartialEq + std::fmt::Debug>(object: Value) -> P {
    let object = Object::from_value(object).unwrap();
    let schema = api::codec::schema_for(&object.gvk().unwrap()).unwrap();
    let encodings = [
        (Media::Json, api::codec::json(&schema, &object)),
        (Media::Protobuf, api::codec::proto(&schema, &object).unwrap()),
    ];
    let [from_json, from_protobuf] = encodings.map(|(media, bytes)| {
        P::project(&client::Encoded { key: object.key(), revision: 1, media, bytes: bytes.into() }).unwrap()
    });
    assert_eq!(from_json, from_protobuf);
    from_protobuf
}

fn service(metadata: Value, spec: Value) -> Service {
    let ingress = json!([{"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"hostname": "lb"}]);
    project(json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}}}))
}

#[test]
fn a_service_is_read_whole() {
    let managed = json!([{"manager": "m", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]);
    let read = service(
        json!({"name": "web", "namespace": "n", "labels": {"a": "b"}, "managedFields": managed}),
        json!({
            "type": "LoadBalancer", "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7", "fd43::7"],
            "externalIPs": ["192.0.2.9", "nonsense"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Local"
        }),
    );
    let addresses = |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let expected = Service {
        cluster_ips: addresses(&["10.43.0.7", "fd43::7"]),
        external_ips: addresses(&["192.0.2.9", "203.0.113.1"]),
        ports: vec![
            ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: 30080 },
            ServicePort { name: String::new(), protocol: Protocol::Udp, port: 53, node_port: 0 },
        ],
        affinity_s: Some(60),
        internal_local: false,
        external_local: true,
    };
    assert_eq!(read, expected);
}

#[test]
fn services_of_others_have_no_addresses() {
    let plain = json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80}]});
    assert!(!service(json!({"name": "web"}), plain.clone()).cluster_ips.is_empty());
    let labelled = json!({"name": "web", "labels": {PROXY_NAME_LABEL: "other"}});
    for (metadata, spec) in [
        (labelled, plain),
        (json!({"name": "web"}), json!({"clusterIP": "None", "clusterIPs": ["None"]})),
        (json!({"name": "web"}), json!({"type": "ExternalName", "externalName": "example.com"})),
        (json!({"name": "web"}), json!({})),
    ] {
        assert_eq!(service(metadata, spec), Service::default());
    }
}

fn slice(label: &str, endpoints: Value) -> Slice {
    let labels = json!({SERVICE_NAME_LABEL: "web", label: ""});
    let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "all"}]);
    project(json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "n", "labels": labels}, "ports": ports, "endpoints": endpoints}))
}

#[test]
fn a_slice_is_read_with_what_absence_means() {
    let hints = json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]});
    let read = slice(
        "app",
        json!([
            {"addresses": ["10.42.0.1", "10.42.0.2"], "nodeName": "n1", "hints": hints, "conditions": {}},
            {"addresses": ["10.42.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["nonsense"]},
        ]),
    );
    let plain = Endpoint {
        address: "10.42.0.1".parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: "n1".into(),
        zones: vec!["z1".into()],
        nodes: vec!["n1".into()],
    };
    let leaving = Endpoint {
        address: "10.42.0.3".parse().unwrap(),
        ready: false,
        terminating: true,
        node: "".into(),
        zones: vec![],
        nodes: vec![],
        ..plain.clone()
    };
    let ports = vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }];
    assert_eq!(read, Slice { service: "web".into(), ports, endpoints: vec![plain, leaving] });
    assert_eq!(read.owner(&ObjectKey::new("n", "web-1")), Some(ObjectKey::new("n", "web")));
    assert_eq!(slice("app", Value::Null).endpoints, []);
    assert_eq!(slice(HEADLESS_LABEL, json!([])), Slice::default());
}
