//! The default roles and bindings.
//!
//! `data/rbac.txt` states upstream's facts, one thing a line:
//!
//! ```text
//! role <namespace> <name> <roles it is aggregated to> <what it aggregates>
//!   rule <verbs> <groups> <resources> <names>
//!   paths <verbs> <paths>
//! binding <namespace> <name> <kind of role> <name of role>
//!   subject <kind> <namespace> <name>
//! ```
//!
//! Lists have commas, `-` stands for none, `core` for the group without a name. At every start what is missing is added to
//! those that an administrator did not take out of this (by the annotation `autoupdate`); nothing is taken away.

use client::Verb;
use client::door::PatchKind;
use meta::{GroupVersionKind, Object, Status};
use serde_json::{Value, json};

use super::{context, create, target};
use crate::registry::Registry;

const FACTS: &str = include_str!("../../data/rbac.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// Has these roles and bindings be there. Bindings need no role: one that names a role to come grants nothing yet.
pub async fn reconcile(registry: &Registry, wanted: Vec<Object>) -> Result<(), Status> {
    let writes = wanted.into_iter().map(|object| reconcile_one(registry, object));
    futures::future::try_join_all(writes).await.map(drop)
}

async fn reconcile_one(registry: &Registry, wanted: Object) -> Result<(), Status> {
    let target = target(registry, &wanted)?;
    let Some(stored) = registry.found(&target) else { return create(registry, wanted).await };
    let existing = stored.stored_object()?;
    if existing.annotation(AUTOUPDATE) == Some("false") {
        return Ok(());
    }
    if existing.get(&["roleRef"]) != wanted.get(&["roleRef"]) {
        registry.delete(&context(Verb::Delete), &target, client::DeleteOptions::default()).await?;
        return create(registry, wanted).await;
    }
    match missing(&existing, &wanted) {
        Some(patch) => {
            let patch = patch.to_string().into();
            registry.patch(&context(Verb::Patch), &target, PatchKind::Merge, patch).await.map(drop)
        }
        None => Ok(()),
    }
}

/// A patch that adds what is wanted and not there; none when all is there.
fn missing(existing: &Object, wanted: &Object) -> Option<Value> {
    let mut patch = json!({});
    for list in ["rules", "subjects"] {
        let mut all = existing.list_at(&[list]).to_vec();
        let before = all.len();
        for item in wanted.list_at(&[list]) {
            if !all.contains(item) {
                all.push(item.clone());
            }
        }
        if all.len() > before {
            patch[list] = all.into();
        }
    }
    for map in ["labels", "annotations"] {
        for (key, value) in wanted.get(&["metadata", map]).and_then(Value::as_object).into_iter().flatten() {
            if existing.get(&["metadata", map, key]) != Some(value) {
                patch["metadata"][map][key] = value.clone();
            }
        }
    }
    (patch != json!({})).then_some(patch)
}

/// All default roles and bindings.
pub fn wanted() -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    for line in FACTS.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["role", namespace, name, to, from] => objects.push(role(namespace, name, to, from)),
            ["binding", namespace, name, kind, role] => objects.push(binding(namespace, name, kind, role)),
            [part, rest @ ..] => {
                if let Some(object) = objects.last_mut() {
                    add(object, part, rest);
                }
            }
            [] => {}
        }
    }
    aggregate(&mut objects);
    objects
}

fn default(kind: &str, namespace: &str, name: &str) -> Object {
    let mut object = Object::new(&GroupVersionKind::new(GROUP, "v1", kind));
    object.set_meta("name", name);
    if namespace != "-" {
        object.set_meta("namespace", namespace);
    }
    object.set_meta("labels", json!({"kubernetes.io/bootstrapping": "rbac-defaults"}));
    object.set_meta("annotations", json!({AUTOUPDATE: "true"}));
    object
}

fn role(namespace: &str, name: &str, to: &str, from: &str) -> Object {
    let mut role = default(if namespace == "-" { "ClusterRole" } else { "Role" }, namespace, name);
    for to in list(to) {
        role.set(&["metadata", "labels", &format!("{AGGREGATE_TO}{to}")], "true");
    }
    for from in list(from) {
        let labels = json!({format!("{AGGREGATE_TO}{from}"): "true"});
        role.set(&["aggregationRule", "clusterRoleSelectors"], json!([{"matchLabels": labels}]));
    }
    role
}

