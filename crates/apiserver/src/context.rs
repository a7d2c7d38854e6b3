//! Who asks, and how: what travels with a request from the chain into the registry.
//!
//! Deliberately not here: what is asked for (that is the call's target and body) and anything of HTTP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use client::Verb;
use client::door::Options;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Most warnings that one request answers with; later ones are dropped, as a client shows none of them by then.
pub const WARNINGS_MAX: usize = 32;

/// A user as authentication found them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub groups: Vec<Arc<str>>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).into()).collect();
        Identity { name: name.into(), groups, ..Identity::default() }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| &**own == group)
    }

    /// The node's name, when this is a node agent.
    pub fn node_name(&self) -> Option<&str> {
        if self.is_in("system:nodes") { self.name.strip_prefix("system:node:") } else { None }
    }

    /// Namespace and name, when this is a service account.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
}

/// What the answer warns about, gathered along the way. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds one, unless it is there already.
    pub fn add(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut list = self.0.lock();
        if list.len() < WARNINGS_MAX && !list.contains(&warning) {
            list.push(warning);
        }
    }

    /// All of them, in the order they came up; the list is empty afterwards.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// One request's surroundings.
#[derive(Clone, Debug)]
pub struct Context {
    pub user: Identity,
    pub verb: Verb,
    pub options: Options,
    pub warnings: Warnings,
    /// The audit id.
    pub request_uid: Arc<str>,
    pub user_agent: Arc<str>,
    /// None for a caller in the same process.
    pub source_ip: Option<IpAddr>,
    /// When the caller gives up; none for long-running requests.
    pub deadline: Option<Instant>,
}

impl Context {
    /// A request with nothing said about it, as the server makes its own.
    pub fn of(user: Identity, verb: Verb) -> Self {
        Context {
            user,
            verb,
            options: Options::default(),
            warnings: Warnings::default(),
            request_uid: base::chance::uuid().into(),
            user_agent: "coracle".into(),
            source_ip: None,
            deadline: None,
        }
    }

    /// The name under which fields are owned: the given manager, else the program part of the user agent.
    pub fn field_manager(&self) -> &str {
        if !self.options.field_manager.is_empty() {
            return &self.options.field_manager;
        }
        let program = self.user_agent.split('/').next().unwrap_or_default();
        if program.is_empty() { "unknown" } else { program }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nodes_and_service_accounts_from_user_names() {
        let node = Identity::new("system:node:a", &["system:nodes"]);
        assert_eq!(node.node_name(), Some("a"));
        assert_eq!(Identity::new("system:node:a", &[]).node_name(), None);
        assert_eq!(Identity::new("system:serviceaccount:x:y", &[]).service_account(), Some(("x", "y")));
    }

    #[test]
    fn the_field_manager_falls_back_to_the_program() {
        let mut cx = Context::of(Identity::default(), Verb::Update);
        cx.user_agent = "kubectl/v1.33.0 (linux/amd64)".into();
        assert_eq!(cx.field_manager(), "kubectl");
        cx.options.field_manager = "me".into();
        assert_eq!(cx.field_manager(), "me");
    }

    #[test]
    fn a_warning_is_said_once() {
        let warnings = Warnings::default();
        warnings.add("a");
        warnings.clone().add("a");
        assert_eq!(warnings.take(), ["a"]);
    }
}
