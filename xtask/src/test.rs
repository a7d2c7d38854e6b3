//! `cargo xtask test`: everything the build server runs, cheap things first, on a machine that nobody prepared.
//!
//! Data flow: `needs` installs what is missing (or says what to install), then each step runs as a program of its own
//! whose output passes through and is read for test results. A step fails, the others still run; the last line is the
//! sum over all.

mod needs;
mod tally;

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::{paths, upstream};
pub use needs::{install_for_upstream, install_missing};
use tally::Tally;

#[derive(Args)]
pub struct TestArguments {
    /// Only steps whose names contain one of these
    steps: Vec<String>,
    /// Print the steps and stop
    #[arg(long)]
    list: bool,
}

struct Step {
    name: &'static str,
    program: Program,
    arguments: &'static [&'static str],
    /// Namespaces need root; without it the step is skipped, and said to be.
    needs_root: bool,
}

#[derive(Clone, Copy)]
enum Program {
    Cargo,
    Xtask,
}

const fn cargo(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, program: Program::Cargo, arguments, needs_root: false }
}

const fn xtask(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, program: Program::Xtask, arguments, needs_root: false }
}

const fn in_lab(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, program: Program::Xtask, arguments, needs_root: true }
}

const STEPS: &[Step] = &[
    cargo("formatting", &["fmt", "--all", "--check"]),
    xtask("tidy", &["tidy"]),
    cargo("licences and bans", &["deny", "check", "--hide-inclusion-graph"]),
    cargo("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-Dwarnings"]),
    xtask("generated tables", &["gen", "--check"]),
    xtask("test images", &["images"]),
    xtask("upstream's kubectl", &["upstream", "kubectl"]),
    cargo("unit and integration tests", &["test", "--workspace", "--no-fail-fast"]),
    cargo("the binary", &["build", "--package", "coracle"]),
    in_lab("stories that hold", &["stories", "--ledger"]),
    in_lab("conformance, a slice", &["conformance", "--quick"]),
    in_lab("every kubectl", &["stories", "--every-kubectl", "s01", "s03"]),
    in_lab("containerd", &["stories", "--runtime", "containerd", "s01", "s03", "s05", "c01"]),
    in_lab("cgroup v2 alone", &["stories", "--vm", "s01", "s02"]),
    in_lab("power cuts", &["pull-plug"]),
    in_lab("a public client", &["stories", "--public-client"]),
];

pub fn run(arguments: &TestArguments) -> Result<ExitCode> {
    let wanted = |step: &&Step| {
        arguments.steps.is_empty() || arguments.steps.iter().any(|name| step.name.contains(name.as_str()))
    };
    let steps: Vec<&Step> = STEPS.iter().filter(wanted).collect();
    if arguments.list {
        steps.iter().for_each(|step| println!("{:<28} {}", step.name, shown(step)));
        return Ok(ExitCode::SUCCESS);
    }
    install_missing()?;
    let begun = Instant::now();
    let mut sum = Tally::default();
    let mut lines = Vec::new();
    for step in steps {
        println!("\n==== {}: {}", step.name, shown(step));
        let step_begun = Instant::now();
        let tally = run_step(step)?;
        lines.push(format!("{:<28} {:>8.1} s   {tally}", step.name, step_begun.elapsed().as_secs_f64()));
        sum.add(&tally);
    }
    println!("\n==== what ran, in {:.0} s", begun.elapsed().as_secs_f64());
    lines.iter().for_each(|line| println!("{line}"));
    println!("{sum}");
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown(step: &Step) -> String {
    let program = match step.program {
        Program::Cargo => "cargo",
        Program::Xtask => "cargo xtask",
    };
    format!("{program} {}", step.arguments.join(" "))
}

fn run_step(step: &Step) -> Result<Tally> {
    if step.needs_root && !nix::unistd::geteuid().is_root() {
        println!("skipped: a lab needs root");
        return Ok(Tally::skipped_one());
    }
    if step.arguments.first() == Some(&"deny") && paths::find_program("cargo-deny").is_none() {
        println!("skipped: cargo-deny is not installed");
        return Ok(Tally::skipped_one());
    }
    if step.arguments.contains(&"containerd") && !upstream::can_offer("containerd") {
        println!("skipped: Go is not installed, which containerd is built with");
        return Ok(Tally::skipped_one());
    }
    let mut command = match step.program {
        Program::Cargo => Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
        Program::Xtask => Command::new(paths::own_program()?),
    };
    command.current_dir(paths::root()).args(step.arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(step)))?;
    let stdout = child.stdout.take().context("a step has output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("reading a step's output")?;
        println!("{line}");
        tally.read(&line);
    }
    let succeeded = child.wait().context("waiting for a step")?.success();
    Ok(tally.concluded(succeeded))
}
