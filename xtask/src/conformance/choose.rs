//! Which of the suite's specs a run is about: what the command line asks for, as one pure decision.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::Deserialize;

use super::specs::Spec;

/// A spec is chosen when it is in every set that is asked for.
#[derive(Default)]
pub struct Choice {
    /// Any of these matches.
    pub focus: Vec<Regex>,
    /// None of these matches.
    pub skip: Vec<Regex>,
    /// With or without `sig-`.
    pub groups: Vec<String>,
    /// Only these.
    pub only: Option<BTreeSet<String>>,
}

impl Choice {
    pub fn of(&self, specs: &[Spec]) -> Result<Vec<Spec>> {
        for group in self.groups.iter().map(|group| plain(group)) {
            if !specs.iter().any(|spec| spec.group() == group) {
                let known: BTreeSet<&str> = specs.iter().map(Spec::group).collect();
                bail!("there is no group {group}; these are: {}", known.into_iter().collect::<Vec<_>>().join(", "));
            }
        }
        let chosen: Vec<Spec> = specs.iter().filter(|spec| self.takes(spec)).cloned().collect();
        if chosen.is_empty() {
            bail!("none of the suite's {} specs is asked for", specs.len());
        }
        Ok(chosen)
    }

    fn takes(&self, spec: &Spec) -> bool {
        let matches = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(&spec.name));
        (self.focus.is_empty() || matches(&self.focus))
            && !matches(&self.skip)
            && (self.groups.is_empty() || self.groups.iter().any(|group| plain(group) == spec.group()))
            && self.only.as_ref().is_none_or(|only| only.contains(&spec.name))
    }
}

fn plain(group: &str) -> &str {
    group.strip_prefix("sig-").unwrap_or(group)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quick {
    specs: Vec<String>,
}

/// The slice that the build server runs, as `tests/conformance/quick.toml` lists it.
pub fn quick(path: &Path, specs: &[Spec]) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let quick: Quick = toml::from_str(&text).with_context(|| format!("understanding {}", path.display()))?;
    if let Some(unknown) = quick.specs.iter().find(|name| !specs.iter().any(|spec| spec.name == **name)) {
        bail!("{}: the suite has no spec {unknown:?}", path.display());
    }
    Ok(quick.specs.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::specs::Place;
    use super::*;

    fn specs() -> Vec<Spec> {
        let names = ["[sig-network] DNS should (a)", "[sig-network] Services b", "[sig-node] Pods DNS"];
        names.iter().enumerate().map(|(at, name)| Spec { name: (*name).into(), place: Place::Beside(at) }).collect()
    }

    fn chosen(choice: &Choice) -> Vec<String> {
        choice.of(&specs()).unwrap().into_iter().map(|spec| spec.name).collect()
    }

    #[test]
    fn every_condition_narrows_the_choice() {
        let regex = |text: &str| vec![Regex::new(text).unwrap()];
        assert_eq!(chosen(&Choice::default()).len(), 3);
        assert_eq!(chosen(&Choice { focus: regex("DNS"), ..Choice::default() }).len(), 2);
        let both = Choice { focus: regex("DNS"), groups: vec!["sig-network".into()], ..Choice::default() };
        assert_eq!(chosen(&both), ["[sig-network] DNS should (a)"]);
        let without = Choice { skip: regex(r"\(a\)"), groups: vec!["network".into()], ..Choice::default() };
        assert_eq!(chosen(&without), ["[sig-network] Services b"]);
        let only = Choice { only: Some(BTreeSet::from(["[sig-node] Pods DNS".into()])), ..Choice::default() };
        assert_eq!(chosen(&only), ["[sig-node] Pods DNS"]);
    }

    #[test]
    fn a_choice_of_nothing_and_an_unknown_group_are_errors() {
        let nothing = Choice { focus: vec![Regex::new("^$").unwrap()], ..Choice::default() };
        assert!(nothing.of(&specs()).is_err());
        let unknown = Choice { groups: vec!["sig-nod".into()], ..Choice::default() };
        let error = unknown.of(&specs()).unwrap_err().to_string();
        assert!(error.contains("network, node"), "{error}");
    }

    #[test]
    fn a_quick_spec_that_the_suite_does_not_have_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("quick.toml");
        fs::write(&path, "specs = [\"[sig-node] Pods DNS\"]").unwrap();
        assert_eq!(quick(&path, &specs()).unwrap().len(), 1);
        fs::write(&path, "specs = [\"[sig-node] gone\"]").unwrap();
        assert!(quick(&path, &specs()).unwrap_err().to_string().contains("[sig-node] gone"));
    }
}
