//! `cargo xtask stories [s01 s02 ...]`: builds the binary and the stories, starts a lab of the size that the stories
//! need, and runs them in it. Stories that need more nodes get a lab of their own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::lab::{self, LabArguments};
use crate::progress::step;
use crate::{paths, process};

#[derive(Args)]
pub struct StoriesArguments {
    /// Only stories whose names contain one of these
    names: Vec<String>,
    /// Tell them in an emulated machine with cgroup v2 alone
    #[arg(long)]
    vm: bool,
    /// Leave the lab running afterwards
    #[arg(long)]
    keep: bool,
}

pub fn run(arguments: &StoriesArguments) -> Result<ExitCode> {
    let program = build()?;
    let sizes = lab_sizes(&program, &arguments.names)?;
    if sizes.is_empty() {
        bail!("no story is called {}", arguments.names.join(" or "));
    }
    let mut outcome = ExitCode::SUCCESS;
    for nodes in sizes {
        let mut command: Vec<OsString> = vec![program.clone().into()];
        command.extend(arguments.names.iter().map(OsString::from));
        let lab = LabArguments::running(command, nodes).kept(arguments.keep).in_vm(arguments.vm);
        if lab::run(&lab)? != ExitCode::SUCCESS {
            outcome = ExitCode::FAILURE;
        }
    }
    Ok(outcome)
}

fn build() -> Result<PathBuf> {
    let target = paths::target()?;
    step("building the stories", || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(paths::root()).args(["build", "--package", "stories", "--target-dir"]).arg(&target);
        process::quiet(&mut command)
    })?;
    Ok(target.join("debug/stories"))
}

/// How many nodes the chosen stories need; each line of the list is `<nodes> <name>`.
fn lab_sizes(program: &PathBuf, names: &[String]) -> Result<BTreeSet<usize>> {
    let listed = process::output(Command::new(program).arg("--list").args(names)).context("listing the stories")?;
    let sizes = listed.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    Ok(sizes.collect())
}
