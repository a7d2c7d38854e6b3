//! Which crate may use which: arrows point down, components do not know each other, and only the front door knows the
//! store. Read from the manifests, because a dependency that is declared is a dependency.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

/// Every crate and its level. A crate uses crates of lower levels only.
const LEVELS: [(&str, u8); 19] = [
    ("base", 0),
    ("cork", 0),
    ("websocket", 0),
    ("meta", 1),
    ("api", 2),
    ("store", 2),
    ("pki", 2),
    ("cri", 2),
    ("client", 3),
    ("apiserver", 4),
    ("scheduler", 4),
    ("controllers", 4),
    ("runtime", 4),
    ("net", 4),
    ("dns", 4),
    ("gateway", 4),
    ("kubelet", 5),
    ("kubectl", 5),
    ("coracle", 6),
];
/// Crates for tests and chores: nothing that ships may use them, they may use anything.
const FOR_DEVELOPERS: [&str; 5] = ["testkit", "xtask", "stories", "bench-cluster", "bench-harness"];
/// Parts of the system that the binary puts together: what one needs of another it takes as a trait.
const COMPONENT_LEVELS: std::ops::RangeInclusive<u8> = 4..=5;
/// Crates that only the crates named here may use.
const RESERVED: [(&str, &[&str]); 2] = [("store", &["apiserver", "coracle"]), ("apiserver", &["coracle"])];

/// Reads every manifest under `crates` and tells which arrows are wrong.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut dirs: Vec<_> =
        fs::read_dir(root.join("crates"))?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    dirs.sort();
    for manifest in dirs.iter().map(|dir| dir.join("Cargo.toml")).filter(|manifest| manifest.exists()) {
        let text = fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
        let table: Table = text.parse().with_context(|| format!("understanding {}", manifest.display()))?;
        found.extend(judge(&table));
    }
    Ok(found)
}

fn judge(manifest: &Table) -> Vec<String> {
    let name =
        manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str).unwrap_or_default();
    let mut found: Vec<String> = used(manifest).iter().filter_map(|other| wrong(name, other)).collect();
    if level(name).is_none() && !FOR_DEVELOPERS.contains(&name) {
        found.push(format!("crates/{name}: has no level: add it to the table in xtask/src/tidy/arrows.rs"));
    }
    found
}

/// Crates named by `[dependencies]` and `[build-dependencies]`, for every target. What tests use is their own affair.
fn used(manifest: &Table) -> Vec<String> {
    let mut tables = vec![manifest.get("dependencies"), manifest.get("build-dependencies")];
    if let Some(Value::Table(targets)) = manifest.get("target") {
        tables.extend(targets.values().map(|target| target.get("dependencies")));
    }
    tables.into_iter().flatten().filter_map(Value::as_table).flat_map(|table| table.keys().cloned()).collect()
}

fn level(name: &str) -> Option<u8> {
    LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
}

fn wrong(name: &str, other: &str) -> Option<String> {
    let arrow = format!("crates/{name} uses {other}");
    if FOR_DEVELOPERS.contains(&name) {
        return None;
    }
    if FOR_DEVELOPERS.contains(&other) {
        return Some(format!("{arrow}: that is for tests and chores only"));
    }
    let (own, others) = (level(name)?, level(other)?);
    if COMPONENT_LEVELS.contains(&own) && COMPONENT_LEVELS.contains(&others) {
        return Some(format!("{arrow}: components do not know each other; take a trait that the binary fills"));
    }
    if others >= own {
        return Some(format!("{arrow}: arrows point down, and {other} is on level {others} of {name}'s {own}"));
    }
    let reserved = RESERVED.iter().find(|(reserved, users)| *reserved == other && !users.contains(&name));
    reserved.map(|(_, users)| format!("{arrow}: only {} may", users.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_that_point_down_pass() {
        for (name, other) in [
            ("api", "meta"),
            ("apiserver", "store"),
            ("coracle", "kubelet"),
            ("kubelet", "client"),
            ("api", "serde"),
            ("testkit", "store"),
        ] {
            assert_eq!(wrong(name, other), None, "{name} -> {other}");
        }
    }

    #[test]
    fn wrong_arrows_are_told_with_their_reason() {
        for (name, other, reason) in [
            ("meta", "api", "arrows point down"),
            ("api", "store", "arrows point down"),
            ("kubelet", "runtime", "components do not know each other"),
            ("scheduler", "controllers", "components do not know each other"),
            ("controllers", "apiserver", "components do not know each other"),
            ("client", "store", "only apiserver and coracle may"),
            ("client", "testkit", "for tests and chores only"),
        ] {
            let found = wrong(name, other).unwrap();
            assert!(found.contains(reason), "{name} -> {other}: {found}");
        }
    }

    #[test]
    fn a_crate_without_a_level_is_told() {
        let manifest: Table = "[package]\nname = 'novel'\n".parse().unwrap();
        assert_eq!(judge(&manifest).len(), 1);
    }

    #[test]
    fn what_tests_use_is_not_judged_and_what_a_target_uses_is() {
        let text = "[package]\nname = 'meta'\n[dev-dependencies]\nstore.workspace = true\n[target.'cfg(unix)'.dependencies]\napi.workspace = true\n";
        assert_eq!(judge(&text.parse().unwrap()).len(), 1);
    }
}
