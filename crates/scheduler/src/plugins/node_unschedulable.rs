//! A cordoned node takes only pods that tolerate its taint.

use super::taint_toleration::tolerates_unschedulable;
use crate::events::Event;
use crate::plugin::{Candidate, Plugin, Rejection};
use crate::pod_info::PodInfo;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, on: Candidate<'_>) -> Result<(), Rejection> {
        if !on.facts.unschedulable || tolerates_unschedulable(pod) {
            return Ok(());
        }
        Err(Rejection::lasting("node(s) were unschedulable"))
    }

    fn is_helped_by(&self, _: &PodInfo, event: &Event) -> bool {
        match event {
            Event::NodeAdded(node) => !node.unschedulable,
            Event::NodeUpdated { old, new } => old.unschedulable && !new.unschedulable,
            Event::PodUpdated => true,
            Event::PodFreed(_) | Event::ClaimChanged(_) => false,
        }
    }
}
