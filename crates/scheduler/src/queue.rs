//! Pods that wait for a node.
//!
//! ```text
//!  put ──▶ active ──pop──▶ (cycle) ──failed──▶ unschedulable ──an event that may help──┐
//!            ▲                          ▲                                              │
//!            └───── due ◀── backing off ◀──────────────────────────────────────────────┘
//! ```
//!
//! Active pods go by priority, then by age. A pod that failed waits for an event that its rejecting plugins say may help, and
//! then at least for its back-off (1 s doubling to 10 s) since the failure. After five minutes it is tried again anyway, in
//! case an event was missed. An event that arrives while a pod is in its cycle counts too: see [`InCycle`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::events::Event;
use crate::plugins::Plugins;
use crate::pod_info::PodInfo;

const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);
/// Events remembered during one cycle. After more of them a pod that failed is tried again whatever they were.
const EVENTS_IN_CYCLE_MAX: usize = 256;

/// A write about a pod that is under way; whatever is written about it next comes after.
#[derive(Clone, Debug)]
pub struct Telling(watch::Receiver<()>);

impl Telling {
    /// The telling, and what ends it when it is dropped.
    pub fn begin() -> (Self, watch::Sender<()>) {
        let (sender, receiver) = watch::channel(());
        (Telling(receiver), sender)
    }

    pub fn is_over(&self) -> bool {
        self.0.has_changed().is_err()
    }

    pub async fn ended(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// A pod in the queue or in its cycle.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub pod: Arc<PodInfo>,
    /// How many cycles it has been through.
    pub attempts: u32,
    /// Names of the plugins that turned it away in its last cycle.
    pub rejected_by: Vec<&'static str>,
    /// Ends when the API has been told of the failure of its last cycle.
    pub telling: Option<Telling>,
    since: Instant,
}

impl Waiting {
    fn new(pod: Arc<PodInfo>, since: Instant) -> Self {
        Waiting { pod, attempts: 0, rejected_by: Vec::new(), telling: None, since }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Tried again at that time.
    BackingOff(Instant),
    /// Tried again after an event, or at that time at the latest.
    Unschedulable(Instant),
    /// Held back by scheduling gates until it is changed.
    Gated,
}

/// Highest priority first, then the one that waits longest, then in the order of arrival.
type ActiveOrder = (Reverse<i32>, Option<base::Timestamp>, u64);

#[derive(Default)]
pub struct Queue {
    pods: HashMap<String, (Waiting, Place)>,
    /// Those that wait for an event.
    unschedulable: HashSet<String>,
    active: BTreeMap<ActiveOrder, String>,
    order_of: HashMap<String, ActiveOrder>,
    /// Back-offs and deadlines, earliest first.
    timers: BTreeMap<(Instant, String), ()>,
    arrivals: u64,
    in_cycle: Option<InCycle>,
}

/// The pod that was popped and not yet settled, and what happened to it meanwhile.
struct InCycle {
    uid: String,
    newer: Option<Arc<PodInfo>>,
    gone: bool,
    /// What came too late for this cycle, and would be missed by the pod if it fails.
    events: Vec<Event>,
}

impl Queue {
    /// A pod is new or was changed.
    pub fn put(&mut self, pod: Arc<PodInfo>, now: Instant, plugins: &Plugins) {
        if let Some(cycle) = self.in_cycle.as_mut().filter(|cycle| cycle.uid == pod.uid) {
            (cycle.newer, cycle.gone) = (Some(pod), false);
            return;
        }
        let uid = pod.uid.clone();
        let known = self.pods.get(&uid).cloned();
        let fresh = Waiting::new(pod.clone(), now);
        let gated = !pod.gates.is_empty();
        match known {
            None => self.place(fresh, if gated { Place::Gated } else { Place::Active }),
            Some((waiting, place)) => {
                let spec_changed = waiting.pod.gates != pod.gates
                    || waiting.pod.requests != pod.requests
                    || waiting.pod.tolerations != pod.tolerations
                    || waiting.pod.node_selector != pod.node_selector
                    || waiting.pod.kin != pod.kin;
                let helped = spec_changed && plugins.may_help(&waiting.rejected_by, &pod, &Event::PodUpdated);
                let waiting = Waiting { pod, ..waiting };
                let place = match place {
                    Place::Gated if !gated => Place::Active,
                    Place::Unschedulable(_) if helped => retry_place(&waiting, now),
                    other => other,
                };
                self.place(waiting, place);
            }
        }
    }

