//! Pods, watched from the request to the event that answers it.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::crowd;
use crate::https::{Access, Connection, Event, Watch};
use crate::lab::ms_between;

const PAUSE: &str = "registry.k8s.io/pause:3.10";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICE_ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts?watch=1";

/// What pods took, one figure per pod, in milliseconds from the request.
#[derive(Default)]
pub struct PodTimes {
    /// Until the scheduler's choice was seen.
    pub bound: Vec<f64>,
    pub ready: Vec<f64>,
    /// From the request to delete until the object was gone.
    pub gone: Vec<f64>,
}

/// The spec of a pod that ends when it is told to.
pub fn staying() -> Value {
    json!({"containers": [{"name": "pause", "image": PAUSE}]})
}

/// Waits until the default namespace takes pods: none is admitted before its service account exists.
pub fn await_admission(access: &Access) -> Result<()> {
    access.watch(SERVICE_ACCOUNTS)?.wait_for(|event| event.object["metadata"]["name"] == "default").map(drop)
}

/// Creates, awaits and deletes `count` pods, one after the other.
pub fn one_by_one(access: &Access, prefix: &str, count: usize, spec: &Value) -> Result<PodTimes> {
    let mut times = PodTimes::default();
    let mut connection = access.connect()?;
    let mut watch = watch(access, prefix)?;
    for number in 0..count {
        let asked = Instant::now();
        create(&mut connection, prefix, number, spec)?;
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
        times.gone.push(gone(&mut connection, &mut watch, &name(prefix, number))?);
    }
    Ok(times)
}

/// Creates, awaits and deletes `count` pods that end by themselves, one after the other: milliseconds from the request
/// to the phase Succeeded.
pub fn to_their_end(access: &Access, prefix: &str, count: usize, spec: &Value) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    let mut connection = access.connect()?;
    let mut watch = watch(access, prefix)?;
    for number in 0..count {
        let asked = Instant::now();
        create(&mut connection, prefix, number, spec)?;
        let ended = watch.wait_for(|event| event.object["status"]["phase"] == "Succeeded")?;
        times.push(ms_between(asked, ended));
        gone(&mut connection, &mut watch, &name(prefix, number))?;
    }
    Ok(times)
}

/// Creates `count` pods at once and, when all are Ready, deletes them at once: milliseconds from the first request until
/// the last pod is Ready, and from the first request to delete until the last is gone.
pub fn at_once(access: &Access, prefix: &str, count: usize, spec: &Value) -> Result<(f64, f64)> {
    let mut watch = watch(access, prefix)?;
    let mut ready = Ready::default();
    let whole = meanwhile(
        || crowd::each(access, count, |connection, number| create(connection, prefix, number, spec)),
        || watch.wait_for(|event| ready.after(event) >= count),
    )?;
    let mut left: BTreeSet<String> = (0..count).map(|number| name(prefix, number)).collect();
    let delete = |connection: &mut Connection, number: usize| {
        connection.must("DELETE", &format!("{PODS}/{}", name(prefix, number)), None).map(drop)
    };
    let gone = meanwhile(
        || crowd::each(access, count, delete),
        || {
            watch.wait_for(|event| {
                if event.kind == "DELETED" {
                    left.remove(event.object["metadata"]["name"].as_str().unwrap_or_default());
                }
                left.is_empty()
            })
        },
    )?;
    Ok((whole, gone))
}

/// Creates a deployment: milliseconds from the request until all its replicas are ready.
pub fn deployment(access: &Access, name: &str, replicas: usize, spec: &Value) -> Result<f64> {
    let labels = json!({"app": name});
    let template = json!({"metadata": {"labels": labels}, "spec": spec});
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": labels}, "template": template});
    let metadata = json!({"name": name});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
    let mut watch = access.watch(&format!("{DEPLOYMENTS}?watch=1&fieldSelector=metadata.name%3D{name}"))?;
    meanwhile(
        || access.connect()?.must("POST", DEPLOYMENTS, Some(&object)).map(drop),
        || watch.wait_for(|event| event.object["status"]["readyReplicas"] == replicas),
    )
}

/// Does `work` while `waiting` waits for what comes of it: milliseconds from the beginning to the moment awaited.
pub fn meanwhile(work: impl FnOnce() -> Result<()> + Send, waiting: impl FnOnce() -> Result<Instant>) -> Result<f64> {
    thread::scope(|scope| {
        let begun = Instant::now();
        let working = scope.spawn(work);
        let ended = waiting();
        // why the work failed tells more than what did not come of it
        working.join().map_err(|_panic| anyhow!("a worker failed"))??;
        Ok(ms_between(begun, ended?))
    })
}

fn name(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number}")
}

fn watch(access: &Access, prefix: &str) -> Result<Watch> {
    access.watch(&format!("{PODS}?watch=1&labelSelector=app%3D{prefix}"))
}

fn create(connection: &mut Connection, prefix: &str, number: usize, spec: &Value) -> Result<()> {
    let metadata = json!({"name": name(prefix, number), "labels": {"app": prefix}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    connection.must("POST", PODS, Some(&pod)).map(drop)
}

fn gone(connection: &mut Connection, watch: &mut Watch, name: &str) -> Result<f64> {
    let asked = Instant::now();
    connection.must("DELETE", &format!("{PODS}/{name}"), None)?;
    let gone = watch.wait_for(|event| event.kind == "DELETED" && event.object["metadata"]["name"] == name)?;
    Ok(ms_between(asked, gone))
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
