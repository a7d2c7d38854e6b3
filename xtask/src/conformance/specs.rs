//! The specs of the suite that carry `[Conformance]`: their names, and where they are in the suite's order.
//!
//! They are listed by the suite itself: one process is sent through all of its specs with none in focus, so that it
//! runs nothing and names each place (`protocol`). That takes seconds; the list is kept beside the program.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::protocol::{self, Desk, Report};
use crate::progress::step;
use crate::{paths, process};

const MARK: &str = "[Conformance]";
/// No name matches it.
const NOTHING: &str = "^$";

/// One spec and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub name: String,
    pub place: Place,
}

/// Where a spec is in the suite's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// What a process is told to run it beside others.
    Beside(usize),
    /// The how manieth of those that run alone.
    Alone(usize),
}

impl Spec {
    pub fn group(&self) -> &str {
        group_of(&self.name)
    }

    pub fn runs_alone(&self) -> bool {
        matches!(self.place, Place::Alone(_))
    }
}

/// `api-machinery` of `[sig-api-machinery] Watchers ...`.
pub fn group_of(name: &str) -> &str {
    let tag = name.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("", |(tag, _)| tag);
    tag.strip_prefix("sig-").unwrap_or(tag)
}

/// A pattern of Go's that this name matches and no other spec's does: names that begin alike end differently.
pub fn pattern_of(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len() + 16);
    for letter in name.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    // what is matched is the suite's own name, then the spec's
    format!(" {pattern}$")
}

#[derive(Serialize, Deserialize)]
struct Kept {
    bytes: u64,
    changed_s: i64,
    specs: Vec<Spec>,
}

/// Every conformance spec that `program` has, in the suite's order.
pub fn of(program: &Path) -> Result<Vec<Spec>> {
    let about = fs::metadata(program).with_context(|| format!("looking at {}", program.display()))?;
    let list = program.with_extension("specs.json");
    let kept = fs::read(&list).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    if let Some(kept) = kept.filter(|kept| (kept.bytes, kept.changed_s) == (about.len(), about.mtime())) {
        return Ok(kept.specs);
    }
    step("listing the suite's specs", || {
        let out = tempfile::NamedTempFile::new().context("making a file for the list")?;
        // a process of its own, because it has threads and labs must be started by a program that has none
        let mut lister = Command::new(paths::own_program()?);
        lister.arg("__conformance-list").arg(program).arg(out.path());
        process::quiet(&mut lister)?;
        let specs: Vec<Spec> = serde_json::from_slice(&fs::read(out.path())?).context("reading the list")?;
        let kept = Kept { bytes: about.len(), changed_s: about.mtime(), specs };
        fs::write(&list, serde_json::to_vec(&kept)?).context("keeping the list")?;
        Ok(kept.specs)
    })
}

#[derive(Args)]
pub struct ListArguments {
    program: PathBuf,
    out: PathBuf,
}

