//! Why no node fits, in upstream's sentence:
//! `0/8 nodes are available: 3 Insufficient cpu, 5 node(s) were unschedulable. preemption: 0/8 nodes are available: ...`

use std::collections::BTreeMap;

use crate::plugin::Rejection;

/// What a cycle learnt about the nodes it turned down.
#[derive(Debug, Default)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    pub rejections: Vec<Rejection>,
    /// Why no node was even looked at; empty when they were.
    pub before_nodes: String,
    /// What trying preemption came to; empty when the pod may not preempt.
    pub preemption: String,
}

impl std::fmt::Display for FitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.rejections.iter().flat_map(|rejection| &rejection.reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let reasons =
            if self.before_nodes.is_empty() { histogram(&counts) } else { format!(" {}.", self.before_nodes) };
        write!(f, "0/{} nodes are available:{reasons}", self.nodes)?;
        if self.preemption.is_empty() { Ok(()) } else { write!(f, " preemption: {}", self.preemption) }
    }
}

/// ` 1 a, 2 b.`, sorted as text as upstream does.
fn histogram(counts: &BTreeMap<&str, usize>) -> String {
    let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    if parts.is_empty() { String::new() } else { format!(" {}.", parts.join(", ")) }
}

/// The preemption part when there was nothing to preempt.
pub fn preemption_message(nodes: usize, rejections: &[Rejection]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for rejection in rejections {
        let reason = if rejection.preemptible {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        };
        *counts.entry(reason).or_default() += 1;
    }
    format!("0/{nodes} nodes are available:{}", histogram(&counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_upstream_writes_it() {
        let rejections = vec![
            Rejection::preemptible("Insufficient cpu"),
            Rejection::lasting("node(s) were unschedulable"),
            Rejection { reasons: vec!["Insufficient cpu".into(), "Insufficient memory".into()], preemptible: true },
        ];
        let preemption = preemption_message(3, &rejections);
        let error = FitError { nodes: 3, rejections, preemption, ..FitError::default() };
        assert_eq!(
            error.to_string(),
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu. \
             preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, \
             2 No preemption victims found for incoming pod."
        );
        assert_eq!(FitError::default().to_string(), "no nodes available to schedule pods");
    }
}
