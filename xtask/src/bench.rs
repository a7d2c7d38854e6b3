//! `cargo xtask bench ...`: the shipped binary beside its peers, measured alternately by the same programs.
//!
//! Data flow: `subjects` says where a benchmark's rounds run. Everything is built in release mode before the first
//! round; then ours and the peer take turns, each turn one process that starts its side anew, measures it and writes a
//! `bench_harness::Round`. The rounds become an `Outcome`, told at once and kept as `target/bench/SUBJECT.json`, from
//! which `report` writes `docs/performance.md` and README's figures.
//!
//! Nothing fails on time: a figure is for a person to judge. A round that cannot be finished is an error.

mod debian;
mod machine;
mod report;
mod subjects;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bench_harness::{Outcome, Pair, Round, Side, Subject, raw};
use clap::Args;

use crate::lab::{self, LabArguments};
use crate::progress::step;
use crate::{paths, process, upstream};
use subjects::{Peer, Place, ROWS, Row};

/// Every subject, one after the other.
const ALL: &str = "all";

#[derive(Args)]
pub struct BenchArguments {
    /// What to measure: store, api, start, ... or all
    #[arg(required_unless_present = "report", value_parser = known_subject)]
    subject: Option<String>,
    /// How often each side is measured, taking turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Print what is kept as one JSON object on standard output; all else goes to standard error
    #[arg(long)]
    json: bool,
    /// Measure only figures whose names begin with one of these; the outcome is not kept
    #[arg(long, value_name = "FIGURES", value_delimiter = ',')]
    only: Vec<String>,
    /// Measure this program instead of the release build of this clone
    #[arg(long, value_name = "FILE")]
    coracle: Option<PathBuf>,
    /// Write docs/performance.md and README's figures from what was kept
    #[arg(long)]
    report: bool,
}

fn known_subject(text: &str) -> Result<String, String> {
    if text == ALL || subjects::find(text).is_some() {
        return Ok(text.into());
    }
    let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    Err(format!("these can be measured: {}, {ALL}", names.join(", ")))
}

