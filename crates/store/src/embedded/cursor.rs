//! A watch as a position in the shared history.
//!
//! ```text
//! committer (view locked for writing):  no event pending and one matches  -> pending = its revision, wake
//! watch     (view locked for reading):  pending?  -> read on from there; pending = where the batch ended, 0 at the end
//! ```
//!
//! The lock is what makes it exact: a position is moved only while the history stands still. A watch nobody polls costs
//! nothing but its position; when history is compacted past what is pending, it ends in `Compacted`. One whose prefix saw no
//! event has nothing pending and is never outrun, however far history moves on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use super::Shared;
use crate::{Key, ProgressHandle, Result, Revision, StoreError, WatchEvent, WatchItem, WatchSource, limits};

/// Where a watch stands, shared with the committer.
pub struct Position {
    prefix: Key,
    /// The first revision not yet looked at; 0 when there is none.
    pending: AtomicU64,
    progress_wanted: AtomicBool,
    waker: AtomicWaker,
}

impl Position {
    pub fn new(prefix: Key, first: Revision) -> Self {
        Position {
            prefix,
            pending: AtomicU64::new(first),
            progress_wanted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Notes new events, before they are in the history; whether the watch must be woken. Needs the view locked for writing.
    pub fn note(&self, events: &[WatchEvent]) -> bool {
        if self.pending.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let first = events.iter().find(|event| event.entry.key.starts_with(&self.prefix));
        self.pending.store(first.map_or(0, WatchEvent::revision), Ordering::Relaxed);
        first.is_some()
    }

    pub fn wake(&self) {
        self.waker.wake();
    }
}

/// The reader of a position.
pub struct Cursor {
    shared: Arc<Shared>,
    position: Arc<Position>,
}

impl Cursor {
    pub fn open(shared: &Arc<Shared>, prefix: &Key, after: Revision) -> Result<Self> {
        let position = shared.view.write().add_watch(prefix, after)?;
        Ok(Cursor { shared: shared.clone(), position })
    }
}

impl WatchSource for Cursor {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<WatchItem>> {
        let position = &*self.position;
        // Before the look at what is pending, so that what is noted after it wakes us.
        position.waker.register(cx.waker());
        let view = self.shared.view.read();
        if view.is_stopped() {
            return Poll::Ready(Err(StoreError::stopped()));
        }
        let pending = position.pending.load(Ordering::Relaxed);
        if pending > 0 {
            let (requested, compacted) = (pending - 1, view.history().compacted());
            if requested < compacted {
                return Poll::Ready(Err(StoreError::Compacted { requested, compacted }));
            }
            let (events, next) = view.history().read(&position.prefix, requested, limits::WATCH_BATCH_MAX);
            position.pending.store(next, Ordering::Relaxed);
            if !events.is_empty() {
                return Poll::Ready(Ok(WatchItem::Events(events)));
            }
        }
        if position.progress_wanted.swap(false, Ordering::AcqRel) {
            return Poll::Ready(Ok(WatchItem::Progress(view.revision())));
        }
        Poll::Pending
    }

    fn progress_handle(&self) -> ProgressHandle {
        let position = Arc::downgrade(&self.position);
        ProgressHandle::new(move || {
            if let Some(position) = position.upgrade() {
                position.progress_wanted.store(true, Ordering::Release);
                position.wake();
            }
        })
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.shared.view.write().remove_watch(&self.position);
    }
}
