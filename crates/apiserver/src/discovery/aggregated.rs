//! The aggregated form: all groups, versions and resources in one document.

use api::Kind;
use serde_json::{Map, Value, json};

use super::Group;
use super::legacy::texts;

/// The version of the aggregated form that an `Accept` header asks for; none when it wants the old form.
pub fn wanted(accept: &str) -> Option<&'static str> {
    let clause = accept.split(',').find(|clause| {
        let has = |word: &str| clause.split(';').any(|part| part.trim() == word);
        let json = clause.split(';').next().is_some_and(|media| media.trim() == "application/json");
        json && has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io")
    })?;
    let version = clause.split(';').find_map(|part| part.trim().strip_prefix("v="))?;
    ["v2", "v2beta1"].into_iter().find(|known| *known == version)
}

pub fn content_type(version: &str) -> String {
    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
}

/// The document for `/api` (the core group) or `/apis` (all others).
pub fn list(groups: &[Group], core: bool, version: &str) -> Value {
    let items: Vec<Value> = groups.iter().filter(|group| group.name.is_empty() == core).map(group).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn group(group: &Group) -> Value {
    let version = |(name, kinds): &(std::sync::Arc<str>, Vec<std::sync::Arc<Kind>>)| {
        let resources: Vec<Value> = kinds.iter().map(|kind| resource(kind)).collect();
        json!({"version": &**name, "resources": resources, "freshness": "Current"})
    };
    let mut metadata = Map::new();
    if !group.name.is_empty() {
        metadata.insert("name".into(), (*group.name).into());
    }
    metadata.insert("creationTimestamp".into(), Value::Null);
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"metadata": metadata, "versions": versions})
}

fn resource(kind: &Kind) -> Value {
    let gvk = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut row = Map::new();
    row.insert("resource".into(), (*kind.plural).into());
    row.insert("responseKind".into(), gvk(&kind.group, &kind.version, &kind.kind));
    row.insert("scope".into(), if kind.namespaced() { "Namespaced" } else { "Cluster" }.into());
    row.insert("singularResource".into(), (*kind.singular).into());
    row.insert("verbs".into(), texts(&kind.verbs));
    if !kind.short_names.is_empty() {
        row.insert("shortNames".into(), texts(&kind.short_names));
    }
    if !kind.categories.is_empty() {
        row.insert("categories".into(), texts(&kind.categories));
    }
    let parts: Vec<Value> = kind
        .subresources
        .iter()
        .map(|part| {
            let response_kind = gvk(&part.kind.group, &part.kind.version, &part.kind.kind);
            json!({"subresource": &*part.name, "responseKind": response_kind, "verbs": texts(&part.verbs)})
        })
        .collect();
    if !parts.is_empty() {
        row.insert("subresources".into(), parts.into());
    }
    Value::Object(row)
}
