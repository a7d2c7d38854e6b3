//! A pod that names its node goes nowhere else.

use crate::events::Event;
use crate::plugin::{Candidate, Plugin, Rejection};
use crate::pod_info::PodInfo;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodInfo, on: Candidate<'_>) -> Result<(), Rejection> {
        if pod.node.is_empty() || pod.node == on.facts.name {
            return Ok(());
        }
        Err(Rejection::lasting("node(s) didn't match the requested node name"))
    }

    fn is_helped_by(&self, _: &PodInfo, event: &Event) -> bool {
        matches!(event, Event::NodeAdded(_))
    }
}
