//! What passes today and may not be lost: `tests/conformance/expected.toml`, one list of specs per group.
//!
//! Written by `--write-ledger`, which adds what passed and takes nothing away. A run over specs of the ledger that
//! loses one fails and names it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::results::{Outcome, State, worst_of_rounds};
use super::specs::group_of;
use crate::paths;

const HEAD: &str =
    "# The conformance specs that pass. `cargo xtask conformance --write-ledger` adds to it; it only grows.\n";

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    names: BTreeSet<String>,
}

impl Expected {
    pub fn path() -> PathBuf {
        paths::root().join("tests/conformance/expected.toml")
    }

    /// What is written down; nothing when there is no file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = paths::read_if_there(path)?.unwrap_or_default();
        Self::parse(&text).with_context(|| format!("understanding {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let groups: BTreeMap<String, Vec<String>> = toml::from_str(text)?;
        Ok(Self { names: groups.into_values().flatten().collect() })
    }

    fn shown(&self) -> String {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in &self.names {
            groups.entry(group_of(name)).or_default().push(name);
        }
        let mut text = HEAD.to_owned();
        for (group, names) in groups {
            text.push_str(&format!("\n{group} = [\n"));
            names.iter().for_each(|name| text.push_str(&format!("    {},\n", toml::Value::from(*name))));
            text.push_str("]\n");
        }
        text
    }

    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Those of a run that are written down and did not pass.
    pub fn lost<'a>(&self, run: &'a [Outcome]) -> Vec<&'a Outcome> {
        let worst = worst_of_rounds(run).into_values();
        worst.filter(|outcome| outcome.state != State::Passed && self.contains(&outcome.name)).collect()
    }

    /// Adds what passed in every round; returns how many are new.
    pub fn grow(&mut self, run: &[Outcome]) -> usize {
        let before = self.names.len();
        let passed = worst_of_rounds(run).into_values().filter(|outcome| outcome.state == State::Passed);
        self.names.extend(passed.map(|outcome| outcome.name.clone()));
        self.names.len() - before
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path.parent().context("the ledger is in a folder")?)?;
        fs::write(path, self.shown()).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, state: State, round: u32) -> Outcome {
        let (message, output) = (String::new(), String::new());
        Outcome { name: name.into(), state, seconds: 1.0, ended_s: 0.0, round, message, output }
    }

    #[test]
    fn it_grows_by_what_passed_in_every_round_and_never_shrinks() {
        let mut expected = Expected::parse("apps = [\"[sig-apps] a\"]").unwrap();
        let run = [
            outcome("[sig-apps] a", State::Failed, 1),
            outcome("[sig-node] b \"c\" \\d", State::Passed, 1),
            outcome("[sig-node] e", State::Passed, 1),
            outcome("[sig-node] e", State::Failed, 2),
            outcome("[sig-node] f", State::Skipped, 1),
        ];
        assert_eq!(expected.grow(&run), 1);
        assert_eq!(expected.names().collect::<Vec<_>>(), ["[sig-apps] a", "[sig-node] b \"c\" \\d"]);
        assert_eq!(expected.grow(&run), 0);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deeper/expected.toml");
        let mut expected = Expected::default();
        expected.grow(&[
            outcome("[sig-api-machinery] \"quoted\" \\ [Conformance]", State::Passed, 1),
            outcome("[sig-b] c, d", State::Passed, 1),
        ]);
        expected.write(&path).unwrap();
        assert_eq!(Expected::read(&path).unwrap(), expected);
        assert!(fs::read_to_string(&path).unwrap().contains("\napi-machinery = [\n"));
    }

    #[test]
    fn a_run_that_loses_one_names_it_and_others_may_fail() {
        let expected = Expected::parse("apps = [\"[sig-apps] a\", \"[sig-apps] b\", \"[sig-apps] not run\"]").unwrap();
        let run = [
            outcome("[sig-apps] a", State::Passed, 1),
            outcome("[sig-apps] a", State::Failed, 2),
            outcome("[sig-apps] b", State::Passed, 1),
            outcome("[sig-apps] new", State::Failed, 1),
        ];
        let lost: Vec<&str> = expected.lost(&run).into_iter().map(|outcome| outcome.name.as_str()).collect();
        assert_eq!(lost, ["[sig-apps] a"]);
    }
}
