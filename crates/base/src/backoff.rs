//! Exponential back-off: `initial`, doubled up to `max`, forgotten after a quiet spell.
//!
//! A `Backoff` is pure state: it says how long to wait and leaves the waiting to the caller, so it works the same in a
//! queue, a pod worker and a simulation.

use std::time::Duration;

use tokio::time::Instant;

use crate::chance;

/// The shape of a back-off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffPolicy {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// By how much each wait grows, usually 2.
    pub factor: f64,
    /// Up to this share of the wait is added at random (0.1 adds up to a tenth); 0 for none.
    pub jitter: f64,
    /// A spell without failures this long starts over from `initial`.
    pub reset_after: Duration,
}

impl BackoffPolicy {
    /// Doubles from `initial` to `max` without jitter and resets after twice `max`.
    pub const fn doubling(initial: Duration, max: Duration) -> Self {
        BackoffPolicy { initial, max, factor: 2.0, jitter: 0.0, reset_after: max.saturating_mul(2) }
    }
}

/// The state of one thing that keeps failing.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    failures: u32,
    last_failure: Option<Instant>,
}

impl Backoff {
    pub fn new(policy: BackoffPolicy) -> Self {
        Backoff { policy, failures: 0, last_failure: None }
    }

    /// Notes a failure at `now` and returns how long to wait before the next try.
    pub fn next(&mut self, now: Instant) -> Duration {
        if self.last_failure.is_some_and(|last| now.duration_since(last) > self.policy.reset_after) {
            self.failures = 0;
        }
        self.last_failure = Some(now);
        let wait = self.current(self.failures);
        self.failures = self.failures.saturating_add(1);
        if self.policy.jitter > 0.0 { wait.mul_f64(1.0 + self.policy.jitter * chance::fraction()) } else { wait }
    }

    /// How many failures in a row have been noted.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets all failures, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.last_failure = None;
    }

    fn current(&self, failures: u32) -> Duration {
        let scale = self.policy.factor.powi(failures.min(62) as i32);
        Duration::try_from_secs_f64(self.policy.initial.as_secs_f64() * scale)
            .map_or(self.policy.max, |wait| wait.min(self.policy.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn doubles_to_the_limit_and_resets_after_a_quiet_spell() {
        let mut backoff = Backoff::new(BackoffPolicy {
            reset_after: 600 * SECOND,
            ..BackoffPolicy::doubling(10 * SECOND, 300 * SECOND)
        });
        let mut now = Instant::now();
        let waits: Vec<u64> = (0..7).map(|_| backoff.next(now).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        now += 601 * SECOND;
        assert_eq!(backoff.next(now).as_secs(), 10);
    }
}
