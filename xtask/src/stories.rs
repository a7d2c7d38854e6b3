//! `cargo xtask stories [s01 s02 ...]`: builds the binary and the stories, starts a lab of the size that the stories
//! need, and runs them in it. Stories that need more nodes get a lab of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::lab::{self, LabArguments};
use crate::progress::step;
use crate::{paths, process, upstream};

#[derive(Args)]
pub struct StoriesArguments {
    /// Only stories whose names contain one of these
    names: Vec<String>,
    /// Only those that hold today, as `tests/stories/ledger.txt` lists them; the list only grows
    #[arg(long, conflicts_with = "names")]
    ledger: bool,
    /// Tell them in an emulated machine with cgroup v2 alone
    #[arg(long)]
    vm: bool,
    /// What runs the containers
    #[arg(long, value_enum, default_value_t, conflicts_with = "vm")]
    runtime: lab::Runtime,
    /// Tell them once with every kubectl from 1.27 on that this machine has
    #[arg(long)]
    every_kubectl: bool,
    /// Instead of stories, a session of the `kube` crate
    #[arg(long, conflicts_with = "names")]
    public_client: bool,
    /// Leave the lab running afterwards
    #[arg(long)]
    keep: bool,
}

pub fn run(arguments: &StoriesArguments) -> Result<ExitCode> {
    if arguments.public_client {
        let command = vec![build("public-client")?.into()];
        return lab::run(&LabArguments::running(command, 1).kept(arguments.keep).in_vm(arguments.vm));
    }
    let program = build("stories")?;
    let names = if arguments.ledger { ledger()? } else { arguments.names.clone() };
    let sizes = lab_sizes(&program, &names, arguments.runtime)?;
    if sizes.is_empty() {
        bail!("no story is called {}", names.join(" or "));
    }
    let mut outcome = ExitCode::SUCCESS;
    for nodes in sizes {
        let mut command: Vec<OsString> = vec![program.clone().into()];
        if arguments.every_kubectl {
            command = ["sh", "-c", WITH_EVERY_KUBECTL, "sh"].map(OsString::from).to_vec();
            let kubectls = every_kubectl()?;
            command.push(kubectls.len().to_string().into());
            command.extend(kubectls.into_iter().map(OsString::from));
            command.push(program.clone().into());
        }
        command.extend(names.iter().map(OsString::from));
        let lab = LabArguments::running(command, nodes).kept(arguments.keep).in_vm(arguments.vm).on(arguments.runtime);
        if lab::run(&lab)? != ExitCode::SUCCESS {
            outcome = ExitCode::FAILURE;
        }
    }
    Ok(outcome)
}

/// The stories that hold today.
fn ledger() -> Result<Vec<String>> {
    let path = paths::root().join("tests/stories/ledger.txt");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(String::from).collect())
}

/// Arguments: how many kubectls, their paths, then the command to run with each.
const WITH_EVERY_KUBECTL: &str = r#"
count=$1; shift; kubectls=; status=0
while [ "$count" -gt 0 ]; do kubectls="$kubectls $1"; shift; count=$((count - 1)); done
for kubectl in $kubectls; do
    echo; echo "with $kubectl: $("$kubectl" version --client 2>/dev/null | head -1)"
    STORIES_KUBECTL=$kubectl "$@" || status=1
done
exit $status"#;
const OLDEST_MINOR: u32 = 27;

/// Every kubectl on the PATH and beside the programs there (`kubectl.1.29`), from the oldest release that we promise up
/// to upstream's own of our release: one of each version, oldest first.
fn every_kubectl() -> Result<Vec<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = vec![upstream::kubectl()?];
    for dir in std::env::split_paths(&path) {
        // where a link in a PATH folder leads there may be more versions
        let real = dir.join("kubectl").canonicalize().ok().and_then(|program| Some(program.parent()?.to_path_buf()));
        for dir in real.into_iter().chain([dir]) {
            let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
            let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("kubectl"));
            found.extend(named.map(|entry| entry.path()));
        }
    }
    let mut versions = BTreeMap::new();
    for program in found {
        if let Some(version) = version_of(&program).filter(|version| version.0 >= OLDEST_MINOR) {
            versions.entry(version).or_insert(program);
        }
    }
    Ok(versions.into_values().collect())
}

/// Minor version, and the version in full.
fn version_of(program: &Path) -> Option<(u32, String)> {
    let said = process::output(Command::new(program).args(["version", "--client", "-o", "json"])).ok()?;
    let said: serde_json::Value = serde_json::from_str(&said).ok()?;
    let version = &said["clientVersion"];
    let minor = version["minor"].as_str()?.trim_end_matches('+').parse().ok()?;
    Some((minor, version["gitVersion"].as_str()?.to_owned()))
}

/// Builds a program of `tests/`.
pub fn build(package: &str) -> Result<PathBuf> {
    let target = paths::target()?;
    step(&format!("building {package}"), || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(paths::root()).args(["build", "--package", package, "--target-dir"]).arg(&target);
        process::quiet(&mut command)
    })?;
    Ok(target.join("debug").join(package))
}

/// How many nodes the chosen stories need; each line of the list is `<nodes> <name>`.
fn lab_sizes(program: &PathBuf, names: &[String], runtime: lab::Runtime) -> Result<BTreeSet<usize>> {
    let mut list = Command::new(program);
    list.args(["--list", "--runtime", runtime.name()]).args(names);
    let listed = process::output(&mut list).context("listing the stories")?;
    let sizes = listed.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    Ok(sizes.collect())
}
