//! S-01: nginx and a writer share a volume, an address and, when asked, their processes.

use anyhow::{Context, Result, ensure};

use crate::harness::{Follow, Forward, Kube, get};

fn manifest(name: &str, share: bool) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  shareProcessNamespace: {share}
  terminationGracePeriodSeconds: 1
  volumes: [{{name: html, emptyDir: {{}}}}]
  containers:
  - name: nginx
    image: nginx:1.27
    ports: [{{containerPort: 80}}]
    volumeMounts: [{{name: html, mountPath: /usr/share/nginx/html}}]
  - name: writer
    image: busybox:1.36
    command: [sh, -c]
    args:
    - n=0; while true; do n=$((n+1)); echo \"$(date) tick $n\" > /html/new; mv /html/new /html/index.html; echo tick $n; sleep 1; done
    volumeMounts: [{{name: html, mountPath: /html}}]
"
    )
}

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(&(manifest("pair", false) + "---" + &manifest("family", true)))?;
    kube.wait_ready("pair", 60)?;
    let row = kube.ok("get pod pair --no-headers")?;
    let columns: Vec<&str> = row.split_whitespace().collect();
    ensure!(columns[..4] == ["pair", "2/2", "Running", "0"], "kubectl get pod shows {row}");

    sees_the_page_change(kube)?;

    let inside = kube.sh("pair -c nginx", "cat /usr/share/nginx/html/index.html")?;
    ensure!(inside.contains("tick"), "nginx sees no page: {inside}");
    let local = kube.sh("pair -c writer", "wget -qO- http://localhost")?;
    ensure!(local.contains("tick"), "the writer cannot reach nginx on localhost: {local}");

    processes(kube)
}

/// Through `port-forward`, the page is a new one after the writer says that it wrote. The log may be behind the page, so
/// it is followed to a tick that the page did not have yet.
fn sees_the_page_change(kube: &Kube) -> Result<()> {
    let forward = Forward::start(kube, "pod/pair", 80)?;
    let ticks = Follow::start(kube.command("logs pair -c writer --follow --tail=1"))?;
    let (status, first) = get(&forward.address, "/")?;
    ensure!(status == 200 && first.contains("tick"), "port-forward answers {status} {first}");
    let before = tick(&first)?;
    let written = ticks.until(20, |line| tick(line).is_ok_and(|now| now > before))?;
    let (_, second) = get(&forward.address, "/")?;
    ensure!(tick(&second)? >= tick(&written)?, "the writer wrote {written}, yet the page is {second}");
    Ok(())
}

/// The number that a line of the writer's ends with.
fn tick(line: &str) -> Result<u64> {
    let number = line.trim().rsplit("tick ").next().and_then(|number| number.parse().ok());
    number.with_context(|| format!("no tick in {line:?}"))
}

fn processes(kube: &Kube) -> Result<()> {
    let apart = kube.sh("pair -c writer", "ps")?;
    ensure!(!apart.contains("nginx"), "the writer sees nginx's processes:\n{apart}");
    ensure!(
        apart.lines().any(|line| line.split_whitespace().next() == Some("1") && line.contains("sh -c")),
        "not process 1:\n{apart}"
    );
    kube.wait_ready("family", 60)?;
    let together = kube.sh("family -c writer", "ps")?;
    ensure!(together.contains("nginx: master") && together.contains("sh -c"), "processes are not shared:\n{together}");
    Ok(())
}
