//! Kinds that need only a few words: ServiceAccount, Lease, PriorityClass, CertificateSigningRequest, ServiceCIDR, IPAddress.

use meta::{FieldError, FieldPath, Object, name, time};
use serde_json::{Value, json};

use super::pod_columns::or_none;
use super::rules::{self, Errors};
use super::tree::{Read, Write};
use super::workload_columns::{integer, string};
use crate::columns::{Column, age_column, name_column};
use crate::strategy::{Request, Strategy, keep_all_but_status, keep_other_half};

pub struct ServiceAccount;
pub struct Lease;
pub struct PriorityClass;
pub struct CertificateSigningRequest;
pub struct ServiceCidr;
pub struct IpAddress;
pub struct RuntimeClass;
/// A volume or a claim for one: it waits from the start.
pub struct Claimed;
/// A kind that nothing is special about, but that its status writers may not touch its metadata.
pub struct StatusAlone;

/// The largest value a user's priority class may have.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

impl Strategy for StatusAlone {
    fn before_update(&self, request: &Request, new: &mut Object, old: &Object) {
        keep_all_but_status(request, new, old);
    }
}

impl Strategy for Claimed {
    fn before_create(&self, _: &Request, new: &mut Object) {
        new.set(&["status"], json!({"phase": "Pending"}));
    }
}

