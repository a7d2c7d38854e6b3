//! One rule of a role, and whether it matches a question.

use serde::{Deserialize, Serialize};

use super::Attributes;

/// A `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "texts")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// A list that may be null, as Go writes an empty one.
fn texts<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

const ANY: &str = "*";

impl Rule {
    /// All verbs on all resources.
    pub fn everything() -> Self {
        let any = || vec![ANY.to_string()];
        Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() }
    }

    /// All verbs on all paths.
    pub fn every_path() -> Self {
        Rule { verbs: vec![ANY.into()], non_resource_urls: vec![ANY.into()], ..Rule::default() }
    }

    /// Verbs on resources of groups; each argument is a comma-separated list.
    pub fn on(verbs: &str, groups: &str, resources: &str) -> Self {
        let list = |text: &str| text.split(',').map(str::to_string).collect();
        Rule { verbs: list(verbs), api_groups: list(groups), resources: list(resources), ..Rule::default() }
    }

    pub fn allows(&self, question: &Attributes<'_>) -> bool {
        if !has(&self.verbs, question.verb) {
            return false;
        }
        if !question.is_resource {
            return self.non_resource_urls.iter().any(|pattern| path_matches(pattern, question.path));
        }
        has(&self.api_groups, question.group)
            && self.resources.iter().any(|resource| resource_matches(resource, question))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == question.name))
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|item| item == ANY || item == word)
}

fn resource_matches(pattern: &str, question: &Attributes<'_>) -> bool {
    if pattern == ANY {
        return true;
    }
    if question.subresource.is_empty() {
        return pattern == question.resource;
    }
    pattern.split_once('/').is_some_and(|(resource, sub)| {
        (resource == ANY || resource == question.resource) && sub == question.subresource
    })
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Identity;

    #[test]
    fn matches_resources_subresources_and_names() {
        let user = Identity::default();
        let pods = Rule::on("get,list", "", "pods,*/status,deployments/scale");
        let ask = |verb: &'static str, resource: &'static str, subresource: &'static str| Attributes {
            subresource,
            ..Attributes::on(&user, verb, "", resource)
        };
        assert!(pods.allows(&ask("get", "pods", "")));
        assert!(pods.allows(&ask("get", "nodes", "status")));
        assert!(pods.allows(&ask("get", "deployments", "scale")));
        for (verb, resource, subresource) in
            [("delete", "pods", ""), ("get", "pods", "log"), ("get", "deployments", ""), ("get", "nodes", "")]
        {
            assert!(!pods.allows(&ask(verb, resource, subresource)), "{verb} {resource}/{subresource}");
        }
        assert!(!pods.allows(&Attributes { group: "apps", ..ask("get", "pods", "") }));

        let one = Rule { resource_names: vec!["a".into()], ..Rule::on("*", "*", "*") };
        assert!(one.allows(&Attributes { name: "a", ..ask("delete", "pods", "log") }));
        assert!(
            !one.allows(&Attributes { name: "b", ..ask("delete", "pods", "") })
                && !one.allows(&ask("list", "pods", ""))
        );
    }

    #[test]
    fn matches_paths_by_prefix_only_with_a_star() {
        let user = Identity::default();
        let rule = Rule {
            verbs: vec!["get".into()],
            non_resource_urls: vec!["/healthz".into(), "/livez/*".into()],
            ..Rule::default()
        };
        let ask = |path| Attributes { is_resource: false, path, ..Attributes::on(&user, "get", "", "") };
        assert!(rule.allows(&ask("/healthz")) && rule.allows(&ask("/livez/x")));
        assert!(!rule.allows(&ask("/healthz/x")) && !rule.allows(&ask("/livez")));
        assert!(!rule.allows(&Attributes { is_resource: true, ..ask("/healthz") }));
    }
}
