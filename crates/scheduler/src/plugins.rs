//! The default plugins, in upstream's order, and what they decide together.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_fit;
mod taint_toleration;
mod volume_binding;

use crate::cache::Cache;
use crate::events::Event;
use crate::plugin::{Candidate, Filter, Plugin, Rejection};
use crate::pod_info::PodInfo;

/// An ordered set of plugins.
pub struct Plugins(Vec<Box<dyn Plugin>>);

/// The set every pod is scheduled with.
pub fn defaults() -> Plugins {
    Plugins(vec![
        Box::new(node_name::NodeName),
        Box::new(node_unschedulable::NodeUnschedulable),
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinityPlugin),
        Box::new(node_ports::NodePorts),
        Box::new(resources_fit::ResourcesFit),
        Box::new(volume_binding::VolumeBinding),
        Box::new(inter_pod_affinity::InterPodAffinity),
        Box::new(balanced_allocation::BalancedAllocation),
        Box::new(image_locality::ImageLocality),
    ])
}

/// What a cycle asks about each node.
pub struct Filters<'a>(Vec<(&'static str, Filter<'a>)>);

impl Filters<'_> {
    /// The first objection to a node, and whose it is.
    pub fn check(&self, on: Candidate<'_>) -> Result<(), (&'static str, Rejection)> {
        self.0.iter().try_for_each(|(plugin, filter)| filter(on).map_err(|rejection| (*plugin, rejection)))
    }
}

impl Plugins {
    /// The first objection to the pod as such, and whose it is.
    pub fn pre_filter(&self, pod: &PodInfo, cache: &Cache) -> Result<(), (&'static str, String)> {
        self.0.iter().try_for_each(|plugin| plugin.pre_filter(pod, cache).map_err(|why| (plugin.name(), why)))
    }

    /// Those that may object to a node for the pod.
    pub fn filters<'a>(&self, pod: &'a PodInfo, cache: &'a Cache) -> Filters<'a> {
        Filters(self.0.iter().filter_map(|plugin| Some((plugin.name(), plugin.filter(pod, cache)?))).collect())
    }

    /// The weighted sum of all scores, per candidate.
    pub fn score(&self, pod: &PodInfo, candidates: &[Candidate<'_>], cache: &Cache) -> Vec<i64> {
        let mut totals = vec![0; candidates.len()];
        for plugin in self.0.iter().filter(|plugin| plugin.weight() > 0) {
            let Some(score) = plugin.score(pod, cache) else { continue };
            let mut scores: Vec<i64> = candidates.iter().map(|on| score(*on)).collect();
            plugin.normalize(&mut scores);
            totals.iter_mut().zip(scores).for_each(|(total, score)| *total += score * plugin.weight());
        }
        totals
    }

    /// Whether an event may help a pod that these plugins turned away. A pod that none turned away (there was no node) is
    /// helped by any event.
    pub fn may_help(&self, rejected_by: &[&'static str], pod: &PodInfo, event: &Event) -> bool {
        let mut rejecting = self.0.iter().filter(|plugin| rejected_by.contains(&plugin.name()));
        rejected_by.is_empty() || rejecting.any(|plugin| plugin.is_helped_by(pod, event))
    }
}
