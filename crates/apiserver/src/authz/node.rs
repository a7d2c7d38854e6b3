//! The node authorizer: a node agent may read what the pods bound to its node need, and nothing else.
//!
//! The graph is kept the short way round: for every node, the things its pods refer to, counted, so that a question is one
//! look-up. Volumes are reached through their claims.
//!
//! ```text
//! pod on node N ──► Secret, ConfigMap, PersistentVolumeClaim ──► PersistentVolume ──► Secret
//!              └──► ServiceAccount, ResourceClaim
//! ```
//!
//! What a node may *write* is narrowed further by the NodeRestriction admission.

mod graph;
mod references;

use meta::{FieldSelector, GroupResource};

pub use graph::NodeGraph;

use super::{Attributes, Authorizer, Decision, Rule, RuleList};
use crate::context::Identity;

const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";
/// The namespace of the leases by which nodes show that they live.
const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node's name if the user is a node agent; empty when it is one without a name.
pub fn node_of(user: &Identity) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_USER_PREFIX)?;
    user.groups.iter().any(|group| &**group == NODES_GROUP).then_some(name)
}

/// The authorizer with its graph, which [`super::feed`] keeps.
#[derive(Default)]
pub struct NodeAuthorizer {
    pub graph: NodeGraph,
}

/// Allowed, or not with the reason shown.
type Answer = Result<(), String>;

fn refuse(why: &str) -> Answer {
    Err(why.to_string())
}

