//! What a group may use, and the arithmetic between the two generations' units.

use std::collections::BTreeMap;

/// Limits to set; what is `None` or empty is left alone.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Length of a scheduling period.
    pub cpu_period_us: Option<u64>,
    /// Processor time per period; negative is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Processors, as in `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// Memory; negative is unlimited.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together; negative is unlimited.
    pub memory_swap_bytes: Option<i64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Huge pages: page size as the kernel names it (`2MB`), bytes.
    pub hugepages: Vec<(String, u64)>,
    /// v2 files set as they stand.
    pub unified: BTreeMap<String, String>,
}

impl Limits {
    /// These limits with what `update` names in their place.
    pub fn overlaid(mut self, update: &Limits) -> Limits {
        self.cpu_period_us = update.cpu_period_us.or(self.cpu_period_us);
        self.cpu_quota_us = update.cpu_quota_us.or(self.cpu_quota_us);
        self.cpu_shares = update.cpu_shares.or(self.cpu_shares);
        self.memory_bytes = update.memory_bytes.or(self.memory_bytes);
        self.memory_swap_bytes = update.memory_swap_bytes.or(self.memory_swap_bytes);
        self.pids = update.pids.or(self.pids);
        if !update.cpuset_cpus.is_empty() {
            self.cpuset_cpus.clone_from(&update.cpuset_cpus);
        }
        if !update.cpuset_mems.is_empty() {
            self.cpuset_mems.clone_from(&update.cpuset_mems);
        }
        if !update.hugepages.is_empty() {
            self.hugepages.clone_from(&update.hugepages);
        }
        self.unified.extend(update.unified.clone());
        self
    }

    /// v2's weight (1 to 10000) for v1's shares, on the curve through (2, 1), (1024, 100) and (262144, 10000).
    pub fn cpu_weight(shares: u64) -> u64 {
        match shares {
            0..=2 => 1,
            262_144.. => 10_000,
            _ => {
                let log = (shares as f64).log2();
                let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
                10_f64.powf(exponent).ceil() as u64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_follows_shares() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (1_000_000, 10_000)] {
            assert_eq!(Limits::cpu_weight(shares), weight, "{shares}");
        }
        assert!(Limits::cpu_weight(102) < Limits::cpu_weight(512));
    }
}
