//! How etcd, the API server, the controller manager and the scheduler are started: as kubeadm starts them, on the first
//! node, without pods around them.

use anyhow::Result;

use super::Site;
use super::keys::{Credential, Holder};

const ETCD_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;
const LOOPBACK: std::net::Ipv4Addr = std::net::Ipv4Addr::LOCALHOST;

/// A command line in the making: `--name=value` each.
#[derive(Default)]
pub struct Flags(pub Vec<String>);

impl Flags {
    pub fn set(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        self.0.push(format!("--{name}={value}"));
        self
    }

    fn file(&mut self, name: &str, path: &std::path::Path) -> &mut Self {
        self.set(name, path.display())
    }

    fn credential(&mut self, certificate_flag: &str, key_flag: &str, credential: &Credential) -> &mut Self {
        self.file(certificate_flag, &credential.certificate).file(key_flag, &credential.key)
    }
}

pub fn etcd(site: &Site) -> Result<Vec<String>> {
    let addresses = [LOOPBACK, site.server.address];
    let holder = Holder { names: &["localhost"], addresses: &addresses, ..Holder::client("etcd", "") };
    let serving = site.keys.issue("etcd", &holder)?;
    let (client, peer) = (format!("https://{LOOPBACK}:{ETCD_PORT}"), format!("https://{LOOPBACK}:{ETCD_PEER_PORT}"));
    let mut flags = Flags::default();
    flags.set("name", "lab").set("data-dir", "/var/lib/etcd");
    flags.set("listen-client-urls", &client).set("advertise-client-urls", &client);
    flags.set("listen-peer-urls", &peer).set("initial-advertise-peer-urls", &peer);
    flags.set("initial-cluster", format!("lab={peer}"));
    flags.credential("cert-file", "key-file", &serving).credential("peer-cert-file", "peer-key-file", &serving);
    flags.set("client-cert-auth", true).file("trusted-ca-file", &site.keys.authority.certificate);
    flags.set("peer-client-cert-auth", true).file("peer-trusted-ca-file", &site.keys.authority.certificate);
    flags.set("feature-gates", "InitialCorruptCheck=true").set("watch-progress-notify-interval", "5s");
    Ok(flags.0)
}

pub fn apiserver(site: &Site) -> Result<Vec<String>> {
    let keys = &site.keys;
    let in_cluster = format!("kubernetes.default.svc.{}", site.ranges.domain);
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", &in_cluster, "localhost", "node1"];
    let addresses = [LOOPBACK, site.ranges.api, site.server.address];
    let holder = Holder { names: &names, addresses: &addresses, ..Holder::client("kube-apiserver", "") };
    let serving = keys.issue("kube-apiserver", &holder)?;
    let to_etcd = keys.issue("apiserver-etcd-client", &Holder::client("apiserver-etcd-client", ""))?;
    let to_nodes = Holder::client("kube-apiserver-kubelet-client", "system:masters");
    let to_nodes = keys.issue("apiserver-kubelet-client", &to_nodes)?;
    let to_extensions = keys.issue_by_front_proxy("front-proxy-client", &Holder::client("front-proxy-client", ""))?;
    let mut flags = Flags::default();
    flags.set("advertise-address", site.server.address).set("secure-port", super::API_PORT);
    flags.set("allow-privileged", true).set("authorization-mode", "Node,RBAC");
    flags.set("enable-admission-plugins", "NodeRestriction").set("enable-bootstrap-token-auth", true);
    flags.file("client-ca-file", &keys.authority.certificate);
    flags.credential("tls-cert-file", "tls-private-key-file", &serving);
    flags.set("etcd-servers", format!("https://{LOOPBACK}:{ETCD_PORT}"));
    flags.file("etcd-cafile", &keys.authority.certificate).credential("etcd-certfile", "etcd-keyfile", &to_etcd);
    flags.credential("kubelet-client-certificate", "kubelet-client-key", &to_nodes);
    flags.file("kubelet-certificate-authority", &keys.authority.certificate);
    flags.set("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname");
    flags.credential("proxy-client-cert-file", "proxy-client-key-file", &to_extensions);
    flags.file("requestheader-client-ca-file", &keys.front_proxy.certificate);
    flags.set("requestheader-allowed-names", "front-proxy-client");
    flags.set("requestheader-extra-headers-prefix", "X-Remote-Extra-");
    flags.set("requestheader-group-headers", "X-Remote-Group");
    flags.set("requestheader-username-headers", "X-Remote-User").set("enable-aggregator-routing", true);
    flags.set("service-account-issuer", format!("https://{in_cluster}"));
    flags.file("service-account-key-file", &keys.token_public_key()?);
    flags.file("service-account-signing-key-file", &keys.token_key);
    flags.set("service-cluster-ip-range", site.ranges.services);
    Ok(flags.0)
}

pub fn controller_manager(site: &Site) -> Result<Vec<String>> {
    let keys = &site.keys;
    let mut flags = component(site, "system:kube-controller-manager", "controller-manager")?;
    flags.set("allocate-node-cidrs", true).set("cluster-cidr", site.ranges.pods).set("cluster-name", "kubernetes");
    flags.file("client-ca-file", &keys.authority.certificate).file("root-ca-file", &keys.authority.certificate);
    flags.credential("cluster-signing-cert-file", "cluster-signing-key-file", &keys.authority);
    flags.file("requestheader-client-ca-file", &keys.front_proxy.certificate);
    flags.set("controllers", "*,bootstrapsigner,tokencleaner").set("use-service-account-credentials", true);
    flags.file("service-account-private-key-file", &keys.token_key);
    // its usual place is the machine's
    flags.set("flex-volume-plugin-dir", "/var/lib/kube-controller-manager/volume-plugins");
    flags.set("service-cluster-ip-range", site.ranges.services);
    Ok(flags.0)
}

pub fn scheduler(site: &Site) -> Result<Vec<String>> {
    Ok(component(site, "system:kube-scheduler", "scheduler")?.0)
}

/// What the controller manager and the scheduler have in common.
fn component(site: &Site, user: &str, file: &str) -> Result<Flags> {
    let kubeconfig = site.keys.kubeconfig(file, &site.api(), &Holder::client(user, ""))?;
    let mut flags = Flags::default();
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        flags.file(flag, &kubeconfig);
    }
    flags.set("bind-address", LOOPBACK).set("leader-elect", true);
    Ok(flags)
}
