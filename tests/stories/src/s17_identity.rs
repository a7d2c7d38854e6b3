//! S-17: a pod calls the API as who it is, may do what its role says and nothing else, and its token dies with it.

use anyhow::{Context, Result, ensure};

use crate::harness::Kube;

const MANIFEST: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: NAMESPACE}]
---
apiVersion: v1
kind: Pod
metadata: {name: caller}
spec:
  serviceAccountName: reader
  terminationGracePeriodSeconds: 0
  containers: [{name: app, image: "kubectl:1.37", command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: silent}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers: [{name: app, image: "busybox:1.36", command: [sleep, "3600"]}]
"#;
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

pub fn story(kube: &Kube) -> Result<()> {
    kube.apply(&MANIFEST.replace("NAMESPACE", kube.namespace()))?;
    kube.wait_ready("caller", 90)?;
    kube.wait_ready("silent", 60)?;
    let user = format!("system:serviceaccount:{}:reader", kube.namespace());
    let listed = kube.sh("caller", "kubectl get pods -o name")?;
    ensure!(listed.contains("pod/caller"), "what the role allows gives {listed}");
    let refused = kube.sh("caller", "kubectl get secrets 2>&1 || true")?;
    let expected = format!(
        "Error from server (Forbidden): secrets is forbidden: User \"{user}\" cannot list resource \"secrets\" in API group \"\" in the namespace \"{}\"",
        kube.namespace()
    );
    ensure!(refused.trim() == expected, "what the role does not allow says {refused}");
    let deleted = kube.sh("caller", "kubectl delete pod caller 2>&1 || true")?;
    ensure!(
        deleted.contains("pods \"caller\" is forbidden") && deleted.contains("cannot delete resource \"pods\""),
        "{deleted}"
    );

    can_i(kube, &user)?;
    let whoami = kube.sh("caller", "kubectl auth whoami -o jsonpath='{.status.userInfo.username}'")?;
    ensure!(whoami == user, "the API knows the pod as {whoami}");
    kube.sh("silent", &format!("test ! -e {TOKEN}")).context("a token that was not asked for")?;
    a_token_dies_with_its_pod(kube)
}

fn can_i(kube: &Kube, user: &str) -> Result<()> {
    let asked = |words: &str| -> Result<String> {
        let done = kube.run(&format!("auth can-i {words} --as={user}").split_whitespace().collect::<Vec<_>>())?;
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    for (words, answer) in [("list pods", "yes"), ("get pods", "yes"), ("delete pods", "no"), ("list secrets", "no")] {
        let said = asked(words)?;
        ensure!(said == answer, "can-i {words} says {said}");
    }
    Ok(())
}

fn a_token_dies_with_its_pod(kube: &Kube) -> Result<()> {
    let token = kube.sh("caller", &format!("cat {TOKEN}"))?;
    let server = kube.ok_of(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let with_token = |words: &[&str]| {
        let token = format!("--token={token}");
        let server = format!("--server={server}");
        // a kubeconfig without identities: the token is all that speaks
        let mut all = vec!["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", &server, &token];
        all.extend_from_slice(words);
        kube.run(&all)
    };
    let done = with_token(&["get", "pods", "-o", "name"])?;
    ensure!(done.status.success(), "the living pod's token: {}", String::from_utf8_lossy(&done.stderr));
    kube.ok("delete pod caller --timeout=60s")?;
    let done = with_token(&["get", "pods"])?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(!done.status.success() && said.contains("Unauthorized"), "the dead pod's token is told {said}");
    Ok(())
}
