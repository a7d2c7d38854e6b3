//! How long a container that keeps ending waits before it runs again.
//!
//! The first end is free: the container restarts at once. Each end after that waits, from the moment it ended, 10 s, 20 s,
//! 40 s, ... 300 s; a container that then ran for ten minutes starts over. The state is this agent's memory only, as
//! upstream's: an agent that restarts forgives.

use std::collections::HashMap;
use std::time::Duration;

use base::Timestamp;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
/// A container that ended this long after its last start is no longer one that keeps ending.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    wait: Duration,
    last_restart: Timestamp,
}

/// A wait that is on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waiting {
    pub wait: Duration,
    pub until: Timestamp,
}

/// The waits of one pod's containers, by container name and spec hash.
#[derive(Clone, Debug, Default)]
pub struct CrashLoops {
    entries: HashMap<(String, String), Entry>,
}

impl CrashLoops {
    /// Whether a container that ended at `finished_at` still has to wait at `now`.
    pub fn waiting(&self, name: &str, hash: &str, finished_at: Timestamp, now: Timestamp) -> Option<Waiting> {
        let entry = self.entries.get(&(name.to_string(), hash.to_string()))?;
        if entry.is_forgiven(finished_at) {
            return None;
        }
        let until = finished_at + entry.wait;
        (now < until).then_some(Waiting { wait: entry.wait, until })
    }

    /// Notes that a container that ended at `finished_at` is started again at `now`: the next wait is longer.
    pub fn restarted(&mut self, name: &str, hash: &str, finished_at: Timestamp, now: Timestamp) {
        let key = (name.to_string(), hash.to_string());
        let wait = match self.entries.get(&key) {
            Some(entry) if !entry.is_forgiven(finished_at) => (entry.wait * 2).min(MAX),
            _ => INITIAL,
        };
        self.entries.insert(key, Entry { wait, last_restart: now });
    }
}

impl Entry {
    fn is_forgiven(&self, finished_at: Timestamp) -> bool {
        finished_at.duration_since(self.last_restart)
            > jiff::SignedDuration::try_from(FORGIVEN_AFTER).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn waits_double_from_ten_seconds_and_reset_after_ten_quiet_minutes() {
        let mut loops = CrashLoops::default();
        let (mut now, mut waits) = (0, Vec::new());
        for _ in 0..8 {
            let finished = at(now);
            let wait = loops.waiting("c", "h", finished, finished).map_or(0, |waiting| waiting.wait.as_secs() as i64);
            waits.push(wait);
            now += wait;
            assert_eq!(loops.waiting("c", "h", finished, at(now)), None, "over when the wait is over");
            loops.restarted("c", "h", finished, at(now));
            now += 1;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let after_a_good_run = at(now + 601);
        assert_eq!(loops.waiting("c", "h", after_a_good_run, after_a_good_run), None);
        loops.restarted("c", "h", after_a_good_run, after_a_good_run);
        assert_eq!(loops.waiting("c", "h", at(now + 602), at(now + 602)).unwrap().wait, INITIAL);
    }
}
