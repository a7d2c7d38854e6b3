//! Who the parts of this process are towards the API: upstream's users and groups, so that upstream's roles fit.

use apiserver::context::Identity;

pub fn scheduler() -> Identity {
    Identity::new("system:kube-scheduler", &["system:authenticated"])
}

pub fn controller_manager() -> Identity {
    Identity::new("system:kube-controller-manager", &["system:authenticated"])
}

/// One controller, as upstream runs it with a service account of its own.
pub fn controller(name: &str) -> Identity {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
    Identity::new(&format!("system:serviceaccount:kube-system:{name}"), &groups)
}

pub fn node(name: &str) -> Identity {
    Identity::new(&format!("system:node:{name}"), &["system:nodes", "system:authenticated"])
}

pub fn proxy() -> Identity {
    Identity::new("system:kube-proxy", &["system:authenticated"])
}

pub fn dns() -> Identity {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
    Identity::new("system:serviceaccount:kube-system:coredns", &groups)
}

pub fn administrator() -> Identity {
    Identity::new("kubernetes-admin", &["system:masters", "system:authenticated"])
}
