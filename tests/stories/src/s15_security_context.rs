//! S-15: what a security context asks for is what the kernel does, each seen from inside.

use anyhow::{Context, Result, ensure};

use crate::harness::Kube;

fn pod(name: &str, of_pod: &str, of_container: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {of_pod}
  volumes: [{{name: data, emptyDir: {{}}}}]
  containers:
  - name: app
    image: busybox:1.36
    command: [sleep, '3600']
    securityContext: {of_container}
    volumeMounts: [{{name: data, mountPath: /data}}]
---"
    )
}

pub fn story(kube: &Kube) -> Result<()> {
    let manifest = [
        pod("root-refused", "{runAsNonRoot: true}", "{}"),
        pod("user", "{runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, supplementalGroups: [4000]}", "{}"),
        pod("read-only", "{}", "{readOnlyRootFilesystem: true}"),
        pod("dropped", "{}", "{capabilities: {drop: [ALL]}}"),
        pod("added", "{}", "{capabilities: {drop: [ALL], add: [NET_ADMIN]}}"),
        pod("no-new", "{runAsUser: 1000}", "{allowPrivilegeEscalation: false}"),
        pod("filtered", "{seccompProfile: {type: RuntimeDefault}}", "{}"),
        pod("open", "{seccompProfile: {type: Unconfined}}", "{}"),
        pod("privileged", "{}", "{privileged: true}"),
    ];
    kube.apply(&manifest.concat())?;
    root_is_refused(kube)?;
    for name in ["user", "read-only", "dropped", "added", "no-new", "filtered", "open", "privileged"] {
        kube.wait_ready(name, 60)?;
    }
    users_and_groups(kube).context("users and groups")?;
    kube.sh("read-only", "touch /data/x && ! touch /x 2>/tmp/e && ! touch /tmp/y").context("read-only root")?;
    let said = kube.sh("read-only", "touch /x 2>&1 || true")?;
    ensure!(said.contains("Read-only file system"), "touching the root says {said}");
    for (name, field, expected) in [
        ("dropped", "CapEff", "0000000000000000"),
        ("added", "CapEff", "0000000000001000"),
        // what upstream's runtimes give when nothing is asked: 14 capabilities
        ("user", "CapBnd", "00000000a80425fb"),
        ("no-new", "NoNewPrivs", "1"),
        ("user", "NoNewPrivs", "0"),
        ("filtered", "Seccomp", "2"),
        ("open", "Seccomp", "0"),
        ("privileged", "Seccomp", "0"),
    ] {
        let seen = kube.sh(name, &format!("awk '$1 == \"{field}:\" {{print $2}}' /proc/1/status"))?;
        ensure!(seen.trim() == expected, "{name}: {field} is {seen}, not {expected}");
    }
    let link = kube.sh("dropped", "ip link add x type bridge 2>&1 || true")?;
    ensure!(link.contains("Operation not permitted"), "without capabilities, adding a link says {link:?}");
    kube.sh("added", "ip link add x type bridge").context("with NET_ADMIN, adding a link")?;
    kube.sh("privileged", "mount -t tmpfs x /mnt 2>/dev/null || { mkdir -p /mnt; mount -t tmpfs x /mnt; }")
        .context("privileged, mounting")?;
    let refused = kube.sh("filtered", "mkdir -p /mnt; mount -t tmpfs x /mnt 2>&1 || true")?;
    ensure!(
        refused.contains("denied") || refused.contains("not permitted"),
        "mounting in a plain container says {refused:?}"
    );
    Ok(())
}

fn root_is_refused(kube: &Kube) -> Result<()> {
    let pod = kube.until("pod root-refused", 60, |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    })?;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default();
    let expected =
        format!("container has runAsNonRoot and image will run as root (pod: \"root-refused_{}(", kube.namespace());
    ensure!(message.starts_with(&expected) && message.ends_with("container: app)"), "it says {message}");
    Ok(())
}

fn users_and_groups(kube: &Kube) -> Result<()> {
    let seen = kube.sh("user", "id -u; id -g; id -G; touch /data/x; stat -c '%u %g' /data/x; stat -c %g /data")?;
    let lines: Vec<&str> = seen.lines().collect();
    ensure!(lines.len() == 5 && lines[..2] == ["1000", "3000"], "id says {seen}");
    let mut groups: Vec<&str> = lines[2].split_whitespace().collect();
    groups.sort_unstable();
    ensure!(groups == ["2000", "3000", "4000"], "groups are {groups:?}");
    ensure!(lines[3..] == ["1000 2000", "2000"], "the volume's files belong to {}", lines[3..].join(", "));
    Ok(())
}
