//! Room: what pods ask for must be there. Of nodes with room, the emptier is better.

use std::borrow::Cow;

use crate::cache::Cache;
use crate::events::Event;
use crate::node_info::NodeFacts;
use crate::plugin::{Candidate, Filter, Plugin, Rejection, SCORE_MAX, Score};
use crate::pod_info::PodInfo;

pub struct ResourcesFit;

/// Name, asked for, allocatable, taken.
type Row<'a> = (&'a str, i64, i64, i64);

fn rows<'a>(pod: &'a PodInfo, on: Candidate<'a>) -> impl Iterator<Item = Row<'a>> {
    let (asked, has, taken) = (&pod.requests, &on.facts.allocatable, &on.node.requested);
    let plain = [
        ("cpu", asked.milli_cpu, has.milli_cpu, taken.milli_cpu),
        ("memory", asked.memory, has.memory, taken.memory),
        ("ephemeral-storage", asked.ephemeral_storage, has.ephemeral_storage, taken.ephemeral_storage),
    ];
    let amount = |of: &std::collections::BTreeMap<String, i64>, name: &str| of.get(name).copied().unwrap_or(0);
    let others = asked
        .others
        .iter()
        .map(move |(name, asked)| (name.as_str(), *asked, amount(&has.others, name), amount(&taken.others, name)));
    plain.into_iter().chain(others)
}

fn has_enough_in_all(pod: &PodInfo, facts: &NodeFacts) -> bool {
    let node = crate::node_info::NodeInfo::default();
    rows(pod, Candidate { slot: 0, node: &node, facts }).all(|(_, asked, has, _)| asked <= has)
}

/// On a full cluster every node says so, to every pod.
fn insufficient(resource: &str) -> Cow<'static, str> {
    match resource {
        "cpu" => "Insufficient cpu".into(),
        "memory" => "Insufficient memory".into(),
        "ephemeral-storage" => "Insufficient ephemeral-storage".into(),
        other => format!("Insufficient {other}").into(),
    }
}

impl Plugin for ResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Filter<'a>> {
        Some(Box::new(|on| {
            let mut rejection = Rejection { reasons: Vec::new(), preemptible: true };
            if on.node.pods.len() as i64 + 1 > on.facts.pods_max {
                rejection.reasons.push("Too many pods".into());
            }
            for (name, asked, has, taken) in rows(pod, on) {
                if asked > 0 && asked > has - taken {
                    rejection.reasons.push(insufficient(name));
                    rejection.preemptible &= asked <= has;
                }
            }
            if rejection.reasons.is_empty() { Ok(()) } else { Err(rejection) }
        }))
    }

    fn weight(&self) -> i64 {
        1
    }

    /// The mean share of CPU and memory that stays free (upstream's `LeastAllocated`).
    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Score<'a>> {
        let free = |asked: i64, has: i64, taken: i64| {
            if has == 0 || asked + taken > has { 0 } else { (has - taken - asked) * SCORE_MAX / has }
        };
        Some(Box::new(move |on| {
            let (asked, has, taken) = (&pod.requests_floored, &on.facts.allocatable, &on.node.requested_floored);
            (free(asked.milli_cpu, has.milli_cpu, taken.milli_cpu) + free(asked.memory, has.memory, taken.memory)) / 2
        }))
    }

    fn is_helped_by(&self, pod: &PodInfo, event: &Event) -> bool {
        match event {
            Event::NodeAdded(node) => has_enough_in_all(pod, node),
            Event::NodeUpdated { old, new } => {
                (old.allocatable != new.allocatable || old.pods_max != new.pods_max) && has_enough_in_all(pod, new)
            }
            Event::PodFreed(_) | Event::PodUpdated => true,
            Event::PodPlaced(_) | Event::ClaimChanged(_) => false,
        }
    }
}