    /// A pod is gone, bound, or not ours any more.
    pub fn remove(&mut self, uid: &str) {
        if let Some(cycle) = self.in_cycle.as_mut().filter(|cycle| cycle.uid == uid) {
            cycle.gone = true;
        }
        self.unplace(uid);
        self.pods.remove(uid);
    }

    /// The next pod to place. It stays known as the one in its cycle until [`Queue::failed`] or [`Queue::placed`].
    pub fn pop(&mut self, now: Instant) -> Option<Waiting> {
        self.ripen(now);
        let (_, uid) = self.active.pop_first()?;
        self.order_of.remove(&uid);
        let (mut waiting, _) = self.pods.remove(&uid)?;
        waiting.attempts += 1;
        self.in_cycle = Some(InCycle { uid, newer: None, gone: false, events: Vec::new() });
        Some(waiting)
    }

    /// The cycle found a node.
    pub fn placed(&mut self) {
        self.in_cycle = None;
    }

    /// The cycle found none, or the binding failed. With `rejected_by` empty it is tried again after its back-off.
    pub fn failed(&mut self, mut waiting: Waiting, rejected_by: Vec<&'static str>, now: Instant, plugins: &Plugins) {
        let mut retry = rejected_by.is_empty();
        if let Some(cycle) = self.in_cycle.take_if(|cycle| cycle.uid == waiting.pod.uid) {
            if cycle.gone {
                return;
            }
            let mut missed = cycle.events.iter();
            retry |= cycle.newer.is_some()
                || cycle.events.len() >= EVENTS_IN_CYCLE_MAX
                || missed.any(|event| plugins.may_help(&rejected_by, &waiting.pod, event));
            waiting.pod = cycle.newer.unwrap_or(waiting.pod);
        }
        waiting.since = now;
        waiting.rejected_by = rejected_by;
        let place = if retry { retry_place(&waiting, now) } else { Place::Unschedulable(now + UNSCHEDULABLE_MAX) };
        self.place(waiting, place);
    }

    /// Has everything tried again that an event may help.
    pub fn wake(&mut self, event: &Event, now: Instant, plugins: &Plugins) {
        if let Some(cycle) = self.in_cycle.as_mut().filter(|cycle| cycle.events.len() < EVENTS_IN_CYCLE_MAX) {
            cycle.events.push(event.clone());
        }
        let is_helped = |uid: &&String| {
            self.pods.get(*uid).is_some_and(|(waiting, _)| plugins.may_help(&waiting.rejected_by, &waiting.pod, event))
        };
        let helped: Vec<String> = self.unschedulable.iter().filter(is_helped).cloned().collect();
        for uid in helped {
            if let Some((waiting, _)) = self.pods.get(&uid).cloned() {
                let place = retry_place(&waiting, now);
                self.place(waiting, place);
            }
        }
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((due, _), ())| *due)
    }

    fn ripen(&mut self, now: Instant) {
        while let Some(((due, uid), ())) = self.timers.first_key_value() {
            if *due > now {
                return;
            }
            let uid = uid.clone();
            match self.pods.get(&uid).cloned() {
                Some((waiting, _)) => self.place(waiting, Place::Active),
                None => drop(self.timers.pop_first()),
            }
        }
    }

    fn place(&mut self, waiting: Waiting, place: Place) {
        let uid = waiting.pod.uid.clone();
        self.unplace(&uid);
        match place {
            Place::Active => {
                self.arrivals += 1;
                let order = (Reverse(waiting.pod.priority), waiting.pod.created, self.arrivals);
                self.active.insert(order, uid.clone());
                self.order_of.insert(uid.clone(), order);
            }
            Place::BackingOff(due) | Place::Unschedulable(due) => {
                self.timers.insert((due, uid.clone()), ());
            }
            Place::Gated => {}
        }
        if matches!(place, Place::Unschedulable(_)) {
            self.unschedulable.insert(uid.clone());
        }
        self.pods.insert(uid, (waiting, place));
    }

