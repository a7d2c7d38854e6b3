//! Nothing is left: a machine's listing of processes, mounts, namespaces, links, addresses, routes, packet rules and control
//! groups is after `down` what it was before `up`, and after `uninstall` its files are too. Also when Coracle was killed
//! with `kill -9` first, and on a machine that joined as a second node.
//!
//! Told on machines of its own, which the lab gives it: a cluster that is taken down is nobody else's.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::harness::{Kube, lab_node, on_node};

/// A machine for a cluster of its own, and one that joins the lab's.
const OWN: usize = 41;
const JOINING: usize = 42;
const FOLDER: &str = "/var/lib/coracle";

/// Prints what a machine has, a line each: its sort, then what it is. Numbers that the kernel counts up are left out.
const LISTING: &str = r#"
for process in /proc/[0-9]*; do
    [ "$process" = /proc/$$ ] || printf 'process %s\n' "$(tr '\0' ' ' 2>/dev/null < $process/cmdline)"
    for namespace in cgroup ipc mnt net pid user uts; do
        printf 'namespace %s\n' "$(readlink $process/ns/$namespace)"
    done
done
while read -r _ _ _ root point rest; do printf 'mount %s %s\n' "$root" "$point"; done < /proc/self/mountinfo
for family in -4 -6; do
    ip -o $family address show | while read -r _ device line; do printf 'address %s %s\n' "$device" "$line"; done
    ip $family route show table all | while read -r line; do printf 'route %s\n' "$line"; done
    ip $family rule | while read -r line; do printf 'rule %s\n' "$line"; done
