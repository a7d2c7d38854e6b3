//! Claims: a pod is placed when every claim it mounts is there and bound.
//!
//! Binding a claim for a pod (`WaitForFirstConsumer`), and where a bound volume may be used, come with the storage controllers.

use meta::ObjectKey;

use crate::cache::{Cache, ClaimState};
use crate::events::Event;
use crate::plugin::Plugin;
use crate::pod_info::PodInfo;

pub struct VolumeBinding;

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn pre_filter(&self, pod: &PodInfo, cache: &Cache) -> Result<(), String> {
        for claim in &pod.claims {
            match cache.claim(&ObjectKey::new(&pod.key.namespace, claim)) {
                None => return Err(format!("persistentvolumeclaim {claim:?} not found")),
                Some(ClaimState::Going) => return Err(format!("persistentvolumeclaim {claim:?} is being deleted")),
                Some(ClaimState::Unbound) => return Err("pod has unbound immediate PersistentVolumeClaims".to_string()),
                Some(ClaimState::Bound) => {}
            }
        }
        Ok(())
    }

    fn is_helped_by(&self, pod: &PodInfo, event: &Event) -> bool {
        match event {
            Event::ClaimChanged(key) => {
                key.namespace == pod.key.namespace && pod.claims.iter().any(|claim| **claim == *key.name)
            }
            Event::PodUpdated => true,
            _ => false,
        }
    }
}
