//! The cluster's DNS: CoreDNS as a deployment behind the `kube-dns` service, as kubeadm's add-on sets it up.

use serde_json::{Value, json};

use super::Ranges;

/// Everything to apply, as one list. `program` is CoreDNS as it lies on every node.
pub fn objects(ranges: &Ranges, program: &str) -> Value {
    let mut items = access();
    items.extend([configuration(ranges), deployment(program), service(ranges)]);
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn access() -> Vec<Value> {
    let role = "system:coredns";
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("coredns")}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role},
            "rules": [
                {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
        }),
    ]
}

fn configuration(ranges: &Ranges) -> Value {
    let server = [
        ".:53 {".to_owned(),
        "    errors".to_owned(),
        "    health {\n        lameduck 5s\n    }".to_owned(),
        "    ready".to_owned(),
        format!("    kubernetes {} in-addr.arpa ip6.arpa {{", ranges.domain),
        "        pods insecure\n        fallthrough in-addr.arpa ip6.arpa\n        ttl 30\n    }".to_owned(),
        "    prometheus :9153".to_owned(),
        "    forward . /etc/resolv.conf {\n        max_concurrent 1000\n    }".to_owned(),
        "    cache 30\n    loop\n    reload\n    loadbalance\n}\n".to_owned(),
    ];
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("coredns"), "data": {"Corefile": server.join("\n")}})
}

fn deployment(program: &str) -> Value {
    let probe = |port: u16, path: &str| json!({"httpGet": {"path": path, "port": port, "scheme": "HTTP"}});
    let mut liveness = probe(8080, "/health");
    liveness["initialDelaySeconds"] = 60.into();
    liveness["timeoutSeconds"] = 5.into();
    let container = json!({
        "name": "coredns", "image": "registry.k8s.io/pause:3.10",
        "command": ["/coredns"], "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
        "ports": [
            {"containerPort": 53, "name": "dns", "protocol": "UDP"},
            {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
            {"containerPort": 9153, "name": "metrics", "protocol": "TCP"},
        ],
        "livenessProbe": liveness, "readinessProbe": probe(8181, "/ready"),
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/coredns", "readOnly": true},
            {"name": "program", "mountPath": "/coredns", "readOnly": true},
        ],
    });
    let spread = json!({"podAffinityTerm": {"labelSelector": {"matchLabels": labels()}, "topologyKey": "kubernetes.io/hostname"}, "weight": 100});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("coredns"),
        "spec": {
            "replicas": 2, "selector": {"matchLabels": labels()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels()}, "spec": {
                "serviceAccountName": "coredns", "dnsPolicy": "Default", "priorityClassName": "system-cluster-critical",
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [spread]}},
                "containers": [container],
                "volumes": [
                    {"name": "config", "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]}},
                    {"name": "program", "hostPath": {"path": program, "type": "File"}},
                ],
            }},
        },
    })
}

fn service(ranges: &Ranges) -> Value {
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol, "targetPort": port});
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata("kube-dns"),
        "spec": {
            "selector": labels(), "clusterIP": ranges.dns,
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
        },
    })
}

fn labels() -> Value {
    json!({"k8s-app": "kube-dns"})
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "kube-system", "labels": labels()})
}
