//! Events of both groups, which share one storage and go away by themselves.

use jiff::Timestamp;
use meta::{FieldError, FieldPath, Object, time};
use serde_json::Value;

use super::rules::Errors;
use super::tree::Read;
use super::workload_columns::string;
use crate::columns::{Column, name_column};
use crate::strategy::{Request, Strategy};

pub struct Event;

/// Upstream's `--event-ttl`.
const TIME_TO_LIVE_SECONDS: u64 = 3600;

impl Strategy for Event {
    fn before_create(&self, _: &Request, _: &mut Object) {}

    fn before_update(&self, _: &Request, _: &mut Object, _: &Object) {}

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let about = new.str_at(&["involvedObject", "namespace"]);
        let fits = if about.is_empty() {
            matches!(new.namespace(), "default" | "kube-system")
        } else {
            about == new.namespace()
        };
        if !fits {
            let path = FieldPath::new("involvedObject").child("namespace");
            errors.push(FieldError::invalid(&path, about, "does not match event.namespace"));
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let about = |field: &str| object.str_at(&["involvedObject", field]).to_string();
        let component = object.str_at(&["source", "component"]);
        let source = if component.is_empty() { object.str_at(&["reportingComponent"]) } else { component };
        vec![
            ("involvedObject.kind", about("kind")),
            ("involvedObject.namespace", about("namespace")),
            ("involvedObject.name", about("name")),
            ("involvedObject.uid", about("uid")),
            ("involvedObject.apiVersion", about("apiVersion")),
            ("involvedObject.resourceVersion", about("resourceVersion")),
            ("involvedObject.fieldPath", about("fieldPath")),
            ("reason", object.str_at(&["reason"]).to_string()),
            ("reportingComponent", object.str_at(&["reportingComponent"]).to_string()),
            ("source", source.to_string()),
            ("type", object.str_at(&["type"]).to_string()),
        ]
    }

    fn time_to_live_seconds(&self, _: &Object) -> Option<u64> {
        Some(TIME_TO_LIVE_SECONDS)
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

pub fn columns() -> Vec<Column> {
    vec![
        string("Last Seen", 0, |it, now| {
            let times =
                [it.str_at(&["series", "lastObservedTime"]), it.str_at(&["lastTimestamp"]), it.str_at(&["eventTime"])];
            age(times.into_iter().find(|text| !text.is_empty()), now)
        }),
        string("Type", 0, |it, _| it.str_at(&["type"]).into()),
        string("Reason", 0, |it, _| it.str_at(&["reason"]).into()),
        string("Object", 0, |it, _| object(it).into()),
        string("Subobject", 1, |it, _| it.str_at(&["involvedObject", "fieldPath"]).into()),
        string("Source", 1, |it, _| source(it).into()),
        string("Message", 0, |it, _| it.str_at(&["message"]).trim().into()),
        string("First Seen", 1, |it, now| {
            let times = [it.str_at(&["firstTimestamp"]), it.str_at(&["eventTime"])];
            age(times.into_iter().find(|text| !text.is_empty()), now)
        }),
        string("Count", 1, |it, _| {
            let series = it.i64_at(&["series", "count"]);
            series.or_else(|| it.i64_at(&["count"])).filter(|count| *count > 0).unwrap_or(1).to_string().into()
        }),
        Column { priority: 1, ..name_column() },
    ]
}

fn age(text: Option<&str>, now: Timestamp) -> Value {
    text.and_then(time::parse).map_or_else(|| "<unknown>".into(), |since| time::human_age(since, now).into())
}

fn object(event: &Object) -> String {
    let about = event.get(&["involvedObject"]).cloned().unwrap_or_default();
    let kind = about.text("kind").to_lowercase();
    if about.text("name").is_empty() { kind } else { format!("{kind}/{}", about.text("name")) }
}

fn source(event: &Object) -> String {
    let component = event.str_at(&["source", "component"]);
    let component = if component.is_empty() { event.str_at(&["reportingComponent"]) } else { component };
    let host = event.str_at(&["source", "host"]);
    let host = if host.is_empty() { event.str_at(&["reportingInstance"]) } else { host };
    if host.is_empty() { component.to_string() } else { format!("{component}, {host}") }
}