done
ip -o link | while read -r _ device _; do printf 'link %s\n' "$device"; done
nft list ruleset | while read -r line; do printf 'packets %s\n' "$line"; done
group=$(sed -n 's,^[^:]*:[^:]*:\(.*\)/host$,\1,p' /proc/self/cgroup | head -n 1)
find /sys/fs/cgroup/*"$group" /sys/fs/cgroup"$group" -type d 2>/dev/null | while read -r line; do printf 'group %s\n' "$line"; done
find /run /var/lib /var/log /var/cache /etc /opt /dev/shm -xdev -not -path '/run/coracle-lab*' 2>/dev/null |
    while read -r line; do printf 'file %s\n' "$line"; done
"#;

/// Everything that leaves a trace: two containers, memory, a token, files by `subPath`, a port of the machine, a Service,
/// and a program that does not end when it is asked to.
const MANIFEST: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: hello}
---
apiVersion: v1
kind: Pod
metadata: {name: pair, labels: {app: pair}}
spec:
  NODE
  volumes:
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: disk, emptyDir: {}}
  - {name: page, configMap: {name: page}}
  - name: token
    projected: {sources: [{serviceAccountToken: {path: token, audience: story}}]}
  containers:
  - name: web
    image: nginx:1.27
    ports: [{containerPort: 80, hostPort: 8088}]
    resources: {limits: {memory: 100Mi, cpu: 500m}}
    volumeMounts:
    - {name: page, mountPath: /usr/share/nginx/html/index.html, subPath: index.html}
    - {name: memory, mountPath: /memory}
  - name: stubborn
    image: busybox:1.36
    command: [sh, -c, "trap '' TERM; while true; do sleep 1; done"]
    volumeMounts: [{name: memory, mountPath: /memory}, {name: disk, mountPath: /disk}, {name: token, mountPath: /token}]
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  NODE
  hostNetwork: true
  shareProcessNamespace: true
  containers: [{name: app, image: "busybox:1.36", command: [sleep, "86400"]}]
---
apiVersion: v1
kind: Service
metadata: {name: pair}
spec: {type: NodePort, selector: {app: pair}, ports: [{port: 80}]}
"#;

pub fn story(kube: &Kube) -> Result<()> {
    let told = on_a_machine(OWN, a_cluster_of_its_own);
    told.and_then(|()| on_a_machine(JOINING, |before| a_node_that_joined(kube, before)))
}

/// Boots a machine, has the story told on it and takes it away again.
fn on_a_machine(number: usize, story: impl FnOnce(&Listing) -> Result<()>) -> Result<()> {
    lab_node(&format!("boot {number}"))?;
    let told = Listing::of(number).and_then(|before| story(&before));
    lab_node(&format!("lose {number}"))?;
    told
}

fn a_cluster_of_its_own(before: &Listing) -> Result<()> {
    let manifest = MANIFEST.replace("NODE", "");
    on_node(OWN, &up(&manifest)).context("up")?;
    let running = Listing::of(OWN)?;
    for sort in ["process", "namespace", "mount", "link", "address", "route", "packets", "group", "file"] {
        ensure!(running.has_more_than(before, sort), "a running cluster shows no {sort}: nothing would be seen");
    }
    on_node(OWN, "coracle down").context("down")?;
    before.compare(&Listing::of(OWN)?.without("file"), "after down")?;

    // the data is all there; this time nobody asks it to end
    on_node(OWN, &up("")).context("up with data")?;
    on_node(OWN, &format!("kill -9 $(cat {FOLDER}/coracle.lock)")).context("kill -9")?;
    on_node(OWN, "coracle down").context("down after kill -9")?;
    before.compare(&Listing::of(OWN)?.without("file"), "after kill -9 and down")?;
    on_node(OWN, "coracle uninstall --yes").context("uninstall")?;
    before.compare(&Listing::of(OWN)?, "after uninstall")?;

    // and a running one, at once
    on_node(OWN, &up(&manifest)).context("up on an empty machine again")?;
    on_node(OWN, "coracle uninstall --yes").context("uninstall of a running cluster")?;
    before.compare(&Listing::of(OWN)?, "after uninstall of a running cluster")
}

fn a_node_that_joined(kube: &Kube, before: &Listing) -> Result<()> {
    let name = format!("node{JOINING}");
    lab_node(&format!("start {JOINING}"))?;
    kube.until("nodes", 60, |node| node["metadata"]["name"] == name.as_str())?;
    kube.wait(&format!("node/{name}"), "condition=Ready", 60)?;
    kube.apply(&MANIFEST.replace("NODE", &format!("nodeName: {name}")))?;
    kube.wait_ready("pair host", 60)?;
    let told = on_node(JOINING, "coracle down").context("down").and_then(|_| {
        before.compare(&Listing::of(JOINING)?.without("file"), "after down of a second node")?;
        on_node(JOINING, "coracle uninstall --yes").context("uninstall")?;
        before.compare(&Listing::of(JOINING)?, "after uninstall of a second node")
    });
    kube.ok(&format!("delete node {name}"))?;
    told
}

/// Starts a cluster as a user does (on a disk that may be nearly full: that is not this story's matter), and has the pods of
/// `manifest`, or those it had before, Ready.
fn up(manifest: &str) -> String {
    let registry = std::env::var("CORACLE_LAB_REGISTRY").unwrap_or_default();
    let apply =
        if manifest.is_empty() { String::new() } else { format!("kubectl apply -f - <<'END'\n{manifest}\nEND") };
    format!(
        r#"set -e
        group=$(sed -n 's,^[^:]*:[^:]*:\(.*\)/host$,\1,p' /proc/self/cgroup | head -n 1)
        coracle up --detach --cgroup-parent "$group" --eviction-hard 'nodefs.available<1%' --registry-mirror docker.io=http://{registry} --registry-mirror registry.k8s.io=http://{registry}
        export KUBECONFIG={FOLDER}/admin.kubeconfig
{apply}
        kubectl wait --for=condition=Ready pod/pair pod/host --timeout=60s
        curl -s -m 5 -o /dev/null http://$(hostname -I | cut -d ' ' -f 1):8088/"#
    )
}

/// What a machine has.
struct Listing(BTreeSet<String>);

impl Listing {
    fn of(number: usize) -> Result<Self> {
        let printed = on_node(number, LISTING).context("listing what the machine has")?;
        // a program that has just ended may still be listed, without words
        let lines = printed.lines().map(str::trim).filter(|line| !["process", "namespace"].contains(line));
        // the cable's own addresses come when the kernel has looked whether they are free
        let lines = lines.filter(|line| !(line.contains("fe80:") || line.contains("ff00::")));
        Ok(Self(lines.map(str::to_owned).collect()))
    }

    fn without(mut self, sort: &str) -> Self {
        self.0.retain(|line| sort_of(line) != sort);
        self
    }

    fn has_more_than(&self, before: &Listing, sort: &str) -> bool {
        self.0.difference(&before.0).any(|line| sort_of(line) == sort)
    }

    /// An error that names what is more, and what is gone of the sorts that `after` lists.
    fn compare(&self, after: &Listing, when: &str) -> Result<()> {
        let sorts: BTreeSet<&str> = after.0.iter().map(|line| sort_of(line)).collect();
        let more: Vec<&str> = after.0.difference(&self.0).map(String::as_str).collect();
        let gone: Vec<&str> =
            self.0.difference(&after.0).map(String::as_str).filter(|line| sorts.contains(sort_of(line))).collect();
        ensure!(more.is_empty(), "{when} there is left:\n{}", more.join("\n"));
        ensure!(gone.is_empty(), "{when} there is no longer:\n{}", gone.join("\n"));
        Ok(())
    }
}

fn sort_of(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}