    fn unplace(&mut self, uid: &str) {
        match self.pods.get(uid).map(|(_, place)| *place) {
            Some(Place::Active) => {
                if let Some(order) = self.order_of.remove(uid) {
                    self.active.remove(&order);
                }
            }
            Some(Place::BackingOff(due) | Place::Unschedulable(due)) => {
                self.timers.remove(&(due, uid.to_string()));
                self.unschedulable.remove(uid);
            }
            Some(Place::Gated) | None => {}
        }
    }
}

/// Active, or backing off if the last failure is too recent.
fn retry_place(waiting: &Waiting, now: Instant) -> Place {
    let doublings = waiting.attempts.saturating_sub(1).min(16);
    let due = waiting.since + BACKOFF_INITIAL.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    if waiting.attempts == 0 || due <= now { Place::Active } else { Place::BackingOff(due) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins;
    use meta::ObjectKey;

    const SECOND: Duration = Duration::from_secs(1);

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(PodInfo { key: ObjectKey::new("n", uid), uid: uid.into(), priority, ..PodInfo::default() })
    }

    fn freed() -> Event {
        Event::PodFreed(pod("gone", 0))
    }

    #[tokio::test(start_paused = true)]
    async fn priority_goes_before_age() {
        let (mut queue, plugins, now) = (Queue::default(), plugins::defaults(), Instant::now());
        for (uid, priority) in [("a", 0), ("b", 10), ("c", 0)] {
            queue.put(pod(uid, priority), now, &plugins);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(now)).map(|waiting| waiting.pod.uid.clone()).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_pod_waits_for_an_event_that_may_help_and_for_its_backoff() {
        let (mut queue, plugins, now) = (Queue::default(), plugins::defaults(), Instant::now());
        queue.put(pod("a", 0), now, &plugins);
        let waiting = queue.pop(now).unwrap();
        queue.failed(waiting, vec!["NodeName"], now, &plugins);
        queue.wake(&freed(), now + 2 * SECOND, &plugins);
        assert!(queue.pop(now + 2 * SECOND).is_none(), "room does not help a pod that wants another node");
        let waiting = queue.pop(now + 301 * SECOND).unwrap();
        queue.failed(waiting, vec!["NodeResourcesFit"], now, &plugins);
        queue.wake(&freed(), now, &plugins);
        assert!(queue.pop(now).is_none(), "still backing off");
        assert_eq!(queue.next_due(), Some(now + 2 * SECOND));
        assert!(queue.pop(now + 2 * SECOND).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_during_the_cycle_is_not_missed() {
        let (mut queue, plugins, now) = (Queue::default(), plugins::defaults(), Instant::now());
        queue.put(pod("a", 0), now, &plugins);
        let waiting = queue.pop(now).unwrap();
        queue.wake(&freed(), now, &plugins);
        queue.failed(waiting, vec!["NodeResourcesFit"], now, &plugins);
        assert!(queue.pop(now + SECOND).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_during_the_cycle_that_helps_nothing_does_not_wake() {
        let (mut queue, plugins, now) = (Queue::default(), plugins::defaults(), Instant::now());
        queue.put(pod("a", 0), now, &plugins);
        let waiting = queue.pop(now).unwrap();
        queue.wake(&freed(), now, &plugins);
        queue.failed(waiting, vec!["NodeName"], now, &plugins);
        assert!(queue.pop(now + 20 * SECOND).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_goes_during_its_cycle_does_not_come_back() {
        let (mut queue, plugins, now) = (Queue::default(), plugins::defaults(), Instant::now());
        queue.put(pod("a", 0), now, &plugins);
        let waiting = queue.pop(now).unwrap();
        queue.remove("a");
        queue.failed(waiting, vec!["NodeResourcesFit"], now, &plugins);
        assert!(queue.pop(now + 400 * SECOND).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gated_pod_waits_until_its_gates_are_gone() {
        let (mut queue, plugins, now) = (Queue::default(), plugins::defaults(), Instant::now());
        let gated = Arc::new(PodInfo { gates: vec!["g".into()], ..(*pod("a", 0)).clone() });
        queue.put(gated, now, &plugins);
        assert!(queue.pop(now + 400 * SECOND).is_none());
        queue.put(pod("a", 0), now, &plugins);
        assert!(queue.pop(now).is_some());
    }
}