/// Asks the suite for its specs and writes them down.
pub fn run_list(arguments: &ListArguments) -> Result<ExitCode> {
    let reader = Arc::new(Reader::default());
    let port = protocol::serve(Arc::clone(&reader) as Arc<dyn Desk>)?;
    let mut suite = Command::new(&arguments.program);
    suite.args(protocol::arguments(port, 1, 2)).arg(format!("--ginkgo.focus={NOTHING}")).arg("--provider=skeleton");
    suite.env(protocol::PROTOCOL.0, protocol::PROTOCOL.1).env_remove("KUBECONFIG");
    process::quiet(&mut suite).context("asking the suite for its specs")?;
    let read = reader.read.lock().unwrap_or_else(PoisonError::into_inner);
    fs::write(&arguments.out, serde_json::to_vec(&conformance(&read)?)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Sends a process through the whole order and writes down what it names.
#[derive(Default)]
struct Reader {
    place: AtomicUsize,
    /// In the order in which they were named; several at one place form an inseparable group.
    read: Mutex<Vec<Spec>>,
    alone: Mutex<Option<usize>>,
}

/// More places than any suite has specs: ends the reading of one that does not say when it is through.
const PLACES_MAX: usize = 100_000;

impl Desk for Reader {
    fn next(&self, _process: usize) -> Option<usize> {
        // the first question is for place 0
        Some(self.place.fetch_add(1, Ordering::SeqCst)).filter(|place| *place < PLACES_MAX)
    }

    fn alone(&self, _process: usize) {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(0);
    }

    fn did_run(&self, _process: usize, report: Report) {
        if !report.is_spec() {
            return;
        }
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match alone.as_mut() {
            None => Place::Beside(self.place.load(Ordering::SeqCst).saturating_sub(1)),
            Some(number) => {
                *number += 1;
                Place::Alone(*number - 1)
            }
        };
        self.read.lock().unwrap_or_else(PoisonError::into_inner).push(Spec { name: report.name(), place });
    }
}

/// Those that count, each once and each alone at its place.
fn conformance(read: &[Spec]) -> Result<Vec<Spec>> {
    let specs: Vec<Spec> = read.iter().filter(|spec| spec.name.contains(MARK)).cloned().collect();
    let names: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    if specs.is_empty() || names.len() != specs.len() {
        bail!("the suite names {} conformance specs, {} of them different", specs.len(), names.len());
    }
    for spec in &specs {
        if read.iter().filter(|other| other.place == spec.place).count() > 1 {
            bail!("{} cannot be run without its neighbours", spec.name);
        }
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(desk: &Reader, text: &str) {
        let report = serde_json::json!({"LeafNodeType": "It", "LeafNodeText": text, "State": "skipped"});
        desk.did_run(1, serde_json::from_value(report).unwrap());
    }

    #[test]
    fn places_are_counted_beside_and_alone() {
        let reader = Reader::default();
        for text in ["[sig-a] one [Conformance]", "[sig-a] other", "[sig-b] two [Conformance]"] {
            reader.next(1);
            ran(&reader, text);
        }
        reader.next(1);
        reader.alone(1);
        ran(&reader, "[sig-b] other [Serial]");
        ran(&reader, "[sig-b] three [Conformance] [Serial]");
        reader.alone(1);
        let specs = conformance(&reader.read.lock().unwrap()).unwrap();
        let places: Vec<Place> = specs.iter().map(|spec| spec.place).collect();
        assert_eq!(places, [Place::Beside(0), Place::Beside(2), Place::Alone(1)]);
        assert_eq!((specs[1].group(), specs[1].runs_alone(), specs[2].runs_alone()), ("b", false, true));
    }

    #[test]
    fn a_spec_that_shares_its_place_is_refused() {
        let reader = Reader::default();
        reader.next(1);
        ran(&reader, "[sig-a] one [Conformance]");
        ran(&reader, "[sig-a] other");
        let error = conformance(&reader.read.lock().unwrap()).unwrap_err().to_string();
        assert!(error.contains("without its neighbours"), "{error}");
    }

    #[test]
    fn brackets_and_other_signs_of_a_name_are_meant_literally() {
        let pattern = pattern_of("[sig-apps] a (b) {c}? x.y+z* ^1|2$ \\ [Conformance]");
        assert_eq!(pattern, r" \[sig-apps\] a \(b\) \{c\}\? x\.y\+z\* \^1\|2\$ \\ \[Conformance\]$");
        let engine = regex::Regex::new(&pattern_of("[sig-apps] a [Conformance]")).unwrap();
        assert!(engine.is_match("Kubernetes e2e suite [sig-apps] a [Conformance]"));
        assert!(!engine.is_match("Kubernetes e2e suite [sig-apps] a [Conformance] [Slow]"));
        assert!(!engine.is_match("Kubernetes e2e suite s"));
    }

    #[test]
    fn the_group_is_the_first_tag() {
        let cases = [("[sig-api-machinery] A", "api-machinery"), ("[x] A", "x"), ("A [sig-b]", "")];
        for (name, group) in cases {
            assert_eq!(group_of(name), group, "{name}");
        }
    }
}
