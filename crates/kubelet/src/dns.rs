//! What a pod's `resolv.conf` says, by its `dnsPolicy` and `dnsConfig`.

use std::net::IpAddr;
use std::path::Path;

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::pod;

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// The cluster's side of name resolution.
#[derive(Clone, Debug, Default)]
pub struct ClusterDns {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

/// The resolver settings of a pod; `host` is the text of the node's `resolv.conf`.
pub fn config(pod: &Pod, cluster: &ClusterDns, host: &str) -> DnsConfig {
    let spec = pod::spec(pod);
    let host_network = spec.host_network.unwrap_or(false);
    let policy = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" if host_network => "Default",
        "ClusterFirst" | "ClusterFirstWithHostNet" if cluster.servers.is_empty() => "Default",
        policy => policy,
    };
    let mut made = match policy {
        "None" => DnsConfig::default(),
        "Default" => parse(host),
        _ => {
            let (namespace, domain) = (pod::namespace(pod), &cluster.domain);
            let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            extend(&mut searches, parse(host).searches);
            DnsConfig {
                servers: cluster.servers.iter().map(IpAddr::to_string).collect(),
                searches,
                options: vec!["ndots:5".to_string()],
            }
        }
    };
    if let Some(own) = &spec.dns_config {
        add(&mut made, own);
    }
    made.servers.truncate(NAMESERVERS_MAX);
    made.searches.truncate(SEARCHES_MAX);
    made
}

fn add(made: &mut DnsConfig, own: &PodDNSConfig) {
    extend(&mut made.servers, own.nameservers.iter().flatten().cloned());
    extend(&mut made.searches, own.searches.iter().flatten().cloned());
    for option in own.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        let text = match option.value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.to_string(),
        };
        let same = |known: &String| known.split(':').next() == Some(name);
        match made.options.iter_mut().find(|known| same(known)) {
            Some(known) => *known = text,
            None => made.options.push(text),
        }
    }
}

fn extend(list: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// Reads a `resolv.conf`; the last `search` and `options` lines count.
pub fn parse(text: &str) -> DnsConfig {
    let mut read = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        let rest = |words: std::str::SplitWhitespace<'_>| words.map(String::from).collect::<Vec<_>>();
        match words.next() {
            Some("nameserver") => read.servers.extend(words.next().map(String::from)),
            Some("search") => {
                let names = rest(words).into_iter().map(|name| match name.len() {
                    1 => name,
                    _ => name.trim_end_matches('.').to_string(),
                });
                read.searches = names.collect();
            }
            Some("options") => read.options = rest(words),
            _ => {}
        }
    }
    read
}

/// The node's `resolv.conf`; a node without one resolves nothing outside the cluster.
pub fn host_text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod_of;
    use serde_json::json;

    const HOST: &str = "# made by hand\nnameserver 192.0.2.1\nsearch corp.example.\noptions timeout:1\n";

    #[test]
    fn policies_choose_and_dns_config_adds() {
        let cluster = ClusterDns { servers: vec!["10.43.0.10".parse().unwrap()], domain: "cluster.local".into() };
        let cluster_searches = ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"];
        for (spec, servers, searches, options) in [
            (json!({}), vec!["10.43.0.10"], &cluster_searches[..], vec!["ndots:5"]),
            (json!({"dnsPolicy": "Default"}), vec!["192.0.2.1"], &["corp.example"][..], vec!["timeout:1"]),
            (json!({"hostNetwork": true}), vec!["192.0.2.1"], &["corp.example"][..], vec!["timeout:1"]),
            (
                json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                vec!["10.43.0.10"],
                &cluster_searches[..],
                vec!["ndots:5"],
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                vec!["1.1.1.1"],
                &["a.b"][..],
                vec!["ndots:2", "edns0"],
            ),
            (
                json!({"dnsConfig": {"nameservers": ["10.43.0.10", "1.1.1.1"], "options": [{"name": "ndots", "value": "1"}]}}),
                vec!["10.43.0.10", "1.1.1.1"],
                &cluster_searches[..],
                vec!["ndots:1"],
            ),
        ] {
            let mut whole = spec.clone();
            whole["containers"] = json!([]);
            let made = config(&pod_of(whole), &cluster, HOST);
            assert_eq!(made.servers, servers, "{spec}");
            assert_eq!(made.searches, searches, "{spec}");
            assert_eq!(made.options, options, "{spec}");
        }
    }
}
