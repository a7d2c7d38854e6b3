//! Bad requests: each is refused with the code and reason that upstream gives, nothing is stored, and the server goes on
//! answering.
//!
//! Sent by hand through `kubectl proxy`, because kubectl itself would refuse to send most of them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{Follow, Kube, Request};

struct Case {
    what: &'static str,
    method: &'static str,
    /// Below the namespace's path unless it begins with a slash.
    path: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    code: u16,
    reason: &'static str,
    /// A part of the message, where upstream's words are promised.
    says: &'static str,
}

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Upstream's limit for a body.
const BODY_BYTES_MAX: usize = 3 << 20;

/// A create of a config map.
fn create(
    what: &'static str,
    content_type: &'static str,
    body: impl Into<Vec<u8>>,
    code: u16,
    reason: &'static str,
) -> Case {
    Case { what, method: "POST", path: "configmaps", content_type, body: body.into(), code, reason, says: "" }
}

fn read(what: &'static str, path: &'static str, code: u16, reason: &'static str, says: &'static str) -> Case {
    Case { what, method: "GET", path, content_type: "", body: Vec::new(), code, reason, says }
}

impl Case {
    fn saying(self, says: &'static str) -> Self {
        Self { says, ..self }
    }

    fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    fn by(self, method: &'static str) -> Self {
        Self { method, ..self }
    }
}

fn cases() -> Vec<Case> {
    let map = |name: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
    let nested = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"data\":{}1{}}}",
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    let large = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"b"}},"data":{{"x":"{}"}}}}"#,
        "x".repeat(BODY_BYTES_MAX)
    );
    let unknown = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"datum":{}}"#;
    vec![
        create("half an object", JSON, "{\"apiVersion\":", 400, "BadRequest"),
        create("an empty body", JSON, "", 400, "BadRequest"),
        create("no object at all", JSON, "[1]", 400, "BadRequest"),
        create("bytes that are no text", JSON, vec![0xFF, 0xFE, 0x00], 400, "BadRequest"),
        create(
            "another kind",
            JSON,
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"b"}}"#,
            400,
            "BadRequest",
        ),
        create(
            "a wrong type",
            JSON,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"data":7}"#,
            400,
            "BadRequest",
        ),
        create("20,000 levels", JSON, nested, 400, "BadRequest"),
        create("garbage as protobuf", PROTOBUF, "k8s\0garbage", 400, "BadRequest"),
        create("protobuf without its mark", PROTOBUF, "garbage", 400, "BadRequest"),
        create("YAML with a tab", "application/yaml", "kind:\n\tConfigMap", 400, "BadRequest"),
        create("an unknown content type", "text/plain", "hello", 415, "UnsupportedMediaType"),
        create("more than a body may have", JSON, large, 413, "RequestEntityTooLarge").saying("limit is 3145728"),
        create("an invalid name", JSON, map("Not A Name"), 422, "Invalid")
            .saying("metadata.name: Invalid value: \"Not A Name\""),
        create("no name", JSON, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}"#, 422, "Invalid")
            .saying("name or generateName is required"),
        create("an unknown field", JSON, unknown, 400, "BadRequest")
            .at("configmaps?fieldValidation=Strict")
            .saying("unknown field \"datum\""),
        create("an unknown mode", JSON, map("b"), 422, "Invalid").at("configmaps?fieldValidation=Never"),
        create("a dry run of what is unknown", JSON, map("b"), 422, "Invalid").at("configmaps?dryRun=Some"),
        create(
            "another namespace",
            JSON,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","namespace":"other"}}"#,
            400,
            "BadRequest",
        )
        .saying("the namespace of the provided object does not match the namespace sent on the request"),
        create("a patch of no kind", "application/x-patch", "{}", 415, "UnsupportedMediaType")
            .at("configmaps/kube-root-ca.crt")
            .by("PATCH"),
        create("a patch that is none", "application/json-patch+json", "{}", 400, "BadRequest")
            .at("configmaps/kube-root-ca.crt")
            .by("PATCH"),
        create("an update of a collection", JSON, map("b"), 405, "MethodNotAllowed").by("PUT"),
        read("an absent object", "configmaps/absent", 404, "NotFound", "configmaps \"absent\" not found"),
        read("an absent resource", "nothings", 404, "", ""),
        read("an absent group", "/apis/no.such.group/v1", 404, "", ""),
        read("a selector that is none", "configmaps?labelSelector=a%20in%20%28", 400, "BadRequest", ""),
        read(
            "a field nobody selects by",
            "pods?fieldSelector=spec.color%3Dred",
            400,
            "BadRequest",
            "field label not supported: spec.color",
        ),
        read("a limit that is no number", "configmaps?limit=many", 400, "BadRequest", ""),
        read("a token nobody gave", "configmaps?limit=1&continue=bm9uZQ", 400, "BadRequest", ""),
    ]
}

pub fn story(kube: &Kube) -> Result<()> {
    kube.until("configmaps", 30, |map| map["metadata"]["name"] == "kube-root-ca.crt")?;
    let proxy = Follow::start(kube.command("proxy --port=0"))?;
    let line = proxy.until(20, |line| line.starts_with("Starting to serve on ")).context("kubectl proxy")?;
    let address = line.rsplit(' ').next().context("kubectl proxy names no address")?.to_owned();
    let mut wrong = Vec::new();
    for case in cases() {
        if let Err(error) = is_refused(kube, &address, &case) {
            wrong.push(format!("{}: {error:#}", case.what));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let names = kube.value("configmaps", ".items[*].metadata.name")?;
    ensure!(names == "kube-root-ca.crt", "after all these refusals there is {names}");
    ensure!(kube.ok("get --raw /livez")? == "ok", "the server is not well");
    Ok(())
}

fn is_refused(kube: &Kube, address: &str, case: &Case) -> Result<()> {
    let prefix = format!("/api/v1/namespaces/{}/", kube.namespace());
    let path = if case.path.starts_with('/') { case.path.to_owned() } else { prefix + case.path };
    let request = Request { method: case.method, path: &path, content_type: case.content_type, body: &case.body };
    let (code, body) = request.send(address)?;
    ensure!(code == case.code, "answered with {code} instead of {}: {}", case.code, shortened(&body));
    if case.reason.is_empty() {
        return Ok(());
    }
    let status: Value =
        serde_json::from_str(&body).with_context(|| format!("the answer is no Status: {}", shortened(&body)))?;
    ensure!(
        status["kind"] == "Status" && status["status"] == "Failure" && status["code"] == code,
        "{}",
        shortened(&body)
    );
    ensure!(status["reason"] == case.reason, "the reason is {} instead of {}", status["reason"], case.reason);
    let message = status["message"].as_str().unwrap_or_default();
    ensure!(message.contains(case.says), "the message is {message:?}, without {:?}", case.says);
    Ok(())
}

fn shortened(body: &str) -> &str {
    &body[..body.floor_char_boundary(500)]
}
