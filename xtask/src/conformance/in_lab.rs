//! The command that runs in the lab: processes of the suite, who ask for specs and report them, until all are done.
//!
//! ```text
//! main thread     starts and ends processes, writes results, tells how it goes, looks after the nodes
//! port threads    one per connection of a process: asks the floor for the next task, sends reports to the main thread
//! waiter threads  one per process: its end
//! ```
//!
//! A process that runs specs beside others goes on until none is left. When one has to be stopped, at the limit of its
//! spec, another takes its place. Those alone come last, in one process, the suite's process 1.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::live::Live;
use super::plan::Plan;
use super::protocol::{self, Desk, Report};
use super::results::{self, Outcome, State};
use super::schedule::{self, Floor, Running, Task};
use super::specs::pattern_of;
use super::watch::Watch;
use super::worker::Worker;
use super::{message, official};

/// The cluster broke; what is left can be run in another.
pub const BROKEN: u8 = 4;
/// The process of the suite that runs what must run alone.
const ALONE: usize = 1;
const TICK: Duration = Duration::from_secs(1);
/// Processes in a row that end before they have run anything: then it is not the spec's fault.
const FRUITLESS_MAX: usize = 4;
const CONFORMANCE: &str = r"\[Conformance\]";

#[derive(Args)]
pub struct RunArguments {
    plan: PathBuf,
}

pub fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let plan = Plan::read(&arguments.plan)?;
    fs::create_dir_all(plan.output())?;
    if plan.ginkgo.is_some() {
        return official::run(&plan);
    }
    let (sender, events) = channel();
    let done = results::read(&plan.results());
    let floor = Floor::of(schedule::order(&plan.specs, plan.rounds, &|task| is_done(&plan, &done, task)));
    let plan = Arc::new(plan);
    let office = Arc::new(Office { plan: Arc::clone(&plan), floor: Mutex::new(floor), begun: Instant::now(), sender });
    let port = protocol::serve(Arc::clone(&office) as Arc<dyn Desk>)?;
    let watch = Watch::begin(office.sender.clone())?;
    let live = Live::new(&plan, &done)?;
    let ledger = results::Ledger::at(&plan.results())?;
    let mut run = Run { plan, office, port, events, workers: Workers::new(), watch, live, ledger, fruitless: 0 };
    let ending = run.until_done()?;
    for panic in run.watch.panics() {
        run.live.trouble(&panic)?;
    }
    Ok(ExitCode::from(if ending == Ending::Done { 0 } else { BROKEN }))
}

fn is_done(plan: &Plan, done: &[Outcome], task: Task) -> bool {
    let name = &plan.specs[task.spec].spec.name;
    done.iter().any(|outcome| outcome.round == task.round && outcome.name == *name)
}

/// What the main thread is told.
pub enum Event {
    Done {
        process: usize,
        running: Running,
        report: Box<Report>,
    },
    /// Something beside a spec failed.
    Failed {
        process: usize,
        report: Box<Report>,
    },
    Ended {
        process: usize,
        status: String,
    },
    /// `<name> <Ready's status>`
    Node {
        line: String,
    },
}

/// Where processes ask and report.
struct Office {
    plan: Arc<Plan>,
    floor: Mutex<Floor>,
    begun: Instant,
    sender: Sender<Event>,
}

impl Office {
    fn floor(&self) -> MutexGuard<'_, Floor> {
        // a thread that died with it has left a floor that is still right: each change is one step
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, event: Event) {
        // nobody listens when the run is over
        let _ = self.sender.send(event);
    }
}

impl Desk for Office {
    fn next(&self, process: usize) -> Option<usize> {
        if process == ALONE {
            return None;
        }
        let task = self.floor().take(process, self.begun.elapsed())?;
        schedule::place_beside(&self.plan.specs[task.spec].spec)
    }

    fn alone(&self, process: usize) {
        self.floor().take_alone(process, None, self.begun.elapsed());
    }

    fn did_run(&self, process: usize, report: Report) {
        if !report.is_spec() {
            if report.failure.is_some() {
                self.send(Event::Failed { process, report: Box::new(report) });
            }
            return;
        }
        let mut floor = self.floor();
        // a process also reports what it skips on its way
        let is_it = |running: &&Running| self.plan.specs[running.task.spec].spec.name == report.name();
        let Some(running) = floor.running.get(&process).filter(is_it).copied() else { return };
        floor.finish(process);
        if process == ALONE {
            floor.take_alone(process, Some(running.task), self.begun.elapsed());
        }
        self.send(Event::Done { process, running, report: Box::new(report) });
    }
}

type Workers = std::collections::BTreeMap<usize, Worker>;

#[derive(PartialEq, Eq)]
enum Ending {
    Done,
    Broken,
}

struct Run {
    plan: Arc<Plan>,
    office: Arc<Office>,
    port: u16,
    events: Receiver<Event>,
    workers: Workers,
    watch: Watch,
    live: Live,
    ledger: results::Ledger,
    fruitless: usize,
}

