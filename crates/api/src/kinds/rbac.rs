//! Roles and bindings: what may be done, and who may do it. Escalation is the API server's to prevent.

use meta::{FieldError, FieldPath, Object, name};
use serde_json::Value;

use super::rules::{self, Errors};
use super::tree::{Read, Write};
use super::workload_columns::string;
use crate::columns::{Column, age_column, name_column};
use crate::strategy::{Request, Strategy};

pub struct Role;
pub struct ClusterRole;
pub struct Binding;

const GROUP: &str = "rbac.authorization.k8s.io";

fn rules(errors: &mut Errors, role: &Object, cluster: bool) {
    for (index, rule) in role.list_at(&["rules"]).iter().enumerate() {
        let path = FieldPath::new("rules").index(index);
        if !rule.items("nonResourceURLs").is_empty() {
            if !cluster {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(
                    &path.child("nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    detail,
                ));
            }
            if !rule.items("apiGroups").is_empty() || !rule.items("resources").is_empty() {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(
                    &path.child("nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    detail,
                ));
            }
            continue;
        }
        if rule.items("apiGroups").is_empty() {
            errors.push(FieldError::required(
                &path.child("apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if rule.items("resources").is_empty() {
            errors.push(FieldError::required(
                &path.child("resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
    // Upstream declares this rule in the type's tags, which are checked last.
    for (index, rule) in role.list_at(&["rules"]).iter().enumerate() {
        if rule.items("verbs").is_empty() {
            errors.push(FieldError::required(&FieldPath::new("rules").index(index).child("verbs"), ""));
        }
    }
}

impl Strategy for Role {
    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        rules(&mut errors, new, false);
        errors
    }

    fn validate_name(&self, name: &str, _: bool) -> Vec<String> {
        name::path_segment(name)
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for ClusterRole {
    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        rules(&mut errors, new, true);
        let path = FieldPath::new("aggregationRule").child("clusterRoleSelectors");
        for (index, selector) in new.list_at(&["aggregationRule", "clusterRoleSelectors"]).iter().enumerate() {
            rules::label_selector(&mut errors, selector, &path.index(index));
        }
        errors
    }

    fn validate_name(&self, name: &str, _: bool) -> Vec<String> {
        name::path_segment(name)
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for Binding {
    fn set_defaults(&self, new: &mut Object) {
        if let Some(reference) = new.0.get_mut("roleRef") {
            reference.default_plain("apiGroup", GROUP);
        }
        for subject in new.0.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
            if matches!(subject.text("kind"), "User" | "Group") {
                subject.default_plain("apiGroup", GROUP);
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (reference, path) = (new.get(&["roleRef"]).cloned().unwrap_or_default(), FieldPath::new("roleRef"));
        if reference.text("apiGroup") != GROUP {
            errors.push(FieldError::not_supported(&path.child("apiGroup"), reference.text("apiGroup"), &[GROUP]));
        }
        let namespaced = new.kind() == "RoleBinding";
        let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&reference.text("kind")) {
            errors.push(FieldError::not_supported(&path.child("kind"), reference.text("kind"), kinds));
        }
        let text = reference.text("name");
        rules::each_invalid(&mut errors, &path.child("name"), text, name::path_segment(text));
        for (index, subject) in new.list_at(&["subjects"]).iter().enumerate() {
            subject_rules(&mut errors, subject, &FieldPath::new("subjects").index(index));
        }
        // Upstream declares this rule in the type's tags, which are checked last.
        rules::required(&mut errors, &reference, &path, "name");
        errors
    }

    fn validate_update(&self, _: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        if new.get(&["roleRef"]) != old.get(&["roleRef"]) {
            let shown = new.get(&["roleRef"]).cloned().unwrap_or_default();
            errors.push(FieldError::invalid(&FieldPath::new("roleRef"), shown, "cannot change roleRef"));
        }
        errors
    }

    fn validate_name(&self, name: &str, _: bool) -> Vec<String> {
        name::path_segment(name)
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

fn subject_rules(errors: &mut Errors, subject: &Value, path: &FieldPath) {
    rules::required(errors, subject, path, "name");
    match subject.text("kind") {
        "ServiceAccount" => {
            if !subject.text("apiGroup").is_empty() {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), subject.text("apiGroup"), &[""]));
            }
            if subject.text("namespace").is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if subject.text("apiGroup") != GROUP {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), subject.text("apiGroup"), &[GROUP]));
            }
        }
        other => {
            let supported = ["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(&path.child("kind"), other, &supported));
        }
    }
}

pub fn role_columns() -> Vec<Column> {
    let created = |it: &Object, _| {
        it.creation_timestamp().map_or_else(|| "<unknown>".into(), |at| meta::time::rfc3339(at).into())
    };
    vec![name_column(), Column { kind: "date", ..string("Created At", 0, created) }]
}

pub fn binding_columns() -> Vec<Column> {
    vec![
        name_column(),
        string("Role", 0, |it, _| {
            format!("{}/{}", it.str_at(&["roleRef", "kind"]), it.str_at(&["roleRef", "name"])).into()
        }),
        age_column(),
        string("Users", 1, |it, _| subjects(it, "User")),
        string("Groups", 1, |it, _| subjects(it, "Group")),
        string("ServiceAccounts", 1, |it, _| subjects(it, "ServiceAccount")),
    ]
}

fn subjects(binding: &Object, kind: &str) -> Value {
    let of_kind = binding.list_at(&["subjects"]).iter().filter(|subject| subject.text("kind") == kind);
    let names = of_kind.map(|subject| match subject.text("namespace") {
        "" => subject.text("name").to_string(),
        namespace => format!("{namespace}/{}", subject.text("name")),
    });
    names.collect::<Vec<_>>().join(", ").into()
}
