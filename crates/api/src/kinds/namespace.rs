//! Namespace: its `kubernetes` finalizer keeps it until everything in it is gone.

use meta::{FieldError, FieldPath, Object, name};
use serde_json::json;

use super::rules::{self, Errors, stem};
use crate::strategy::{Request, Strategy, keep_other_half};

pub struct Namespace;

impl Strategy for Namespace {
    fn set_defaults(&self, new: &mut Object) {
        if !new.name().is_empty() {
            let label = new.name().to_string();
            new.set(&["metadata", "labels", "kubernetes.io/metadata.name"], label);
        }
        new.set_default(&["status", "phase"], "Active");
    }

    fn before_create(&self, _: &Request, new: &mut Object) {
        new.set(&["status"], json!({"phase": "Active"}));
        let mut finalizers = new.list_at(&["spec", "finalizers"]).to_vec();
        if !finalizers.contains(&"kubernetes".into()) {
            finalizers.push("kubernetes".into());
        }
        new.set(&["spec", "finalizers"], finalizers);
    }

    fn before_update(&self, request: &Request, new: &mut Object, old: &Object) {
        match request.subresource.as_str() {
            // Only `finalize` may touch the spec's finalizers.
            "finalize" => {
                let finalizers = new.get(&["spec", "finalizers"]).cloned();
                *new = Object(old.0.clone());
                new.set(&["spec", "finalizers"], finalizers.unwrap_or_else(|| json!([])));
            }
            subresource => {
                keep_other_half(request, new, old);
                if subresource != "status" {
                    let finalizers = old.get(&["spec", "finalizers"]).cloned();
                    new.set(&["spec", "finalizers"], finalizers.unwrap_or_else(|| json!([])));
                }
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = FieldPath::new("spec").child("finalizers");
        for (index, finalizer) in new.list_at(&["spec", "finalizers"]).iter().enumerate() {
            let text = finalizer.as_str().unwrap_or_default();
            let path = path.index(index);
            rules::each_invalid(&mut errors, &path, text, name::qualified_name(text));
            if !text.contains('/') && text != "kubernetes" {
                errors.push(FieldError::invalid(
                    &path,
                    text,
                    "name is neither a standard finalizer name nor is it fully qualified",
                ));
            }
        }
        errors
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        name::dns1123_label(&stem(name, prefix))
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![("status.phase", object.str_at(&["status", "phase"]).to_string())]
    }

    fn acted_upon(&self) -> bool {
        true
    }
}
