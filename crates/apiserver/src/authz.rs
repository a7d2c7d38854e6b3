//! Who may do what: the question, the answer, and the list of those who are asked.
//!
//! ```text
//! Attributes ─► privileged group ─► health paths ─► node authorizer ─► RBAC ─► refused
//! ```
//!
//! The first that allows or denies decides; "no opinion" passes the question on, and nobody having one refuses it. All of
//! them answer from memory: their indexes are kept by [`feed`] from watches, so no request waits for the store here.

pub mod feed;
pub mod forbidden;
pub mod node;
pub mod rbac;
pub mod rule;

use std::sync::Arc;

pub use rule::Rule;

use crate::context::Identity;
use crate::request_info::RequestInfo;

/// The group that may do everything, before any rule is read.
pub const PRIVILEGED_GROUP: &str = "system:masters";

/// One question: may `user` do `verb` on this?
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a Identity,
    pub verb: &'a str,
    /// False for paths such as `/healthz`; then only `path` counts.
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// The question that a request asks.
    pub fn of(user: &'a Identity, info: &'a RequestInfo) -> Self {
        Attributes {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            field_selector: &info.field_selector,
        }
    }

    /// A question about a resource; the rest is filled in with struct update.
    pub fn on(user: &'a Identity, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Attributes {
            user,
            verb,
            is_resource: true,
            group,
            version: "*",
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            field_selector: "",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny,
    NoOpinion,
}

/// What a user may do in a namespace, as far as it can be listed.
#[derive(Clone, Debug, Default)]
pub struct RuleList {
    pub rules: Vec<Rule>,
    /// Why the list may not be complete; empty when it is.
    pub errors: Vec<String>,
    pub incomplete: bool,
}

/// One who is asked.
pub trait Authorizer: Send + Sync + 'static {
    /// The decision and its reason, which is shown to the user when it is a refusal.
    fn authorize(&self, attributes: &Attributes<'_>) -> (Decision, String);

    /// What the user may do in `namespace` (and cluster-wide).
    fn rules_for(&self, user: &Identity, namespace: &str) -> RuleList;
}

/// Lets [`PRIVILEGED_GROUP`] do everything.
pub struct Privileged;

impl Authorizer for Privileged {
    fn authorize(&self, attributes: &Attributes<'_>) -> (Decision, String) {
        let privileged = attributes.user.groups.iter().any(|group| &**group == PRIVILEGED_GROUP);
        (if privileged { Decision::Allow } else { Decision::NoOpinion }, String::new())
    }

    fn rules_for(&self, user: &Identity, _namespace: &str) -> RuleList {
        let privileged = user.groups.iter().any(|group| &**group == PRIVILEGED_GROUP);
        let rules = if privileged { vec![Rule::everything(), Rule::every_path()] } else { Vec::new() };
        RuleList { rules, ..RuleList::default() }
    }
}

/// Lets everybody ask whether the server is well, as upstream's defaults do.
pub struct HealthPaths;

impl Authorizer for HealthPaths {
    fn authorize(&self, attributes: &Attributes<'_>) -> (Decision, String) {
        let open = !attributes.is_resource && matches!(attributes.path, "/healthz" | "/livez" | "/readyz");
        (if open { Decision::Allow } else { Decision::NoOpinion }, String::new())
    }

    fn rules_for(&self, _user: &Identity, _namespace: &str) -> RuleList {
        RuleList::default()
    }
}

/// Asks several in order.
pub struct Union(pub Vec<Arc<dyn Authorizer>>);

impl Authorizer for Union {
    fn authorize(&self, attributes: &Attributes<'_>) -> (Decision, String) {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            let (decision, reason) = authorizer.authorize(attributes);
            if decision != Decision::NoOpinion {
                return (decision, reason);
            }
            if !reason.is_empty() {
                reasons.push(reason);
            }
        }
        (Decision::NoOpinion, reasons.join("\n"))
    }

    fn rules_for(&self, user: &Identity, namespace: &str) -> RuleList {
        let mut all = RuleList::default();
        for authorizer in &self.0 {
            let list = authorizer.rules_for(user, namespace);
            all.rules.extend(list.rules);
            all.errors.extend(list.errors);
            all.incomplete |= list.incomplete;
        }
        all
    }
}
