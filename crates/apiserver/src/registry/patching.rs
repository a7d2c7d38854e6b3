//! From a patch and the current object to the new one, by the kind of patch.

use api::{Schema, SchemaRef, codec, ownership, patch as patches};
use client::door::PatchKind;
use meta::{GroupVersionKind, Object, Status};

use super::ownership::{manager, writer};
use super::{Registry, Target};
use crate::context::Context;

/// The new object in the requested version. `old` is none for an apply that creates.
pub fn apply(
    registry: &Registry,
    cx: &Context,
    target: &Target,
    kind: PatchKind,
    patch: &[u8],
    old: Option<&Object>,
) -> Result<Object, Status> {
    let schema = schema(target)?;
    let current = || old.cloned().ok_or_else(|| target.not_found());
    let patched = match kind {
        PatchKind::Json => patches::json_patch(current()?, patch)?,
        PatchKind::Merge => patches::merge_patch(current()?, patch)?,
        PatchKind::StrategicMerge if target.kind.protobuf => {
            patches::strategic_merge_patch(&schema, current()?, patch)?
        }
        PatchKind::StrategicMerge => {
            return Err(Status::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ));
        }
        PatchKind::Apply => return server_side_apply(registry, cx, target, &schema, patch, old),
    };
    conform(cx, &schema, patched)
}

/// What the patch is about: the kind itself, or the view that a subresource is.
fn schema(target: &Target) -> Result<SchemaRef, Status> {
    if target.subresource != "scale" {
        return Ok(target.kind.schema.clone());
    }
    let scale = GroupVersionKind::new("autoscaling", "v1", "Scale");
    codec::schema_for(&scale).ok_or_else(|| Status::internal("Scale is not in the schema table"))
}

fn server_side_apply(
    registry: &Registry,
    cx: &Context,
    target: &Target,
    schema: &Schema,
    patch: &[u8],
    old: Option<&Object>,
) -> Result<Object, Status> {
    let unreadable = |why: String| Status::bad_request(format!("error decoding YAML: {why}"));
    let text = std::str::from_utf8(patch).map_err(|error| unreadable(error.to_string()))?;
    let document = codec::yaml::one(text).map_err(|error| unreadable(error.to_string()))?;
    let config = Object::from_value(document.value).ok_or_else(|| unreadable("the document is not a map".into()))?;
    let mut config = conform(cx, schema, config)?;
    if target.subresource == "scale" {
        let merge = serde_json::to_vec(&config).map_err(Status::internal)?;
        return patches::merge_patch(old.cloned().ok_or_else(|| target.not_found())?, &merge);
    }
    config.set_gvk(&target.kind.gvk());
    super::metadata::match_target(target, &mut config)?;
    let ignored: Vec<String> = if target.subresource == "status" {
        let kept = ["apiVersion", "kind", "metadata", "status"];
        config.0.keys().filter(|key| !kept.contains(&key.as_str())).cloned().collect()
    } else if target.kind.subresource("status").is_some() {
        vec!["status".to_string()]
    } else {
        Vec::new()
    };
    let ignored: Vec<&str> = ignored.iter().map(String::as_str).collect();
    let (manager, version) = (manager(cx), target.kind.group_version().to_string());
    let writer = writer(&manager, &version, target, registry.clock().now());
    ownership::apply(schema, old, &config, &writer, cx.options.force, &ignored)
}

/// Brings what a patch made into the schema's form; what the schema does not know is refused, said or dropped as asked.
fn conform(cx: &Context, schema: &Schema, object: Object) -> Result<Object, Status> {
    let gvk = object.gvk();
    let read = codec::conform(schema, object).map_err(Status::bad_request)?;
    if !read.problems.is_empty() {
        match cx.options.field_validation.as_str() {
            "Strict" => {
                return Err(Status::bad_request(format!("strict decoding error: {}", read.problems.join(", "))));
            }
            "Ignore" => {}
            _ => read.problems.into_iter().for_each(|problem| cx.warnings.add(problem)),
        }
    }
    let mut object = Object(read.map);
    if let Some(gvk) = gvk {
        object.set_gvk(&gvk);
    }
    Ok(object)
}
