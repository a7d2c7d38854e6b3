//! The one control loop: take a key, sync it, and come back when the sync says so or failed.
//!
//! A controller wires informers to a [`Queue`] (handlers only enqueue keys) and gives its `sync(key)` to [`run_workers`]. A
//! sync reads listers, computes a plan as a pure function, applies it through the client and writes status last. It must work
//! from any state, because it is run for every key at start and whenever something it watches moves.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use base::Tasks;
use futures::FutureExt;
use meta::Status;

use crate::queue::Queue;

/// What a sync wants next for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until an event touches the key.
    Wait,
    /// Another look after this long even without an event.
    After(Duration),
}

/// Starts `workers` loops over `queue` on `tasks`; they end when the tasks are cancelled.
///
/// A failed sync is retried with back-off and its error logged; a lost race (`Conflict`) or an object that is gone meanwhile is
/// ordinary and logged at debug. A panic in a sync is contained and treated as a failure of that key.
pub fn run_workers<K, S, F>(name: &'static str, workers: usize, tasks: &Tasks, queue: &Queue<K>, sync: S)
where
    K: Clone + Eq + Hash + Debug + Display + Send + Sync + 'static,
    S: Fn(K) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Next, Status>> + Send + 'static,
{
    let sync = Arc::new(sync);
    for _ in 0..workers {
        let (queue, sync) = (queue.clone(), sync.clone());
        tasks.spawn(name, async move {
            while let Some(key) = queue.next().await {
                let outcome = std::panic::AssertUnwindSafe(sync(key.clone())).catch_unwind().await;
                settle(name, &queue, key, outcome);
            }
        });
    }
    let (queue, stopped) = (queue.clone(), tasks.clone());
    tasks.spawn_graceful(name, async move {
        stopped.cancelled().await;
        queue.close();
    });
}

fn settle<K>(name: &str, queue: &Queue<K>, key: K, outcome: std::thread::Result<Result<Next, Status>>)
where
    K: Clone + Eq + Hash + Display,
{
    match outcome {
        Ok(Ok(next)) => {
            queue.forget(&key);
            if let Next::After(wait) = next {
                queue.add_after(key.clone(), wait);
            }
        }
        Ok(Err(status)) => {
            if status.is_conflict() || status.is_not_found() || status.is_already_exists() {
                tracing::debug!(controller = name, %key, error = %status, "sync lost a race, will retry");
            } else {
                tracing::warn!(controller = name, %key, error = %status, "sync failed, will retry");
            }
            queue.retry(key.clone());
        }
        Err(_) => {
            tracing::error!(controller = name, %key, "sync panicked, will retry");
            queue.retry(key.clone());
        }
    }
    queue.done(&key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_sync_that_fails_or_panics_is_tried_again() {
        let (tasks, queue) = (Tasks::root(), Queue::default());
        let tries = Arc::new(AtomicUsize::new(0));
        let (seen, (done, finished)) = (tries.clone(), tokio::sync::oneshot::channel());
        let done = parking_lot::Mutex::new(Some(done));
        run_workers("test", 2, &tasks, &queue, move |_: u32| {
            let try_number = seen.fetch_add(1, Ordering::SeqCst);
            if try_number == 2 {
                done.lock().take().unwrap().send(()).unwrap();
            }
            async move {
                match try_number {
                    0 => Err(Status::internal("no")),
                    1 => panic!("boom"),
                    _ => Ok(Next::Wait),
                }
            }
        });
        queue.add(7);
        finished.await.unwrap();
        tasks.shutdown().await;
        assert_eq!(tries.load(Ordering::SeqCst), 3);
    }
}
