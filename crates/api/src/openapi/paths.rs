//! The operations of a kind: which paths there are, what they take and what they answer.

use serde_json::{Map, Value, json};

use super::Form;
use super::components::Components;
use crate::{Kind, Subresource};

/// Parameters by the operations that take them: name and type.
const WRITE: [(&str, &str); 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("pretty", "string")];
const PATCH: [(&str, &str); 1] = [("force", "boolean")];
const DELETE: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("pretty", "string"),
];
const LIST: [(&str, &str); 11] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("pretty", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const ANSWER_TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// A verb of the API as an operation of a document.
struct Operation {
    verb: &'static str,
    method: &'static str,
    action: &'static str,
    parameters: Vec<(&'static str, &'static str)>,
}

/// Adds the paths of a kind and its subresources.
pub fn add(kind: &Kind, form: Form, paths: &mut Map<String, Value>, components: &mut Components) {
    let root = match (&*kind.group, &*kind.version) {
        ("", version) => format!("/api/{version}"),
        (group, version) => format!("/apis/{group}/{version}"),
    };
    let mut writer = Writer { kind, form, paths, components };
    let scoped = if kind.namespaced() { format!("{root}/namespaces/{{namespace}}") } else { root.clone() };
    let collection = format!("{scoped}/{}", kind.plural);
    let named = format!("{collection}/{{name}}");
    for operation in operations() {
        if kind.has_verb(operation.verb) {
            let on_collection = matches!(operation.verb, "list" | "create" | "deletecollection");
            writer.write(if on_collection { &collection } else { &named }, &operation, None);
        }
    }
    if kind.namespaced() && kind.has_verb("list") {
        let everywhere = format!("{root}/{}", kind.plural);
        if let Some(list) = operations().into_iter().find(|operation| operation.verb == "list") {
            writer.write(&everywhere, &list, None);
        }
    }
    for part in &kind.subresources {
        let path = format!("{named}/{}", part.name);
        for operation in operations() {
            if part.verbs.iter().any(|verb| &**verb == operation.verb) {
                writer.write(&path, &operation, Some(part));
            }
        }
    }
}

fn operations() -> Vec<Operation> {
    let of = |verb, method, action, parameters: &[&[(&'static str, &'static str)]]| Operation {
        verb,
        method,
        action,
        parameters: parameters.concat(),
    };
    vec![
        of("list", "get", "list", &[&LIST]),
        of("create", "post", "post", &[&WRITE]),
        of("deletecollection", "delete", "deletecollection", &[&DELETE, &LIST[..5]]),
        of("get", "get", "get", &[&[("pretty", "string")]]),
        of("update", "put", "put", &[&WRITE]),
        of("patch", "patch", "patch", &[&WRITE, &PATCH]),
        of("delete", "delete", "delete", &[&DELETE]),
    ]
}

struct Writer<'a> {
    kind: &'a Kind,
    form: Form,
    paths: &'a mut Map<String, Value>,
    components: &'a mut Components,
}

impl Writer<'_> {
    fn write(&mut self, path: &str, operation: &Operation, part: Option<&Subresource>) {
        let gvk = part.map_or_else(|| self.kind.gvk(), |part| part.kind.clone());
        let body = self.body(operation, part);
        let shown = self.shown(operation, part);
        let mut parameters: Vec<Value> =
            operation.parameters.iter().map(|(name, ty)| self.parameter(name, "query", ty)).collect();
        for (marker, name) in [("{name}", "name"), ("{namespace}", "namespace")] {
            if path.contains(marker) {
                parameters.push(self.parameter(name, "path", "string"));
            }
        }
        let consumes: &[&str] = if operation.verb == "patch" { &PATCH_TYPES } else { &["*/*"] };
        let mut written = json!({
            "operationId": operation_id(self.kind, operation, part, path),
            "tags": [tag(self.kind)],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind},
        });
        match self.form {
            Form::V3 => {
                if let Some(body) = body {
                    let content: Map<String, Value> =
                        consumes.iter().map(|media| ((*media).to_string(), json!({"schema": body}))).collect();
                    written["requestBody"] = json!({"content": content, "required": true});
                }
                let content: Map<String, Value> =
                    ANSWER_TYPES.iter().map(|media| ((*media).to_string(), json!({"schema": shown}))).collect();
                written["responses"] = json!({"200": {"description": "OK", "content": content}});
            }
            Form::V2 => {
                if let Some(body) = body {
                    parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": body}));
                }
                written["consumes"] = json!(consumes);
                written["produces"] = json!(ANSWER_TYPES);
                written["responses"] = json!({"200": {"description": "OK", "schema": shown}});
            }
        }
        written["parameters"] = parameters.into();
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        item[operation.method] = written;
    }

    fn parameter(&self, name: &str, place: &str, ty: &str) -> Value {
        let mut value = match self.form {
            Form::V3 => json!({"name": name, "in": place, "schema": {"type": ty, "uniqueItems": true}}),
            Form::V2 => json!({"name": name, "in": place, "type": ty, "uniqueItems": true}),
        };
        if place == "path" {
            value["required"] = true.into();
        }
        value
    }

    fn own(&mut self, part: Option<&Subresource>) -> Value {
        let model = self.components.model_of(self.kind);
        let Some(part) = part.filter(|part| part.kind != self.kind.gvk()) else {
            return self.components.reference(&model);
        };
        let schema = crate::codec::schema_for(&part.kind);
        let found = schema.and_then(|schema| self.components.model(&schema.model.clone()));
        found.unwrap_or_else(|| json!({"type": "string"}))
    }

    fn body(&mut self, operation: &Operation, part: Option<&Subresource>) -> Option<Value> {
        match operation.verb {
            "create" | "update" => Some(self.own(part)),
            "patch" => Some(self.components.named("Patch")),
            "delete" | "deletecollection" => Some(self.components.named("DeleteOptions")),
            _ => None,
        }
    }

    fn shown(&mut self, operation: &Operation, part: Option<&Subresource>) -> Value {
        match operation.verb {
            "list" => {
                let model = self.components.list_model_of(self.kind);
                self.components.reference(&model)
            }
            "delete" | "deletecollection" => self.components.named("Status"),
            _ => self.own(part),
        }
    }
}

fn tag(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
    format!("{group}_{}", kind.version)
}

/// Upstream's names of operations, such as `readAppsV1NamespacedDeploymentStatus`.
fn operation_id(kind: &Kind, operation: &Operation, part: Option<&Subresource>, path: &str) -> String {
    let verb = match operation.verb {
        "get" => "read",
        "update" => "replace",
        "deletecollection" => "deleteCollection",
        other => other,
    };
    let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
    let namespaced = if path.contains("{namespace}") { "Namespaced" } else { "" };
    let part = part.map(|part| capitalized(&part.name)).unwrap_or_default();
    let everywhere = if kind.namespaced() && namespaced.is_empty() { "ForAllNamespaces" } else { "" };
    format!("{verb}{}{}{namespaced}{}{part}{everywhere}", capitalized(group), capitalized(&kind.version), kind.kind)
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
