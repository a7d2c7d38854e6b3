//! What a cluster tells machines that join it, and the rights by which they do.
//!
//! ```text
//! kube-public/cluster-info     server and authority; anybody may read it, join tokens sign it    (as kubeadm's)
//! kube-system/coracle-cluster  ranges, DNS, domain; for nodes
//! bindings                     join tokens may ask for a node's certificate, nodes for their own
//! ```
//!
//! Written by the server at every start with the administrator's identity; read by `agent`.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Patch};
use futures::future::try_join_all;
use meta::{GroupVersionKind, GroupVersionResource, Object, ObjectKey, Status};
use pki::bootstrap_token::BootstrapToken;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::identity;
use crate::node::Membership;
use crate::settings::{Cluster, Machine};

const RBAC: &str = "rbac.authorization.k8s.io";
/// Who shows a join token made by us or by kubeadm.
pub const JOINING: &str = "system:bootstrappers:kubeadm:default-node-token";
const DNS_ROLE: &str = "system:coredns";
const NODES: &str = "system:nodes";
const CSR_ROLE: &str = "system:certificates.k8s.io:certificatesigningrequests";

/// Where the public description is.
pub fn description() -> ObjectKey {
    ObjectKey::new("kube-public", "cluster-info")
}

/// Where nodes read what they need to know.
fn membership_key() -> ObjectKey {
    ObjectKey::new("kube-system", "coracle-cluster")
}

pub fn config_maps() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "configmaps")
}

/// Writes everything; what is right already is left as it is.
pub async fn publish(plane: &ControlPlane, cluster: &Cluster, machine: &Machine) -> Result<()> {
    let client = Client::new(plane.api.door(identity::administrator()));
    let server = format!("https://{}", SocketAddr::new(machine.address, plane.api.address().port()));
    let membership = membership(plane, cluster);
    let text = kubeconfig(&server, &membership.authority);
    let rights = rights().into_iter().map(|object| create_missing(&client, object));
    let (public, own) = (description(), membership_key());
    let wrote = futures::future::try_join3(
        try_join_all(rights),
        keep(&client, &public, json!({"kubeconfig": text})),
        keep(&client, &own, to_data(&membership)),
    );
    wrote.await.map(drop).context("cannot publish what joining machines need")
}

/// What nodes of this cluster have to know.
pub fn membership(plane: &ControlPlane, cluster: &Cluster) -> Membership {
    Membership {
        service_cidrs: cluster.service_cidrs.clone(),
        pod_cidrs: cluster.pod_cidrs.clone(),
        dns: cluster.dns,
        domain: cluster.domain.clone(),
        authority: plane.authorities.cluster.certificate_pem(),
    }
}

/// Reads what the server wrote; `authority` is what this machine has verified itself.
pub async fn read_membership(client: &Client, authority: &str) -> Result<Membership, Status> {
    let map = client.get_object(&config_maps(), &membership_key()).await?;
    from_data(&map, authority).ok_or_else(|| Status::internal(format!("{} cannot be understood", membership_key())))
}

/// The server and the authority (PEM) that a description names, if `signature` shows that it comes from who knows the token.
pub fn verified(description: &Object, token: &BootstrapToken) -> Result<Option<String>> {
    let data = |name: &str| description.str_at(&["data", name]);
    let signature = data(&format!("jws-kubeconfig-{}", token.id));
    if signature.is_empty() {
        return Ok(None);
    }
    let text = data("kubeconfig");
    if !token.verifies(signature, text) {
        anyhow::bail!(
            "the server does not know the token's secret: it is not the cluster that the token is for, or somebody stands between"
        );
    }
    let config = api::codec::yaml::one(text).context("cluster-info is not a kubeconfig")?.value;
    let authority = config["clusters"][0]["cluster"]["certificate-authority-data"].as_str().unwrap_or_default();
    let authority = STANDARD.decode(authority).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    authority.filter(|pem| !pem.is_empty()).context("cluster-info names no authority").map(Some)
}

/// The server that a description names.
pub fn server_of(description: &Object) -> Option<String> {
    let config = api::codec::yaml::one(description.str_at(&["data", "kubeconfig"])).ok()?.value;
    config["clusters"][0]["cluster"]["server"].as_str().map(str::to_string)
}

/// A kubeconfig without users. JSON is YAML too.
fn kubeconfig(server: &str, authority: &str) -> String {
    let cluster = json!({"certificate-authority-data": STANDARD.encode(authority), "server": server});
    let config = json!({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}],
        "contexts": [], "current-context": "", "preferences": {}, "users": []});
    format!("{config:#}\n")
}