pub fn run(arguments: &BenchArguments) -> Result<ExitCode> {
    match arguments.subject.as_deref() {
        None => {}
        Some(ALL) => run_all(arguments)?,
        Some(name) => run_one(subjects::find(name).context("the subject is known")?, arguments)?,
    }
    if arguments.report || arguments.subject.as_deref() == Some(ALL) {
        report::write(&kept_dir()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A subject that cannot be finished does not keep the others from being measured.
fn run_all(arguments: &BenchArguments) -> Result<()> {
    let mut failed = Vec::new();
    for row in ROWS {
        if let Err(error) = run_one(row, arguments) {
            eprintln!("{}: {error:#}", row.name);
            failed.push(row.name);
        }
    }
    if !failed.is_empty() {
        report::write(&kept_dir()?)?;
        bail!("not finished: {}", failed.join(", "));
    }
    Ok(())
}

fn run_one(row: &Row, arguments: &BenchArguments) -> Result<()> {
    let bench = Bench::prepare(row, arguments)?;
    let begun = Instant::now();
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        let round = |side| -> Result<Round> {
            eprintln!("{}: round {number} of {}, {}", row.name, arguments.rounds, side_name(side, &bench.subject));
            let round = bench.round(side, number)?;
            eprintln!("{}", raw(number.into(), side, &round));
            Ok(round)
        };
        rounds.push(Pair { ours: round(Side::Ours)?, peer: round(Side::Peer)? });
    }
    let outcome = bench.outcome(rounds, begun.elapsed().as_secs_f64())?;
    if arguments.only.is_empty() {
        let dir = kept_dir()?;
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(row.name).with_extension("json"), serde_json::to_vec_pretty(&outcome)?)?;
    }
    if arguments.json {
        eprint!("{}", outcome.told());
        println!("{}", outcome.json()?);
    } else {
        print!("{}", outcome.told());
    }
    Ok(())
}

fn side_name(side: Side, subject: &Subject) -> &str {
    match side {
        Side::Ours => "ours",
        Side::Peer => &subject.peer,
    }
}

/// Where outcomes are kept.
fn kept_dir() -> Result<PathBuf> {
    Ok(paths::target()?.join("bench"))
}

/// One subject with everything built.
struct Bench<'a> {
    row: &'a Row,
    arguments: &'a BenchArguments,
    program: PathBuf,
    subject: Subject,
    coracle: PathBuf,
    programs: Vec<(&'static str, PathBuf)>,
}

impl<'a> Bench<'a> {
    fn prepare(row: &'a Row, arguments: &'a BenchArguments) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!(
                "measuring needs root, for its namespaces: run it as `sudo --preserve-env=PATH,HOME cargo xtask bench`"
            );
        }
        let programs = row.programs.iter().map(|name| Ok((*name, peer(name)?))).collect::<Result<_>>()?;
        let program = build(row.package)?;
        let described = process::output(Command::new(&program).arg("describe"))?;
        let subject = serde_json::from_str(&described).context("understanding what the benchmark measures")?;
        Ok(Self { row, arguments, program, subject, coracle: coracle(arguments)?, programs })
    }

    /// Runs one round of one side to its end.
    fn round(&self, side: Side, number: u16) -> Result<Round> {
        let dir = kept_dir()?;
        fs::create_dir_all(&dir)?;
        let scratch = tempfile::Builder::new().prefix(&format!("{}-", self.row.name)).tempdir_in(&dir)?;
        let out = scratch.path().join("round.json");
        let work = scratch.path().join("work");
        fs::create_dir(&work)?;
        let command = self.command(side, number, &out, &work);
        let ended_well = match self.row.place {
            Place::Loopback => {
                let mut program = Command::new(&command[0]);
                program.args(&command[1..]).status().context("starting the benchmark")?.success()
            }
            Place::Lab { nodes, ref peer } => {
                let lab = LabArguments::running(command, nodes).unstarted(self.coracle.clone());
                let lab = match (side, peer) {
                    (Side::Ours, _) | (Side::Peer, Peer::Beside) => lab,
                    (Side::Peer, Peer::Upstream(parts)) => lab.on_upstream(parts.parse()?),
                    (Side::Peer, Peer::Swapped(part)) => lab.swapped(vec![part.parse()?]),
                };
                lab::run(&lab)? == ExitCode::SUCCESS
            }
        };
        if !ended_well {
            bail!("round {number} of {} could not be finished; what happened is above", side.word());
        }
        Round::read(&out)
    }

    fn command(&self, side: Side, number: u16, out: &Path, work: &Path) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![self.program.clone().into(), "round".into()];
        command.extend([format!("--side={}", side.word()).into(), format!("--number={number}").into()]);
        command.extend(["--out".into(), out.into(), "--scratch".into(), work.into()]);
        command.extend(["--coracle".into(), self.coracle.clone().into()]);
        for (name, path) in &self.programs {
            command.extend(["--program".into(), format!("{name}={}", path.display()).into()]);
        }
        if !self.arguments.only.is_empty() {
            command.push(format!("--only={}", self.arguments.only.join(",")).into());
        }
        command
    }

    fn outcome(&self, rounds: Vec<Pair>, took_s: f64) -> Result<Outcome> {
        Ok(Outcome {
            subject: self.subject.clone(),
            date: machine::today()?,
            command: format!("cargo xtask bench {} --rounds {}", self.row.name, rounds.len()),
            machine: machine::this_one()?,
            versions: versions(&self.coracle, &self.programs),
            took_s,
            rounds,
        })
    }
}

/// A program to be compared with, wherever it comes from.
fn peer(name: &str) -> Result<PathBuf> {
    debian::program(name).unwrap_or_else(|| upstream::program(name))
}

/// The program of ours that is measured.
fn coracle(arguments: &BenchArguments) -> Result<PathBuf> {
    match &arguments.coracle {
        Some(path) => path.canonicalize().with_context(|| format!("--coracle {}", path.display())),
        None => build("coracle"),
    }
}

/// What every program says about itself, ours first.
fn versions(coracle: &Path, programs: &[(&'static str, PathBuf)]) -> Vec<String> {
    let said = |command: &mut Command| {
        let said = process::output(command).unwrap_or_else(|_| "unknown".into());
        said.lines().next().unwrap_or_default().trim().to_owned()
    };
    let commit = said(Command::new("git").current_dir(paths::root()).args(["describe", "--always", "--dirty"]));
    let own = format!("{}, tree {commit}", said(Command::new(coracle).arg("--version")));
    let theirs = programs.iter().map(|(name, path)| {
        let version = debian::version(path).unwrap_or_else(|| said(Command::new(path).arg("--version")));
        if version.contains(name) { version } else { format!("{name} {version}") }
    });
    std::iter::once(own).chain(theirs).collect()
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
