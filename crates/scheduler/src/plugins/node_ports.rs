//! Two pods cannot have the same port of one node.

use crate::cache::Cache;
use crate::events::Event;
use crate::plugin::{Filter, Plugin, Rejection};
use crate::pod_info::PodInfo;

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cache) -> Option<Filter<'a>> {
        if pod.host_ports.is_empty() {
            return None;
        }
        Some(Box::new(|on| {
            if pod.host_ports.iter().any(|port| on.node.has_port(port)) {
                return Err(Rejection::preemptible("node(s) didn't have free ports for the requested pod ports"));
            }
            Ok(())
        }))
    }

    fn is_helped_by(&self, pod: &PodInfo, event: &Event) -> bool {
        match event {
            Event::NodeAdded(_) | Event::PodUpdated => true,
            // A node has its ports whatever else changes about it.
            Event::NodeUpdated { .. } | Event::PodPlaced(_) | Event::ClaimChanged(_) => false,
            Event::PodFreed(freed) => {
                let numbers = |pod: &PodInfo| pod.host_ports.iter().map(|port| port.port).collect::<Vec<_>>();
                let wanted = numbers(pod);
                numbers(freed).iter().any(|port| wanted.contains(port))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::node_info::NodeFacts;
    use crate::pod_info::HostPort;

    fn with_port(port: i32) -> PodInfo {
        let port = HostPort { ip: "0.0.0.0".into(), protocol: "TCP".into(), port };
        PodInfo { host_ports: vec![port], ..PodInfo::default() }
    }

    #[test]
    fn only_a_freed_port_of_the_same_number_or_a_new_node_helps() {
        let node = Arc::new(NodeFacts::default());
        let changed = Event::NodeUpdated { old: node.clone(), new: node.clone() };
        for (event, helps) in [
            (Event::PodFreed(Arc::new(with_port(80))), true),
            (Event::PodFreed(Arc::new(with_port(81))), false),
            (Event::NodeAdded(node), true),
            (changed, false),
        ] {
            assert_eq!(NodePorts.is_helped_by(&with_port(80), &event), helps, "{event:?}");
        }
    }
}
