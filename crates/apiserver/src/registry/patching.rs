//! From a patch and the current object to the new one, by the kind of patch.

use api::patch::Patched;
use api::{Schema, SchemaRef, codec, ownership, patch as patches};
use client::door::PatchKind;
use meta::{FieldError, FieldPath, GroupKind, GroupVersionKind, Object, Status};

use super::ownership::{manager, writer};
use super::{Registry, Target};
use crate::context::Context;
use crate::decode;

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
    conform(cx, target, &schema, patched)
}

/// What the patch is about: the kind itself, or the view that a subresource is.
fn schema(target: &Target) -> Result<SchemaRef, Status> {
    if target.subresource != "scale" {
        return Ok(target.kind.schema.clone());
    }
    codec::schema_for(&scale_kind()).ok_or_else(|| Status::internal("Scale is not in the schema table"))
}

fn scale_kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

fn server_side_apply(
    registry: &Registry,
    cx: &Context,
    target: &Target,
    schema: &Schema,
    patch: &[u8],
    old: Option<&Object>,
) -> Result<Object, Status> {
    let mut config = read_config(patch)?;
    if target.subresource == "scale" {
        let merge = serde_json::to_vec(&config).map_err(Status::internal)?;
        let patched = patches::merge_patch(old.cloned().ok_or_else(|| target.not_found())?, &merge)?;
        return conform(cx, target, schema, patched);
    }
    check_applied_kind(&config, target)?;
    ownership::check_types(schema, &config)?;
    config = Object(codec::conform(schema, config).map_err(Status::bad_request)?.map);
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

/// What was applied, as it was sent.
fn read_config(patch: &[u8]) -> Result<Object, Status> {
    let unreadable = |why: String| Status::bad_request(format!("error encoding patch: {why}"));
    let text = std::str::from_utf8(patch).map_err(|error| unreadable(error.to_string()))?;
    let document = codec::yaml::one(text).map_err(|error| unreadable(error.to_string()))?;
    if document.value.is_null() {
        return Ok(Object::default());
    }
    Object::from_value(document.value).ok_or_else(|| {
        Status::bad_request(
            "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}",
        )
    })
}

/// An apply has to say what it applies, exactly.
fn check_applied_kind(config: &Object, target: &Target) -> Result<(), Status> {
    let (version, kind) = (config.api_version(), config.kind());
    if *version == target.kind.gvk().api_version() && *kind == *target.kind.kind {
        return Ok(());
    }
    let slash = if version.contains('/') { "" } else { "/" };
    Err(Status::bad_request(format!("invalid object type: {slash}{version}, Kind={kind}")))
}

/// Brings what a patch made into the schema's form; what the schema does not know is refused, said or dropped as asked.
fn conform(cx: &Context, target: &Target, schema: &Schema, patched: Patched) -> Result<Object, Status> {
    let refused = |why: &str| {
        let error = FieldError::invalid(&FieldPath::new("patch"), patched.quoted(schema), why);
        Status::invalid(&GroupKind::new("", ""), "", &[error])
    };
    let gvk = if target.subresource == "scale" { scale_kind() } else { target.kind.gvk() };
    if let Some(why) = other_kind(&patched.object, &gvk) {
        return Err(refused(&why));
    }
    let read = codec::conform(schema, patched.object.clone()).map_err(|why| {
        let why = patches::mismatch(schema, &patched.object.0).filter(|_| patched.is_strategic()).unwrap_or(why);
        refused(&why)
    })?;
    let problems: Vec<String> = patched.problems.iter().cloned().chain(read.problems).collect();
    if !problems.is_empty() {
        match cx.options.field_validation.as_str() {
            "Strict" => return Err(refused(&format!("strict decoding error: {}", problems.join(", ")))),
            "Ignore" => {}
            _ => problems.into_iter().for_each(|problem| cx.warnings.add(problem)),
        }
    }
    let mut object = Object(read.map);
    object.set_gvk(&gvk);
    Ok(object)
}

/// Why what a patch made is no object of the kind, if it says that it is of another.
fn other_kind(object: &Object, expected: &GroupVersionKind) -> Option<String> {
    let said = decode::said_by(object, expected)?;
    if said == *expected {
        return None;
    }
    // First it is read as what it says it is.
    let as_said = codec::schema_for(&said).and_then(|schema| codec::conform(&schema, object.clone()).err());
    Some(as_said.unwrap_or_else(|| decode::why_not(&said, expected)))
}
