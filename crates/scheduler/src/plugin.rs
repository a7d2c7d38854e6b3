//! The framework: what a plugin can take part in.
//!
//! A plugin is one value with no state between cycles. It says why a pod does not fit, how good a node is, and which events
//! may help a pod that it turned away. Once per cycle it looks at the pod alone, and answers with what judges node after node,
//! or with nothing when all nodes are alike to it: most plugins have nothing to say about most pods.

use std::borrow::Cow;

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
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether removing pods from the node could change it.
    pub preemptible: bool,
}

impl Rejection {
    /// Removing pods could help.
    pub fn preemptible(reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reasons: vec![reason.into()], preemptible: true }
    }

    /// Nothing but a change of the node or the pod helps.
    pub fn lasting(reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reasons: vec![reason.into()], preemptible: false }
    }
}

/// A node with its facts, as a plugin sees it.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// The node's number in the cache.
    pub slot: usize,
    pub node: &'a NodeInfo,
    pub facts: &'a NodeFacts,
}

/// Whether the pod fits a node.
pub type Filter<'a> = Box<dyn Fn(Candidate<'_>) -> Result<(), Rejection> + 'a>;

/// How good a node is, in the plugin's own scale.
pub type Score<'a> = Box<dyn Fn(Candidate<'_>) -> i64 + 'a>;

pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// Whether the pod fits anywhere at all; the error is what users are told instead of a count of nodes.
    fn pre_filter(&self, _pod: &PodInfo, _cache: &Cache) -> Result<(), String> {
        Ok(())
    }

    /// What judges whether the pod fits; none when it fits every node.
    fn filter<'a>(&self, _pod: &'a PodInfo, _cache: &'a Cache) -> Option<Filter<'a>> {
        None
    }

    /// How much the plugin's score counts; 0 when it does not score.
    fn weight(&self) -> i64 {
        0
    }

    /// What judges how good a node is; none when all are as good.
    fn score<'a>(&self, _pod: &'a PodInfo, _cache: &'a Cache) -> Option<Score<'a>> {
        None
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
