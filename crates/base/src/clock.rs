//! The only door to time.
//!
//! A `Clock` is a cheap handle that every component is given. The system clock reads the wall clock; a simulated one derives
//! wall time from tokio's timer, so that a test under `tokio::time::pause` moves both together:
//!
//! ```text
//! wall time = start + (tokio now - tokio start)
//! ```
//!
//! Sleeping always goes through tokio, which a paused runtime advances by itself when everything is idle.

use std::time::Duration;

pub use jiff::Timestamp;
use tokio::time::Instant;

/// A handle on time. Clone it freely.
#[derive(Clone, Debug)]
pub struct Clock {
    simulated: Option<(Timestamp, Instant)>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Clock { simulated: None }
    }

    /// A clock whose wall time starts at `start` and moves with tokio's (possibly paused) timer.
    pub fn simulated(start: Timestamp) -> Self {
        Clock { simulated: Some((start, Instant::now())) }
    }

    /// Wall time now.
    pub fn now(&self) -> Timestamp {
        match self.simulated {
            None => Timestamp::now(),
            Some((start, since)) => start + Instant::now().duration_since(since),
        }
    }

    /// Monotonic time now, for measuring spans and setting timers.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Wakes after `span`.
    pub async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    /// Wakes at `deadline`; at once when it has passed.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// How long until the wall clock shows `at`; zero when it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        let nanoseconds = at.as_nanosecond().saturating_sub(self.now().as_nanosecond());
        u64::try_from(nanoseconds.max(0)).map_or(Duration::MAX, Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn simulated_wall_time_moves_with_the_timer() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::simulated(start);
        clock.sleep(Duration::from_secs(300)).await;
        assert_eq!(clock.now().to_string(), "2026-01-01T00:05:00Z");
        assert_eq!(clock.until("2026-01-01T00:05:10Z".parse().unwrap()), Duration::from_secs(10));
        assert_eq!(clock.until(start), Duration::ZERO);
    }
}
