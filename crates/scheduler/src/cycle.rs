//! One pod's cycle: find nodes that fit, score them, pick the best, assume, hand over to binding.

use std::sync::Arc;

use base::chance;
use client::{Outcome, Patch, Typed};
use k8s_openapi::api::core::v1::Pod;
use meta::{GroupVersionKind, time};
use serde_json::json;

use crate::Scheduler;
use crate::cache::Cache;
use crate::fit_error::{FitError, preemption_message};
use crate::plugin::{Candidate, Rejection};
use crate::plugins::Plugins;
use crate::pod_info::PodInfo;
use crate::queue::{Telling, Waiting};

/// Below this many nodes all are looked at.
const FEASIBLE_MIN: usize = 100;
/// The least share of nodes that a search looks for, in percent.
const FEASIBLE_PERCENT_MIN: usize = 5;

/// Where a pod goes, or why nowhere, with the plugins that turned it away.
pub type Decision = Result<String, (FitError, Vec<&'static str>)>;

/// How many fitting nodes are enough, as upstream: fewer in percent the larger the cluster.
fn enough(nodes: usize) -> usize {
    if nodes <= FEASIBLE_MIN {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(FEASIBLE_PERCENT_MIN);
    (nodes * percent / 100).max(FEASIBLE_MIN)
}

/// Decides on the cache as it is. The search goes on where the last one stopped, so that all nodes get their turn.
pub fn decide(plugins: &Plugins, cache: &mut Cache, pod: &PodInfo) -> Decision {
    cache.follow(pod);
    let (nodes, wanted) = (cache.len(), enough(cache.len()));
    if let Err((plugin, why)) = plugins.pre_filter(pod, cache) {
        let rejections = vec![Rejection::lasting(why.clone()); nodes];
        let error = FitError { before_nodes: why, ..fit_error(pod, nodes, rejections) };
        return Err((error, vec![plugin]));
    }
    let (mut fitting, mut rejections, mut rejected_by) = (Vec::new(), Vec::new(), Vec::new());
    let filters = plugins.filters(pod, cache);
    let mut looked_at = 0;
    while looked_at < nodes && fitting.len() < wanted {
        let index = (cache.start + looked_at) % nodes;
        looked_at += 1;
        let Some(candidate) = cache.at(index) else { continue };
        match filters.check(candidate) {
            Ok(()) => fitting.push(candidate),
            Err((plugin, rejection)) => {
                rejections.push(rejection);
                if !rejected_by.contains(&plugin) {
                    rejected_by.push(plugin);
                }
            }
        }
    }
    let selected = select(plugins, cache, pod, &fitting);
    drop(filters);
    if nodes > 0 {
        cache.start = (cache.start + looked_at) % nodes;
    }
    selected.ok_or_else(|| (fit_error(pod, nodes, rejections), rejected_by))
}

fn fit_error(pod: &PodInfo, nodes: usize, rejections: Vec<Rejection>) -> FitError {
    let preemption = match (nodes, pod.preempts) {
        (0, _) => String::new(),
        (_, false) => "not eligible due to preemptionPolicy=Never.".to_string(),
        (_, true) => preemption_message(nodes, &rejections),
    };
    FitError { nodes, rejections, preemption, ..FitError::default() }
}

/// The fitting node with the best score; chance decides between equals.
fn select(plugins: &Plugins, cache: &Cache, pod: &PodInfo, fitting: &[Candidate<'_>]) -> Option<String> {
    if let [only] = fitting {
        return Some(only.facts.name.clone());
    }
    let scores = plugins.score(pod, fitting, cache);
    let best = *scores.iter().max()?;
    let winners: Vec<usize> = (0..scores.len()).filter(|index| scores[*index] == best).collect();
    let winner = winners[chance::below(winners.len())];
    Some(fitting[winner].facts.name.clone())
}

impl Scheduler {
    pub(crate) async fn schedule(self: &Arc<Self>, mut waiting: Waiting) {
        let (decision, assumed) = {
            let pod = &waiting.pod;
            let mut cache = self.cache.lock();
            let decision = decide(&self.plugins, &mut cache, pod);
            let assumed = decision.as_ref().ok().map(|node| cache.assume(pod, node));
            (decision, assumed)
        };
        match (decision, assumed) {
            (Ok(_), Some(assumed)) => {
                self.queue.lock().placed();
                self.bind(waiting, assumed).await;
            }
            (Err((error, rejected_by)), _) => {
                waiting.telling = self.tell_unschedulable(&waiting, &error.to_string());
                let now = self.clock.instant();
                self.queue.lock().failed(waiting, rejected_by, now, &self.plugins);
            }
            (Ok(_), None) => unreachable!("a decision is assumed under the same lock"),
        }
    }

    /// Shows users why: an event, and the `PodScheduled` condition. What is returned ends when the condition is written: a
    /// binding that overtook it would be denied by it.
    fn tell_unschedulable(self: &Arc<Self>, waiting: &Waiting, message: &str) -> Option<Telling> {
        let pod = &waiting.pod;
        let gvk = GroupVersionKind::new("", "v1", "Pod");
        let about = client::events::reference_to(&gvk, &pod.key, Some(&pod.uid), Some(&pod.revision.to_string()));
        self.recorder.warning(&about, "FailedScheduling", message);
        let told = ("Unschedulable".to_string(), message.to_string());
        let before = waiting.telling.clone().filter(|before| !before.is_over());
        if before.is_none() && pod.unscheduled.as_ref() == Some(&told) {
            return None;
        }
        let now = time::rfc3339(self.clock.now());
        let since = if pod.unscheduled.is_some() { None } else { Some(now) };
        let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": told.0, "message": told.1});
        if let Some(since) = since {
            condition["lastTransitionTime"] = since.into();
        }
        if let Some(generation) = pod.generation {
            condition["observedGeneration"] = generation.into();
        }
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
        let (scheduler, key) = (self.clone(), pod.key.clone());
        let (telling, ends) = Telling::begin();
        self.tasks.spawn("unschedulable", async move {
            if let Some(before) = before {
                before.ended().await;
            }
            let patched = scheduler.client.patch_object(&Pod::gvr(), &key, "status", Patch::Strategic(patch)).await;
            if let Err(status) = patched.unless_replaced() {
                tracing::warn!(pod = %key, error = %status, "cannot note that the pod is unschedulable");
            }
            drop(ends);
        });
        Some(telling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_clusters_are_searched_in_part() {
        assert_eq!([50, 100, 1000, 5000, 20_000].map(enough), [50, 100, 420, 500, 1000]);
    }
}
