//! How kubelet and kube-proxy are started on a node, and what they find there.
//!
//! kubelet would change some of the kernel's settings for the whole machine. They are covered so that they look to it as
//! if they were changed already; so nothing has to be put back, however a lab ends.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use super::Site;
use super::control_plane::Flags;
use super::keys::Holder;
use crate::lab::state::Node;
use crate::lab::{containerd, hub};

/// Kernel settings that kubelet wants, under /proc/sys. None of them can differ between nodes of one machine.
const WANTED_BY_KUBELET: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Lays over the kernel's settings what kubelet wants to see, for this mount namespace only: it then changes nothing.
pub fn cover_kernel_settings(node: &Node) -> Result<()> {
    let scratch = node.run.join("sysctl");
    for (name, wanted) in WANTED_BY_KUBELET {
        let path = Path::new("/proc/sys").join(name);
        let is = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        if is.trim() != wanted {
            fs::create_dir_all(&scratch)?;
            hub::overlay_file(&scratch, &path.to_string_lossy(), &format!("{wanted}\n"))?;
        }
    }
    Ok(())
}

/// kubelet's mounts are to be seen by containerd and by the containers that ask for that.
pub fn share_mounts() -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).context("making the node's mounts shared")
}

/// The pod network of one node. containerd fills in the node's range when kubelet tells it.
pub fn pod_network() -> Value {
    json!({"cniVersion": "1.0.0", "name": "lab", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
         "ipam": {"type": "host-local", "ranges": [[{"subnet": "{{.PodCIDR}}"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
    ]})
}

pub fn kubelet(site: &Site, node: &Node) -> Result<Vec<String>> {
    let user = format!("system:node:{}", node.name);
    let holder = Holder::client(&user, "system:nodes");
    let kubeconfig = site.keys.kubeconfig(&format!("{}-client", node.name), &site.api(), &holder)?;
    let serving = Holder { names: &[&node.name], addresses: &[node.address], ..holder };
    let serving = site.keys.issue(&format!("{}-server", node.name), &serving)?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": site.keys.authority.certificate},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": serving.certificate, "tlsPrivateKeyFile": serving.key,
        "containerRuntimeEndpoint": format!("unix://{}", containerd::SOCKET),
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", node.cgroup), "failCgroupV1": false,
        "clusterDNS": [site.ranges.dns], "clusterDomain": site.ranges.domain,
        // the machine's disk is not the lab's: a nearly full one shall not turn pods or images away
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        // its usual place is the machine's
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    });
    let file = write(&configuration(node)?, "kubelet.json", &format!("{config:#}\n"))?;
    let mut flags = Flags::default();
    flags.set("config", file.display()).set("kubeconfig", kubeconfig.display());
    flags.set("hostname-override", &node.name).set("node-ip", node.address);
    Ok(flags.0)
}

pub fn kube_proxy(site: &Site, node: &Node) -> Result<Vec<String>> {
    let kubeconfig = site.keys.kubeconfig("kube-proxy", &site.api(), &Holder::client("system:kube-proxy", ""))?;
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables", "clusterCIDR": site.ranges.pods, "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": kubeconfig},
        // these are the machine's, and a network namespace may not change them
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    });
    let file = write(&configuration(node)?, "kube-proxy.json", &format!("{config:#}\n"))?;
    Ok(vec![format!("--config={}", file.display())])
}

fn configuration(node: &Node) -> Result<PathBuf> {
    let dir = node.run.join("upstream");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