fn binding(namespace: &str, name: &str, kind: &str, role: &str) -> Object {
    let own = if namespace == "-" { "ClusterRoleBinding" } else { "RoleBinding" };
    let mut binding = default(own, namespace, name);
    binding.set(&["roleRef"], json!({"apiGroup": GROUP, "kind": kind, "name": role}));
    binding
}

fn add(object: &mut Object, part: &str, words: &[&str]) {
    let (field, item) = match (part, words) {
        ("rule", [verbs, groups, resources, names]) => {
            let groups: Vec<&str> = list(groups).map(|group| if group == "core" { "" } else { group }).collect();
            let mut rule = json!({"verbs": texts(verbs), "apiGroups": groups, "resources": texts(resources)});
            if *names != "-" {
                rule["resourceNames"] = texts(names).into();
            }
            ("rules", rule)
        }
        ("paths", [verbs, paths]) => ("rules", json!({"verbs": texts(verbs), "nonResourceURLs": texts(paths)})),
        ("subject", ["ServiceAccount", namespace, name]) => {
            ("subjects", json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
        }
        ("subject", [kind, _, name]) => ("subjects", json!({"apiGroup": GROUP, "kind": kind, "name": name})),
        _ => return,
    };
    let mut items = object.list_at(&[field]).to_vec();
    items.push(item);
    object.set(&[field], items);
}

/// Gives roles that aggregate others their rules, so that they hold from the first moment. `admin` aggregates `edit`, which
/// aggregates `view`, which aggregates others: as many rounds as there are steps.
fn aggregate(objects: &mut [Object]) {
    for _ in 0..3 {
        for index in 0..objects.len() {
            let Some(selector) = objects[index].list_at(&["aggregationRule", "clusterRoleSelectors"]).first() else {
                continue;
            };
            let labels = selector.get("matchLabels").and_then(Value::as_object).cloned().unwrap_or_default();
            let mut rules: Vec<Value> = Vec::new();
            for other in objects.iter().filter(|other| labels.keys().all(|label| other.label(label).is_some())) {
                for rule in other.list_at(&["rules"]) {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            objects[index].set(&["rules"], rules);
        }
    }
}

fn list(words: &str) -> impl Iterator<Item = &str> {
    words.split(',').filter(|word| *word != "-")
}

fn texts(words: &str) -> Vec<&str> {
    list(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(objects: &'a [Object], kind: &str, name: &str) -> &'a Object {
        objects.iter().find(|object| object.kind() == kind && object.name() == name).unwrap()
    }

    #[test]
    fn the_facts_are_read_whole() {
        let all = wanted();
        let lines = |word: &str| FACTS.lines().filter(|line| line.trim_start().starts_with(word)).count();
        assert_eq!(all.len(), lines("role ") + lines("binding "));
        let count = |field: &str| all.iter().map(|object| object.list_at(&[field]).len()).sum::<usize>();
        assert_eq!(count("subjects"), lines("subject "));
        assert!(count("rules") >= lines("rule ") + lines("paths "));
        let admin = find(&all, "ClusterRole", "cluster-admin").list_at(&["rules"]);
        assert_eq!(admin[0], json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        let binding = find(&all, "ClusterRoleBinding", "cluster-admin");
        assert_eq!(binding.list_at(&["subjects"])[0]["name"], "system:masters");
    }

    #[test]
    fn edit_and_admin_hold_what_they_aggregate() {
        let all = wanted();
        let rules = |name: &str| find(&all, "ClusterRole", name).list_at(&["rules"]).to_vec();
        let (view, edit, admin) = (rules("view"), rules("edit"), rules("admin"));
        assert!(!view.is_empty());
        assert!(view.iter().all(|rule| edit.contains(rule)) && edit.iter().all(|rule| admin.contains(rule)));
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let wanted =
            Object::from_value(json!({"rules": [{"verbs": ["get"]}], "metadata": {"labels": {"a": "b"}}})).unwrap();
        assert_eq!(missing(&wanted, &wanted), None);
        let own = Object::from_value(json!({"rules": [{"verbs": ["x"]}], "metadata": {"labels": {"a": "b"}}})).unwrap();
        assert_eq!(missing(&own, &wanted), Some(json!({"rules": [{"verbs": ["x"]}, {"verbs": ["get"]}]})));
    }
}
