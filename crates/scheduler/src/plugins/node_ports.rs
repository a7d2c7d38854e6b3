//! Two pods cannot have the same port of one node.

use crate::events::Event;
use crate::plugin::{Candidate, Plugin, Rejection};
use crate::pod_info::PodInfo;

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodInfo, on: Candidate<'_>) -> Result<(), Rejection> {
        if pod.host_ports.iter().any(|port| on.node.has_port(port)) {
            return Err(Rejection::preemptible("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }

    fn is_helped_by(&self, pod: &PodInfo, event: &Event) -> bool {
        match event {
            Event::NodeAdded(_) | Event::NodeUpdated { .. } | Event::PodUpdated => true,
            Event::ClaimChanged(_) => false,
            Event::PodFreed(freed) => {
                let numbers = |pod: &PodInfo| pod.host_ports.iter().map(|port| port.port).collect::<Vec<_>>();
                let wanted = numbers(pod);
                numbers(freed).iter().any(|port| wanted.contains(port))
            }
        }
    }
}
