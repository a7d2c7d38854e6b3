//! `cargo xtask bench ...`: figures of the shipped binary, on the lab's machinery.
//!
//! Data flow: build in release mode, run every round in a lab of its own (namespaces with no route out, a new data
//! folder), let `bench/start` measure in there, gather what each round wrote, print raw rounds and medians (`figures`).
//!
//! Nothing fails on time: a figure is for a person to judge. A round that cannot be finished is an error.

mod figures;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::lab::{self, LabArguments};
use crate::progress::step;
use crate::{paths, process};
use figures::{Round, Summary};

/// What the idle figures are taken over. Once per run, in its first round: a minute is the same in every round.
const IDLE_S: u64 = 60;
const PODS_MIN: usize = 20;
const REPLICAS: usize = 50;

#[derive(Args)]
pub struct BenchArguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// From exec to ready, idle cost, pods and a deployment
    Start(StartArguments),
}

#[derive(Args)]
struct StartArguments {
    /// How often everything is measured; idle cost is measured once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Print one JSON object on standard output; raw rounds go to standard error
    #[arg(long)]
    json: bool,
    /// Measure this program instead of the release build of this clone
    #[arg(long, value_name = "FILE")]
    coracle: Option<PathBuf>,
    /// Pods that are created and deleted one after the other in each round
    #[arg(long, default_value_t = PODS_MIN, value_name = "N")]
    pods: usize,
}

pub fn run(arguments: &BenchArguments) -> Result<ExitCode> {
    match &arguments.subject {
        Subject::Start(arguments) => run_start(arguments),
    }
}

fn run_start(arguments: &StartArguments) -> Result<ExitCode> {
    let program = build("bench-start")?;
    let coracle = match &arguments.coracle {
        Some(path) => path.canonicalize().with_context(|| format!("--coracle {}", path.display()))?,
        None => build("coracle")?,
    };
    let dir = tempfile::tempdir().context("making a folder for the figures")?;
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        let out = dir.path().join(number.to_string());
        eprintln!("round {number} of {}", arguments.rounds);
        let command = round_command(&program, &out, arguments.pods, number == 1);
        let lab = LabArguments::running(command, 1).unstarted(coracle.clone());
        if lab::run(&lab)? != ExitCode::SUCCESS {
            bail!("round {number} could not be finished; what happened is above");
        }
        let text = std::fs::read_to_string(&out).context("reading the figures of a round")?;
        rounds.push(Round::parse(&text)?);
    }
    let summary = Summary::of(&rounds).context("there was no round")?;
    let told = format!("{}\n{}{}", versions(&coracle), figures::raw(&rounds), summary.told());
    if arguments.json {
        eprint!("{told}");
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print!("{told}");
    }
    Ok(ExitCode::SUCCESS)
}

fn round_command(program: &Path, out: &Path, pods: usize, with_idle: bool) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec![program.into(), "round".into(), "--out".into(), out.into()];
    let idle_s = if with_idle { IDLE_S } else { 0 };
    command.push(format!("--pods={}", pods.max(PODS_MIN)).into());
    command.push(format!("--replicas={REPLICAS}").into());
    command.push(format!("--idle-s={idle_s}").into());
    command
}

/// What was measured, and on what.
fn versions(coracle: &Path) -> String {
    let said = |command: &mut Command| {
        process::output(command).map_or_else(|_| "unknown".into(), |said| said.trim().to_owned())
    };
    let own = said(Command::new(coracle).arg("--version"));
    let commit = said(Command::new("git").current_dir(paths::root()).args(["describe", "--always", "--dirty"]));
    let kernel = said(Command::new("uname").arg("-sr"));
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{own} ({}, tree {commit}), {kernel}, {processors} processors", coracle.display())
}

/// Builds a package as it is shipped.
fn build(package: &str) -> Result<PathBuf> {
    let target = paths::target()?;
    step(&format!("building {package} in release mode"), || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(paths::root()).args(["build", "--release", "--package", package, "--target-dir"]);
        process::quiet(command.arg(&target))
    })?;
    Ok(target.join("release").join(package))
}
