//! Nobody grants what they do not have: roles may hold only rules that their writer holds, and only who may `bind` a role or
//! holds its rules binds others to it.

use std::fmt::Write;

use async_trait::async_trait;
use meta::{Object, ObjectKey, Status};
use serde::Deserialize;

use super::{Plugin, Review};
use crate::authz::{Attributes, Decision, Rule};
use crate::context::Identity;
use crate::registry::Registry;

const GROUP: &str = "rbac.authorization.k8s.io";

pub struct RbacEscalation;

#[async_trait]
impl Plugin for RbacEscalation {
    async fn validate(&self, registry: &Registry, review: &Review<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(new) = object.filter(|_| *review.row.group == *GROUP) else { return Ok(()) };
        if review.cx.user.is_in(crate::authz::PRIVILEGED_GROUP) || is_unchanged(new, review.old) {
            return Ok(());
        }
        match &*review.row.plural {
            "roles" | "clusterroles" => check_role(registry, review, new),
            "rolebindings" | "clusterrolebindings" => check_binding(registry, review, new).await,
            _ => Ok(()),
        }
    }
}

/// Labels and the like may be changed by anybody who may write the object.
fn is_unchanged(new: &Object, old: Option<&Object>) -> bool {
    let fields = ["rules", "aggregationRule", "roleRef", "subjects"];
    old.is_some_and(|old| fields.iter().all(|field| new.get(&[field]) == old.get(&[field])))
}

fn check_role(registry: &Registry, review: &Review<'_>, role: &Object) -> Result<(), Status> {
    if asks(registry, review, "escalate", &review.row.plural, role.name()) {
        return Ok(());
    }
    // Rules that others add later cannot be checked now.
    let everything = [Rule::everything(), Rule::every_path()];
    if role.get(&["aggregationRule"]).is_some() && !covered(registry, review, &everything, "").is_empty() {
        return Err(review.forbidden(Some(role), "must have cluster-admin privileges to use an aggregationRule"));
    }
    refuse_missing(registry, review, role, &rules(role))
}

async fn check_binding(registry: &Registry, review: &Review<'_>, binding: &Object) -> Result<(), Status> {
    let (kind, name) = (binding.str_at(&["roleRef", "kind"]), binding.str_at(&["roleRef", "name"]));
    let (resource, key) = match kind {
        "ClusterRole" => ("clusterroles", ObjectKey::cluster(name)),
        _ => ("roles", ObjectKey::new(&review.target.namespace, name)),
    };
    if asks(registry, review, "bind", resource, name) {
        return Ok(());
    }
    match registry.current(resource, &key).await? {
        Some(role) => refuse_missing(registry, review, binding, &rules(&role.stored_object()?)),
        None => Err(Status::not_found(&meta::GroupResource::new(GROUP, resource), name)),
    }
}

fn asks(registry: &Registry, review: &Review<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let namespace = review.target.namespace.as_str();
    let asked = Attributes { name, namespace, ..Attributes::on(&review.cx.user, verb, GROUP, resource) };
    registry.authorize(&asked).0 == Decision::Allow
}

fn rules(role: &Object) -> Vec<Rule> {
    role.list_at(&["rules"]).iter().filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

fn refuse_missing(registry: &Registry, review: &Review<'_>, object: &Object, wanted: &[Rule]) -> Result<(), Status> {
    let missing = covered(registry, review, wanted, &review.target.namespace);
    if missing.is_empty() {
        return Ok(());
    }
    let Identity { name, groups, .. } = &review.cx.user;
    let mut why = format!(
        "user {name:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:",
        groups.iter().map(|group| format!("{group:?}")).collect::<Vec<_>>().join(" ")
    );
    for rule in &missing {
        why.push('\n');
        why.push_str(&compact(rule));
    }
    Err(review.forbidden(Some(object), why))
}

/// The parts of the wanted rules that the user does not hold.
fn covered(registry: &Registry, review: &Review<'_>, wanted: &[Rule], namespace: &str) -> Vec<Rule> {
    let held = registry.rules_for(&review.cx.user, namespace).rules;
    wanted.iter().flat_map(split).filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

/// A rule as rules with one verb, one group, one resource and one name each.
fn split(rule: &Rule) -> Vec<Rule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for path in &rule.non_resource_urls {
            let non_resource_urls = vec![path.clone()];
            parts.push(Rule { verbs: vec![verb.clone()], non_resource_urls, ..Rule::default() });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let names = if rule.resource_names.is_empty() {
                    vec![None]
                } else {
                    rule.resource_names.iter().map(Some).collect()
                };
                parts.extend(names.into_iter().map(|name| Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    resource_names: name.into_iter().cloned().collect(),
                    ..Rule::default()
                }));
            }
        }
    }
    parts
}

fn covers(held: &Rule, part: &Rule) -> bool {
    let has = |list: &[String], wanted: &[String]| {
        list.iter().any(|own| own == "*") || wanted.iter().all(|wanted| list.contains(wanted))
    };
    let resource = |wanted: &String| {
        let any_of_sub = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        held.resources.iter().any(|own| own == "*" || own == wanted || Some(own) == any_of_sub.as_ref())
    };
    let path = |wanted: &String| {
        held.non_resource_urls
            .iter()
            .any(|own| own == wanted || own.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix)))
    };
    let names = held.resource_names.is_empty()
        || (!part.resource_names.is_empty()
            && part.resource_names.iter().all(|name| held.resource_names.contains(name)));
    has(&held.verbs, &part.verbs)
        && if part.non_resource_urls.is_empty() {
            has(&held.api_groups, &part.api_groups) && part.resources.iter().all(resource) && names
        } else {
            part.non_resource_urls.iter().all(path)
        }
}

/// A rule as refusals print it: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
fn compact(rule: &Rule) -> String {
    let mut text = String::from("{");
    let lists = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        let separator = if text.len() == 1 { "" } else { ", " };
        let words: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{name}:[{}]", words.join(" "));
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_covered_part_by_part() {
        let wanted = Rule::on("get,list", "", "pods,pods/log");
        let missing = |held: &[Rule]| -> Vec<String> {
            let parts = split(&wanted).into_iter();
            parts.filter(|part| !held.iter().any(|rule| covers(rule, part))).map(|part| compact(&part)).collect()
        };
        assert_eq!(missing(&[Rule::everything()]), Vec::<String>::new());
        assert_eq!(
            missing(&[Rule::on("*", "", "pods"), Rule::on("get", "", "*/log")]),
            ["{APIGroups:[\"\"], Resources:[\"pods/log\"], Verbs:[\"list\"]}"]
        );
        let named = Rule { resource_names: vec!["a".into()], ..Rule::on("*", "*", "*") };
        assert_eq!(missing(&[named]).len(), 4);
    }
}