impl NodeAuthorizer {
    fn judge(&self, node: &str, ask: &Attributes<'_>) -> Answer {
        if !ask.is_resource {
            return if general_rules().iter().any(|rule| rule.allows(ask)) { Ok(()) } else { refuse("") };
        }
        match (ask.group, ask.resource) {
            ("", "secrets" | "configmaps") => self.read_namespaced(node, ask),
            ("", "persistentvolumeclaims") if ask.subresource == "status" => match ask.verb {
                "update" | "patch" => self.related(node, ask),
                _ => refuse("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims" | "persistentvolumes") => self.get_one(node, ask),
            ("resource.k8s.io", "resourceclaims") | ("storage.k8s.io", "volumeattachments") => self.get_one(node, ask),
            ("", "serviceaccounts") => self.service_account(node, ask),
            ("coordination.k8s.io", "leases") => lease(node, ask),
            ("storage.k8s.io", "csinodes") => csi_node(node, ask),
            ("resource.k8s.io", "resourceslices") => resource_slice(node, ask),
            ("certificates.k8s.io", "podcertificaterequests") => self.certificate_request(node, ask),
            ("", "nodes") => own_node(node, ask),
            ("", "pods") => self.pod(node, ask),
            _ if general_rules().iter().any(|rule| rule.allows(ask)) => Ok(()),
            _ => refuse(""),
        }
    }

    fn read_namespaced(&self, node: &str, ask: &Attributes<'_>) -> Answer {
        if !matches!(ask.verb, "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !ask.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if ask.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(node, ask)
    }

    fn get_one(&self, node: &str, ask: &Attributes<'_>) -> Answer {
        if ask.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !ask.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.related(node, ask)
    }

    fn related(&self, node: &str, ask: &Attributes<'_>) -> Answer {
        if ask.name.is_empty() {
            return refuse("No Object name found");
        }
        if self.graph.leads_to(node, &GroupResource::new(ask.group, ask.resource), ask.namespace, ask.name) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    fn service_account(&self, node: &str, ask: &Attributes<'_>) -> Answer {
        if ask.verb == "get" && ask.subresource.is_empty() {
            return self.read_namespaced(node, ask);
        }
        if ask.verb != "create" || ask.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if ask.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.related(node, ask)
    }

    fn certificate_request(&self, node: &str, ask: &Attributes<'_>) -> Answer {
        match ask.verb {
            _ if !ask.subresource.is_empty() => {
                refuse("nodes may not access the status subresource of PodCertificateRequests")
            }
            // NodeRestriction sees to it that these are for the node's own pods.
            "create" => Ok(()),
            "get" => self.related(node, ask),
            "list" | "watch" if selects(ask, "spec.nodeName", node) => Ok(()),
            "list" | "watch" => refuse("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => Err(format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn pod(&self, node: &str, ask: &Attributes<'_>) -> Answer {
        match (ask.subresource, ask.verb) {
            ("", "get") => self.get_one(node, ask),
            ("", "list" | "watch") if selects(ask, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !ask.name.is_empty() => self.related(node, ask),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            // NodeRestriction sees to it that these concern the node's own pods.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => refuse(""),
        }
    }
}

fn selects(ask: &Attributes<'_>, field: &str, value: &str) -> bool {
    FieldSelector::parse(ask.field_selector).is_ok_and(|selector| selector.required_value(field) == Some(value))
}

fn lease(node: &str, ask: &Attributes<'_>) -> Answer {
    if !matches!(ask.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if ask.namespace != NODE_LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {NODE_LEASE_NAMESPACE:?} system namespace"));
    }
    // The name is not known yet on create: NodeRestriction looks there.
    if ask.verb != "create" && ask.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, ask: &Attributes<'_>) -> Answer {
    if !ask.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if !matches!(ask.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if ask.verb != "create" && ask.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn resource_slice(node: &str, ask: &Attributes<'_>) -> Answer {
    match ask.verb {
        _ if !ask.subresource.is_empty() => refuse("cannot authorize ResourceSlice subresources"),
        "create" => Ok(()),
        // A slice is named after its node and driver only by custom, so without an index of slices nothing is related.
        "get" | "update" | "patch" | "delete" => {
            Err(format!("no relationship found between node '{node}' and this object"))
        }
        "watch" | "list" | "deletecollection" if selects(ask, "spec.nodeName", node) => Ok(()),
        "watch" | "list" | "deletecollection" => {
            refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => refuse(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
        ),
    }
}

fn own_node(node: &str, ask: &Attributes<'_>) -> Answer {
    match (ask.subresource, ask.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match ask.name {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => refuse(""),
    }
}

/// What all nodes may do alike, beyond what is judged one by one above.
fn general_rules() -> &'static [Rule] {
    static RULES: std::sync::OnceLock<Vec<Rule>> = std::sync::OnceLock::new();
    RULES.get_or_init(|| {
        vec![
            Rule::on("create", "authentication.k8s.io", "tokenreviews"),
            Rule::on("create", "authorization.k8s.io", "subjectaccessreviews,localsubjectaccessreviews"),
            Rule::on("get,list,watch", "", "services"),
            Rule::on("create,update,patch", ",events.k8s.io", "events"),
            Rule::on("get", "", "endpoints"),
            Rule::on("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests"),
            Rule::on("get,list,watch", "storage.k8s.io", "csidrivers"),
            Rule::on("get,list,watch", "node.k8s.io", "runtimeclasses"),
            Rule::on("get,list,watch", "certificates.k8s.io", "clustertrustbundles"),
        ]
    })
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes<'_>) -> (Decision, String) {
        match node_of(attributes.user) {
            None => (Decision::NoOpinion, String::new()),
            Some("") => (Decision::NoOpinion, format!("unknown node for user {:?}", attributes.user.name)),
            Some(node) => match self.judge(node, attributes) {
                Ok(()) => (Decision::Allow, String::new()),
                Err(reason) => (Decision::NoOpinion, reason),
            },
        }
    }

    fn rules_for(&self, user: &Identity, _namespace: &str) -> RuleList {
        match node_of(user) {
            None => RuleList::default(),
            Some(_) => RuleList {
                incomplete: true,
                errors: vec!["node authorizer does not support user rule resolution".into()],
                ..RuleList::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::Object;
    use serde_json::json;

    fn node(name: &str) -> Identity {
        let groups = [NODES_GROUP].iter().map(|group| (*group).into()).collect();
        Identity { name: format!("system:node:{name}").into(), groups, ..Identity::default() }
    }

    fn pod_using_a_secret(node: &str) -> Object {
        Object::from_value(json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {
            "nodeName": node, "serviceAccountName": "s", "volumes": [
                {"name": "v", "secret": {"secretName": "mine"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}}]}}))
        .unwrap()
    }

    #[test]
    fn a_node_reads_only_what_its_pods_refer_to() {
        let authorizer = NodeAuthorizer::default();
        authorizer.graph.put_pod(&pod_using_a_secret("n1"));
        let (n1, n2) = (node("n1"), node("n2"));
        let secret =
            |user, verb, name| Attributes { namespace: "a", name, ..Attributes::on(user, verb, "", "secrets") };
        let allowed = |ask: Attributes<'_>| authorizer.authorize(&ask).0 == Decision::Allow;
        assert!(allowed(secret(&n1, "get", "mine")) && allowed(secret(&n1, "watch", "mine")));
        assert!(!allowed(secret(&n1, "get", "other")) && !allowed(secret(&n2, "get", "mine")));
        assert!(!allowed(secret(&n1, "update", "mine")) && !allowed(secret(&n1, "list", "")));
        let token = Attributes {
            subresource: "token",
            namespace: "a",
            name: "s",
            ..Attributes::on(&n1, "create", "", "serviceaccounts")
        };
        assert!(allowed(token) && !allowed(Attributes { user: &n2, ..token }));

        authorizer.graph.put_volume(
            &Object::from_value(json!({"metadata": {"name": "pv"},
                "spec": {"claimRef": {"namespace": "a", "name": "claim"}}}))
            .unwrap(),
        );
        let volume = |user| Attributes { name: "pv", ..Attributes::on(user, "get", "", "persistentvolumes") };
        assert!(allowed(volume(&n1)) && !allowed(volume(&n2)));

        authorizer.graph.remove_pod(&pod_using_a_secret("n1").key());
        assert!(!allowed(secret(&n1, "get", "mine")) && !allowed(token) && !allowed(volume(&n1)));
    }

    #[test]
    fn a_node_reads_the_certificate_requests_of_its_pods_and_makes_new_ones() {
        let authorizer = NodeAuthorizer::default();
        let request =
            Object::from_value(json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {"nodeName": "n1"}}));
        authorizer.graph.put_certificate_request(request.as_ref().unwrap());
        let (n1, n2) = (node("n1"), node("n2"));
        let allowed = |ask: Attributes<'_>| authorizer.authorize(&ask).0 == Decision::Allow;
        let ask = |user, verb, name| Attributes {
            namespace: "a",
            name,
            ..Attributes::on(user, verb, "certificates.k8s.io", "podcertificaterequests")
        };
        assert!(allowed(ask(&n1, "get", "r")) && !allowed(ask(&n2, "get", "r")) && !allowed(ask(&n1, "get", "s")));
        assert!(allowed(ask(&n1, "create", "")) && !allowed(ask(&n1, "delete", "r")) && !allowed(ask(&n1, "list", "")));
        assert!(allowed(Attributes { field_selector: "spec.nodeName=n1", ..ask(&n1, "watch", "") }));
        assert!(!allowed(Attributes { field_selector: "spec.nodeName=n2", ..ask(&n1, "watch", "") }));
        assert!(!allowed(Attributes { subresource: "status", ..ask(&n1, "get", "r") }));
        authorizer.graph.remove_certificate_request(&request.unwrap().key());
        assert!(!allowed(ask(&n1, "get", "r")));
    }

    #[test]
    fn reasons_are_upstreams() {
        let authorizer = NodeAuthorizer::default();
        let n1 = node("n1");
        let reason = |ask: Attributes<'_>| authorizer.authorize(&ask).1;
        let pods = Attributes::on(&n1, "list", "", "pods");
        assert_eq!(reason(pods), "can only list/watch pods with spec.nodeName field selector");
        assert_eq!(reason(Attributes { field_selector: "spec.nodeName=n1", ..pods }), "");
        assert_eq!(
            reason(Attributes { name: "n2", ..Attributes::on(&n1, "get", "", "nodes") }),
            "node 'n1' cannot read 'n2', only its own Node object"
        );
        let lease =
            Attributes { namespace: "default", ..Attributes::on(&n1, "create", "coordination.k8s.io", "leases") };
        assert_eq!(reason(lease), "can only access leases in the \"kube-node-lease\" system namespace");
    }
}
