//! The work queue: keys waiting to be synced.
//!
//! A key is in at most one of three places, and never given to two workers at once:
//!
//! ```text
//!   add ──▶ waiting ──next──▶ in work ──done──▶ (gone, or waiting again if added meanwhile)
//!   add_after ──▶ delayed ──time──▶ waiting
//! ```
//!
//! Adding a key that already waits changes nothing, so the queue is bounded by the number of distinct keys. A failed key comes
//! back through `retry`, after a wait that doubles with each failure in a row.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, BackoffPolicy};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Upstream's per-item limiter: 5 ms doubling to 1000 s.
pub const RETRY: BackoffPolicy = BackoffPolicy {
    initial: Duration::from_millis(5),
    max: Duration::from_secs(1000),
    factor: 2.0,
    jitter: 0.1,
    reset_after: Duration::from_secs(3600),
};

/// A queue of keys, shared by those who add and those who work. Cheap to clone.
pub struct Queue<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    /// Rung when a key starts waiting, a delay is added that is due earlier, or the queue closes.
    bell: Notify,
}

struct State<K> {
    waiting: VecDeque<K>,
    /// Everything that has to be worked on: waiting, or in work and added meanwhile.
    dirty: HashSet<K>,
    in_work: HashSet<K>,
    delayed: BTreeSet<(Instant, u64)>,
    delayed_keys: HashMap<u64, K>,
    /// The one delay that a key has; the earlier of two wins.
    due: HashMap<K, (Instant, u64)>,
    next_id: u64,
    backoffs: HashMap<K, Backoff>,
    policy: BackoffPolicy,
    closed: bool,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue { shared: self.shared.clone() }
    }
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        Self::new(RETRY)
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// A queue whose failed keys come back after waits of `policy`.
    pub fn new(policy: BackoffPolicy) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            dirty: HashSet::new(),
            in_work: HashSet::new(),
            delayed: BTreeSet::new(),
            delayed_keys: HashMap::new(),
            due: HashMap::new(),
            next_id: 0,
            backoffs: HashMap::new(),
            policy,
            closed: false,
        };
        Queue { shared: Arc::new(Shared { state: Mutex::new(state), bell: Notify::new() }) }
    }

    /// Has `key` worked on as soon as a worker is free.
    pub fn add(&self, key: K) {
        if self.shared.state.lock().add(key) {
            self.shared.bell.notify_one();
        }
    }

    /// As [`Queue::add`], for each of several keys.
    pub fn add_all(&self, keys: impl IntoIterator<Item = K>) {
        keys.into_iter().for_each(|key| self.add(key));
    }

    /// Has `key` worked on after `wait`, or earlier if it is due earlier already.
    pub fn add_after(&self, key: K, wait: Duration) {
        if wait.is_zero() {
            return self.add(key);
        }
        let earliest = self.shared.state.lock().delay(key, Instant::now() + wait);
        if earliest {
            self.shared.bell.notify_one();
        }
    }

    /// Has a key that failed worked on again, later with each failure in a row.
    pub fn retry(&self, key: K) {
        let wait = {
            let mut state = self.shared.state.lock();
            let policy = state.policy;
            state.backoffs.entry(key.clone()).or_insert_with(|| Backoff::new(policy)).next(Instant::now())
        };
        self.add_after(key, wait);
    }

    /// Forgets the failures of a key, after it was synced well.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().backoffs.remove(key);
    }

    /// How often in a row the key has failed.
    pub fn failures(&self, key: &K) -> u32 {
        self.shared.state.lock().backoffs.get(key).map_or(0, Backoff::failures)
    }

    /// The next key to work on, which must be given back with [`Queue::done`]. None once the queue is closed.
    pub async fn next(&self) -> Option<K> {
        loop {
            let rung = self.shared.bell.notified();
            let due = {
                let mut state = self.shared.state.lock();
                if state.closed {
                    return None;
                }
                state.ripen(Instant::now());
                if let Some(key) = state.take() {
                    // Another worker may sleep beside keys that came due together.
                    if !state.waiting.is_empty() || !state.delayed.is_empty() {
                        self.shared.bell.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.first().map(|(due, _)| *due)
            };
            match due {
                Some(due) => drop(tokio::time::timeout_at(due, rung).await),
                None => rung.await,
            }
        }
    }

    /// Gives a key back. If it was added meanwhile it waits again.
    pub fn done(&self, key: &K) {
        if self.shared.state.lock().done(key) {
            self.shared.bell.notify_one();
        }
    }

    /// Ends all workers: [`Queue::next`] answers none from now on.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.bell.notify_waiters();
        self.shared.bell.notify_one();
    }

    /// How many keys wait, not counting delayed ones.
    pub fn len(&self) -> usize {
        self.shared.state.lock().waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Whether a worker has to be woken.
    fn add(&mut self, key: K) -> bool {
        if let Some(delay) = self.due.remove(&key) {
            self.delayed.remove(&delay);
            self.delayed_keys.remove(&delay.1);
        }
        if !self.dirty.insert(key.clone()) || self.in_work.contains(&key) {
            return false;
        }
        self.waiting.push_back(key);
        true
    }

    /// Whether the new delay is the first to be due.
    fn delay(&mut self, key: K, due: Instant) -> bool {
        if self.dirty.contains(&key) && !self.in_work.contains(&key) {
            return false;
        }
        if let Some(earlier) = self.due.get(&key).copied() {
            if earlier.0 <= due {
                return false;
            }
            self.delayed.remove(&earlier);
            self.delayed_keys.remove(&earlier.1);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.delayed.insert((due, id));
        self.delayed_keys.insert(id, key.clone());
        self.due.insert(key, (due, id));
        self.delayed.first() == Some(&(due, id))
    }

    /// Moves what has come due to the waiting.
    fn ripen(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.delayed.first() {
            if due > now {
                return;
            }
            self.delayed.pop_first();
            if let Some(key) = self.delayed_keys.remove(&id) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.waiting.pop_front()?;
        self.dirty.remove(&key);
        self.in_work.insert(key.clone());
        Some(key)
    }

    /// Whether the key waits again.
    fn done(&mut self, key: &K) -> bool {
        self.in_work.remove(key);
        if !self.dirty.contains(key) {
            return false;
        }
        self.waiting.push_back(key.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_in_work_comes_back_once_and_only_after_done() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.len(), 0, "not given to a second worker");
        queue.done(&"a");
        assert_eq!(queue.next().await, Some("a"));
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_delays_the_earlier_wins_and_an_add_cancels_both() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("a", 10 * SECOND);
        queue.add_after("a", 5 * SECOND);
        queue.add_after("a", 7 * SECOND);
        assert_eq!(queue.next().await, Some("a"));
        assert_eq!(start.elapsed(), 5 * SECOND);
        queue.done(&"a");
        queue.add_after("a", 10 * SECOND);
        queue.add("a");
        assert_eq!(queue.next().await, Some("a"));
        queue.done(&"a");
        let late = tokio::time::timeout(60 * SECOND, queue.next()).await;
        assert!(late.is_err(), "the delay was cancelled");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_until_forgotten() {
        let queue = Queue::new(BackoffPolicy::doubling(SECOND, 8 * SECOND));
        let mut waits = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            queue.retry("a");
            assert_eq!(queue.next().await, Some("a"));
            waits.push(start.elapsed().as_secs());
            queue.done(&"a");
        }
        assert_eq!(waits, [1, 2, 4, 8, 8]);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_every_worker() {
        let queue: Queue<&str> = Queue::default();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        for worker in workers {
            assert_eq!(worker.await.unwrap(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_worker_gets_one_of_many_keys() {
        let queue = Queue::default();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        for key in 0..3 {
            queue.add_after(key, SECOND);
        }
        let mut got = Vec::new();
        for worker in workers {
            got.push(worker.await.unwrap().unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2]);
    }
}
