//! What `kubectl get pods` shows: one word for the state of many containers.

use jiff::Timestamp;
use meta::{Object, time};
use serde_json::Value;

use super::tree::Read;
use crate::columns::{Column, age_column, name_column};

pub fn columns() -> Vec<Column> {
    let string = |name, priority, cell| Column { name, kind: "string", format: "", description: "", priority, cell };
    vec![
        name_column(),
        string("Ready", 0, |pod, _| {
            let summary = Summary::of(pod);
            format!("{}/{}", summary.ready, summary.total).into()
        }),
        string("Status", 0, |pod, _| Summary::of(pod).reason.into()),
        string("Restarts", 0, restarts),
        age_column(),
        string("IP", 1, |pod, _| or_none(pod.list_at(&["status", "podIPs"]).first().map_or("", |ip| ip.text("ip")))),
        string("Node", 1, |pod, _| or_none(pod.str_at(&["spec", "nodeName"]))),
        string("Nominated Node", 1, |pod, _| or_none(pod.str_at(&["status", "nominatedNodeName"]))),
        string("Readiness Gates", 1, readiness_gates),
    ]
}

pub fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn restarts(pod: &Object, now: Timestamp) -> Value {
    let summary = Summary::of(pod);
    match summary.last_restart.filter(|_| summary.restarts != 0) {
        Some(last) => format!("{} ({} ago)", summary.restarts, time::human_age(last, now)).into(),
        None => summary.restarts.to_string().into(),
    }
}

fn readiness_gates(pod: &Object, _: Timestamp) -> Value {
    let gates = pod.list_at(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| condition(pod, gate.text("conditionType")) == "True").count();
    format!("{open}/{}", gates.len()).into()
}

fn condition<'a>(pod: &'a Object, condition_type: &str) -> &'a str {
    let conditions = pod.list_at(&["status", "conditions"]);
    conditions
        .iter()
        .find(|condition| condition.text("type") == condition_type)
        .map_or("", |found| found.text("status"))
}

/// The state of a pod in a few words.
#[derive(Debug, Default)]
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// The one of `waiting`, `running` and `terminated` that a state holds.
fn state<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status.get("state")?.get(name).filter(|state| !state.is_null())
}

/// Why a container ended, in one word.
fn ended(terminated: &Value) -> String {
    match (terminated.text("reason"), terminated.number("signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated.number("exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_string(),
    }
}

impl Summary {
    fn of(pod: &Object) -> Self {
        let phase = pod.str_at(&["status", "phase"]);
        let own = pod.str_at(&["status", "reason"]);
        let mut summary =
            Summary { reason: if own.is_empty() { phase } else { own }.to_string(), ..Summary::default() };
        let conditions = pod.list_at(&["status", "conditions"]);
        if conditions.iter().any(|it| it.text("type") == "PodScheduled" && it.text("reason") == "SchedulingGated") {
            summary.reason = "SchedulingGated".to_string();
        }
        let sidecars = summary.init_containers(pod);
        if let Some((restarts, last_restart)) = sidecars {
            (summary.restarts, summary.last_restart) = (restarts, last_restart);
            summary.containers(pod);
        }
        if pod.is_being_deleted() {
            if own == "NodeLost" {
                summary.reason = "Unknown".to_string();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_string();
            }
        }
        summary
    }

    fn restarted(&mut self, status: &Value) {
        self.restarts += status.number("restartCount").unwrap_or(0);
        let last = status.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str).and_then(time::parse);
        self.last_restart = self.last_restart.max(last);
    }

    /// Goes through the init containers. Answers the restarts of sidecars alone when initialization is over.
    fn init_containers(&mut self, pod: &Object) -> Option<(i64, Option<Timestamp>)> {
        let specs = pod.list_at(&["spec", "initContainers"]);
        let is_sidecar =
            |name: &str| specs.iter().any(|spec| spec.text("name") == name && spec.text("restartPolicy") == "Always");
        let sidecar_count = specs.iter().filter(|spec| spec.text("restartPolicy") == "Always").count();
        self.total = pod.list_at(&["spec", "containers"]).len() + sidecar_count;
        let mut sidecars = Summary::default();
        let mut initializing = false;
        for (index, status) in pod.list_at(&["status", "initContainerStatuses"]).iter().enumerate() {
            self.restarted(status);
            let sidecar = is_sidecar(status.text("name"));
            if sidecar {
                sidecars.restarted(status);
            }
            let terminated = state(status, "terminated");
            let waiting = state(status, "waiting").map_or("", |waiting| waiting.text("reason"));
            if terminated.is_some_and(|terminated| terminated.number("exitCode") == Some(0)) {
                continue;
            }
            if sidecar && status.flag("started") {
                self.ready += usize::from(status.flag("ready"));
                continue;
            }
            self.reason = match terminated {
                Some(terminated) => format!("Init:{}", ended(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", specs.len()),
            };
            initializing = true;
            break;
        }
        (!initializing || condition(pod, "Initialized") == "True").then_some((sidecars.restarts, sidecars.last_restart))
    }

    fn containers(&mut self, pod: &Object) {
        let (mut running, mut error) = (false, String::new());
        for status in pod.list_at(&["status", "containerStatuses"]).iter().rev() {
            self.restarted(status);
            let waiting = state(status, "waiting").map_or("", |waiting| waiting.text("reason"));
            if !waiting.is_empty() {
                self.reason = waiting.to_string();
            } else if let Some(terminated) = state(status, "terminated") {
                self.reason = ended(terminated);
                if terminated.number("exitCode") != Some(0) {
                    error.clone_from(&self.reason);
                }
            } else if status.flag("ready") && state(status, "running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && condition(pod, "Ready") == "True" {
                self.reason = "Running".to_string();
            } else if !error.is_empty() {
                self.reason = error;
            } else if running {
                self.reason = "NotReady".to_string();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(pod: Value) -> String {
        let pod = Object::from_value(pod).unwrap();
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let cells = columns().into_iter().skip(1).take(3).map(|column| (column.cell)(&pod, now));
        cells.map(|cell| cell.as_str().unwrap().to_string()).collect::<Vec<_>>().join(" ")
    }

    fn pod(status: Value) -> Value {
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
               "status": status})
    }

    #[test]
    fn one_word_for_every_state() {
        let running = json!({"name": "a", "ready": true, "state": {"running": {}}, "restartCount": 0});
        for (status, expected) in [
            (json!({"phase": "Pending"}), "0/3 Pending 0"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
                "0/3 Init:0/2 0",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 1}}}]}),
                "0/3 Init:ExitCode:1 2",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running, {"name": "b", "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:05:00Z"}}}]}),
                "1/3 CrashLoopBackOff 3 (5m ago)",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
                "0/3 Completed 0",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}),
                "0/3 OOMKilled 0",
            ),
        ] {
            assert_eq!(shown(pod(status.clone())), expected, "{status}");
        }
        let mut going = pod(json!({"phase": "Running"}));
        going["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:09:00Z"});
        assert_eq!(shown(going), "0/3 Terminating 0");
    }
}
