//! A node whose CPU and memory fill up evenly is better than one that runs out of one and wastes the other.

use crate::cache::Cache;
use crate::events::Event;
use crate::plugin::{Plugin, SCORE_MAX, Score};
use crate::pod_info::PodInfo;

pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    /// The best score less the standard deviation of the two shares.
    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Score<'a>> {
        let share = |asked: i64, has: i64, taken: i64| {
            if has == 0 { 1.0 } else { ((asked + taken) as f64 / has as f64).min(1.0) }
        };
        Some(Box::new(move |on| {
            let (asked, has, taken) = (&pod.requests, &on.facts.allocatable, &on.node.requested);
            let cpu = share(asked.milli_cpu, has.milli_cpu, taken.milli_cpu);
            let memory = share(asked.memory, has.memory, taken.memory);
            ((1.0 - (cpu - memory).abs() / 2.0) * SCORE_MAX as f64) as i64
        }))
    }

    fn is_helped_by(&self, _: &PodInfo, _: &Event) -> bool {
        false
    }
}
