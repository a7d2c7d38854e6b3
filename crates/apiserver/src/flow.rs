//! Flow control: how many requests run at once, how many wait, and who is never held up.
//!
//! Every request belongs to one priority level. A level has seats; when all are taken, requests wait in a bounded queue for
//! a bounded time, and beyond that are refused with `429` and `Retry-After`. Levels do not borrow from each other, so a flood
//! of one kind of client leaves the others their seats.
//!
//! | level | who |
//! |---|---|
//! | exempt | `system:masters`: the administrator must always get in |
//! | system | the server's own components and the node agents |
//! | workload | service accounts |
//! | global | everybody else |
//!
//! Long-running requests (watches, streams) hold a seat only until they are set up. Deliberately not here yet: fairness
//! between the flows of one level, and levels configured by FlowSchema objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meta::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authz::PRIVILEGED_GROUP;
use crate::context::Identity;

/// How long a request may wait for a seat.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(15);
/// What a refused client is told to wait.
const RETRY_AFTER_SECONDS: u32 = 1;

struct Level {
    name: &'static str,
    seats: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// The levels with their seats.
pub struct Flow {
    system: Level,
    workload: Level,
    global: Level,
}

/// A seat; dropping it lets the next one in. Exempt requests hold none.
pub struct Seat {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Flow {
    fn default() -> Self {
        Flow {
            system: Level::new("system", 200, 2000),
            workload: Level::new("workload", 200, 1000),
            global: Level::new("global", 200, 500),
        }
    }
}

impl Flow {
    /// Waits for a seat, or refuses.
    pub async fn admit(&self, user: &Identity) -> Result<Seat, Status> {
        match self.level(user) {
            None => Ok(Seat { _permit: None }),
            Some(level) => level.admit().await,
        }
    }

    fn level(&self, user: &Identity) -> Option<&Level> {
        let in_group = |name: &str| user.groups.iter().any(|group| &**group == name);
        if in_group(PRIVILEGED_GROUP) {
            None
        } else if in_group("system:nodes") {
            Some(&self.system)
        } else if in_group("system:serviceaccounts") {
            Some(&self.workload)
        } else if user.name.starts_with("system:") && !in_group("system:unauthenticated") {
            Some(&self.system)
        } else {
            Some(&self.global)
        }
    }
}

impl Level {
    fn new(name: &'static str, seats: usize, waiting_max: usize) -> Self {
        Level { name, seats: Arc::new(Semaphore::new(seats)), waiting: AtomicUsize::new(0), waiting_max }
    }

    async fn admit(&self) -> Result<Seat, Status> {
        if let Ok(permit) = self.seats.clone().try_acquire_owned() {
            return Ok(Seat { _permit: Some(permit) });
        }
        let place = Place(&self.waiting);
        if place.0.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            tracing::debug!(level = self.name, "queue full, request refused");
            return Err(refusal());
        }
        match tokio::time::timeout(QUEUE_WAIT_MAX, self.seats.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Seat { _permit: Some(permit) }),
            Ok(Err(_)) | Err(_) => Err(refusal()),
        }
    }
}

/// A place in the queue, given up however the wait ends.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn refusal() -> Status {
    Status::too_many_requests("too many requests, please try again later", RETRY_AFTER_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn user(name: &str, groups: &[&str]) -> Identity {
        let groups = groups.iter().map(|group| (*group).into()).collect();
        Identity { name: name.into(), groups, ..Identity::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_in_a_bounded_queue_and_refuses_beyond_it() {
        let flow = Arc::new(Flow { global: Level::new("global", 1, 1), ..Flow::default() });
        let first = flow.admit(&user("a", &[])).await.unwrap();
        let waiting = tokio::spawn({
            let flow = flow.clone();
            async move { flow.admit(&user("b", &[])).await.map(drop) }
        });
        tokio::task::yield_now().await;
        // At once, not after the wait.
        let refused = flow.admit(&user("c", &[])).now_or_never().unwrap().err().unwrap();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        assert!(flow.admit(&user("m", &[PRIVILEGED_GROUP])).await.is_ok());
        assert!(flow.admit(&user("system:kube-scheduler", &["system:authenticated"])).await.is_ok());
        drop(first);
        waiting.await.unwrap().unwrap();

        let _held = flow.admit(&user("a", &[])).await.unwrap();
        assert_eq!(flow.admit(&user("d", &[])).await.err().unwrap().code, 429);
    }
}