fn to_data(membership: &Membership) -> Value {
    let list = |ranges: &[ipnet::IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    json!({"serviceCIDR": list(&membership.service_cidrs), "podCIDR": list(&membership.pod_cidrs),
        "clusterDNS": membership.dns.to_string(), "clusterDomain": membership.domain})
}

fn from_data(map: &Object, authority: &str) -> Option<Membership> {
    let data = |name: &str| map.str_at(&["data", name]);
    let list = |name: &str| data(name).split(',').map(|range| range.parse().ok()).collect::<Option<Vec<_>>>();
    Some(Membership {
        service_cidrs: list("serviceCIDR")?,
        pod_cidrs: list("podCIDR")?,
        dns: data("clusterDNS").parse().ok()?,
        domain: Some(data("clusterDomain")).filter(|domain| !domain.is_empty())?.to_string(),
        authority: authority.to_string(),
    })
}

/// Has a config map carry these entries; others in it stay.
async fn keep(client: &Client, key: &ObjectKey, data: Value) -> Result<(), Status> {
    let found = match client.get_object(&config_maps(), key).await {
        Err(status) if status.is_not_found() => {
            let mut map = Object::new(&GroupVersionKind::new("", "v1", "ConfigMap"));
            map.set_meta("name", &*key.name);
            map.set_meta("namespace", &*key.namespace);
            map.set(&["data"], data);
            return client.create_object(&config_maps(), map).await.map(drop);
        }
        other => other?,
    };
    let entries = data.as_object().into_iter().flatten();
    let right = entries.into_iter().all(|(name, value)| found.get(&["data", name]) == Some(value));
    if right {
        return Ok(());
    }
    client.patch_object(&config_maps(), key, "", Patch::Merge(json!({"data": data}))).await.map(drop)
}

async fn create_missing(client: &Client, object: Object) -> Result<(), Status> {
    let resource = match object.kind() {
        "Role" => "roles",
        "ClusterRole" => "clusterroles",
        "RoleBinding" => "rolebindings",
        _ => "clusterrolebindings",
    };
    match client.create_object(&GroupVersionResource::new(RBAC, "v1", resource), object).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

/// By which joining machines and nodes may do what they have to. Those named `kubeadm:` are kubeadm's own.
fn rights() -> Vec<Object> {
    let cluster =
        |name: &str, role: &str, kind: &str, subject: &str| binding("", name, "ClusterRole", role, kind, subject);
    let info = "kubeadm:bootstrap-signer-clusterinfo";
    let own = "coracle:cluster";
    vec![
        reading_role("kube-public", info, &description().name),
        binding("kube-public", info, "Role", info, "User", "system:anonymous"),
        reading_role("kube-system", own, &membership_key().name),
        binding("kube-system", own, "Role", own, "Group", NODES),
        cluster("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", "Group", JOINING),
        cluster("kubeadm:node-autoapprove-bootstrap", &format!("{CSR_ROLE}:nodeclient"), "Group", JOINING),
        cluster("kubeadm:node-autoapprove-certificate-rotation", &format!("{CSR_ROLE}:selfnodeclient"), "Group", NODES),
        // The approver decides about serving certificates too, which upstream leaves to people.
        cluster(
            "coracle:kubelet-serving-approver",
            "system:certificates.k8s.io:kubelet-serving-approver",
            "User",
            "system:serviceaccount:kube-system:certificate-controller",
        ),
        // The service proxy, the routes and the DNS server of a node are parts of its agent and have no identity of their own.
        cluster("coracle:node-proxier", "system:node-proxier", "Group", NODES),
        dns_role(),
        cluster(DNS_ROLE, DNS_ROLE, "User", "system:serviceaccount:kube-system:coredns"),
        cluster("coracle:node-dns", DNS_ROLE, "Group", NODES),
    ]
}

/// What our DNS server reads: fewer kinds than the add-on's role of this name has, because every node holds it and has no business with
/// the pods of others.
fn dns_role() -> Object {
    let mut role = named("ClusterRole", "", DNS_ROLE);
    let core = json!({"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["services", "namespaces"]});
    let slices =
        json!({"verbs": ["list", "watch"], "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]});
    role.set(&["rules"], json!([core, slices]));
    role
}

fn reading_role(namespace: &str, name: &str, config_map: &str) -> Object {
    let mut role = named("Role", namespace, name);
    let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [config_map]});
    role.set(&["rules"], json!([rule]));
    role
}

fn binding(namespace: &str, name: &str, role_kind: &str, role: &str, subject_kind: &str, subject: &str) -> Object {
    let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    let mut binding = named(kind, namespace, name);
    binding.set(&["roleRef"], json!({"apiGroup": RBAC, "kind": role_kind, "name": role}));
    binding.set(&["subjects"], json!([{"apiGroup": RBAC, "kind": subject_kind, "name": subject}]));
    binding
}

fn named(kind: &str, namespace: &str, name: &str) -> Object {
    let mut object = Object::new(&GroupVersionKind::new(RBAC, "v1", kind));
    object.set_meta("name", name);
    if !namespace.is_empty() {
        object.set_meta("namespace", namespace);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_believed_only_with_the_tokens_signature() {
        let token = BootstrapToken::generate();
        let text = kubeconfig("https://127.0.0.1:6443", "the authority");
        let mut map = Object::new(&GroupVersionKind::new("", "v1", "ConfigMap"));
        map.set(&["data", "kubeconfig"], text.as_str());
        assert_eq!(verified(&map, &token).unwrap(), None);
        let name = format!("jws-kubeconfig-{}", token.id);
        map.set(&["data", &name], token.sign(&text));
        assert_eq!(verified(&map, &token).unwrap().as_deref(), Some("the authority"));
        assert_eq!(server_of(&map).as_deref(), Some("https://127.0.0.1:6443"));
        map.set(&["data", "kubeconfig"], kubeconfig("https://127.0.0.1:6443", "another authority"));
        assert!(verified(&map, &token).unwrap_err().to_string().contains("does not know the token"));
    }

    #[test]
    fn nodes_read_what_the_server_wrote() {
        let membership = Membership {
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap(), "fd43::/112".parse().unwrap()],
            pod_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            dns: "10.43.0.10".parse().unwrap(),
            domain: "cluster.local".into(),
            authority: "pem".into(),
        };
        let mut map = Object::new(&GroupVersionKind::new("", "v1", "ConfigMap"));
        map.set(&["data"], to_data(&membership));
        let read = from_data(&map, "pem").unwrap();
        assert_eq!(format!("{read:?}"), format!("{membership:?}"));
        map.remove(&["data", "podCIDR"]);
        assert!(from_data(&map, "pem").is_none());
    }
}
