//! Pods and a deployment, each watched from the request to the event that answers it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::https::{Access, Connection, Event};
use crate::lab::ms_between;

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SERVICE_ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts?watch=1";
const IMAGE: &str = "registry.k8s.io/pause:3.10";

/// What pods took, one figure per pod, in milliseconds from the request.
#[derive(Default)]
pub struct PodTimes {
    /// Until the scheduler's choice was seen.
    pub bound: Vec<f64>,
    pub ready: Vec<f64>,
    /// From the request to delete until the object was gone.
    pub gone: Vec<f64>,
}

/// Makes one pod and waits until it is Ready, so that the image is present and everything has run once.
pub fn warm_up(access: &Access) -> Result<()> {
    // no pod is admitted before its service account exists
    access.watch(SERVICE_ACCOUNTS)?.wait_for(|event| event.object["metadata"]["name"] == "default")?;
    one_by_one(access, "warm-up", 1).map(drop)
}

/// Creates, awaits and deletes `count` pods, one after the other.
pub fn one_by_one(access: &Access, prefix: &str, count: usize) -> Result<PodTimes> {
    let mut times = PodTimes::default();
    let mut connection = access.connect()?;
    let mut watch = access.watch(&format!("{PODS}?watch=1&labelSelector=app%3D{prefix}"))?;
    for number in 0..count {
        let name = format!("{prefix}-{number}");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": prefix}}, "spec": pod_spec()});
        let asked = Instant::now();
        connection.must("POST", PODS, Some(&pod))?;
        let mut bound = None;
        let ready = watch.wait_for(|event| {
            let node = event.object["spec"]["nodeName"].as_str();
            if bound.is_none() && node.is_some_and(|node| !node.is_empty()) {
                bound = Some(event.at);
            }
            is_ready(&event.object)
        })?;
        times.bound.push(ms_between(asked, bound.unwrap_or(ready)));
        times.ready.push(ms_between(asked, ready));
        times.gone.push(gone(&mut connection, &mut watch, &name)?);
    }
    Ok(times)
}

fn gone(connection: &mut Connection, watch: &mut crate::https::Watch, name: &str) -> Result<f64> {
    let asked = Instant::now();
    connection.must("DELETE", &format!("{PODS}/{name}"), None)?;
    let gone = watch.wait_for(|event| event.kind == "DELETED" && event.object["metadata"]["name"] == name)?;
    Ok(ms_between(asked, gone))
}

/// Milliseconds from creating a deployment to its last pod's being Ready, and to half of them.
pub fn deployment(access: &Access, replicas: usize) -> Result<(f64, f64)> {
    let mut watch = access.watch(&format!("{PODS}?watch=1&labelSelector=app%3Dmany"))?;
    let labels = json!({"app": "many"});
    let wanted = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": pod_spec()}}
    });
    let asked = Instant::now();
    access.connect()?.must("POST", DEPLOYMENTS, Some(&wanted))?;
    let mut ready = Ready::default();
    let half = watch.wait_for(|event| ready.after(event) * 2 >= replicas)?;
    let all = watch.wait_for(|event| ready.after(event) >= replicas)?;
    Ok((ms_between(asked, half), ms_between(asked, all)))
}

/// Which pods are Ready as of the last event.
#[derive(Default)]
struct Ready {
    names: BTreeSet<String>,
}

impl Ready {
    /// Takes in an event; how many pods are Ready now.
    fn after(&mut self, event: &Event) -> usize {
        let name = event.object["metadata"]["name"].as_str().unwrap_or_default();
        if event.kind != "DELETED" && is_ready(&event.object) {
            self.names.insert(name.to_owned());
        } else {
            self.names.remove(name);
        }
        self.names.len()
    }
}

/// Whether a pod or a node has the condition Ready.
pub fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let states: BTreeMap<_, _> = conditions.iter().map(|one| (one["type"].as_str(), one["status"].as_str())).collect();
    states.get(&Some("Ready")) == Some(&Some("True"))
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "pause", "image": IMAGE}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, name: &str, ready: &str) -> Event {
        let conditions = json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]);
        let object = json!({"metadata": {"name": name}, "status": {"conditions": conditions}});
        Event { at: Instant::now(), kind: kind.into(), object }
    }

    #[test]
    fn a_pod_is_counted_once_and_while_it_is_ready_only() {
        let mut ready = Ready::default();
        let counts =
            [("ADDED", "a", "False"), ("MODIFIED", "a", "True"), ("MODIFIED", "a", "True"), ("ADDED", "b", "True")]
                .map(|(kind, name, state)| ready.after(&event(kind, name, state)));
        assert_eq!(counts, [0, 1, 1, 2]);
        assert_eq!(ready.after(&event("MODIFIED", "a", "False")), 1);
        assert_eq!(ready.after(&event("DELETED", "b", "True")), 0);
    }
}
