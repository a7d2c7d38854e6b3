//! What became of each spec: lines of JSON that are only ever added to while a run goes on, and one file with the last
//! result of every spec across runs.
//!
//! A line that was cut short by a power cut or a kill is no result, so a run can be resumed from any prefix of its file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How a spec ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Passed,
    Failed,
    Skipped,
}

impl State {
    /// What a word of the suite's comes to.
    pub fn of(word: &str) -> Self {
        match word {
            "passed" => Self::Passed,
            "skipped" | "pending" => Self::Skipped,
            _ => Self::Failed,
        }
    }
}

/// One go at a spec and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub name: String,
    pub state: State,
    /// What the suite says it took; what we saw it take when it was stopped.
    pub seconds: f64,
    /// When it ended, in seconds of the epoch.
    pub ended_s: f64,
    /// Counted from 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub round: u32,
    /// Why it failed or was skipped, on one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The file with everything that it printed, beside the results.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

fn one() -> u32 {
    1
}

fn is_one(round: &u32) -> bool {
    *round == 1
}

/// This moment, in seconds of the epoch.
pub fn now_s() -> f64 {
    // a clock before the epoch is as good as none
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| (since.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// Adds results to a file, each on the disk before the next begins.
pub struct Ledger {
    file: File,
}

impl Ledger {
    pub fn at(path: &Path) -> Result<Self> {
        let mut file = File::options().create(true).append(true).open(path)?;
        // what a killed run was in the middle of writing becomes a line of its own, which is no result
        if fs::read(path)?.last().is_some_and(|byte| *byte != b'\n') {
            file.write_all(b"\n")?;
        }
        Ok(Self { file })
    }

    pub fn add(&mut self, outcome: &Outcome) -> Result<()> {
        let mut line = serde_json::to_vec(outcome)?;
        line.push(b'\n');
        self.file.write_all(&line).context("writing a result")
    }
}

/// The results of a file, oldest first; none when there is no file.
pub fn read(path: &Path) -> Vec<Outcome> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The last result of each spec, whichever run it was in.
pub type Latest = BTreeMap<String, Outcome>;

pub fn read_latest(path: &Path) -> Latest {
    let outcomes = read(path).into_iter();
    outcomes.map(|outcome| (outcome.name.clone(), outcome)).collect()
}

/// Adds the results of a run to what is known. Of several rounds, a failure is what counts.
pub fn merge(latest: &mut Latest, run: &[Outcome]) {
    for outcome in worst_of_rounds(run).into_values() {
        latest.insert(outcome.name.clone(), outcome.clone());
    }
}

pub fn write_latest(path: &Path, latest: &Latest) -> Result<()> {
    let mut text = Vec::new();
    for outcome in latest.values() {
        serde_json::to_writer(&mut text, outcome)?;
        text.push(b'\n');
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).context("writing the last results")?;
    fs::rename(&fresh, path).context("keeping the last results")
}

/// One result per spec: a failure if any round failed.
pub fn worst_of_rounds(run: &[Outcome]) -> BTreeMap<&str, &Outcome> {
    let mut worst: BTreeMap<&str, &Outcome> = BTreeMap::new();
    for outcome in run {
        let known = worst.entry(&outcome.name).or_insert(outcome);
        if known.state != State::Failed {
            *known = outcome;
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn outcome(name: &str, state: State, round: u32) -> Outcome {
        let (message, output) = (String::new(), String::new());
        Outcome { name: name.into(), state, seconds: 1.5, ended_s: 100.0, round, message, output }
    }

    #[test]
    fn results_are_read_back_and_a_line_cut_short_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.jsonl");
        let first = outcome("a \"b\" [c]", State::Passed, 1);
        Ledger::at(&path).unwrap().add(&first).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &whole[..20]].concat()).unwrap();
        assert_eq!(read(&path), std::slice::from_ref(&first));
        let second = outcome("d", State::Failed, 2);
        Ledger::at(&path).unwrap().add(&second).unwrap();
        assert_eq!(read(&path), [first, second]);
    }

    #[test]
    fn the_last_run_counts_and_in_it_a_failed_round() {
        let mut latest = Latest::new();
        merge(&mut latest, &[outcome("a", State::Failed, 1), outcome("b", State::Passed, 1)]);
        merge(
            &mut latest,
            &[outcome("a", State::Passed, 1), outcome("a", State::Failed, 2), outcome("a", State::Passed, 3)],
        );
        assert_eq!(latest["a"].state, State::Failed);
        merge(&mut latest, &[outcome("a", State::Passed, 1)]);
        assert_eq!((latest["a"].state, latest["b"].state), (State::Passed, State::Passed));
    }

    #[test]
    fn the_last_results_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latest.jsonl");
        let mut latest = Latest::new();
        merge(&mut latest, &[outcome("a", State::Skipped, 1)]);
        write_latest(&path, &latest).unwrap();
        assert_eq!(read_latest(&path), latest);
    }
}
