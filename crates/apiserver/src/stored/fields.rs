//! The fields that each kind can be selected by, as one table, and how selectors of other versions are read.

use api::Kind;
use meta::{FieldSelector, GroupResource, Object, Status};
use serde_json::Value;
use smallvec::SmallVec;

/// How a selectable field is read from the storage version.
#[derive(Clone, Copy)]
enum Read {
    /// The value at the path that the selector names.
    Path,
    /// An integer; 0 when absent.
    Number(&'static [&'static str]),
    /// `true` or `false`; `false` when absent.
    Flag,
    /// The first entry of `status.podIPs`.
    PodIp,
    /// The component an event came from, in its old or new place.
    EventSource,
    /// A field of no value, allowed in selectors only.
    Nothing,
}

type Row = (&'static str, Read);

const EVENT: &[Row] = &[
    ("involvedObject.kind", Read::Path),
    ("involvedObject.namespace", Read::Path),
    ("involvedObject.name", Read::Path),
    ("involvedObject.uid", Read::Path),
    ("involvedObject.apiVersion", Read::Path),
    ("involvedObject.resourceVersion", Read::Path),
    ("involvedObject.fieldPath", Read::Path),
    ("reason", Read::Path),
    ("reportingComponent", Read::Path),
    ("source", Read::EventSource),
    ("type", Read::Path),
];

/// Beside `metadata.name` and `metadata.namespace`, which every kind has.
fn rows(resource: &GroupResource) -> &'static [Row] {
    match (&*resource.group, &*resource.resource) {
        ("", "pods") => &[
            ("spec.nodeName", Read::Path),
            ("spec.restartPolicy", Read::Path),
            ("spec.schedulerName", Read::Path),
            ("spec.serviceAccountName", Read::Path),
            ("spec.hostNetwork", Read::Flag),
            ("status.phase", Read::Path),
            ("status.podIP", Read::PodIp),
            ("status.podIPs", Read::Nothing),
            ("status.nominatedNodeName", Read::Path),
        ],
        ("", "nodes") => &[("spec.unschedulable", Read::Flag)],
        ("", "namespaces") => &[("status.phase", Read::Path)],
        ("", "secrets") => &[("type", Read::Path)],
        ("", "services") => &[("spec.clusterIP", Read::Path), ("spec.type", Read::Path)],
        ("", "replicationcontrollers") | ("apps", "replicasets") => {
            &[("status.replicas", Read::Number(&["status", "replicas"]))]
        }
        ("batch", "jobs") => &[("status.successful", Read::Number(&["status", "succeeded"]))],
        ("" | "events.k8s.io", "events") => EVENT,
        ("certificates.k8s.io", "certificatesigningrequests" | "clustertrustbundles") => {
            &[("spec.signerName", Read::Path)]
        }
        ("certificates.k8s.io", "podcertificaterequests") => {
            &[("spec.signerName", Read::Path), ("spec.podName", Read::Path), ("spec.nodeName", Read::Path)]
        }
        ("resource.k8s.io", "resourceslices") => &[("spec.nodeName", Read::Path), ("spec.driver", Read::Path)],
        ("coordination.k8s.io", "leasecandidates") => &[("spec.leaseName", Read::Path)],
        _ => &[],
    }
}

/// Reads all selectable fields of an object in the storage version. Empty values are left out: absent reads as empty.
pub fn read(resource: &GroupResource, object: &Object) -> SmallVec<[(&'static str, Box<str>); 2]> {
    let rows = rows(resource).iter();
    rows.map(|(field, how)| (*field, read_one(field, *how, object))).filter(|(_, value)| !value.is_empty()).collect()
}

fn read_one(field: &str, how: Read, object: &Object) -> Box<str> {
    let path = || field.split('.').collect::<SmallVec<[&str; 4]>>();
    match how {
        Read::Path => object.str_at(&path()).into(),
        Read::Number(path) => object.i64_at(path).unwrap_or(0).to_string().into(),
        Read::Flag => object.bool_at(&path()).to_string().into(),
        Read::PodIp => {
            let first = object.list_at(&["status", "podIPs"]).first();
            first.and_then(|ip| ip.get("ip")).and_then(Value::as_str).unwrap_or_default().into()
        }
        Read::EventSource => {
            let component = object.str_at(&["source", "component"]);
            if component.is_empty() { object.str_at(&["reportingComponent"]).into() } else { component.into() }
        }
        Read::Nothing => Box::default(),
    }
}

/// Reads a selector of a request: refuses fields that the kind cannot be selected by, and renames those that another
/// version of the kind calls differently to what [`read`] calls them.
pub fn selector(kind: &Kind, text: &str) -> Result<FieldSelector, Status> {
    let mut selector = FieldSelector::parse(text)?;
    let resource = kind.group_resource();
    let rows = rows(&resource);
    for term in &mut selector.terms {
        if let Some(renamed) = renamed(&resource, &term.field) {
            term.field = renamed;
        }
        let of_all = term.field == "metadata.name" || (term.field == "metadata.namespace" && kind.namespaced());
        if !of_all && !rows.iter().any(|(field, _)| *field == term.field) {
            return Err(Status::bad_request(unsupported(rows, &term.field)));
        }
    }
    Ok(selector)
}

fn renamed(resource: &GroupResource, field: &str) -> Option<String> {
    match (&*resource.group, &*resource.resource, field) {
        ("", "pods", "spec.host") => Some("spec.nodeName".into()),
        ("", "namespaces", "name") => Some("metadata.name".into()),
        ("events.k8s.io", "events", "reportingController") => Some("reportingComponent".into()),
        ("events.k8s.io", "events", _) => field.strip_prefix("regarding.").map(|rest| format!("involvedObject.{rest}")),
        _ => None,
    }
}

fn unsupported(rows: &[Row], field: &str) -> String {
    if rows.is_empty() {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_selectors_name() {
        let pod = Object::from_value(json!({"spec": {"nodeName": "n"}, "status": {"podIPs": [{"ip": "10.42.0.2"}]}}));
        let fields = read(&GroupResource::new("", "pods"), &pod.unwrap());
        let found = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.to_string());
        assert_eq!(found("spec.nodeName").as_deref(), Some("n"));
        assert_eq!(found("spec.hostNetwork").as_deref(), Some("false"));
        assert_eq!(found("status.podIP").as_deref(), Some("10.42.0.2"));
        assert_eq!(found("status.phase"), None);
    }
}
