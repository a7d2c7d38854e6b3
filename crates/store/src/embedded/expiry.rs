//! Deletes entries when their time to live is over, by ordinary transactions.
//!
//! A timer sleeps to the earliest deadline and is woken when that changes. The delete compares the entry's revision, so one
//! that was put again in the meantime lives on. Deadlines are wall time and durable: what expired while nothing ran goes
//! right after the start.

use std::sync::Arc;

use base::Timestamp;
use futures::future::join_all;

use super::Shared;
use crate::{StoreError, Txn};

/// Most deletes under way at one time; they share a commit.
const DELETES_MAX: usize = 256;

/// Runs until the store is closed or the task is cancelled.
pub async fn run(shared: Arc<Shared>) {
    loop {
        let Some(deadline_ms) = shared.view.read().earliest_deadline_ms() else {
            shared.earliest_expiry.notified().await;
            continue;
        };
        let deadline = i64::try_from(deadline_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let wait = shared.clock.until(deadline.unwrap_or(Timestamp::MAX));
        if !wait.is_zero() {
            tokio::select! {
                () = shared.clock.sleep(wait) => {}
                () = shared.earliest_expiry.notified() => {}
            }
            continue;
        }
        if let Err(error) = delete_expired(&shared).await {
            tracing::debug!(%error, "expiry ends with the store");
            return;
        }
    }
}

async fn delete_expired(shared: &Shared) -> Result<(), StoreError> {
    let now_ms = u64::try_from(shared.clock.now().as_millisecond()).unwrap_or(0);
    let expired = shared.view.read().expired(now_ms, DELETES_MAX);
    let deletes = expired.into_iter().map(|(key, mod_revision)| shared.queue.submit(Txn::remove(key, mod_revision)));
    // A conflict means that the entry was put again or deleted: nothing is left to do.
    join_all(deletes).await.into_iter().try_for_each(|outcome| outcome.map(drop))
}
