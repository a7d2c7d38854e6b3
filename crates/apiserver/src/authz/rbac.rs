//! Role-based access control: who is bound to which rules.
//!
//! Roles and bindings are held by name, and bindings also by subject, so that a question looks only at the bindings of the
//! asking user and their groups. A service account is its user name (`system:serviceaccount:<namespace>:<name>`).
//!
//! Deliberately not here: where roles come from ([`super::feed`]) and whether one may be written (the registry's escalation
//! check, which uses [`Authorizer::rules_for`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meta::{Object, ObjectKey};
use parking_lot::RwLock;
use serde::Deserialize;

use super::{Attributes, Authorizer, Decision, Rule, RuleList};
use crate::context::Identity;

/// The authorizer and its index. Cluster-wide roles and bindings have an empty namespace.
#[derive(Default)]
pub struct Rbac {
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    roles: HashMap<ObjectKey, Arc<[Rule]>>,
    bindings: HashMap<ObjectKey, Arc<Binding>>,
    /// namespace -> subject -> bindings by name
    by_subject: HashMap<Arc<str>, HashMap<Subject, ByName>>,
}

type ByName = BTreeMap<Arc<str>, Arc<Binding>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

#[derive(Debug)]
struct Binding {
    key: ObjectKey,
    role_kind: String,
    role_name: String,
    /// Each subject with the words that reasons describe it in.
    subjects: Vec<(Subject, String)>,
}

#[derive(Deserialize)]
struct WrittenSubject {
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

impl Rbac {
    /// Takes a Role or ClusterRole as it now is; a rule that cannot be read grants nothing.
    pub fn put_role(&self, role: &Object) {
        let rules: Vec<Rule> =
            role.list_at(&["rules"]).iter().filter_map(|rule| Rule::deserialize(rule).ok()).collect();
        self.index.write().roles.insert(role.key(), rules.into());
    }

    pub fn remove_role(&self, key: &ObjectKey) {
        self.index.write().roles.remove(key);
    }

    /// Takes a RoleBinding or ClusterRoleBinding as it now is.
    pub fn put_binding(&self, binding: &Object) {
        let binding = Arc::new(Binding::read(binding));
        let mut index = self.index.write();
        index.remove_binding(&binding.key);
        let subjects = index.by_subject.entry(binding.key.namespace.clone()).or_default();
        for (subject, _) in &binding.subjects {
            subjects.entry(subject.clone()).or_default().insert(binding.key.name.clone(), binding.clone());
        }
        index.bindings.insert(binding.key.clone(), binding);
    }

    pub fn remove_binding(&self, key: &ObjectKey) {
        self.index.write().remove_binding(key);
    }

    /// Visits each binding that applies, with its role's rules, until `visit` returns false.
    fn visit(&self, user: &Identity, namespace: &str, visit: &mut dyn FnMut(&Binding, &Subject, Found<'_>) -> bool) {
        let index = self.index.read();
        let subjects = subjects_of(user);
        let scopes = if namespace.is_empty() { vec![""] } else { vec!["", namespace] };
        for scope in scopes {
            let Some(bound) = index.by_subject.get(scope) else { continue };
            for subject in &subjects {
                for binding in bound.get(subject).into_iter().flat_map(BTreeMap::values) {
                    if !visit(binding, subject, index.rules_of(binding)) {
                        return;
                    }
                }
            }
        }
    }
}

/// The rules of a binding's role, or why there are none.
type Found<'a> = Result<&'a [Rule], String>;

impl Index {
    fn remove_binding(&mut self, key: &ObjectKey) {
        let Some(old) = self.bindings.remove(key) else { return };
        let Some(subjects) = self.by_subject.get_mut(&key.namespace) else { return };
        for (subject, _) in &old.subjects {
            if let Some(bindings) = subjects.get_mut(subject) {
                bindings.remove(&key.name);
                if bindings.is_empty() {
                    subjects.remove(subject);
                }
            }
        }
    }

    fn rules_of(&self, binding: &Binding) -> Found<'_> {
        let namespace = if binding.role_kind == "Role" { &*binding.key.namespace } else { "" };
        let role = self.roles.get(&ObjectKey::new(namespace, &binding.role_name));
        role.map(|rules| &**rules).ok_or_else(|| {
            let kind = binding.role_kind.to_ascii_lowercase();
            format!("{kind}.rbac.authorization.k8s.io {:?} not found", binding.role_name)
        })
    }
}

impl Binding {
    fn read(object: &Object) -> Self {
        let key = object.key();
        let written =
            object.list_at(&["subjects"]).iter().filter_map(|subject| WrittenSubject::deserialize(subject).ok());
        let subjects = written.filter_map(|subject| subject.read(&key.namespace)).collect();
        Binding {
            role_kind: object.str_at(&["roleRef", "kind"]).to_string(),
            role_name: object.str_at(&["roleRef", "name"]).to_string(),
            subjects,
            key,
        }
    }

