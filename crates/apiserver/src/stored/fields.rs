//! The fields that objects are selected by.
//!
//! A kind's strategy says which; the few kinds that have selectable fields and no strategy yet are listed here. Beside these,
//! every kind has `metadata.name` and `metadata.namespace`, which the key knows.

use std::sync::Arc;

use api::Kind;
use meta::{FieldSelector, GroupResource, Object, Status};

/// A selectable field and its value.
pub type Field = (&'static str, Box<str>);
/// All of an object.
pub type Fields = Arc<[Field]>;

/// A field, where its value is, and whether it is a number (0 when absent) or text.
type Row = (&'static str, &'static [&'static str], bool);

fn rows(resource: &GroupResource) -> &'static [Row] {
    match (&*resource.group, &*resource.resource) {
        ("", "replicationcontrollers") => &[("status.replicas", &["status", "replicas"], true)],
        ("batch", "jobs") => &[("status.successful", &["status", "succeeded"], true)],
        ("certificates.k8s.io", "clustertrustbundles") => &[("spec.signerName", &["spec", "signerName"], false)],
        ("certificates.k8s.io", "podcertificaterequests") => &[
            ("spec.signerName", &["spec", "signerName"], false),
            ("spec.podName", &["spec", "podName"], false),
            ("spec.nodeName", &["spec", "nodeName"], false),
        ],
        ("resource.k8s.io", "resourceslices") => {
            &[("spec.nodeName", &["spec", "nodeName"], false), ("spec.driver", &["spec", "driver"], false)]
        }
        ("coordination.k8s.io", "leasecandidates") => &[("spec.leaseName", &["spec", "leaseName"], false)],
        _ => &[],
    }
}

/// Reads all selectable fields of an object in the storage version. Empty values are left out: absent reads as empty.
pub fn read(kind: &Kind, object: &Object) -> Vec<Field> {
    let special = kind.strategy.selectable_fields(object).into_iter();
    let special = special.map(|(field, value)| (field, value.into_boxed_str()));
    let listed = rows(&kind.group_resource()).iter().map(|(field, path, number)| {
        let value =
            if *number { object.i64_at(path).unwrap_or(0).to_string() } else { object.str_at(path).to_string() };
        (*field, value.into_boxed_str())
    });
    special.chain(listed).filter(|(_, value)| !value.is_empty()).collect()
}

/// Reads a selector of a request on a kind that is stored as `stored`: refuses fields that the kind cannot be selected by, and
/// renames those that the requested version calls differently to what [`read`] calls them.
pub fn selector(kind: &Kind, stored: &Kind, text: &str) -> Result<FieldSelector, Status> {
    let mut selector = FieldSelector::parse(text)?;
    let names: Vec<&str> = if selector.is_everything() { Vec::new() } else { names(stored) };
    for term in &mut selector.terms {
        if let Some(renamed) = renamed(&kind.group_resource(), &term.field) {
            term.field = renamed;
        }
        let of_all = term.field == "metadata.name" || (term.field == "metadata.namespace" && kind.namespaced());
        if !of_all && !names.contains(&term.field.as_str()) {
            return Err(Status::bad_request(unsupported(&names, &term.field)));
        }
    }
    Ok(selector)
}

fn names(stored: &Kind) -> Vec<&'static str> {
    let special = stored.strategy.selectable_fields(&Object::default()).into_iter().map(|(field, _)| field);
    special.chain(rows(&stored.group_resource()).iter().map(|(field, ..)| *field)).collect()
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

fn unsupported(names: &[&str], field: &str) -> String {
    if names.is_empty() {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::GroupVersionKind;
    use serde_json::json;

    fn kind(group: &str, kind: &str) -> Arc<Kind> {
        api::builtin().by_gvk(&GroupVersionKind::new(group, "v1", kind)).unwrap().clone()
    }

    #[test]
    fn reads_what_selectors_name() {
        let pod = Object::from_value(json!({"spec": {"nodeName": "n"}})).unwrap();
        let fields = read(&kind("", "Pod"), &pod);
        let found = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.to_string());
        assert_eq!(found("spec.nodeName").as_deref(), Some("n"));
        assert_eq!(found("spec.hostNetwork").as_deref(), Some("false"));
        assert_eq!(found("status.phase"), None);
        let job = Object::from_value(json!({"status": {"succeeded": 2}})).unwrap();
        assert_eq!(&*read(&kind("batch", "Job"), &job)[0].1, "2");
    }

    #[test]
    fn another_version_names_fields_its_own_way() {
        let (core, events) = (kind("", "Event"), kind("events.k8s.io", "Event"));
        let read = selector(&events, &core, "regarding.name=a,reportingController=b").unwrap();
        assert_eq!(read.to_string(), "involvedObject.name=a,reportingComponent=b");
        let error = selector(&kind("", "Pod"), &kind("", "Pod"), "spec.x=a").unwrap_err();
        assert_eq!(error.message, "field label not supported: spec.x");
    }
}
