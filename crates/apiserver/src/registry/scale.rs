//! `scale`: the size of a workload, the same way for every kind that has one.

use std::sync::Arc;

use meta::{GroupVersionKind, LabelSelector, Object, Status};
use serde_json::{Map, Value, json};

use super::metadata;
use super::update::{ATTEMPTS_MAX, Revision};
use super::{Answer, Outcome, Registry, Target, patching};
use crate::context::Context;
use crate::stored::Stored;

/// The `autoscaling/v1` view of a workload.
pub(super) fn read(target: &Target, stored: &Arc<Stored>) -> Result<Object, Status> {
    view(target, &stored.stored_object()?)
}

fn view(target: &Target, object: &Object) -> Result<Object, Status> {
    let mut scale = Object::new(&GroupVersionKind::new("autoscaling", "v1", "Scale"));
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get(&["metadata", field]) {
            scale.set_meta(field, value.clone());
        }
    }
    let replicas = |path: &[&str]| object.i64_at(path).unwrap_or(0);
    scale.set(
        &["spec"],
        if replicas(&["spec", "replicas"]) == 0 {
            json!({})
        } else {
            json!({"replicas": replicas(&["spec", "replicas"])})
        },
    );
    let mut status = Map::new();
    status.insert("replicas".into(), replicas(&["status", "replicas"]).into());
    let selector = selector(target, object)?;
    if !selector.is_empty() {
        status.insert("selector".into(), selector.into());
    }
    scale.set(&["status"], status);
    Ok(scale)
}

/// The selector as text. A ReplicationController's is a plain map.
fn selector(target: &Target, object: &Object) -> Result<String, Status> {
    let written = object.get(&["spec", "selector"]);
    if &*target.kind.plural == "replicationcontrollers" {
        let labels = written.and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        return Ok(LabelSelector::from_labels(labels).to_string());
    }
    let selector = LabelSelector::from_spec(written).map_err(Status::internal)?;
    Ok(selector.to_string())
}

impl Registry {
    /// Replaces or patches the view, and writes the size it then has into the object.
    pub(super) async fn revise_scale(
        &self,
        cx: &Context,
        target: &Target,
        revision: Revision,
    ) -> Result<Outcome, Status> {
        for _ in 0..ATTEMPTS_MAX {
            let current = self.read_latest(target).await?;
            let shown = read(target, &current)?;
            let wanted = match &revision {
                Revision::Replace(body) => {
                    let mut body = body.clone();
                    metadata::require_name(target, &body)?;
                    metadata::match_target(target, &mut body)?;
                    body
                }
                Revision::Patch(kind, patch) => patching::apply(self, cx, target, *kind, patch, Some(&shown))?,
                Revision::Edit(_) => return Err(Status::internal("a scale is replaced or patched")),
            };
            let insists =
                !matches!(revision, Revision::Patch(..)) || wanted.resource_version() != shown.resource_version();
            match self.resize(cx, target, &wanted).await {
                // Somebody was faster: a patch that names no version is made anew from what is there now.
                Err(status) if status.is_conflict() && !insists => {}
                outcome => return outcome,
            }
        }
        Err(Status::modified(&target.group_resource(), &target.name))
    }

    async fn resize(&self, cx: &Context, target: &Target, wanted: &Object) -> Result<Outcome, Status> {
        let replicas = size(wanted)?;
        let (version, uid) = (wanted.resource_version().to_string(), wanted.uid().to_string());
        let edit = move |object: &mut Object| {
            for (field, value) in [("resourceVersion", &version), ("uid", &uid)] {
                if !value.is_empty() {
                    object.set_meta(field, value.as_str());
                }
            }
            object.set(&["spec", "replicas"], replicas);
            Ok(())
        };
        let outcome = self.revise(cx, target, Revision::Edit(Box::new(edit))).await?;
        let object = match outcome {
            Outcome::Object { answer: Answer::Stored(stored), .. } => stored.stored_object()?,
            Outcome::Object { answer: Answer::Made(object), .. } => object,
            Outcome::Success { .. } => return Err(Status::internal("an update answers with the object")),
        };
        view(target, &object).map(Outcome::made)
    }
}

fn size(scale: &Object) -> Result<i64, Status> {
    let replicas = scale.i64_at(&["spec", "replicas"]).unwrap_or(0);
    if replicas >= 0 {
        return Ok(replicas);
    }
    let path = meta::FieldPath::new("spec.replicas");
    let error = meta::FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
    Err(Status::invalid(&meta::GroupKind::new("autoscaling", "Scale"), scale.name(), &[error]))
}
