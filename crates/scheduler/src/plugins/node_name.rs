//! A pod that names its node goes nowhere else.

use crate::cache::Cache;
use crate::events::Event;
use crate::plugin::{Filter, Plugin, Rejection};
use crate::pod_info::PodInfo;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Filter<'a>> {
        if pod.node.is_empty() {
            return None;
        }
        Some(Box::new(|on| {
            if pod.node == on.facts.name {
                return Ok(());
            }
            Err(Rejection::lasting("node(s) didn't match the requested node name"))
        }))
    }

    fn is_helped_by(&self, _: &PodInfo, event: &Event) -> bool {
        matches!(event, Event::NodeAdded(_))
    }
}
