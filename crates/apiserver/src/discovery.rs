//! What this server serves, derived from the kinds table: `/api`, `/apis` and below, in the old and the aggregated form.
//!
//! Documents are made on request: clients cache them by their `ETag`, so they are asked for rarely and nothing has to be kept
//! in step with the table.

mod aggregated;
mod legacy;

use std::sync::Arc;

use api::{Kind, Kinds};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use meta::Status;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::chain::Call;
use crate::encode::answer::document;
use crate::http::{Body, Response, answer};
use crate::negotiate::{self, Offer};
use crate::registry::Registry;
use crate::resources::no_such_resource;

/// Documents that do not come from the kinds table, by path.
#[derive(Clone, Default)]
pub struct Documents {
    pub openid_configuration: Bytes,
    pub jwks: Bytes,
    /// What clients may reach us at, as `/api` tells: `address:port`.
    pub server_address: String,
}

/// The groups in the order in which clients should prefer them; others follow by name.
const GROUP_ORDER: [&str; 21] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// One group with its versions, the preferred one first, and their kinds.
pub struct Group {
    pub name: Arc<str>,
    pub versions: Vec<(Arc<str>, Vec<Arc<Kind>>)>,
}

impl Documents {
    /// Answers a discovery or issuer path; none for any other.
    pub fn answer(&self, registry: &Registry, call: &Call) -> Result<Option<Response>, Status> {
        let path = call.info.path.trim_end_matches('/');
        match path {
            "/.well-known/openid-configuration" => {
                return Ok(self.issuer(&self.openid_configuration, "application/json"));
            }
            "/openid/v1/jwks" => return Ok(self.issuer(&self.jwks, "application/jwk-set+json")),
            _ if path != "/api" && path != "/apis" && !path.starts_with("/api/") && !path.starts_with("/apis/") => {
                return Ok(None);
            }
            _ => {}
        }
        let kinds = registry.kinds();
        if matches!(path, "/api" | "/apis")
            && let Some(version) = aggregated::wanted(call.received.header("accept"))
        {
            let list = aggregated::list(&groups(&kinds), path == "/api", version);
            return Ok(Some(tagged(&list, &aggregated::content_type(version), call)?));
        }
        let (query, agent) = (&call.received.query, call.received.header("user-agent"));
        negotiate::negotiate(call.received.header("accept"), query, agent, Offer::default())?;
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let groups = groups(&kinds);
        let found = match parts.as_slice() {
            ["api"] => Some(legacy::versions(&self.server_address)),
            ["apis"] => Some(legacy::group_list(&groups)),
            ["api", version] => Some(legacy::resource_list(&groups, "", version).ok_or_else(no_such_resource)?),
            ["apis", group] => legacy::group(&groups, group),
            ["apis", group, version] => {
                Some(legacy::resource_list(&groups, group, version).ok_or_else(no_such_resource)?)
            }
            _ => None,
        };
        found.map(|document| tagged(&document, "application/json", call)).transpose()
    }

    fn issuer(&self, document: &Bytes, content_type: &'static str) -> Option<Response> {
        if document.is_empty() {
            return None;
        }
        let mut response = answer(StatusCode::OK, content_type, document.clone());
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
        Some(response)
    }
}

/// A document with its tag; `304` when the client has it already.
fn tagged(value: &Value, content_type: &str, call: &Call) -> Result<Response, Status> {
    let slices = document(value, &call.accepted)?;
    let digest = Sha256::digest(slices.concat());
    let tag = format!("\"{}\"", digest.iter().map(|byte| format!("{byte:02X}")).collect::<String>());
    let mut response = answer(StatusCode::OK, "application/json", slices);
    if call.received.header("if-none-match") == tag {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
    }
    let headers = response.headers_mut();
    for (name, text) in [(header::ETAG, tag.as_str()), (header::CONTENT_TYPE, content_type), (header::VARY, "Accept")] {
        headers.insert(name, HeaderValue::from_str(text).map_err(Status::internal)?);
    }
    Ok(response)
}

/// The served kinds, grouped and ordered.
pub fn groups(kinds: &Kinds) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for kind in kinds.iter() {
        let at = groups.iter().position(|group| group.name == kind.group).unwrap_or_else(|| {
            groups.push(Group { name: kind.group.clone(), versions: Vec::new() });
            groups.len() - 1
        });
        let versions = &mut groups[at].versions;
        match versions.iter_mut().find(|(version, _)| *version == kind.version) {
            Some((_, of_version)) => of_version.push(kind.clone()),
            None => versions.push((kind.version.clone(), vec![kind.clone()])),
        }
    }
    let place = |name: &str| GROUP_ORDER.iter().position(|known| *known == name).unwrap_or(GROUP_ORDER.len());
    groups.sort_by(|a, b| (place(&a.name), &a.name).cmp(&(place(&b.name), &b.name)));
    for group in &mut groups {
        group.versions.sort_by_key(|(version, _)| std::cmp::Reverse(rank(version)));
        for (_, of_version) in &mut group.versions {
            of_version.sort_by(|a, b| a.plural.cmp(&b.plural));
        }
    }
    groups
}

/// How preferred a version is: stable before beta before alpha, later before earlier.
fn rank(version: &str) -> (u8, u64, u64) {
    let number = |text: &str| text.parse().unwrap_or(0);
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    if let Some((major, minor)) = rest.split_once("beta") {
        return (2, number(major), number(minor));
    }
    if let Some((major, minor)) = rest.split_once("alpha") {
        return (1, number(major), number(minor));
    }
    (3, number(rest), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_are_preferred() {
        let mut versions = vec!["v1beta1", "v1", "v2alpha1", "v2", "v1beta2", "strange"];
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "strange"]);
    }

    #[test]
    fn groups_come_in_order_of_preference() {
        let groups = groups(&api::KindsTable::served_by_default().load());
        let names: Vec<&str> = groups.iter().map(|group| &*group.name).collect();
        assert_eq!(&names[..3], ["", "apiregistration.k8s.io", "apps"]);
        let autoscaling = groups.iter().find(|group| &*group.name == "autoscaling").unwrap();
        assert_eq!(&*autoscaling.versions[0].0, "v2");
    }

    #[test]
    fn resource_lists_name_subresources_and_their_kinds() {
        let groups = groups(&api::KindsTable::served_by_default().load());
        let list = legacy::resource_list(&groups, "", "v1").unwrap();
        let find = |name: &str| list["resources"].as_array().unwrap().iter().find(|row| row["name"] == name).cloned();
        let pods = find("pods").unwrap();
        assert_eq!(
            (&pods["kind"], &pods["namespaced"], &pods["shortNames"][0]),
            (&"Pod".into(), &true.into(), &"po".into())
        );
        assert_eq!(find("pods/eviction").unwrap()["group"], "policy");
        assert!(legacy::resource_list(&groups, "apps", "v7").is_none());
        let aggregated = aggregated::list(&groups, false, "v2");
        assert_eq!(aggregated["items"][1]["metadata"]["name"], "apps");
    }
}
