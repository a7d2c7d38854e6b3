//! The figures of `bench start`: one round as `bench/start` writes it, and what many rounds come to.
//!
//! Times are milliseconds. A median is of rounds, except for pods: their percentiles are over the pods of all rounds.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What one round measured.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Round {
    api_ready_ms: f64,
    /// Node Ready and DNS answering, whichever came last.
    node_ready_ms: f64,
    node_alone_ready_ms: f64,
    dns_ms: f64,
    stop_ms: f64,
    api_restart_ms: f64,
    idle_pss_mb: Option<f64>,
    idle_cpu_percent: Option<f64>,
    pod_bound_ms: Vec<f64>,
    pod_ready_ms: Vec<f64>,
    pod_gone_ms: Vec<f64>,
    half_of_pods_ready_ms: f64,
    all_of_pods_ready_ms: f64,
    with_pods_pss_mb: f64,
}

impl Round {
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("understanding the figures of a round")
    }
}

/// What `--json` prints, in these words.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Summary {
    api_ready_ms: f64,
    api_restart_ms: f64,
    node_ready_ms: f64,
    /// PSS, of everything of ours.
    idle_rss_mb: Option<f64>,
    idle_cpu_percent: Option<f64>,
    pod_ready_ms_p50: f64,
    pod_ready_ms_p99: f64,
    pod_gone_ms_p50: f64,
    pods50_ready_ms: f64,
}

impl Summary {
    /// Nothing when there was no round.
    pub fn of(rounds: &[Round]) -> Option<Self> {
        let median = |figure: fn(&Round) -> f64| percentile(rounds.iter().map(figure).collect(), 50);
        let pods =
            |figure: fn(&Round) -> &Vec<f64>, rank| percentile(rounds.iter().flat_map(figure).copied().collect(), rank);
        Some(Self {
            api_ready_ms: median(|round| round.api_ready_ms)?,
            api_restart_ms: median(|round| round.api_restart_ms)?,
            node_ready_ms: median(|round| round.node_ready_ms)?,
            idle_rss_mb: percentile(rounds.iter().filter_map(|round| round.idle_pss_mb).collect(), 50),
            idle_cpu_percent: percentile(rounds.iter().filter_map(|round| round.idle_cpu_percent).collect(), 50),
            pod_ready_ms_p50: pods(|round| &round.pod_ready_ms, 50)?,
            pod_ready_ms_p99: pods(|round| &round.pod_ready_ms, 99)?,
            pod_gone_ms_p50: pods(|round| &round.pod_gone_ms, 50)?,
            pods50_ready_ms: median(|round| round.all_of_pods_ready_ms)?,
        })
    }

    /// For a person, with the aims of this release beside.
    pub fn told(&self) -> String {
        let mut text = String::from("\nmedians of rounds; pods: over the pods of all rounds\n");
        let mut line = |name: &str, value: Option<f64>, unit: &str, aim: &str| {
            let value = value.map_or_else(|| "-".into(), |value| format!("{value:.1}"));
            // writing into a String cannot fail
            let _ = writeln!(text, "  {name:<44} {value:>9} {unit:<3} {aim}");
        };
        line("exec to API ready, new data folder", Some(self.api_ready_ms), "ms", "aim <= 100");
        line("exec to API ready, existing data folder", Some(self.api_restart_ms), "ms", "aim <= 100");
        line("exec to node Ready and DNS answering", Some(self.node_ready_ms), "ms", "aim < 1000");
        line("idle memory (PSS)", self.idle_rss_mb, "MB", "aim <= 60");
        line("idle CPU, of one core", self.idle_cpu_percent, "%", "aim <= 0.5");
        line("pod create to Ready, image present, p50", Some(self.pod_ready_ms_p50), "ms", "");
        line("pod create to Ready, image present, p99", Some(self.pod_ready_ms_p99), "ms", "aim <= 100");
        line("pod delete to gone, p50", Some(self.pod_gone_ms_p50), "ms", "");
        line("deployment of 50 to all Ready", Some(self.pods50_ready_ms), "ms", "");
        text
    }
}

/// Every round as it was, one paragraph each.
pub fn raw(rounds: &[Round]) -> String {
    let mut text = String::new();
    for (number, round) in (1..).zip(rounds) {
        // writing into a String cannot fail
        let _ = writeln!(
            text,
            "round {number}: API {:.1} ms, restart {:.1}, node Ready {:.1}, DNS {:.1}, stop {:.1}; {}50 pods Ready {:.1} (half {:.1}), PSS with them {:.1} MB",
            round.api_ready_ms,
            round.api_restart_ms,
            round.node_alone_ready_ms,
            round.dns_ms,
            round.stop_ms,
            idle(round),
            round.all_of_pods_ready_ms,
            round.half_of_pods_ready_ms,
            round.with_pods_pss_mb,
        );
        let _ = writeln!(text, "  pods bound: {}", joined(&round.pod_bound_ms));
        let _ = writeln!(text, "  pods Ready: {}", joined(&round.pod_ready_ms));
        let _ = writeln!(text, "  pods gone:  {}", joined(&round.pod_gone_ms));
    }
    text
}

fn idle(round: &Round) -> String {
    match (round.idle_pss_mb, round.idle_cpu_percent) {
        (Some(memory), Some(processor)) => format!("idle {memory:.1} MB, {processor:.2} %; "),
        _ => String::new(),
    }
}

fn joined(figures: &[f64]) -> String {
    figures.iter().map(|figure| format!("{figure:.1}")).collect::<Vec<_>>().join(" ")
}

/// The nearest-rank percentile; of an even number's middle two, the lower.
fn percentile(mut figures: Vec<f64>, rank: usize) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let place = (figures.len() * rank).div_ceil(100).saturating_sub(1);
    figures.get(place).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_figures_that_were_measured() {
        let hundred = || (1..=100).rev().map(f64::from).collect::<Vec<_>>();
        assert_eq!(percentile(hundred(), 50), Some(50.0));
        assert_eq!(percentile(hundred(), 99), Some(99.0));
        assert_eq!(percentile(vec![3.0, 1.0, 2.0], 50), Some(2.0));
        assert_eq!(percentile(vec![3.0], 99), Some(3.0));
        assert_eq!(percentile(Vec::new(), 50), None);
    }

    #[test]
    fn pods_of_all_rounds_count_alike_and_idle_cost_comes_from_the_round_that_has_it() {
        let one = Round {
            pod_ready_ms: vec![1.0, 2.0, 3.0],
            pod_gone_ms: vec![1.0],
            idle_pss_mb: Some(7.0),
            ..Round::default()
        };
        let other = Round { pod_ready_ms: vec![9.0, 8.0], api_ready_ms: 4.0, ..Round::default() };
        let summary = Summary::of(&[one, other]).unwrap();
        assert_eq!((summary.pod_ready_ms_p50, summary.pod_ready_ms_p99), (3.0, 9.0));
        assert_eq!((summary.idle_rss_mb, summary.idle_cpu_percent), (Some(7.0), None));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_object_has_the_promised_keys() {
        let round = Round::parse(r#"{"api_ready_ms": 1, "pod_ready_ms": [2], "pod_gone_ms": [3]}"#).unwrap();
        let value = serde_json::to_value(Summary::of(&[round]).unwrap()).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let promised = [
            "api_ready_ms",
            "api_restart_ms",
            "idle_cpu_percent",
            "idle_rss_mb",
            "node_ready_ms",
            "pod_gone_ms_p50",
            "pod_ready_ms_p50",
            "pod_ready_ms_p99",
            "pods50_ready_ms",
        ];
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, promised);
    }
}
