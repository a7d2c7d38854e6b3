//! The old form: versions, groups, and one resource list per group version.

use api::{Kind, Subresource};
use serde_json::{Map, Value, json};

use super::Group;

/// `/api`
pub fn versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`
pub fn group_list(groups: &[Group]) -> Value {
    let named: Vec<Value> = groups.iter().filter(|group| !group.name.is_empty()).map(describe).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": named})
}

/// `/apis/<group>`
pub fn group(groups: &[Group], name: &str) -> Option<Value> {
    let group = groups.iter().find(|group| &*group.name == name && !name.is_empty())?;
    let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(document), Value::Object(described)) = (&mut document, describe(group)) {
        document.extend(described);
    }
    Some(document)
}

fn describe(group: &Group) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|(name, _)| version(name)).collect();
    json!({"name": &*group.name, "preferredVersion": versions.first(), "versions": versions})
}

/// `/api/v1` and `/apis/<group>/<version>`
pub fn resource_list(groups: &[Group], group: &str, version: &str) -> Option<Value> {
    let group = groups.iter().find(|candidate| &*candidate.name == group)?;
    let (_, kinds) = group.versions.iter().find(|(name, _)| &**name == version)?;
    let mut rows = Vec::new();
    for kind in kinds {
        if !kind.verbs.is_empty() {
            rows.push(resource(kind));
        }
        rows.extend(kind.subresources.iter().map(|part| subresource(kind, part)));
    }
    rows.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.name.is_empty() { version.to_string() } else { format!("{}/{version}", group.name) };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": rows}))
}

fn resource(kind: &Kind) -> Value {
    let mut row = Map::new();
    row.insert("name".into(), (*kind.plural).into());
    row.insert("singularName".into(), (*kind.singular).into());
    row.insert("namespaced".into(), kind.namespaced().into());
    row.insert("kind".into(), (*kind.kind).into());
    row.insert("verbs".into(), texts(&kind.verbs));
    if !kind.short_names.is_empty() {
        row.insert("shortNames".into(), texts(&kind.short_names));
    }
    if !kind.categories.is_empty() {
        row.insert("categories".into(), texts(&kind.categories));
    }
    Value::Object(row)
}

fn subresource(kind: &Kind, part: &Subresource) -> Value {
    let mut row = json!({
        "name": format!("{}/{}", kind.plural, part.name),
        "singularName": "",
        "namespaced": kind.namespaced(),
        "kind": &*part.kind.kind,
        "verbs": texts(&part.verbs),
    });
    if part.kind.group != kind.group || part.kind.version != kind.version {
        row["group"] = (*part.kind.group).into();
        row["version"] = (*part.kind.version).into();
    }
    row
}

pub fn texts(list: &[std::sync::Arc<str>]) -> Value {
    list.iter().map(|text| Value::from(&**text)).collect()
}
