//! The bounded queue between writers and the committer.
//!
//! A writer takes as many permits as its transaction has bytes before it may queue, so the queue is bounded in memory and
//! writers beyond the bound wait in order. The committer takes all that is there as one group.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{Committed, Result, StoreError, Txn, limits};

/// A transaction that waits for its commit.
pub struct Request {
    pub txn: Txn,
    pub answer: oneshot::Sender<Result<Committed>>,
    _room: OwnedSemaphorePermit,
}

/// See the module.
pub struct Queue {
    room: Arc<Semaphore>,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Request>,
    closed: bool,
}

impl Queue {
    pub fn new() -> Self {
        Queue {
            room: Arc::new(Semaphore::new(limits::QUEUE_BYTES_MAX)),
            state: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Queues a transaction and waits for its outcome.
    pub async fn submit(&self, txn: Txn) -> Result<Committed> {
        txn.check()?;
        // Fits: a checked transaction is far smaller than the queue, and the queue than u32.
        let bytes = (limits::TXN_BYTES_MIN + txn.bytes()) as u32;
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| StoreError::stopped())?;
        let (answer, outcome) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err(StoreError::stopped());
            }
            state.waiting.push(Request { txn, answer, _room: room });
        }
        self.arrived.notify_one();
        outcome.await.unwrap_or_else(|_| Err(StoreError::stopped()))
    }

    /// Blocks until something waits, then moves all of it to `group`. False when the queue is closed and empty.
    pub fn take(&self, group: &mut Vec<Request>) -> bool {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return false;
            }
            self.arrived.wait(&mut state);
        }
        group.append(&mut state.waiting);
        true
    }

    /// Lets nobody in any more. What waits already is still committed.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.arrived.notify_one();
    }
}
