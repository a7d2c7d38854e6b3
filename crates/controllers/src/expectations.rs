//! Expectations: how many creations and deletions a controller still has to see before its cache can be trusted.
//!
//! A controller that has just made ten pods must not count its cache, see none and make ten more. So it notes what it asked for
//! before asking, each event takes one off, and until nothing is left (or five minutes have passed, in case an event was never
//! ours to see) the key is only synced as far as its status.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use meta::ObjectKey;
use parking_lot::Mutex;
use tokio::time::Instant;

/// When unmet expectations are given up, as upstream.
const EXPIRES_AFTER: Duration = Duration::from_secs(300);

#[derive(Clone, Default)]
pub struct Expectations {
    by_key: Arc<Mutex<HashMap<ObjectKey, Pending>>>,
}

struct Pending {
    creations: usize,
    /// The uids of objects whose deletion was asked for: an object already going away must not be counted twice.
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Whether everything asked for has been seen, or was given up.
    pub fn are_met(&self, key: &ObjectKey) -> bool {
        self.by_key.lock().get(key).is_none_or(|pending| {
            (pending.creations == 0 && pending.deletions.is_empty()) || pending.since.elapsed() > EXPIRES_AFTER
        })
    }

    pub fn expect_creations(&self, key: &ObjectKey, count: usize) {
        self.renew(key, |pending| pending.creations += count);
    }

    pub fn expect_deletions(&self, key: &ObjectKey, uids: impl IntoIterator<Item = String>) {
        self.renew(key, |pending| pending.deletions.extend(uids));
    }

    /// A creation was seen, or the request for it failed.
    pub fn created(&self, key: &ObjectKey) {
        if let Some(pending) = self.by_key.lock().get_mut(key) {
            pending.creations = pending.creations.saturating_sub(1);
        }
    }

    /// A deletion was seen, or the request for it failed.
    pub fn deleted(&self, key: &ObjectKey, uid: &str) {
        if let Some(pending) = self.by_key.lock().get_mut(key) {
            pending.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.by_key.lock().remove(key);
    }

    fn renew(&self, key: &ObjectKey, change: impl FnOnce(&mut Pending)) {
        let mut by_key = self.by_key.lock();
        let fresh = || Pending { creations: 0, deletions: HashSet::new(), since: Instant::now() };
        let pending = by_key.entry(key.clone()).or_insert_with(fresh);
        pending.since = Instant::now();
        change(pending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn are_met_when_all_is_seen_or_after_five_minutes() {
        let (expectations, key) = (Expectations::default(), ObjectKey::new("n", "a"));
        assert!(expectations.are_met(&key));
        expectations.expect_creations(&key, 2);
        expectations.created(&key);
        assert!(!expectations.are_met(&key));
        expectations.created(&key);
        assert!(expectations.are_met(&key));
        expectations.expect_deletions(&key, ["u".to_string()]);
        expectations.deleted(&key, "other");
        assert!(!expectations.are_met(&key));
        tokio::time::advance(Duration::from_secs(301)).await;
        assert!(expectations.are_met(&key));
    }
}
