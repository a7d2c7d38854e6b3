//! What each of the API server's own signers is for: which subjects, names and usages a request may have.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::RequestFacts;

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

const NODE_PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";
const CLIENT_AUTH: &str = "client auth";
const SERVER_AUTH: &str = "server auth";

/// Whether the request is one that the named signer signs: None for a signer that is not ours, an error for a request that the
/// signer will never sign.
pub fn judge(signer: &str, facts: &RequestFacts, usages: &[String]) -> Option<Result<(), String>> {
    match signer {
        CLIENT => Some(client_usages(usages)),
        KUBELET_CLIENT => Some(kubelet_client(facts, usages)),
        KUBELET_SERVING => Some(kubelet_serving(facts, usages)),
        LEGACY_UNKNOWN => Some(Ok(())),
        _ => None,
    }
}

/// The node that a subject names.
pub fn node_of(common_name: &str) -> Option<&str> {
    common_name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty())
}

/// A node's serving certificate may name what its Node object says it is called and reached by, and the machine to itself.
///
/// # Errors
/// Names what is not the node's.
pub fn belongs_to(node: &str, addresses: &[(String, String)], facts: &RequestFacts) -> Result<(), String> {
    let is_named = |name: &String| {
        name == node
            || name == "localhost"
            || addresses.iter().any(|(kind, address)| {
                address == name && ["Hostname", "InternalDNS", "ExternalDNS"].contains(&kind.as_str())
            })
    };
    let is_address = |ip: &IpAddr| {
        ip.is_loopback()
            || addresses.iter().any(|(kind, address)| {
                ["InternalIP", "ExternalIP"].contains(&kind.as_str()) && address.parse() == Ok(*ip)
            })
    };
    match (facts.dns_names.iter().find(|name| !is_named(name)), facts.ips.iter().find(|ip| !is_address(ip))) {
        (Some(name), _) => Err(format!("{name:?} is no name of node {node:?}")),
        (None, Some(ip)) => Err(format!("{ip} is no address of node {node:?}")),
        (None, None) => Ok(()),
    }
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    let strange = |usage: &&String| !["digital signature", "key encipherment", CLIENT_AUTH].contains(&usage.as_str());
    if let Some(usage) = usages.iter().find(strange) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if !usages.iter().any(|usage| usage == CLIENT_AUTH) {
        return Err(format!("missing required usage for client certificate: {CLIENT_AUTH}"));
    }
    Ok(())
}

fn kubelet_client(facts: &RequestFacts, usages: &[String]) -> Result<(), String> {
    is_of_nodes(facts)?;
    none(&facts.dns_names, "DNS")?;
    none(&facts.email_addresses, "email")?;
    none(&facts.ips, "IP")?;
    none(&facts.uris, "URI")?;
    is_of_a_node(facts)?;
    node_usages(usages, CLIENT_AUTH)
}

fn kubelet_serving(facts: &RequestFacts, usages: &[String]) -> Result<(), String> {
    is_of_nodes(facts)?;
    if facts.dns_names.is_empty() && facts.ips.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_string());
    }
    none(&facts.email_addresses, "email")?;
    none(&facts.uris, "URI")?;
    node_usages(usages, SERVER_AUTH)?;
    is_of_a_node(facts)
}

fn is_of_nodes(facts: &RequestFacts) -> Result<(), String> {
    match facts.organizations.as_slice() {
        [only] if only == NODES => Ok(()),
        _ => Err(format!("subject organization is not {NODES}")),
    }
}

fn is_of_a_node(facts: &RequestFacts) -> Result<(), String> {
    let of_a_node = facts.common_name.starts_with(NODE_PREFIX);
    if of_a_node { Ok(()) } else { Err(format!("subject common name does not begin with {NODE_PREFIX}")) }
}

fn none<T>(names: &[T], kind: &str) -> Result<(), String> {
    if names.is_empty() { Ok(()) } else { Err(format!("{kind} subjectAltNames are not allowed")) }
}

/// Keys that are not RSA need no encipherment, so it may be left out.
fn node_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let least = BTreeSet::from(["digital signature", purpose]);
    let most = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    if given == least || given == most {
        return Ok(());
    }
    Err(format!("usages did not match [{}]", most.into_iter().collect::<Vec<_>>().join(" ")))
}
