//! Which taints a node should carry, and when they drive a pod away: pure.

use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use meta::time;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, the status that counts, and its taint.
const BY_CONDITION: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

#[derive(Debug, PartialEq)]
pub enum Wanted {
    Right,
    Changed(Vec<Value>),
}

/// The status of the `Ready` condition; empty when there is none.
pub fn ready_status(node: &Node) -> &str {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == "Ready")
        .map(|condition| condition.status.as_str())
        .next()
        .unwrap_or_default()
}

/// Brings the taints that are ours to manage in line with the conditions. Others stay as they are.
pub fn wanted(
    current: &[Value],
    conditions: &[Value],
    unschedulable: bool,
    everything_is_silent: bool,
    now: Timestamp,
) -> Wanted {
    let status = |name: &str| {
        let found = conditions.iter().find(|condition| condition["type"] == name);
        found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
    };
    let mut keys: Vec<(&str, &str)> = BY_CONDITION
        .iter()
        .filter(|(name, counts, _)| status(name) == *counts)
        .map(|(_, _, key)| (*key, "NoSchedule"))
        .collect();
    if unschedulable {
        keys.push((UNSCHEDULABLE, "NoSchedule"));
    }
    if !everything_is_silent {
        match status("Ready") {
            "False" => keys.push((NOT_READY, "NoExecute")),
            "Unknown" => keys.push((UNREACHABLE, "NoExecute")),
            _ => {}
        }
    }
    let ours = |taint: &Value| {
        let (key, effect) = (taint["key"].as_str().unwrap_or_default(), taint["effect"].as_str().unwrap_or_default());
        let executes = effect == "NoExecute" && (key == NOT_READY || key == UNREACHABLE);
        let schedules = effect == "NoSchedule" && (key == UNSCHEDULABLE || BY_CONDITION.iter().any(|it| it.2 == key));
        executes || schedules
    };
    let mut taints: Vec<Value> = current.iter().filter(|taint| !ours(taint)).cloned().collect();
    for (key, effect) in keys {
        let known = current.iter().find(|taint| taint["key"] == key && taint["effect"] == effect);
        taints.push(
            known.cloned().unwrap_or_else(|| json!({"key": key, "effect": effect, "timeAdded": time::rfc3339(now)})),
        );
    }
    let same = taints.len() == current.len() && taints.iter().all(|taint| current.contains(taint));
    if same { Wanted::Right } else { Wanted::Changed(taints) }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let value = || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    given(&toleration.effect).is_none_or(|effect| effect == taint.effect)
        && given(&toleration.key).is_none_or(|key| key == taint.key)
        && (toleration.operator.as_deref() == Some("Exists") || value())
}

/// When a pod has to go; none while it may stay. Of several tolerations with a time the shortest counts, from when the taint was
/// added.
pub fn eviction_time(taints: &[Taint], tolerations: &[Toleration]) -> Option<Timestamp> {
    let mut due: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let since = taint.time_added.as_ref().map_or(Timestamp::UNIX_EPOCH, |at| at.0);
        let matching: Vec<&Toleration> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        let seconds = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min();
        let this = match (matching.is_empty(), seconds) {
            (true, _) => since,
            (false, None) => continue,
            (false, Some(seconds)) => since + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        };
        due = Some(due.map_or(this, |due| due.min(this)));
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn keys(wanted: Wanted) -> Vec<String> {
        let Wanted::Changed(taints) = wanted else { return vec!["right".into()] };
        let word = |taint: &Value| format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap());
        taints.iter().map(word).collect()
    }

    #[test]
    fn a_silent_node_is_unreachable_and_a_stranger_to_its_own_taints_alone() {
        let unknown = [json!({"type": "Ready", "status": "Unknown"})];
        let own = [json!({"key": "mine", "effect": "NoExecute"})];
        assert_eq!(
            keys(wanted(&own, &unknown, false, false, now())),
            ["mine:NoExecute", "node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
        );
        let healthy = [json!({"type": "Ready", "status": "True"})];
        assert_eq!(keys(wanted(&own, &healthy, false, false, now())), ["right"]);
        let leftover = [json!({"key": UNREACHABLE, "effect": "NoExecute"})];
        assert_eq!(keys(wanted(&leftover, &healthy, false, false, now())), Vec::<String>::new());
    }

    #[test]
    fn nobody_is_evicted_when_every_node_is_silent() {
        let unknown = [json!({"type": "Ready", "status": "Unknown"})];
        let taints = keys(wanted(&[], &unknown, true, true, now()));
        assert_eq!(
            taints,
            ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"]
        );
    }

    #[test]
    fn a_pod_goes_when_its_toleration_runs_out() {
        let taint: Taint = serde_json::from_value(
            json!({"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}),
        )
        .unwrap();
        let toleration = |seconds: Option<i64>| -> Toleration {
            serde_json::from_value(json!({"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": seconds}))
                .unwrap()
        };
        let due = |tolerations: &[Toleration]| {
            eviction_time(std::slice::from_ref(&taint), tolerations).map(|at| at.to_string())
        };
        assert_eq!(due(&[]).as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(due(&[toleration(Some(300))]).as_deref(), Some("2026-01-01T00:05:00Z"));
        assert_eq!(due(&[toleration(None)]), None);
    }
}
