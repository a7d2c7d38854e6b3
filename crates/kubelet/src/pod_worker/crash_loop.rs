//! How long a container that keeps ending waits before it runs again.
//!
//! The first end is free: the container restarts at once. Each end after that waits, from the moment it ended, 10 s, 20 s,
//! 40 s, ... 300 s; a container that then ran for ten minutes starts over. The state is this agent's memory only, as
//! upstream's: an agent that restarts forgives.
//!
//! A wait belongs to the end it follows. Whoever looks while the restart after it is under way still sees that end, and must not
//! be told the wait of the next one.

use std::collections::HashMap;
use std::time::Duration;

use base::Timestamp;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
/// A container that ended this long after its last start is no longer one that keeps ending.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    /// What follows the next end.
    wait: Duration,
    last_restart: Timestamp,
    /// When the container ended that the last restart replaces.
    last_end: Timestamp,
    /// What followed that end; none when it was free.
    last_wait: Option<Duration>,
}

/// The wait after an end.
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
    /// The wait of a container that ended at `finished_at`, whether or not it is over; none when it may run at once.
    pub fn after_end(&self, name: &str, hash: &str, finished_at: Timestamp) -> Option<Waiting> {
        let entry = self.entries.get(&(name.to_string(), hash.to_string()))?;
        let wait = entry.wait_after(finished_at)?;
        Some(Waiting { wait, until: finished_at + wait })
    }

    /// Notes that a container that ended at `finished_at` is started again at `now`: the next wait is longer. An end counts
    /// once, however often the start after it is tried.
    pub fn restarted(&mut self, name: &str, hash: &str, finished_at: Timestamp, now: Timestamp) {
        let key = (name.to_string(), hash.to_string());
        let known = self.entries.get(&key);
        if known.is_some_and(|entry| entry.last_end == finished_at) {
            return;
        }
        let last_wait = known.and_then(|entry| entry.wait_after(finished_at));
        let wait = last_wait.map_or(INITIAL, |wait| (wait * 2).min(MAX));
        self.entries.insert(key, Entry { wait, last_restart: now, last_end: finished_at, last_wait });
    }
}

impl Entry {
    fn wait_after(&self, finished_at: Timestamp) -> Option<Duration> {
        if finished_at == self.last_end {
            return self.last_wait;
        }
        (!self.is_forgiven(finished_at)).then_some(self.wait)
    }

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
            let wait = seconds(&loops, finished);
            waits.push(wait);
            now += wait;
            loops.restarted("c", "h", finished, at(now));
            assert_eq!(seconds(&loops, finished), wait, "the restart is under way: the next wait is not this end's");
            loops.restarted("c", "h", finished, at(now));
            now += 1;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let after_a_good_run = at(now + 601);
        assert_eq!(seconds(&loops, after_a_good_run), 0);
        loops.restarted("c", "h", after_a_good_run, after_a_good_run);
        let next = loops.after_end("c", "h", at(now + 602)).unwrap();
        assert_eq!(next, Waiting { wait: INITIAL, until: at(now + 612) });
    }

    fn seconds(loops: &CrashLoops, finished_at: Timestamp) -> i64 {
        loops.after_end("c", "h", finished_at).map_or(0, |waiting| waiting.wait.as_secs() as i64)
    }
}
