//! How long each spec takes on upstream: `tests/conformance/upstream-times.txt`, one line per spec, seconds and name.
//!
//! Written by `cargo xtask conformance --upstream --record`; what the order of a run and the limit of each spec are
//! derived from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::results::{Outcome, State};
use crate::paths;

/// For a spec that upstream has not been timed with.
const UNKNOWN_S: f64 = 180.0;
const UNKNOWN_SLOW_S: f64 = 600.0;
const SLOW: &str = "[Slow]";
const HEAD: &str = "# Seconds that each conformance spec takes on upstream v1.37.1; written by `cargo xtask conformance --upstream --record`.\n";

#[derive(Debug, Default, PartialEq)]
pub struct Times {
    seconds: BTreeMap<String, f64>,
}

impl Times {
    pub fn path() -> PathBuf {
        paths::root().join("tests/conformance/upstream-times.txt")
    }

    /// What the repository knows; nothing yet when there is no file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = paths::read_if_there(path)?.unwrap_or_default();
        Self::parse(&text).with_context(|| format!("understanding {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut seconds = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (number, name) = line.split_once(' ').with_context(|| format!("{line:?} is no time and name"))?;
            seconds.insert(name.to_owned(), number.parse().with_context(|| format!("the time of {name}"))?);
        }
        Ok(Self { seconds })
    }

    fn shown(&self) -> String {
        let lines = self.seconds.iter().map(|(name, seconds)| format!("{seconds:.1} {name}\n"));
        HEAD.to_owned() + &lines.collect::<String>()
    }

    pub fn of(&self, name: &str) -> Option<f64> {
        self.seconds.get(name).copied()
    }

    pub fn or_guess(&self, name: &str) -> f64 {
        self.of(name).unwrap_or(if name.contains(SLOW) { UNKNOWN_SLOW_S } else { UNKNOWN_S })
    }

    /// Takes in what passed, writes the file, returns how many it took.
    pub fn record(&mut self, path: &Path, run: &[Outcome]) -> Result<usize> {
        let passed: Vec<&Outcome> = run.iter().filter(|outcome| outcome.state == State::Passed).collect();
        for outcome in &passed {
            self.seconds.insert(outcome.name.clone(), outcome.seconds);
        }
        fs::create_dir_all(path.parent().context("the file is in a folder")?)?;
        fs::write(path, self.shown()).with_context(|| format!("writing {}", path.display()))?;
        Ok(passed.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_recorded_and_the_rest_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("times.txt");
        fs::write(&path, "# seen\n2.5 [sig-a] b c\n7.0 [sig-a] d\n").unwrap();
        let mut times = Times::read(&path).unwrap();
        let outcome = |name: &str, state, seconds| {
            let (message, output) = (String::new(), String::new());
            Outcome { name: name.into(), state, seconds, ended_s: 0.0, round: 1, message, output }
        };
        let run = [outcome("[sig-a] d", State::Passed, 8.04), outcome("[sig-a] b c", State::Failed, 300.0)];
        assert_eq!(times.record(&path, &run).unwrap(), 1);
        let again = Times::read(&path).unwrap();
        assert_eq!((again.of("[sig-a] d"), again.of("[sig-a] b c")), (Some(8.0), Some(2.5)));
    }

    #[test]
    fn without_a_record_a_spec_is_thought_to_take_long_and_a_slow_one_longer() {
        let times = Times::read(Path::new("/nonexistent/times.txt")).unwrap();
        assert_eq!(times.or_guess("[sig-a] b"), UNKNOWN_S);
        assert_eq!(times.or_guess("[sig-a] b [Slow]"), UNKNOWN_SLOW_S);
    }
}
