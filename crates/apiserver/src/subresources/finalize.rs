//! `namespaces/finalize`: the namespace controller takes its finalizer off, and with the last one the namespace goes.

use meta::{Object, Status};
use serde_json::Value;

use crate::context::Context;
use crate::registry::{Outcome, Registry, Revision, Target};

pub async fn update(registry: &Registry, cx: &Context, target: &Target, body: Object) -> Result<Outcome, Status> {
    if !target.kind.group.is_empty() || &*target.kind.plural != "namespaces" {
        return Err(target.method_not_allowed("update"));
    }
    let edit = move |namespace: &mut Object| {
        for field in ["uid", "resourceVersion"] {
            if let Some(value) = body.get(&["metadata", field]) {
                namespace.set_meta(field, value.clone());
            }
        }
        match body.get(&["spec", "finalizers"]) {
            Some(Value::Array(finalizers)) if !finalizers.is_empty() => {
                namespace.set(&["spec", "finalizers"], finalizers.clone());
            }
            _ => drop(namespace.remove(&["spec", "finalizers"])),
        }
        Ok(())
    };
    registry.revise(cx, target, Revision::Edit(Box::new(edit))).await
}
