//! What a ReplicaSet needs: pure.

use std::cmp::Reverse;
use std::sync::Arc;

use base::Timestamp;
use serde_json::{Value, json};

use crate::views::PodView;

/// Most pods made or removed in one sync, as upstream.
pub const BURST_MAX: usize = 500;

/// What to do about the pods.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    Create(usize),
    /// The pods to delete, in order.
    Delete(Vec<usize>),
}

/// Compares wanted and active pods. Indices are into `active`.
pub fn plan(replicas: i32, active: &[Arc<PodView>], now: Timestamp, peers_on_node: impl Fn(&str) -> usize) -> Action {
    let wanted = usize::try_from(replicas).unwrap_or(0);
    if active.len() < wanted {
        return Action::Create((wanted - active.len()).min(BURST_MAX));
    }
    let surplus = (active.len() - wanted).min(BURST_MAX);
    if surplus == 0 {
        return Action::Nothing;
    }
    let mut order: Vec<usize> = (0..active.len()).collect();
    order.sort_by_cached_key(|&index| deletion_rank(&active[index], now, peers_on_node(&active[index].node)));
    order.truncate(surplus);
    Action::Delete(order)
}

/// Whom to lose first, smallest first: unassigned, then pending, then unready, then cheap by annotation, then crowded
/// together on a node, then ready for a shorter time, then restarted more often, then younger. Times are compared by order of
/// magnitude (upstream's `LogarithmicScaleDown`), so that age alone does not decide between pods of similar age.
fn deletion_rank(pod: &PodView, now: Timestamp, peers: usize) -> impl Ord + use<> {
    let phase = match pod.phase.as_str() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = pod.meta.annotations.get("controller.kubernetes.io/pod-deletion-cost");
    let cost: i32 = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let ready_for = if pod.ready { magnitude(pod.ready_changed, now) } else { 0 };
    (
        !pod.node.is_empty(),
        phase,
        pod.ready,
        cost,
        Reverse(peers),
        ready_for,
        Reverse(pod.restarts),
        magnitude(pod.meta.created, now),
        pod.meta.uid.clone(),
    )
}

fn magnitude(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let nanoseconds = since.map_or(0, |since| now.as_nanosecond().saturating_sub(since.as_nanosecond()).max(0));
    nanoseconds.checked_ilog2().unwrap_or(0)
}

/// The numbers of a ReplicaSet's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: i32,
}

/// Counts the active pods against the template's labels, and those on their way out.
pub fn count(active: &[Arc<PodView>], terminating: usize, template: &Value, min_ready: i32, now: Timestamp) -> Counts {
    let labels = template.pointer("/metadata/labels").and_then(Value::as_object);
    let fully_labeled =
        |pod: &&Arc<PodView>| labels.into_iter().flatten().all(|(key, value)| pod.meta.label(key) == value.as_str());
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    Counts {
        replicas: number(active.len()),
        fully_labeled: number(active.iter().filter(fully_labeled).count()),
        ready: number(active.iter().filter(|pod| pod.ready).count()),
        available: number(active.iter().filter(|pod| pod.is_available(min_ready, now)).count()),
        terminating: number(terminating),
    }
}

/// The `ReplicaFailure` condition after a sync: there while creating or deleting fails.
pub fn replica_failure(conditions: &[Value], failed: Option<(&str, &str)>, at: &str) -> Vec<Value> {
    let others = conditions.iter().filter(|condition| condition["type"] != "ReplicaFailure").cloned();
    let current = conditions.iter().find(|condition| condition["type"] == "ReplicaFailure");
    let mut all: Vec<Value> = others.collect();
    if let Some((reason, message)) = failed {
        let kept = current.filter(|condition| condition["reason"] == reason).cloned();
        all.push(kept.unwrap_or_else(|| {
            json!({"type": "ReplicaFailure", "status": "True", "reason": reason, "message": message, "lastTransitionTime": at})
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Meta;

    fn pod(uid: &str, node: &str, ready: bool, age_seconds: i64) -> Arc<PodView> {
        let at = Timestamp::from_second(1_000_000 - age_seconds).unwrap();
        Arc::new(PodView {
            meta: Meta { uid: uid.into(), created: Some(at), ..Meta::default() },
            phase: "Running".into(),
            node: node.into(),
            ready,
            ready_changed: Some(at),
            ..PodView::default()
        })
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    #[test]
    fn makes_what_is_missing_up_to_the_burst() {
        assert_eq!(plan(3, &[pod("a", "n", true, 1)], now(), |_| 1), Action::Create(2));
        assert_eq!(plan(9999, &[], now(), |_| 1), Action::Create(BURST_MAX));
        assert_eq!(plan(1, &[pod("a", "n", true, 1)], now(), |_| 1), Action::Nothing);
    }

    #[test]
    fn gives_up_the_least_useful_first() {
        let pods = [
            pod("old", "n", true, 100_000),
            pod("young", "n", true, 10),
            pod("unready", "n", false, 50),
            pod("unbound", "", false, 1),
        ];
        assert_eq!(plan(0, &pods, now(), |_| 1), Action::Delete(vec![3, 2, 1, 0]));
    }

    #[test]
    fn prefers_to_thin_out_a_crowded_node_and_obeys_the_cost() {
        let pods = [pod("a", "one", true, 10), pod("b", "two", true, 10)];
        assert_eq!(plan(1, &pods, now(), |node| if node == "two" { 2 } else { 1 }), Action::Delete(vec![1]));
        let mut cheap = (*pods[0]).clone();
        cheap.meta.annotations.insert("controller.kubernetes.io/pod-deletion-cost".into(), "-5".into());
        let pods = [Arc::new(cheap), pods[1].clone()];
        assert_eq!(plan(1, &pods, now(), |node| if node == "two" { 2 } else { 1 }), Action::Delete(vec![0]));
    }

    #[test]
    fn counts_what_the_status_shows() {
        let template = json!({"metadata": {"labels": {"app": "a"}}});
        let mut labelled = (*pod("a", "n", true, 5)).clone();
        labelled.meta.labels.insert("app".into(), "a".into());
        let counts = count(&[Arc::new(labelled), pod("b", "n", true, 20)], 1, &template, 10, now());
        assert_eq!(counts, Counts { replicas: 2, fully_labeled: 1, ready: 2, available: 1, terminating: 1 });
    }

    #[test]
    fn a_failure_keeps_its_first_time_and_goes_when_mended() {
        let first = replica_failure(&[], Some(("FailedCreate", "quota")), "t1");
        let second = replica_failure(&first, Some(("FailedCreate", "quota again")), "t2");
        assert_eq!(second[0]["lastTransitionTime"], "t1");
        assert!(replica_failure(&second, None, "t3").is_empty());
    }
}
