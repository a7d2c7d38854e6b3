//! The `/etc/hosts` of a pod's containers.

use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// The text for a pod with these addresses. A pod on the host's network gets the node's file with its aliases added.
pub fn content(pod: &Pod, pod_ips: &[String], hostname: &str, domain: &str, node_file: &str) -> String {
    let mut text = String::new();
    if pod::spec(pod).host_network.unwrap_or(false) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(node_file);
    } else {
        text.push_str("# Kubernetes-managed hosts file.\n");
        text.push_str("127.0.0.1\tlocalhost\n");
        text.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
        text.push_str(
            "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        for ip in pod_ips {
            match domain {
                "" => text.push_str(&format!("{ip}\t{hostname}\n")),
                domain => text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
            }
        }
    }
    let aliases = pod::spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

/// The host name of a pod and its domain (empty without a subdomain).
pub fn host_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod::spec(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (name.to_string(), String::new());
    }
    let hostname = spec.hostname.as_deref().filter(|hostname| !hostname.is_empty()).unwrap_or_else(|| pod::name(pod));
    let short: String = hostname.chars().take(63).collect();
    let short = short.trim_end_matches(['-', '.']).to_string();
    let domain = match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", pod::namespace(pod)),
        None => String::new(),
    };
    (short, domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod_of;
    use serde_json::json;

    #[test]
    fn names_addresses_and_aliases_are_listed() {
        let pod = pod_of(json!({"containers": [], "subdomain": "web",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let (hostname, domain) = host_and_domain(&pod, "cluster.local");
        let text = content(&pod, &["10.1.0.2".into()], &hostname, &domain, "");
        assert!(text.contains("10.1.0.2\tp.web.n.svc.cluster.local\tp\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }
}
