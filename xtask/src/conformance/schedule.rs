//! What runs next and for how long it may: pure decisions, told what time it is.
//!
//! Longest first, so that the end of a run is not one process alone with a spec of ten minutes. Specs that must run
//! alone come after all others, in the suite's order, because the process that runs them takes them in that order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::specs::{Place, Spec};

/// A spec may take this many times what it takes on upstream, and so much on top.
const LIMIT_FACTOR: f64 = 2.0;
const LIMIT_ON_TOP_S: f64 = 60.0;

/// A spec of a run, with what it may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    #[serde(flatten)]
    pub spec: Spec,
    /// What it takes on upstream, in seconds.
    pub expected_s: f64,
}

impl Planned {
    pub fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.expected_s * LIMIT_FACTOR + LIMIT_ON_TOP_S)
    }
}

/// One go at a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Which of the plan's specs.
    pub spec: usize,
    /// Counted from 1.
    pub round: u32,
}

/// Every go that is left, in the order in which they begin: those beside others, and those alone.
pub fn order(specs: &[Planned], rounds: u32, done: &dyn Fn(Task) -> bool) -> (VecDeque<Task>, VecDeque<Task>) {
    let mut beside: Vec<usize> = (0..specs.len()).filter(|spec| !specs[*spec].spec.runs_alone()).collect();
    beside.sort_by(|a, b| {
        let (a, b) = (&specs[*a], &specs[*b]);
        b.expected_s.total_cmp(&a.expected_s).then_with(|| a.spec.name.cmp(&b.spec.name))
    });
    let mut alone: Vec<usize> = (0..specs.len()).filter(|spec| specs[*spec].spec.runs_alone()).collect();
    alone.sort_by_key(|spec| specs[*spec].spec.place);
    let tasks = |specs: &[usize]| {
        let all = (1..=rounds).flat_map(|round| specs.iter().map(move |spec| Task { spec: *spec, round }));
        all.filter(|task| !done(*task)).collect()
    };
    (tasks(&beside), tasks(&alone))
}

/// The place that a process is told to run `spec` at.
pub fn place_beside(spec: &Spec) -> Option<usize> {
    match spec.place {
        Place::Beside(place) => Some(place),
        Place::Alone(_) => None,
    }
}

/// How long the rest will take, if it takes what it takes on upstream.
pub fn left(specs: &[Planned], beside: &[(Task, Duration)], alone: &[Task], procs: usize) -> Duration {
    // what runs already has done a part of it
    let rest = |(task, done): &(Task, Duration)| (specs[task.spec].expected_s - done.as_secs_f64()).max(0.0);
    let sum: f64 = beside.iter().map(rest).sum();
    let longest = beside.iter().map(rest).fold(0.0, f64::max);
    let alone: f64 = alone.iter().map(|task| specs[task.spec].expected_s).sum();
    Duration::from_secs_f64((sum / procs.max(1) as f64).max(longest) + alone)
}

/// What a process is at.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    pub task: Task,
    pub since: Duration,
    /// It was told to stop, because its time is over.
    pub stopped: bool,
}

/// Who does what: the state that processes ask for work.
#[derive(Debug, Default)]
pub struct Floor {
    pub beside: VecDeque<Task>,
    pub alone: VecDeque<Task>,
    pub running: BTreeMap<usize, Running>,
    /// Workers that are being ended and get nothing any more.
    leaving: BTreeSet<usize>,
    /// Nobody gets anything any more.
    pub closed: bool,
}

impl Floor {
    pub fn of((beside, alone): (VecDeque<Task>, VecDeque<Task>)) -> Self {
        Self { beside, alone, ..Self::default() }
    }

    /// A process has taken the place of the one that was `worker` before.
    pub fn welcome(&mut self, worker: usize) {
        self.leaving.remove(&worker);
    }

    /// Gives `worker` its next task beside others.
    pub fn take(&mut self, worker: usize, now: Duration) -> Option<Task> {
        let task = if self.is_free(worker) { self.beside.pop_front() } else { None };
        self.begin(worker, task, now)
    }

    /// `worker` begins with the next task that runs alone. Its process runs each spec once, so a round ends with it.
    pub fn take_alone(&mut self, worker: usize, after: Option<Task>, now: Duration) -> Option<Task> {
        let same_round = |next: &&Task| after.is_none_or(|after| after.round == next.round);
        let next = self.alone.front().filter(same_round).copied().filter(|_| self.is_free(worker));
        if next.is_some() {
            self.alone.pop_front();
        }
        self.begin(worker, next, now)
    }

    fn is_free(&self, worker: usize) -> bool {
        !self.closed && !self.leaving.contains(&worker) && !self.running.contains_key(&worker)
    }

    fn begin(&mut self, worker: usize, task: Option<Task>, now: Duration) -> Option<Task> {
        let task = task?;
        self.running.insert(worker, Running { task, since: now, stopped: false });
        Some(task)
    }

