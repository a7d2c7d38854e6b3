//! `bench start` as it was before the harness: our side only, every round in a lab of its own.
//!
//! `bench/start` measures in there; `start_figures` makes medians of what each round wrote.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::start_figures::{self, Round, Summary};
use super::{BenchArguments, build, coracle, versions};
use crate::lab::{self, LabArguments};

/// What the idle figures are taken over. Once per run, in its first round: a minute is the same in every round.
const IDLE_S: u64 = 60;
const PODS: usize = 20;
const REPLICAS: usize = 50;

pub fn run(arguments: &BenchArguments) -> Result<ExitCode> {
    let program = build("bench-start")?;
    let coracle = coracle(arguments)?;
    let dir = tempfile::tempdir().context("making a folder for the figures")?;
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        let out = dir.path().join(number.to_string());
        eprintln!("round {number} of {}", arguments.rounds);
        let command = round_command(&program, &out, number == 1);
        let lab = LabArguments::running(command, 1).unstarted(coracle.clone());
        if lab::run(&lab)? != ExitCode::SUCCESS {
            bail!("round {number} could not be finished; what happened is above");
        }
        let text = std::fs::read_to_string(&out).context("reading the figures of a round")?;
        rounds.push(Round::parse(&text)?);
    }
    let summary = Summary::of(&rounds).context("there was no round")?;
    let versions = versions(&coracle, &[]).join("\n");
    let told = format!("{versions}\n{}{}", start_figures::raw(&rounds), summary.told());
    if arguments.json {
        eprint!("{told}");
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print!("{told}");
    }
    Ok(ExitCode::SUCCESS)
}

fn round_command(program: &Path, out: &Path, with_idle: bool) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec![program.into(), "round".into(), "--out".into(), out.into()];
    let idle_s = if with_idle { IDLE_S } else { 0 };
    command.push(format!("--pods={PODS}").into());
    command.push(format!("--replicas={REPLICAS}").into());
    command.push(format!("--idle-s={idle_s}").into());
    command
}
