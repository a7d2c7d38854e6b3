//! The framework: what a plugin can take part in.
//!
//! A plugin is one value with no state between cycles. It says why a pod does not fit, how good a node is, and which events
//! may help a pod that it turned away.

use crate::cache::Cache;
use crate::events::Event;
use crate::node_info::{NodeFacts, NodeInfo};
use crate::pod_info::PodInfo;

/// The best score of a plugin after normalizing, as upstream.
pub const SCORE_MAX: i64 = 100;

/// Why a node is not for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Upstream's words, counted over all nodes in the event that users see.
    pub reasons: Vec<String>,
    /// Whether removing pods from the node could change it.
    pub preemptible: bool,
}

impl Rejection {
    /// Removing pods could help.
    pub fn preemptible(reason: &str) -> Self {
        Rejection { reasons: vec![reason.to_string()], preemptible: true }
    }

    /// Nothing but a change of the node or the pod helps.
    pub fn lasting(reason: &str) -> Self {
        Rejection { reasons: vec![reason.to_string()], preemptible: false }
    }
}

/// A node with its facts, as a plugin sees it.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    pub node: &'a NodeInfo,
    pub facts: &'a NodeFacts,
}

pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// Whether the pod fits anywhere at all; the error is what users are told instead of a count of nodes.
    fn pre_filter(&self, _pod: &PodInfo, _cache: &Cache) -> Result<(), String> {
        Ok(())
    }

    /// Whether the pod fits.
    fn filter(&self, _pod: &PodInfo, _on: Candidate<'_>) -> Result<(), Rejection> {
        Ok(())
    }

    /// How much the plugin's score counts; 0 when it does not score.
    fn weight(&self) -> i64 {
        0
    }

    /// How good a node is, in the plugin's own scale.
    fn score(&self, _pod: &PodInfo, _on: Candidate<'_>, _cache: &Cache) -> i64 {
        0
    }

    /// Brings the scores of all candidates into `0..=SCORE_MAX`.
    fn normalize(&self, _scores: &mut [i64]) {}

    /// Whether an event may make a pod fit that this plugin turned away.
    fn is_helped_by(&self, pod: &PodInfo, event: &Event) -> bool;
}

/// Stretches scores so that the best gets [`SCORE_MAX`]; `reverse` makes the smallest the best.
pub fn stretch(scores: &mut [i64], reverse: bool) {
    let best = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if best == 0 { 0 } else { SCORE_MAX * *score / best };
        *score = if reverse { SCORE_MAX - scaled } else { scaled };
    }
}
