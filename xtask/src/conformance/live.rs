//! How a run goes, told while it goes: a line per spec that ended, and now and then what runs and how much is left.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::plan::Plan;
use super::results::{Outcome, State};
use super::schedule::{self, Floor, Planned, Task};

const EVERY: Duration = Duration::from_secs(30);

pub struct Live {
    specs: Vec<Planned>,
    procs: usize,
    total: usize,
    ended: usize,
    failed: usize,
    told: Instant,
    troubles: File,
}

impl Live {
    pub fn new(plan: &Plan, done: &[Outcome]) -> Result<Self> {
        let troubles = File::options().create(true).append(true).open(plan.troubles());
        Ok(Self {
            specs: plan.specs.clone(),
            procs: plan.procs,
            total: plan.specs.len() * plan.rounds as usize,
            ended: done.len(),
            failed: done.iter().filter(|outcome| outcome.state == State::Failed).count(),
            told: Instant::now(),
            troubles: troubles.context("making a file for troubles")?,
        })
    }

    pub fn done(&mut self, outcome: &Outcome) {
        self.ended += 1;
        self.failed += usize::from(outcome.state == State::Failed);
        let word = match outcome.state {
            State::Passed => "passed",
            State::Failed => "FAILED",
            State::Skipped => "skipped",
        };
        println!("[{:>3}/{}] {word:<7} {:>6.1} s  {}", self.ended, self.total, outcome.seconds, outcome.name);
        if !outcome.message.is_empty() {
            println!("          {}", outcome.message);
        }
    }

    /// Something is wrong with the cluster or the suite itself: said so that nobody overlooks it, and kept for the end.
    pub fn trouble(&mut self, what: &str) -> Result<()> {
        println!("\n!!!! {}\n", what.replace('\n', "\n!!!! "));
        writeln!(self.troubles, "{what}").context("writing a trouble down")
    }

    pub fn tell_when_due(&mut self, floor: &Floor, now: Duration) {
        if self.told.elapsed() < EVERY {
            return;
        }
        self.told = Instant::now();
        let running: Vec<String> = floor
            .running
            .values()
            .map(|running| {
                let took = now.saturating_sub(running.since).as_secs();
                format!("{} ({took} s)", short(&self.specs[running.task.spec].spec.name))
            })
            .collect();
        let running = if running.is_empty() { "nothing yet".into() } else { running.join("; ") };
        let left = self.left(floor, now).as_secs().div_ceil(60);
        println!(
            "---- {} of {} done, {} failed, about {left} min left; running: {}",
            self.ended, self.total, self.failed, running
        );
    }

    fn left(&self, floor: &Floor, now: Duration) -> Duration {
        let waiting = |tasks: &VecDeque<Task>| tasks.iter().copied().collect::<Vec<_>>();
        let mut beside: Vec<(Task, Duration)> =
            waiting(&floor.beside).into_iter().map(|task| (task, Duration::ZERO)).collect();
        beside.extend(floor.running.values().map(|running| (running.task, now.saturating_sub(running.since))));
        schedule::left(&self.specs, &beside, &waiting(&floor.alone), self.procs)
    }
}

/// The words of a name without its tags.
fn short(name: &str) -> String {
    const LETTERS_MAX: usize = 60;
    let words: Vec<&str> =
        name.split_whitespace().filter(|word| !(word.starts_with('[') && word.ends_with(']'))).collect();
    words.join(" ").chars().take(LETTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_has_words_and_no_tags() {
        assert_eq!(short("[sig-apps] Job should [LinuxOnly] run a job [Conformance]"), "Job should run a job");
        assert_eq!(short(&"x".repeat(200)).len(), 60);
    }
}