impl Strategy for RuntimeClass {
    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let (mut errors, path, handler) = (Errors::new(), FieldPath::new("handler"), new.str_at(&["handler"]));
        rules::each_invalid(&mut errors, &path, handler, meta::name::dns1123_label(handler));
        errors
    }

    fn validate_update(&self, _: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        rules::immutable(&mut errors, new.get(&["handler"]), old.get(&["handler"]), &FieldPath::new("handler"));
        errors
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for ServiceCidr {
    fn before_update(&self, request: &Request, new: &mut Object, old: &Object) {
        keep_all_but_status(request, new, old);
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for IpAddress {
    /// The name is the address, in the one way to write it.
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        match name.parse::<std::net::IpAddr>() {
            Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
            Ok(address) if address.to_string() != name => vec![format!("must be in canonical form (\"{address}\")")],
            Ok(_) => Vec::new(),
        }
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let (mut errors, path) = (Errors::new(), FieldPath::new("spec").child("parentRef"));
        let Some(parent) = new.get(&["spec", "parentRef"]) else { return vec![FieldError::required(&path, "")] };
        let group = parent.text("group");
        if !group.is_empty() {
            rules::each_invalid(&mut errors, &path.child("group"), group, meta::name::dns1123_subdomain(group));
        }
        for field in ["resource", "name"] {
            rules::required(&mut errors, parent, &path, field);
        }
        for field in ["resource", "name", "namespace"] {
            let text = parent.text(field);
            rules::each_invalid(&mut errors, &path.child(field), text, meta::name::path_segment(text));
        }
        errors
    }

    fn validate_update(&self, _: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (path, field) = (FieldPath::new("spec").child("parentRef"), ["spec", "parentRef"]);
        rules::immutable(&mut errors, new.get(&field), old.get(&field), &path);
        errors
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for ServiceAccount {
    fn has_generation(&self) -> bool {
        false
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for Lease {
    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let (mut errors, path) = (Errors::new(), FieldPath::new("spec"));
        if let Some(seconds) = new.i64_at(&["spec", "leaseDurationSeconds"]).filter(|seconds| *seconds <= 0) {
            errors.push(FieldError::invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
        }
        let spec = new.get(&["spec"]).cloned().unwrap_or_default();
        rules::non_negative(&mut errors, &spec, &path, "leaseTransitions");
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for PriorityClass {
    fn set_defaults(&self, new: &mut Object) {
        new.set_default(&["preemptionPolicy"], "PreemptLowerPriority");
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let value = new.i64_at(&["value"]).unwrap_or(0);
        let system = matches!(
            (new.name(), value),
            ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)
        );
        if new.name().starts_with("system-") && !system {
            let name = new.name();
            let why = match name {
                "system-node-critical" => format!("value of {name} PriorityClass must be 2000001000"),
                "system-cluster-critical" => format!("value of {name} PriorityClass must be 2000000000"),
                _ => format!("{name} is not a known system priority class"),
            };
            let detail =
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
            errors.push(FieldError::forbidden(&FieldPath::new("metadata").child("name"), detail));
        } else if value > USER_PRIORITY_MAX && !system {
            let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
            errors.push(FieldError::forbidden(&FieldPath::new("value"), detail));
        }
        let policy = new.str_at(&["preemptionPolicy"]);
        if !["PreemptLowerPriority", "Never"].contains(&policy) {
            let supported = ["PreemptLowerPriority", "Never"];
            errors.push(FieldError::not_supported(&FieldPath::new("preemptionPolicy"), policy, &supported));
        }
        errors
    }

    fn validate_update(&self, _: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        if new.i64_at(&["value"]) != old.i64_at(&["value"]) {
            errors.push(FieldError::forbidden(&FieldPath::new("value"), "may not be changed in an update."));
        }
        errors
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for CertificateSigningRequest {
    /// The request says who asks: the server writes it down, whatever the client claims.
    fn before_create(&self, request: &Request, new: &mut Object) {
        new.remove(&["status"]);
        new.set(&["status"], json!({}));
        let spec = new.map_at(&["spec"]);
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove(field);
        }
        new.set(&["spec", "username"], request.user.name.as_str());
        if !request.user.uid.is_empty() {
            new.set(&["spec", "uid"], request.user.uid.as_str());
        }
        new.set(&["spec", "groups"], json!(request.user.groups));
        if !request.user.extra.is_empty() {
            new.set(&["spec", "extra"], json!(request.user.extra));
        }
    }

    /// The spec never changes; `approval` changes conditions, `status` the certificate.
    fn before_update(&self, request: &Request, new: &mut Object, old: &Object) {
        if request.subresource == "approval" {
            let conditions = new.get(&["status", "conditions"]).cloned();
            let certificate = old.get(&["status", "certificate"]).cloned();
            let metadata = new.get(&["metadata"]).cloned().unwrap_or_default();
            *new = old.clone();
            new.set(&["metadata"], metadata);
            let mut status = json!({});
            if let Some(certificate) = certificate {
                status.put("certificate", certificate);
            }
            if let Some(conditions) = conditions {
                status.put("conditions", conditions);
            }
            new.set(&["status"], status);
        } else {
            let denied = old.list_at(&["status", "conditions"]).to_vec();
            keep_other_half(request, new, old);
            if request.subresource != "status" {
                let spec = old.get(&["spec"]).cloned().unwrap_or_default();
                new.set(&["spec"], spec);
            } else if !denied.is_empty() {
                keep_verdicts(new, &denied);
            }
        }
        stamp_conditions(request, new, old);
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let (mut errors, path) = (Errors::new(), FieldPath::new("spec"));
        let spec = new.get(&["spec"]).cloned().unwrap_or_default();
        if let Some(text) = rules::required(&mut errors, &spec, &path, "request")
            && !is_certificate_request(text)
        {
            let detail = "PEM block type must be CERTIFICATE REQUEST";
            errors.push(FieldError::invalid(&path.child("request"), text, detail));
        }
        if spec.items("usages").is_empty() {
            errors.push(FieldError::required(&path.child("usages"), ""));
        }
        match rules::required(&mut errors, &spec, &path, "signerName") {
            Some(signer) if !signer.contains('/') => {
                let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
                errors.push(FieldError::invalid(&path.child("signerName"), signer, detail));
            }
            _ => {}
        }
        if let Some(seconds) = spec.number("expirationSeconds").filter(|seconds| *seconds < 600) {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, detail));
        }
        errors
    }

    fn validate_update(&self, request: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let conditions = new.list_at(&["status", "conditions"]);
        let has = |kind: &str| conditions.iter().any(|condition| condition.text("type") == kind);
        if has("Approved") && has("Denied") {
            let path = FieldPath::new("status").child("conditions");
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(&path, "Denied", detail));
        }
        let before = old.str_at(&["status", "certificate"]);
        if request.subresource == "status" && !before.is_empty() && before != new.str_at(&["status", "certificate"]) {
            errors.push(FieldError::forbidden(
                &FieldPath::new("status").child("certificate"),
                "updates may not modify existing certificate content",
            ));
        }
        errors
    }

    fn validate_name(&self, name: &str, _: bool) -> Vec<String> {
        name::path_segment(name)
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", object.str_at(&["spec", "signerName"]).to_string())]
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

/// Whether the text is base64 of PEM with a request as its first block.
fn is_certificate_request(text: &str) -> bool {
    use base64::Engine as _;
    let pem = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let pem = String::from_utf8_lossy(&pem);
    let first = pem.lines().map(str::trim).find(|line| line.starts_with("-----BEGIN "));
    first == Some("-----BEGIN CERTIFICATE REQUEST-----")
}

/// Through `status` a verdict can be neither given nor taken back.
fn keep_verdicts(new: &mut Object, old: &[Value]) {
    let verdict = |condition: &Value| matches!(condition.text("type"), "Approved" | "Denied");
    let mut conditions: Vec<Value> = old.iter().filter(|condition| verdict(condition)).cloned().collect();
    conditions.extend(new.list_at(&["status", "conditions"]).iter().filter(|condition| !verdict(condition)).cloned());
    new.set(&["status", "conditions"], conditions);
}

fn stamp_conditions(request: &Request, new: &mut Object, old: &Object) {
    let now = time::rfc3339(request.now);
    let before = old.list_at(&["status", "conditions"]).to_vec();
    for condition in new.get_mut(&["status", "conditions"]).and_then(Value::as_array_mut).into_iter().flatten() {
        let known = before.iter().find(|known| known.text("type") == condition.text("type"));
        condition.default_pointer("lastUpdateTime", now.as_str());
        let since = known.filter(|known| known.text("status") == condition.text("status"));
        let since = since.map_or(now.as_str(), |known| known.text("lastTransitionTime"));
        condition.default_pointer("lastTransitionTime", since);
    }
}

pub fn service_account_columns() -> Vec<Column> {
    vec![name_column(), age_column()]
}

pub fn lease_columns() -> Vec<Column> {
    vec![name_column(), string("Holder", 0, |it, _| it.str_at(&["spec", "holderIdentity"]).into()), age_column()]
}

pub fn priority_class_columns() -> Vec<Column> {
    vec![
        name_column(),
        integer("Value", |it, _| it.i64_at(&["value"]).unwrap_or(0).into()),
        Column { kind: "boolean", ..string("Global-Default", 0, |it, _| it.bool_at(&["globalDefault"]).into()) },
        age_column(),
        string("PreemptionPolicy", 0, |it, _| it.str_at(&["preemptionPolicy"]).into()),
    ]
}

pub fn csr_columns() -> Vec<Column> {
    vec![
        name_column(),
        age_column(),
        string("SignerName", 0, |it, _| or_none(it.str_at(&["spec", "signerName"]))),
        string("Requestor", 0, |it, _| it.str_at(&["spec", "username"]).into()),
        string("RequestedDuration", 0, |it, _| match it.i64_at(&["spec", "expirationSeconds"]) {
            Some(seconds) => {
                let start = jiff::Timestamp::UNIX_EPOCH;
                let span = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                time::human_age(start, start + span).into()
            }
            None => "<none>".into(),
        }),
        string("Condition", 0, |it, _| csr_state(it).into()),
    ]
}

fn csr_state(csr: &Object) -> String {
    let conditions = csr.list_at(&["status", "conditions"]);
    let has = |kind: &str| conditions.iter().any(|condition| condition.text("type") == kind);
    let mut words = vec![if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }];
    if has("Failed") {
        words.push("Failed");
    }
    if !csr.str_at(&["status", "certificate"]).is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

pub fn service_cidr_columns() -> Vec<Column> {
    vec![
        name_column(),
        string("CIDRs", 0, |it, _| {
            let cidrs = it.list_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
            cidrs.collect::<Vec<_>>().join(",").into()
        }),
        age_column(),
    ]
}

pub fn ip_address_columns() -> Vec<Column> {
    vec![
        name_column(),
        string("ParentRef", 0, |it, _| {
            let parent = it.get(&["spec", "parentRef"]).cloned().unwrap_or_default();
            let parts = [parent.text("resource"), parent.text("group"), parent.text("namespace"), parent.text("name")];
            match parts {
                [resource, "", namespace, name] => format!("{resource}/{namespace}/{name}").into(),
                [resource, group, namespace, name] => format!("{resource}.{group}/{namespace}/{name}").into(),
            }
        }),
    ]
}