    /// What `worker` was at is over. Nothing if it was at nothing.
    pub fn finish(&mut self, worker: usize) -> Option<Running> {
        self.running.remove(&worker)
    }

    /// Workers whose task takes longer than it may and who were not told yet; marks them as told.
    pub fn stop_overdue(&mut self, specs: &[Planned], now: Duration) -> Vec<usize> {
        let over = |running: &&mut Running| {
            !running.stopped && now.saturating_sub(running.since) > specs[running.task.spec].limit()
        };
        let mut stopped = Vec::new();
        for (worker, running) in &mut self.running {
            if over(&running) {
                running.stopped = true;
                self.leaving.insert(*worker);
                stopped.push(*worker);
            }
        }
        stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str, place: Place, expected_s: f64) -> Planned {
        Planned { spec: Spec { name: name.into(), place }, expected_s }
    }

    fn five() -> Vec<Planned> {
        vec![
            planned("short", Place::Beside(7), 1.0),
            planned("late alone", Place::Alone(9), 500.0),
            planned("long", Place::Beside(3), 300.0),
            planned("also short", Place::Beside(5), 1.0),
            planned("early alone", Place::Alone(2), 1.0),
        ]
    }

    fn names(specs: &[Planned], tasks: &VecDeque<Task>) -> Vec<String> {
        tasks.iter().map(|task| format!("{} {}", specs[task.spec].spec.name, task.round)).collect()
    }

    #[test]
    fn the_longest_begin_and_those_alone_keep_the_suite_s_order() {
        let specs = five();
        let (beside, alone) = order(&specs, 1, &|_| false);
        assert_eq!(names(&specs, &beside), ["long 1", "also short 1", "short 1"]);
        assert_eq!(names(&specs, &alone), ["early alone 1", "late alone 1"]);
    }

    #[test]
    fn rounds_follow_each_other_and_what_is_done_is_left_out() {
        let specs = five();
        let (beside, alone) = order(&specs, 2, &|task| task.round == 1 && task.spec != 0);
        assert_eq!(names(&specs, &beside), ["short 1", "long 2", "also short 2", "short 2"]);
        assert_eq!(names(&specs, &alone), ["early alone 2", "late alone 2"]);
    }

    #[test]
    fn a_task_is_overdue_after_twice_upstream_s_time_and_a_minute_and_is_told_once() {
        let specs = five();
        let mut floor = Floor::of(order(&specs, 1, &|_| false));
        let second = Duration::from_secs;
        assert_eq!(floor.take(2, second(10)).map(|task| task.spec), Some(2));
        assert_eq!(floor.take(3, second(10)).map(|task| task.spec), Some(3));
        assert_eq!(floor.stop_overdue(&specs, second(10 + 62)), [0usize; 0]);
        assert_eq!(floor.stop_overdue(&specs, second(10 + 63)), [3]);
        assert_eq!(floor.stop_overdue(&specs, second(10 + 660)), [0usize; 0]);
        assert_eq!(floor.stop_overdue(&specs, second(10 + 661)), [2]);
        assert!(floor.finish(3).is_some_and(|running| running.stopped));
        assert!(floor.take(3, second(700)).is_none(), "its process is being ended");
        floor.welcome(3);
        assert!(floor.take(3, second(700)).is_some());
    }

    #[test]
    fn a_round_of_those_alone_ends_with_its_process() {
        let specs = five();
        let mut floor = Floor::of(order(&specs, 2, &|_| false));
        let mut last = None;
        let mut ran = Vec::new();
        while let Some(task) = floor.take_alone(1, last, Duration::ZERO) {
            ran.push(specs[task.spec].spec.name.clone());
            floor.finish(1);
            last = Some(task);
        }
        assert_eq!(ran, ["early alone", "late alone"]);
        assert_eq!(floor.take_alone(1, None, Duration::ZERO).map(|task| task.round), Some(2));
    }

    #[test]
    fn a_worker_has_one_task_and_a_closed_floor_gives_none() {
        let specs = five();
        let mut floor = Floor::of(order(&specs, 1, &|_| false));
        assert!(floor.take(2, Duration::ZERO).is_some());
        assert!(floor.take(2, Duration::ZERO).is_none(), "it is at something");
        floor.closed = true;
        floor.finish(2);
        assert!(floor.take(2, Duration::ZERO).is_none() && floor.take_alone(1, None, Duration::ZERO).is_none());
    }

    #[test]
    fn the_time_left_is_that_of_the_longest_or_of_all_divided_then_of_those_alone() {
        let specs = five();
        let task = |spec| Task { spec, round: 1 };
        let begun = [(task(2), Duration::from_secs(100)), (task(0), Duration::ZERO)];
        assert_eq!(left(&specs, &begun, &[task(4)], 4), Duration::from_secs(201));
        assert_eq!(left(&specs, &begun, &[], 1), Duration::from_secs(201));
    }
}
