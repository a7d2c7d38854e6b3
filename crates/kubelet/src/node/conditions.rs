//! The conditions of the node, with upstream's reasons and messages.

use base::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;

use super::machine::Room;
use super::thresholds::Thresholds;
use crate::pod::time;

/// What the conditions are made from.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Why the runtime or its network is not ready; empty when they are.
    pub not_ready: Vec<String>,
    pub memory_available_bytes: u64,
    pub memory_bytes: u64,
    pub disk: Room,
    /// Process ids in use and as many as there are; 0 when unknown.
    pub pids: (u64, u64),
}

struct Verdict {
    type_: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// The four conditions; one that has not turned keeps its transition time.
pub fn all(facts: &Facts, least: &Thresholds, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    verdicts(facts, least).into_iter().map(|verdict| condition(verdict, old, now)).collect()
}

fn verdicts(facts: &Facts, least: &Thresholds) -> [Verdict; 4] {
    let pressure = |type_, holds: bool, yes, no, what: &str| Verdict {
        type_,
        holds,
        reason: if holds { yes } else { no },
        message: format!(
            "kubelet has {} {what}",
            match (holds, type_) {
                (false, "DiskPressure") => "no",
                (true, "DiskPressure") => "",
                (false, _) => "sufficient",
                (true, _) => "insufficient",
            }
        ),
    };
    let memory = least.memory.is_missed(facts.memory_available_bytes, facts.memory_bytes);
    let disk = least.disk.is_missed(facts.disk.available_bytes, facts.disk.capacity_bytes)
        || least.inodes.is_missed(facts.disk.inodes_free, facts.disk.inodes);
    let (used, all) = facts.pids;
    let pids = least.pids.is_missed(all.saturating_sub(used), all);
    let ready = facts.not_ready.is_empty();
    [
        pressure(
            "MemoryPressure",
            memory,
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "memory available",
        ),
        pressure("DiskPressure", disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk pressure"),
        pressure("PIDPressure", pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PID available"),
        Verdict {
            type_: "Ready",
            holds: ready,
            reason: if ready { "KubeletReady" } else { "KubeletNotReady" },
            message: if ready { "kubelet is posting ready status".to_string() } else { facts.not_ready.join(", ") },
        },
    ]
}

fn condition(verdict: Verdict, old: &[NodeCondition], now: Timestamp) -> NodeCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let same = old.iter().find(|old| old.type_ == verdict.type_ && old.status == status);
    NodeCondition {
        type_: verdict.type_.to_string(),
        status: status.to_string(),
        reason: Some(verdict.reason.to_string()),
        message: Some(verdict.message.replace("  ", " ")),
        last_heartbeat_time: Some(time(now)),
        last_transition_time: Some(
            same.and_then(|same| same.last_transition_time.clone()).unwrap_or_else(|| time(now)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_upstreams() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let facts = Facts { memory_available_bytes: 1 << 30, memory_bytes: 1 << 31, ..Facts::default() };
        let all = |facts: &Facts, old: &[NodeCondition], now| all(facts, &Thresholds::default(), old, now);
        let lines: Vec<String> = all(&facts, &[], now)
            .into_iter()
            .map(|condition| {
                format!(
                    "{} {} {} {}",
                    condition.type_,
                    condition.status,
                    condition.reason.unwrap(),
                    condition.message.unwrap()
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                "MemoryPressure False KubeletHasSufficientMemory kubelet has sufficient memory available",
                "DiskPressure False KubeletHasNoDiskPressure kubelet has no disk pressure",
                "PIDPressure False KubeletHasSufficientPID kubelet has sufficient PID available",
                "Ready True KubeletReady kubelet is posting ready status",
            ]
        );
        let sick = Facts {
            not_ready: vec!["container runtime network not ready: NetworkReady=false".into()],
            memory_available_bytes: 1,
            memory_bytes: 1 << 31,
            disk: Room { capacity_bytes: 100, available_bytes: 9, ..Room::default() },
            pids: (1000, 1000),
        };
        let turned = all(&sick, &all(&facts, &[], now), now + std::time::Duration::from_secs(9));
        assert!(turned.iter().take(3).all(|condition| condition.status == "True"), "{turned:?}");
        assert_eq!(turned[1].message.as_deref(), Some("kubelet has disk pressure"));
        assert_eq!(turned[3].reason.as_deref(), Some("KubeletNotReady"));
        assert_ne!(turned[3].last_transition_time, all(&facts, &[], now)[3].last_transition_time);
    }
}