impl Run {
    fn until_done(&mut self) -> Result<Ending> {
        loop {
            self.hire()?;
            if self.workers.is_empty() {
                return Ok(Ending::Done);
            }
            match self.events.recv_timeout(TICK) {
                Ok(event) => self.take_in(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the processes of the suite are not heard any more"),
            }
            if let Some(dead) = self.watch.dead() {
                self.give_up(&dead)?;
                return Ok(Ending::Broken);
            }
            self.stop_overdue();
            self.live.tell_when_due(&self.office.floor(), self.office.begun.elapsed());
        }
    }

    /// Starts processes for what nobody is at.
    fn hire(&mut self) -> Result<()> {
        let mut floor = self.office.floor();
        let idle = self.workers.keys().filter(|process| !floor.running.contains_key(process)).count();
        let mut wanted = floor.beside.len().saturating_sub(idle);
        let mut focus = vec![CONFORMANCE.to_owned()];
        let mut hired: Vec<usize> = (ALONE + 1..=self.plan.procs + ALONE).collect();
        if wanted == 0 && self.workers.is_empty() && !floor.alone.is_empty() {
            (wanted, hired) = (1, vec![ALONE]);
            let round = floor.alone.front().map(|task| task.round);
            let of_round = floor.alone.iter().filter(|task| Some(task.round) == round);
            focus = of_round.map(|task| pattern_of(&self.plan.specs[task.spec].spec.name)).collect();
        }
        for process in hired {
            if wanted > 0 && !self.workers.contains_key(&process) {
                wanted -= 1;
                floor.welcome(process);
                let worker = Worker::start(&self.plan, self.port, process, &focus, self.office.sender.clone())?;
                self.workers.insert(process, worker);
            }
        }
        Ok(())
    }

    fn take_in(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Done { process, running, report } => {
                self.fruitless = 0;
                if let Some(worker) = self.workers.get_mut(&process) {
                    worker.ran += 1;
                }
                self.record(running, &report)
            }
            Event::Failed { process, report } => {
                let what = format!("process {process} of the suite, {}", report.leaf_node_type);
                self.live.trouble(&format!("{what}: {}", message::of(&report)))
            }
            Event::Ended { process, status } => self.ended(process, &status),
            Event::Node { line } => match self.watch.changed(&line) {
                Some(told) => self.live.trouble(&told),
                None => Ok(()),
            },
        }
    }

    fn record(&mut self, running: Running, report: &Report) -> Result<()> {
        let planned = &self.plan.specs[running.task.spec];
        let state = State::of(&report.state);
        let mut told = message::of(report);
        // it may have passed in the moment in which it was told to stop
        if running.stopped && state != State::Passed {
            told = format!("stopped at its limit of {} s: {told}", planned.limit().as_secs());
        }
        let mut outcome = self.outcome(running.task, state, Duration::from_nanos(report.run_time_ns), told);
        if state == State::Failed {
            outcome.output = self.keep_output(running.task, &outcome, report)?;
        }
        self.ledger.add(&outcome)?;
        self.live.done(&outcome);
        Ok(())
    }

    fn outcome(&self, task: Task, state: State, took: Duration, message: String) -> Outcome {
        let name = self.plan.specs[task.spec].spec.name.clone();
        let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
        Outcome { name, state, seconds, ended_s: results::now_s(), round: task.round, message, output: String::new() }
    }

    fn keep_output(&self, task: Task, outcome: &Outcome, report: &Report) -> Result<String> {
        let file = self.plan.output().join(format!("{:03}-{}.log", task.spec, task.round));
        let whole = report.failure.as_ref().map_or("", |failure| &failure.message);
        let text = format!("{}\n{}\n\n{whole}\n\n{}", outcome.name, outcome.message, report.output());
        fs::write(&file, text).context("keeping what a failed spec printed")?;
        Ok(file.display().to_string())
    }

    /// A process is gone: alone, or because it was told to.
    fn ended(&mut self, process: usize, status: &str) -> Result<()> {
        let Some(worker) = self.workers.remove(&process) else { return Ok(()) };
        let running = self.office.floor().finish(process);
        self.fruitless += usize::from(worker.ran == 0 && running.is_none());
        if let Some(running) = running {
            let limit = self.plan.specs[running.task.spec].limit().as_secs();
            let told = if running.stopped {
                format!("stopped at its limit of {limit} s and did not end by itself")
            } else {
                format!("the process of the suite ended in the middle ({status}): {}", worker.log_tail())
            };
            let took = self.office.begun.elapsed().saturating_sub(running.since);
            let outcome = self.outcome(running.task, State::Failed, took, message::one_line(&told));
            self.ledger.add(&outcome)?;
            self.live.done(&outcome);
        }
        let was_at_something = worker.may_have_left_things() || running.is_some();
        if was_at_something && let Err(error) = worker.clean_up_after() {
            self.live.trouble(&format!("cleaning up after process {process} of the suite: {error:#}"))?;
        }
        if self.fruitless >= FRUITLESS_MAX {
            bail!("the suite does not start ({status}):\n{}", worker.log_tail());
        }
        Ok(())
    }

    fn stop_overdue(&mut self) {
        let mut floor = self.office.floor();
        for process in floor.stop_overdue(&self.plan.specs, self.office.begun.elapsed()) {
            if let Some(worker) = self.workers.get_mut(&process) {
                worker.ask_to_end();
            }
        }
        for (process, worker) in &mut self.workers {
            worker.kill_if_stuck(floor.running.contains_key(process));
        }
    }

    /// Nothing can go on in this cluster: what runs has failed with it, what waits is left.
    fn give_up(&mut self, why: &str) -> Result<()> {
        self.live.trouble(why)?;
        let lost: Vec<Running> = {
            let mut floor = self.office.floor();
            floor.closed = true;
            std::mem::take(&mut floor.running).into_values().collect()
        };
        self.workers.values().for_each(Worker::kill);
        for running in lost {
            let took = self.office.begun.elapsed().saturating_sub(running.since);
            let told = format!("the cluster broke while it ran: {}", why.lines().next().unwrap_or_default());
            let outcome = self.outcome(running.task, State::Failed, took, told);
            self.ledger.add(&outcome)?;
            self.live.done(&outcome);
        }
        Ok(())
    }
}
