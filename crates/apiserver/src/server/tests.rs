//! The whole server from the outside: over TLS, as clients see it.

use std::time::Duration;

use client::{Client, Deletion, ListQuery, Patch};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use meta::{GroupVersionResource, Object, ObjectKey};
use serde_json::{Value, json};

use super::lab::Lab;
use crate::context::Identity;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "data": {"a": "1"}})).unwrap()
}

/// The JSON body of a raw answer, chunks joined.
fn body(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    }
    let (mut joined, mut rest) = (String::new(), body);
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        joined.push_str(&after[..length]);
        rest = after[length..].trim_start_matches("\r\n");
    }
    serde_json::from_str(&joined).unwrap()
}

fn status(answer: &str) -> (u16, String) {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"));
    let text = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let message =
        serde_json::from_str::<Value>(text).ok().and_then(|body| body["message"].as_str().map(str::to_string));
    (code, message.unwrap_or_else(|| text.trim_end().to_string()))
}

#[tokio::test]
async fn objects_live_and_die_over_https() {
    let lab = Lab::start().await;
    let client = lab.client("admin", &["system:masters"]);
    let key = ObjectKey::new("default", "one");
    let created: ConfigMap = client.create(&config_map("one")).await.unwrap();
    assert!(created.metadata.uid.is_some() && created.metadata.resource_version.is_some());
    let mut query = ListQuery { namespace: "default".into(), ..ListQuery::default() };
    query.resource_version = created.metadata.resource_version.clone().unwrap();
    let gvr = GroupVersionResource::new("", "v1", "configmaps");
    let mut events = client.watch(&gvr, &query).await.unwrap();
    let patched: ConfigMap = client.patch(&key, "", Patch::Merge(json!({"data": {"a": "2"}}))).await.unwrap();
    assert_eq!(patched.data.unwrap()["a"], "2");
    let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
    let client::WatchEvent::Modified(seen) = event else { panic!("{event:?}") };
    assert_eq!(Some(seen.revision.to_string()), patched.metadata.resource_version);
    query.resource_version.clear();
    assert_eq!(client.list::<ConfigMap>(&query).await.unwrap().items.len(), 1);
    client.delete::<ConfigMap>(&key, Deletion::default()).await.unwrap();
    let gone = client.get::<ConfigMap>(&key).await.unwrap_err();
    assert_eq!((gone.code, gone.message.as_str()), (404, "configmaps \"one\" not found"));
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn answers_come_in_the_format_and_shape_asked_for() {
    let lab = Lab::start().await;
    let made = lab.send("POST", CONFIG_MAPS, JSON, r#"{"metadata":{"name":"one"},"data":{"a":"1"}}"#).await;
    assert_eq!(status(&made).0, 201, "{made}");
    let list = lab.get(CONFIG_MAPS, "").await;
    assert!(list.contains(r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":""#), "{list}");
    assert!(list.contains(r#""items":[{"metadata":{"name":"one""#) && list.ends_with("]}\n"), "{list}");
    let table = lab.get(CONFIG_MAPS, "accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json\r\n").await;
    let table = body(&table);
    assert_eq!(
        (&table["kind"], &table["rows"][0]["object"]["kind"]),
        (&json!("Table"), &json!("PartialObjectMetadata"))
    );
    assert_eq!(table["rows"][0]["cells"][0], "one");
    let partial = "accept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io\r\n";
    let partial = body(&lab.get(CONFIG_MAPS, partial).await);
    assert_eq!(partial["items"][0]["kind"], "PartialObjectMetadata");
    assert!(partial["items"][0].get("data").is_none());
    let yaml = lab.get(&format!("{CONFIG_MAPS}/one"), "accept: application/yaml\r\n").await;
    assert!(
        yaml.contains("content-type: application/yaml") && yaml.contains("\ndata:\n  a: '1'\nkind: ConfigMap\n"),
        "{yaml}"
    );
    let pretty = lab.get(&format!("{CONFIG_MAPS}/one?pretty=true"), "").await;
    assert!(pretty.contains("{\n  \"kind\": \"ConfigMap\",\n"), "{pretty}");
    let protobuf = lab.get(&format!("{CONFIG_MAPS}/one"), "accept: application/vnd.kubernetes.protobuf\r\n").await;
    assert!(protobuf.contains("\r\n\r\nk8s\0"), "{protobuf}");
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn refusals_are_upstreams() {
    let lab = Lab::start().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(status(&lab.raw(lab.anonymous_tls(), &get("/api/v1/pods")).await), (401, "Unauthorized".into()));
    let denied = lab.raw(lab.tls("someone", &[]), &get("/api/v1/namespaces/default/pods")).await;
    let told =
        r#"pods is forbidden: User "someone" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert_eq!(status(&denied), (403, told.into()));
    let nothing = "the server could not find the requested resource";
    for (path, headers, expected) in [
        ("/api/v1/foos", "", (404, nothing)),
        ("/apis/none/v1/foos", "", (404, nothing)),
        ("/nowhere", "", (404, "404 page not found")),
        ("/api/v1/namespaces/default/configmaps/none", "", (404, "configmaps \"none\" not found")),
        ("/api/v1/configmaps?limit=x", "", (400, "strconv.ParseInt: parsing \"x\": invalid syntax")),
        (
            CONFIG_MAPS,
            "accept: text/html\r\n",
            (
                406,
                "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
            ),
        ),
    ] {
        let answer = lab.get(path, headers).await;
        assert_eq!(status(&answer), (expected.0, expected.1.to_string()), "{path}");
    }
    let put = lab.send("PUT", "/api/v1/pods", JSON, "{}").await;
    assert_eq!(status(&put), (405, "the server does not allow this method on the requested resource".into()));
    assert_eq!(status(&lab.send("POST", CONFIG_MAPS, "text/plain", "{}").await).0, 415);
    assert_eq!(status(&lab.send("POST", CONFIG_MAPS, JSON, "{").await).0, 400);
    let large = lab.send("POST", CONFIG_MAPS, JSON, &" ".repeat(3 * 1024 * 1024 + 1)).await;
    assert_eq!(status(&large), (413, "Request entity too large: limit is 3145728".into()));
    // A body that does not tell its length is measured as it comes.
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x10_0000));
    let chunked = format!(
        "POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(4)
    );
    assert_eq!(status(&lab.raw(lab.tls("admin", &["system:masters"]), &chunked).await).0, 413);
    let strict = r#"{"metadata":{"name":"x"},"datum":{}}"#;
    let strict = lab.send("POST", &format!("{CONFIG_MAPS}?fieldValidation=Strict"), JSON, strict).await;
    assert!(status(&strict).1.ends_with("strict decoding error: unknown field \"datum\""), "{strict}");
    let warned = lab.send("POST", CONFIG_MAPS, JSON, r#"{"metadata":{"name":"x"},"datum":{}}"#).await;
    assert!(warned.contains(r#"warning: 299 - "unknown field \"datum\"""#), "{warned}");
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn health_and_version_need_no_credential_and_discovery_does() {
    let lab = Lab::start().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = lab.raw(lab.anonymous_tls(), &get("/livez")).await;
    assert_eq!(status(&answer), (200, "ok".into()));
    let version = lab.get("/version", "").await;
    assert!(body(&version)["gitVersion"].as_str().unwrap().starts_with("v1.37"), "{version}");
    assert_eq!(status(&lab.raw(lab.anonymous_tls(), &get("/api")).await).0, 401);
    let accept = "accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json\r\n";
    let aggregated = lab.get("/apis", accept).await;
    assert!(aggregated.contains("content-type: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"));
    assert_eq!(body(&aggregated)["kind"], "APIGroupDiscoveryList");
    assert!(body(&lab.get("/apis/apps/v1", "").await)["resources"].as_array().unwrap().len() > 5);
    assert!(lab.get("/metrics", "").await.contains("apiserver_request_total{"));
    assert_eq!(body(&lab.get("/openapi/v3/apis/apps/v1", "").await)["openapi"], "3.0.0");
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn a_role_binding_takes_effect_and_reviews_say_so() {
    let lab = Lab::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = r#"{"metadata":{"name":"r"},"rules":[{"verbs":["list"],"apiGroups":[""],"resources":["configmaps"]}]}"#;
    assert_eq!(status(&lab.send("POST", &format!("{rbac}/roles"), JSON, role).await).0, 201);
    let binding = r#"{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},
        "subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"someone"}]}"#;
    assert_eq!(status(&lab.send("POST", &format!("{rbac}/rolebindings"), JSON, binding).await).0, 201);
    let review = r#"{"spec":{"user":"someone","resourceAttributes":{"namespace":"default","verb":"list","resource":"configmaps"}}}"#;
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    // The index follows the store by a watch: the answer is right as soon as that has come.
    let allowed = async {
        loop {
            let answer = lab.send("POST", reviews, JSON, review).await;
            assert_eq!(status(&answer).0, 201, "{answer}");
            if body(&answer)["status"]["allowed"] == true {
                break body(&answer);
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), allowed).await.unwrap();
    assert_eq!(answer["status"]["reason"], r#"RBAC: allowed by RoleBinding "b/default" of Role "r" to User "someone""#);
    let list = format!("GET {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(status(&lab.raw(lab.tls("someone", &[]), &list).await).0, 200);
    lab.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_before_a_request_counts_for_it() {
    let lab = Lab::start().await;
    lab.server.ready().await;
    let at_door = |user: &str, groups: &[&str]| Client::new(lab.server.door(Identity::new(user, groups)));
    let admin = at_door("admin", &["system:masters"]);
    admin.create(&config_map("one")).await.unwrap();
    let make = async |value: Value| {
        let object = Object::from_value(value).unwrap();
        let resource = format!("{}s", object.gvk().unwrap().kind.to_lowercase());
        let (group, version) = (object.gvk().unwrap().group.to_string(), object.gvk().unwrap().version.to_string());
        admin.create_object(&GroupVersionResource::new(&group, &version, &resource), object).await.unwrap();
    };
    make(
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}),
    )
    .await;
    let (rbac, version) = ("rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1");
    for round in 0..50 {
        let name = format!("u{round}");
        let about = json!({"name": name, "namespace": "default"});
        make(json!({"apiVersion": version, "kind": "Role", "metadata": about,
            "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"]}]}))
        .await;
        make(json!({"apiVersion": version, "kind": "RoleBinding", "metadata": about,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": name}]}))
        .await;
        let query = ListQuery { namespace: "default".into(), ..ListQuery::default() };
        let listed = at_door(&name, &[]).list::<ConfigMap>(&query).await;
        assert_eq!(listed.map(|list| list.items.len()), Ok(1), "round {round}");

        let container = json!({"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "one"}}]});
        make(json!({"apiVersion": "v1", "kind": "Pod", "metadata": about,
            "spec": {"nodeName": name, "containers": [container], "automountServiceAccountToken": false}}))
        .await;
        let node = at_door(&format!("system:node:{name}"), &["system:nodes", "system:authenticated"]);
        let read = node.get::<ConfigMap>(&ObjectKey::new("default", "one")).await;
        assert_eq!(read.map(|_| ()), Ok(()), "round {round}");
    }
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn the_door_inside_the_process_is_authorized_like_any_other() {
    let lab = Lab::start().await;
    let admin = Client::new(lab.server.door(Identity::new("admin", &["system:masters"])));
    admin.create(&config_map("inside")).await.unwrap();
    let nobody = Client::new(lab.server.door(Identity::new("nobody", &[])));
    let refused = nobody.get::<ConfigMap>(&ObjectKey::new("default", "inside")).await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains(r#"User "nobody" cannot get resource "configmaps""#), "{refused}");
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn impersonation_changes_who_asks_and_a_wrong_token_is_nobody() {
    let lab = Lab::start().await;
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let post = |headers: &str| {
        format!(
            "POST {reviews} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-type: {JSON}\r\ncontent-length: 2\r\n\r\n{{}}"
        )
    };
    let admin = || lab.tls("admin", &["system:masters"]);
    let taken_on = "impersonate-user: system:serviceaccount:a:b\r\n";
    // Anybody with a credential may ask who they are, through a default role; an impersonated administrator surely may.
    let masters = format!("{taken_on}impersonate-group: system:masters\r\n");
    let answer = lab.raw(admin(), &post(&masters)).await;
    assert_eq!(body(&answer)["status"]["userInfo"]["username"], "system:serviceaccount:a:b", "{answer}");
    let refused = lab.raw(lab.tls("someone", &[]), &post(taken_on)).await;
    assert!(status(&refused).1.contains("cannot impersonate resource \"serviceaccounts\""), "{refused}");
    for token in ["x", "abcdef.0123456789abcdef", "a.b.c"] {
        let answer = lab.raw(lab.anonymous_tls(), &post(&format!("authorization: Bearer {token}\r\n"))).await;
        assert_eq!(status(&answer).0, 401, "{token}");
    }
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn a_watch_is_a_stream_of_lines_that_ends_with_the_server() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let lab = Lab::start().await;
    let socket = tokio::net::TcpStream::connect(lab.server.address()).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let tls = std::sync::Arc::new(lab.tls("admin", &["system:masters"]));
    let mut stream = tokio_rustls::TlsConnector::from(tls).connect(name, socket).await.unwrap();
    let request = format!("GET {CONFIG_MAPS}/one?watch=true HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "HTTP/1.1 200 OK");
    for name in ["other", "one"] {
        let made = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        assert_eq!(status(&lab.send("POST", CONFIG_MAPS, JSON, &made).await).0, 201);
    }
    let named = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if line.contains("\"name\"") {
            break line;
        }
    };
    assert!(named.contains(r#""name":"one""#), "{named}");
    let stopping = tokio::spawn(async move { lab.tasks.shutdown().await });
    let ended = async {
        while let Ok(Some(_)) = lines.next_line().await {}
        stopping.await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
}

#[tokio::test]
async fn a_watch_over_websocket_is_an_event_a_message() {
    use websocket::Message;
    let lab = Lab::start().await;
    let watch = format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Done");
    let origin = "origin: http://localhost\r\n";
    let (head, mut lines) = lab.websocket(&watch, &format!("{origin}sec-websocket-protocol: any\r\n")).await;
    assert!(head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: any\r\n"), "{head}");
    let accept = "accept: application/vnd.kubernetes.protobuf;stream=watch\r\n";
    let (_, mut bytes) = lab.websocket(&watch, &format!("{origin}{accept}")).await;
    for made in [r#"{"metadata":{"name":"one"},"data":{"a":"1"}}"#, r#"{"metadata":{"name":"two"}}"#] {
        assert_eq!(status(&lab.send("POST", CONFIG_MAPS, JSON, made).await).0, 201);
    }
    lab.client("admin", &["system:masters"])
        .patch::<ConfigMap>(&ObjectKey::new("default", "one"), "", Patch::Merge(json!({"data": {"a": "2"}})))
        .await
        .unwrap();
    for (event, data) in [("ADDED", "1"), ("MODIFIED", "2")] {
        let Some(Ok(Message::Text(line))) = lines.next().await else { panic!("text") };
        let seen: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&seen["type"], &seen["object"]["data"]["a"]), (&json!(event), &json!(data)));
        let Some(Ok(Message::Binary(message))) = bytes.next().await else { panic!("bytes") };
        let length = u8::try_from(event.len()).unwrap();
        assert_eq!(&message[..2], [0x0a, length], "a message, and no length before it");
        assert!(message[2..].starts_with(event.as_bytes()));
    }
    let (head, _) = lab.websocket(&watch, "").await;
    assert!(head.starts_with("http/1.1 403"), "{head}");
    let (head, _) = lab.websocket(&watch, &format!("{origin}sec-websocket-protocol: a, b\r\n")).await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
    let unknown = format!("{CONFIG_MAPS}?watch=true&fieldSelector=spec.x%3Dy");
    let (head, _) = lab.websocket(&unknown, origin).await;
    assert!(head.starts_with("http/1.1 400") && head.contains("content-type: application/json"), "{head}");
    lab.tasks.shutdown().await;
    while let Some(Ok(_)) = lines.next().await {}
}

#[tokio::test]
async fn a_watch_over_websocket_ends_when_its_time_is_over() {
    use websocket::{CloseCode, Message};
    let lab = Lab::start().await;
    let watch = format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1&resourceVersion=0&fieldSelector=metadata.name%3Dx");
    let (_, mut client) = lab.websocket(&watch, "origin: http://localhost\r\n").await;
    let Some(Ok(Message::Close(Some(end)))) = client.next().await else { panic!("a close") };
    assert_eq!(end.code, CloseCode::Normal);
    lab.tasks.shutdown().await;
}
