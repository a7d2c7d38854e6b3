//! OpenAPI documents, derived from the kinds and schema tables: version 3 per group version, version 2 in one piece.
//!
//! ```text
//! /openapi/v3                  index: one relative URL per group version, with a hash that changes with the content
//! /openapi/v3/apis/apps/v1     paths of the kinds of apps/v1 and every type they reach
//! /openapi/v2                  all of it in the older form, in JSON or protobuf
//! ```
//!
//! kubectl reads them for `explain`, for merging in `apply`, and to learn that the server validates fields. They are written
//! on request and not kept: clients cache them by hash. Descriptions are not in the tables yet.

mod components;
mod gnostic;
mod paths;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{Kind, Kinds};
use components::Components;

/// Which form of the documents is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    V2,
    V3,
}

impl Form {
    /// Where types are referred to.
    fn reference(self, model: &str) -> String {
        match self {
            Form::V2 => format!("#/definitions/{model}"),
            Form::V3 => format!("#/components/schemas/{model}"),
        }
    }
}

fn info(release: &str) -> Value {
    json!({"title": "Kubernetes", "version": release})
}

/// `api/v1` or `apis/<group>/<version>`.
fn place(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn in_group_version(kinds: &Kinds, group_version: &str) -> Vec<Arc<Kind>> {
    kinds.iter().filter(|kind| place(kind) == group_version).cloned().collect()
}

/// The index of version 3. `hash` tells one content from another, given what it depends on.
pub fn index(kinds: &Kinds, hash: impl Fn(&str) -> String) -> Value {
    let mut paths = Map::new();
    for kind in kinds.iter() {
        let place = place(kind);
        if !paths.contains_key(&place) {
            let told: String = in_group_version(kinds, &place)
                .iter()
                .map(|kind| format!("{kind:?}{:?}{:?}", kind.verbs, kind.subresources))
                .collect();
            let url = format!("/openapi/v3/{place}?hash={}", hash(&told));
            paths.insert(place, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// The version 3 document of a group version, given as in paths: `api/v1`, `apis/apps/v1`. None when nothing is served
/// there. `release` is the version that the document calls itself.
pub fn v3(kinds: &Kinds, group_version: &str, release: &str) -> Option<Value> {
    let kinds = in_group_version(kinds, group_version);
    if kinds.is_empty() {
        return None;
    }
    let mut components = Components::new(Form::V3);
    let mut paths = Map::new();
    for kind in &kinds {
        components.add_kind(kind);
        paths::add(kind, Form::V3, &mut paths, &mut components);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": info(release),
        "paths": paths,
        "components": {
            "schemas": components.finish(),
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
            }},
        },
    }))
}

/// The version 2 document of everything.
pub fn v2(kinds: &Kinds, release: &str) -> Value {
    let mut components = Components::new(Form::V2);
    let mut paths = Map::new();
    for kind in kinds.iter() {
        components.add_kind(kind);
        paths::add(kind, Form::V2, &mut paths, &mut components);
    }
    json!({"swagger": "2.0", "info": info(release), "paths": paths, "definitions": components.finish()})
}

/// The same in protobuf.
pub fn v2_protobuf(kinds: &Kinds, release: &str) -> Vec<u8> {
    gnostic::write(&v2(kinds, release)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_says_that_fields_are_validated() {
        let kinds = crate::KindsTable::served_by_default().load();
        let document = v3(&kinds, "apis/apps/v1", "v1").unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().filter_map(|parameter| parameter["name"].as_str()).collect();
        assert!(names.contains(&"fieldValidation"), "{names:?}");
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let kinds = crate::KindsTable::served_by_default().load();
        for (document, at) in
            [(v3(&kinds, "api/v1", "v1").unwrap(), "/components/schemas/"), (v2(&kinds, "v1"), "/definitions/")]
        {
            let text = document.to_string();
            let schemas = document.pointer(at.trim_end_matches('/')).and_then(Value::as_object).unwrap();
            for part in text.split("\"$ref\":\"#").skip(1) {
                let model = part.split('"').next().and_then(|path| path.strip_prefix(at)).unwrap();
                assert!(schemas.contains_key(model), "{model}");
            }
            assert!(schemas.len() > 100, "{}", schemas.len());
        }
    }

    #[test]
    fn merge_keys_and_kinds_are_told() {
        let kinds = crate::KindsTable::served_by_default().load();
        let document = v3(&kinds, "api/v1", "v1").unwrap();
        let schemas = &document["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
        assert_eq!(schemas["io.k8s.api.core.v1.PodList"]["properties"]["items"]["type"], "array");
    }
}
