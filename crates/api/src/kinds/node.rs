//! Node: a machine that runs pods.

use std::collections::BTreeSet;

use meta::{FieldError, FieldPath, Object, name};
use serde_json::Value;

use super::rules::{self, Errors};
use super::tree::Read;
use super::workload_columns::string;
use crate::columns::{Column, age_column, name_column};
use crate::strategy::{Request, Strategy, keep_other_half};

pub struct Node;

impl Strategy for Node {
    fn set_defaults(&self, new: &mut Object) {
        if let Some(capacity) = new.get(&["status", "capacity"]).cloned() {
            new.set_default(&["status", "allocatable"], capacity);
        }
    }

    /// A node agent registers with its status, in one request.
    fn before_create(&self, _: &Request, _: &mut Object) {}

    fn before_update(&self, request: &Request, new: &mut Object, old: &Object) {
        keep_other_half(request, new, old);
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut seen = BTreeSet::new();
        for (index, taint) in new.list_at(&["spec", "taints"]).iter().enumerate() {
            let path = FieldPath::new("metadata").child("taints").index(index);
            let (key, value) = (taint.text("key"), taint.text("value"));
            rules::each_invalid(&mut errors, &path.child("key"), key, name::qualified_name(key));
            rules::each_invalid(&mut errors, &path.child("value"), value, name::label_value(value));
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            let effect = taint.text("effect");
            if !supported.contains(&effect) {
                errors.push(FieldError::not_supported(&path.child("effect"), effect, &supported));
            }
            if !seen.insert((key, taint.text("effect"))) {
                errors.push(FieldError::duplicate(&path, taint.clone()));
            }
        }
        let (one, all) = (new.str_at(&["spec", "podCIDR"]), new.list_at(&["spec", "podCIDRs"]));
        let blocks = all.iter().filter_map(serde_json::Value::as_str);
        let blocks = blocks.chain(Some(one).filter(|one| all.is_empty() && !one.is_empty()));
        for (index, block) in blocks.enumerate() {
            let path = FieldPath::new("spec").child("podCIDRs").index(index);
            let fits = block.split_once('/').is_some_and(|(address, bits)| {
                let address = address.parse::<std::net::IpAddr>().ok();
                let bits_max = address.map_or(0, |address| if address.is_ipv4() { 32 } else { 128 });
                address.is_some() && bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max)
            });
            if !fits {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.push(FieldError::invalid(&path, block, detail));
            }
        }
        errors
    }

    fn validate_update(&self, request: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        if request.subresource == "status" {
            return errors;
        }
        for field in ["podCIDR", "podCIDRs", "providerID"] {
            let (after, before) = (new.get(&["spec", field]), old.get(&["spec", field]));
            if before.is_some() && after != before {
                let path = FieldPath::new("spec").child(field);
                let detail = if field == "providerID" {
                    "node updates may not change providerID except from \"\" to valid"
                } else {
                    "node updates may not change podCIDR except from \"\" to valid"
                };
                errors.push(FieldError::forbidden(&path, detail));
            }
        }
        errors
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", object.bool_at(&["spec", "unschedulable"]).to_string())]
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

pub fn columns() -> Vec<Column> {
    vec![
        name_column(),
        string("Status", 0, |node, _| status(node).into()),
        string("Roles", 0, |node, _| roles(node).into()),
        age_column(),
        string("Version", 0, |node, _| info(node, "kubeletVersion")),
        string("Internal-IP", 1, |node, _| address(node, "InternalIP").into()),
        string("External-IP", 1, |node, _| address(node, "ExternalIP").into()),
        string("OS-Image", 1, |node, _| unknown(info(node, "osImage"))),
        string("Kernel-Version", 1, |node, _| unknown(info(node, "kernelVersion"))),
        string("Container-Runtime", 1, |node, _| unknown(info(node, "containerRuntimeVersion"))),
    ]
}

fn info(node: &Object, field: &str) -> Value {
    node.str_at(&["status", "nodeInfo", field]).into()
}

fn unknown(value: Value) -> Value {
    if value == "" { "<unknown>".into() } else { value }
}

fn status(node: &Object) -> String {
    let conditions = node.list_at(&["status", "conditions"]);
    let ready = conditions.iter().find(|condition| condition.text("type") == "Ready");
    let mut words = vec![match ready.map(|ready| ready.text("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if node.bool_at(&["spec", "unschedulable"]) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(node: &Object) -> String {
    let mut roles: Vec<&str> = node
        .labels()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role).filter(|role| !role.is_empty()),
            None => (key == "kubernetes.io/role").then_some(value).filter(|role| !role.is_empty()),
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_string() } else { roles.join(",") }
}

fn address(node: &Object, kind: &str) -> String {
    let addresses = node.list_at(&["status", "addresses"]);
    let found = addresses.iter().find(|address| address.text("type") == kind);
    found.map_or("<none>", |address| address.text("address")).to_string()
}
