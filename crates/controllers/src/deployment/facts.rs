//! A deployment and its replica sets as plain numbers and words: what the plan works on.

use std::collections::BTreeMap;

use base::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::{Object, Status};
use serde_json::Value;

use crate::views::{Meta, Whole};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
pub const HASH_LABEL: &str = "pod-template-hash";

#[derive(Clone, Debug)]
pub enum Strategy {
    Recreate,
    Rolling { surge: IntOrString, unavailable: IntOrString },
}

/// The deployment.
#[derive(Clone, Debug)]
pub struct Facts {
    pub meta: Meta,
    pub generation: i64,
    pub replicas: i32,
    pub paused: bool,
    pub strategy: Strategy,
    pub min_ready_seconds: i32,
    /// None when progress is not watched.
    pub progress_deadline_seconds: Option<i32>,
    /// None when all history is kept.
    pub history_limit: Option<usize>,
    pub selector: Value,
    pub template: Value,
    /// The status as stored.
    pub status: Object,
}

/// One replica set of the deployment.
#[derive(Clone, Debug)]
pub struct Set {
    pub meta: Meta,
    pub replicas: i32,
    pub template: Value,
    pub min_ready_seconds: i32,
    pub status_replicas: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: i32,
    /// The controller has seen the latest spec.
    pub observed: bool,
    pub conditions: Vec<Value>,
}

impl Facts {
    pub fn of(deployment: &Whole<Deployment>) -> Result<Self, Status> {
        let object = deployment.object()?;
        let (view, spec) = (&deployment.view, &deployment.view.spec);
        let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = || IntOrString::String("25%".to_string());
        let strategy = match spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) {
            Some("Recreate") => Strategy::Recreate,
            _ => Strategy::Rolling {
                surge: rolling.and_then(|rolling| rolling.max_surge.clone()).unwrap_or_else(quarter),
                unavailable: rolling.and_then(|rolling| rolling.max_unavailable.clone()).unwrap_or_else(quarter),
            },
        };
        Ok(Facts {
            meta: Meta::of(&view.metadata, deployment.encoded.revision),
            generation: object.generation(),
            replicas: spec.replicas.unwrap_or(1),
            paused: spec.paused.unwrap_or(false),
            strategy,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            progress_deadline_seconds: spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX),
            history_limit: spec
                .revision_history_limit
                .filter(|limit| *limit != i32::MAX)
                .map(|limit| limit.max(0) as usize),
            selector: object.get(&["spec", "selector"]).cloned().unwrap_or_default(),
            template: object.get(&["spec", "template"]).cloned().unwrap_or_default(),
            status: object.get(&["status"]).cloned().and_then(Object::from_value).unwrap_or_default(),
        })
    }

    /// How many pods above `replicas` a rollout may have.
    pub fn max_surge(&self) -> i32 {
        self.fenceposts().0
    }

    /// How many pods below `replicas` a rollout may have available.
    pub fn max_unavailable(&self) -> i32 {
        if self.replicas == 0 { 0 } else { self.fenceposts().1.min(self.replicas) }
    }

    /// Surge rounds up, unavailable rounds down, and they are never both zero: nothing could move.
    fn fenceposts(&self) -> (i32, i32) {
        let Strategy::Rolling { surge, unavailable } = &self.strategy else { return (0, 0) };
        let (surge, unavailable) = (resolve(surge, self.replicas, true), resolve(unavailable, self.replicas, false));
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    pub fn status_number(&self, field: &str) -> i32 {
        self.status.i64_at(&[field]).and_then(|number| i32::try_from(number).ok()).unwrap_or(0)
    }

    pub fn condition(&self, condition_type: &str) -> Option<&Value> {
        self.status.list_at(&["conditions"]).iter().find(|condition| condition["type"] == condition_type)
    }
}

fn resolve(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let scaled = i64::from(total) * percent;
            let rounded = if up { (scaled + 99).div_euclid(100) } else { scaled.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

impl Set {
    pub fn of(set: &Whole<ReplicaSet>) -> Result<Self, Status> {
        let object = set.object()?;
        let status = set.view.status.clone().unwrap_or_default();
        Ok(Set {
            meta: Meta::of(&set.view.metadata, set.encoded.revision),
            replicas: set.view.spec.replicas.unwrap_or(1),
            template: object.get(&["spec", "template"]).cloned().unwrap_or_default(),
            min_ready_seconds: set.view.spec.min_ready_seconds.unwrap_or(0),
            status_replicas: status.replicas,
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas.unwrap_or(0),
            observed: status.observed_generation.unwrap_or(0) >= object.generation(),
            conditions: object.list_at(&["status", "conditions"]).to_vec(),
        })
    }

    pub fn name(&self) -> &str {
        &self.meta.key.name
    }

    pub fn number_annotation(&self, key: &str) -> Option<i32> {
        self.meta.annotations.get(key)?.parse().ok()
    }

    /// Its place in the deployment's history; 0 when it has none yet.
    pub fn revision(&self) -> i64 {
        revision(&self.meta.annotations)
    }

    pub fn age_order(&self) -> (Option<Timestamp>, &str) {
        (self.meta.created, self.name())
    }
}

pub fn revision(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// Whether a replica set's template is the deployment's, the hash label aside.
pub fn same_template(set: &Value, deployment: &Value) -> bool {
    let bare = |template: &Value| {
        let mut template = template.clone();
        if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(HASH_LABEL);
        }
        if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty()));
        }
        template
    };
    bare(set) == bare(deployment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn percentages_round_up_for_surge_and_down_for_unavailable() {
        let percent = |text: &str| IntOrString::String(text.into());
        assert_eq!(resolve(&percent("25%"), 3, true), 1);
        assert_eq!(resolve(&percent("25%"), 3, false), 0);
        assert_eq!(resolve(&percent("50%"), 4, true), 2);
        assert_eq!(resolve(&IntOrString::Int(2), 10, true), 2);
    }

    #[test]
    fn the_hash_label_does_not_make_a_template_different() {
        let set = json!({"metadata": {"labels": {"app": "a", HASH_LABEL: "x"}, "creationTimestamp": null}, "spec": {}});
        assert!(same_template(&set, &json!({"metadata": {"labels": {"app": "a"}}, "spec": {}})));
        assert!(!same_template(&set, &json!({"metadata": {"labels": {"app": "b"}}, "spec": {}})));
        assert!(same_template(&json!({"metadata": {"labels": {HASH_LABEL: "x"}}}), &json!({"metadata": {}})));
    }
}