    /// How a reason names the binding through which a subject was allowed.
    fn describe(&self, subject: &Subject) -> String {
        let described = self.subjects.iter().find(|(own, _)| own == subject).map_or("", |(_, words)| words);
        let (kind, name) = if self.key.namespace.is_empty() {
            ("ClusterRoleBinding", self.key.name.to_string())
        } else {
            ("RoleBinding", format!("{}/{}", self.key.name, self.key.namespace))
        };
        format!("{kind} {name:?} of {} {:?} to {described}", self.role_kind, self.role_name)
    }
}

impl WrittenSubject {
    fn read(self, binding_namespace: &str) -> Option<(Subject, String)> {
        let words = format!("{} {:?}", self.kind, self.name);
        match self.kind.as_str() {
            "User" => Some((Subject::User(self.name), words)),
            "Group" => Some((Subject::Group(self.name), words)),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                let words = format!("{} {:?}", self.kind, format!("{}/{namespace}", self.name));
                Some((Subject::User(format!("system:serviceaccount:{namespace}:{}", self.name)), words))
            }
            _ => None,
        }
    }
}

fn subjects_of(user: &Identity) -> Vec<Subject> {
    let groups = user.groups.iter().map(|group| Subject::Group(group.to_string()));
    std::iter::once(Subject::User(user.name.to_string())).chain(groups).collect()
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes<'_>) -> (Decision, String) {
        let mut allowed = None;
        let mut errors = Vec::new();
        self.visit(attributes.user, attributes.namespace, &mut |binding, subject, found| {
            match found {
                Ok(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    allowed = Some(format!("RBAC: allowed by {}", binding.describe(subject)));
                    return false;
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
            true
        });
        match (allowed, errors.as_slice()) {
            (Some(reason), _) => (Decision::Allow, reason),
            (None, []) => (Decision::NoOpinion, String::new()),
            (None, [one]) => (Decision::NoOpinion, format!("RBAC: {one}")),
            (None, many) => (Decision::NoOpinion, format!("RBAC: [{}]", many.join(", "))),
        }
    }

    fn rules_for(&self, user: &Identity, namespace: &str) -> RuleList {
        let mut list = RuleList::default();
        self.visit(user, namespace, &mut |_, _, found| {
            match found {
                Ok(rules) => list.rules.extend_from_slice(rules),
                Err(error) => list.errors.push(error),
            }
            true
        });
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn identity(name: &str, groups: &[&str]) -> Identity {
        Identity {
            name: (*name).into(),
            groups: groups.iter().map(|group| (*group).into()).collect(),
            ..Identity::default()
        }
    }

    fn reader() -> Rbac {
        let rbac = Rbac::default();
        rbac.put_role(&object(json!({"metadata": {"name": "view"}, "rules": [
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]})));
        rbac.put_binding(&object(json!({"metadata": {"name": "b", "namespace": "a"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "s"}, {"kind": "Group", "name": "g"}]})));
        rbac
    }

    fn ask(rbac: &Rbac, user: &Identity, namespace: &str) -> (Decision, String) {
        rbac.authorize(&Attributes { namespace, ..Attributes::on(user, "get", "", "pods") })
    }

    #[test]
    fn a_role_binding_grants_in_its_namespace_only() {
        let rbac = reader();
        let user = identity("system:serviceaccount:a:s", &[]);
        assert_eq!(
            ask(&rbac, &user, "a"),
            (
                Decision::Allow,
                r#"RBAC: allowed by RoleBinding "b/a" of ClusterRole "view" to ServiceAccount "s/a""#.into()
            )
        );
        assert_eq!(ask(&rbac, &user, "b"), (Decision::NoOpinion, String::new()));
        assert_eq!(ask(&rbac, &user, ""), (Decision::NoOpinion, String::new()));
        assert_eq!(ask(&rbac, &identity("x", &["g"]), "a").0, Decision::Allow);
        assert_eq!(ask(&rbac, &identity("g", &[]), "a").0, Decision::NoOpinion);
    }

    #[test]
    fn changes_of_roles_and_bindings_take_effect() {
        let rbac = reader();
        let user = identity("x", &["g"]);
        rbac.remove_role(&ObjectKey::cluster("view"));
        let missing = r#"RBAC: clusterrole.rbac.authorization.k8s.io "view" not found"#;
        assert_eq!(ask(&rbac, &user, "a"), (Decision::NoOpinion, missing.into()));
        rbac.put_binding(&object(json!({"metadata": {"name": "b", "namespace": "a"},
            "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": null})));
        assert_eq!(ask(&rbac, &user, "a"), (Decision::NoOpinion, String::new()));
        rbac.remove_binding(&ObjectKey::new("a", "b"));
        assert!(rbac.rules_for(&user, "a").errors.is_empty());
    }
}
