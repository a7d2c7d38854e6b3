//! S-30: pods on two nodes talk without translation, large packets included; Services reach backends on the other node,
//! and keep the client's address where their policy says so.

use anyhow::{Context, Result, ensure};

use crate::harness::{Kube, get};

/// A web server that answers with its caller's address, and with ten megabytes.
fn pod(name: &str, node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:1.36
    command:
    - sh
    - -c
    - |
      mkdir -p /www/cgi-bin
      printf '#!/bin/sh\\necho Content-Type: text/plain; echo; echo $REMOTE_ADDR\\n' > /www/cgi-bin/caller
      chmod +x /www/cgi-bin/caller
      dd if=/dev/urandom of=/www/large bs=1M count=10 2>/dev/null
      exec httpd -f -p 8080 -h /www
    readinessProbe: {{httpGet: {{path: /large, port: 8080}}, periodSeconds: 1}}
---"
    )
}

const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {type: NodePort, selector: {app: two}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: two}, ports: [{port: 80, targetPort: 8080}]}
"#;

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(&(pod("one", "node1") + &pod("two", "node2") + SERVICES))?;
    kube.wait_ready("one", 90)?;
    kube.wait_ready("two", 90)?;
    let address = |name: &str| kube.value(&format!("pod {name}"), ".status.podIP");
    let (one, two) = (address("one")?, address("two")?);
    for (from, own, other) in [("one", &one, &two), ("two", &two, &one)] {
        let seen = kube.sh(from, &format!("wget -T 5 -qO- http://{other}:8080/cgi-bin/caller"))?;
        ensure!(&plain(&seen) == own, "{from} has {own} and is seen as {seen}");
        let sums = kube.sh(from, &format!("wget -T 30 -qO- http://{other}:8080/large | md5sum"))?;
        let other_pod = if from == "one" { "two" } else { "one" };
        ensure!(sums == kube.sh(other_pod, "md5sum < /www/large")?, "ten megabytes did not arrive whole at {from}");
        kube.sh(from, &format!("ping -c 2 -W 5 -s 8000 {other}")).context("large packets")?;
    }
    services(kube, &one)
}

fn services(kube: &Kube, one: &str) -> Result<()> {
    let ask = "for i in $(seq 100); do wget -T 1 -qO- http://plain/cgi-bin/caller && exit; sleep 0.1; done; exit 1";
    let seen = kube.sh("one", ask).context("a Service with its backend on the other node")?;
    ensure!(plain(&seen) == one, "through a Service, {one} is seen as {seen}");
    let node = |name: &str| kube.value(&format!("node {name}"), ".status.addresses[?(@.type==\"InternalIP\")].address");
    let (first, second) = (node("node1")?, node("node2")?);
    let port = kube.value("service plain", ".spec.ports[0].nodePort")?;
    for node in [&first, &second] {
        let (status, _) = get(&format!("{node}:{port}"), "/cgi-bin/caller")?;
        ensure!(status == 200, "the node port answers {status} on {node}");
    }
    let port = kube.value("service local", ".spec.ports[0].nodePort")?;
    let (_, caller) = get(&format!("{second}:{port}"), "/cgi-bin/caller")?;
    let hub = "192.0.2.1";
    ensure!(plain(&caller) == hub, "with the policy Local, {hub} is seen as {caller}");
    ensure!(get(&format!("{first}:{port}"), "/").is_err(), "with the policy Local, a node without a backend answers");
    Ok(())
}

/// An IPv4 address, however a dual-stack server writes it.
fn plain(address: &str) -> String {
    let address = address.trim().trim_start_matches('[').trim_end_matches(']');
    address.trim_start_matches("::ffff:").to_owned()
}
