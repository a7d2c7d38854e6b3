//! How whatever happens reaches the worker of a pod: a bell, and a note of what rang it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Wakes one pod worker. Cheap to clone; rings are not counted, one that is not heard yet is kept.
#[derive(Clone, Debug, Default)]
pub struct Waker {
    bell: Arc<Notify>,
    references: Arc<AtomicBool>,
}

impl Waker {
    /// Something about the pod may have changed.
    pub fn wake(&self) {
        self.bell.notify_one();
    }

    /// A ConfigMap or Secret that the pod names changed.
    pub fn references_changed(&self) {
        self.references.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    /// Whether a reference changed since this was last asked.
    pub fn take_references_changed(&self) -> bool {
        self.references.swap(false, Ordering::AcqRel)
    }

    pub async fn woken(&self) {
        self.bell.notified().await;
    }
}
