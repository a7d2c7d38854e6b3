//! The shutdown tree: who runs, who is told to stop, and who is waited for.
//!
//! A `Tasks` owns a set of spawned tasks and a cancellation token. Children are cancelled with their parent; a parent waits
//! for its children. A panic inside a task is caught at its edge, logged with the task's name and reported to the spawner
//! through the join handle, so one bad request or pod worker never takes the process along.

use std::future::Future;

use tokio::task::JoinHandle;
pub use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A branch of the shutdown tree. Clone it to hand it around: clones are the same branch.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    parents: Vec<TaskTracker>,
}

impl Tasks {
    /// A new root.
    pub fn root() -> Self {
        Self::default()
    }

    /// A branch that is cancelled with this one and waited for by it, and can be stopped alone.
    pub fn child(&self) -> Self {
        let mut parents = self.parents.clone();
        parents.push(self.tracker.clone());
        Tasks { token: self.token.child_token(), tracker: TaskTracker::new(), parents }
    }

    /// Runs `future` as a task of this branch. The future is dropped at its next await point when the branch is cancelled;
    /// use [`Tasks::spawn_graceful`] for one that watches [`Tasks::cancelled`] and winds down by itself.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let token = self.token.clone();
        self.spawn_graceful(name, async move {
            // Cancellation is looked at first: what other branches broke by stopping must not be met as a failure.
            tokio::select! {
                biased;
                () = token.cancelled() => None,
                output = future => Some(output),
            }
        })
    }

    /// Runs `future` to its end even after the branch is cancelled; shutdown waits for it.
    pub fn spawn_graceful<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let held: Vec<_> = self.parents.iter().map(TaskTracker::token).collect();
        let future = async move {
            let output = future.await;
            drop(held);
            output
        };
        self.tracker.spawn(future.instrument(tracing::info_span!("task", name)))
    }

    /// Resolves when this branch is told to stop.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Whether this branch has been told to stop.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The token itself, for `select!` in places that outlive a borrow.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Tells the branch and its children to stop, without waiting.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Tells the branch and its children to stop and waits until all of them have ended.
    pub async fn shutdown(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_parent_stops_and_waits_for_its_children() {
        let root = Tasks::root();
        let child = root.child();
        let (done, was_done) = tokio::sync::oneshot::channel();
        let watched = child.clone();
        child.spawn_graceful("child", async move {
            watched.cancelled().await;
            tokio::task::yield_now().await;
            done.send(()).ok();
        });
        let plain = child.spawn("plain", std::future::pending::<()>());
        root.shutdown().await;
        was_done.await.unwrap();
        assert!(plain.await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_stopped_task_does_not_see_what_the_others_stop_breaks() {
        let root = Tasks::root();
        let (held, broken) = tokio::sync::oneshot::channel::<()>();
        let breaks = root.spawn("breaks", async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        let sees = root.spawn("sees", async move { drop(broken.await) });
        tokio::task::yield_now().await;
        root.shutdown().await;
        assert!(breaks.await.unwrap().is_none());
        assert!(sees.await.unwrap().is_none());
    }

    #[tokio::test]
    async fn stopping_a_child_leaves_the_parent_running() {
        let root = Tasks::root();
        let child = root.child();
        child.shutdown().await;
        assert!(child.is_cancelled() && !root.is_cancelled());
    }
}
