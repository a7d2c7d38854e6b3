//! A cordoned node takes only pods that tolerate its taint.

use super::taint_toleration::tolerates_unschedulable;
use crate::cache::Cache;
use crate::events::Event;
use crate::plugin::{Filter, Plugin, Rejection};
use crate::pod_info::PodInfo;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Filter<'a>> {
        if tolerates_unschedulable(pod) {
            return None;
        }
        Some(Box::new(|on| {
            if on.facts.unschedulable { Err(Rejection::lasting("node(s) were unschedulable")) } else { Ok(()) }
        }))
    }

    fn is_helped_by(&self, _: &PodInfo, event: &Event) -> bool {
        match event {
            Event::NodeAdded(node) => !node.unschedulable,
            Event::NodeUpdated { old, new } => old.unschedulable && !new.unschedulable,
            Event::PodUpdated => true,
            Event::PodFreed(_) | Event::PodPlaced(_) | Event::ClaimChanged(_) => false,
        }
    }
}
