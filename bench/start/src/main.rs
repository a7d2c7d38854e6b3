//! One round of `cargo xtask bench start`, told inside a lab whose only node is booted and runs nothing yet.
//!
//! Data flow: `round` starts Coracle with `lab-node`, drives it through `https` as any client would, and writes the
//! figures of the round as one JSON object into a file. Moments are taken when the bytes of an event arrive: no
//! program is started between the question and the answer, and nothing is asked twice where an event can be awaited.
//! `resolver` is the same program run on the node, because service addresses exist only there.
//!
//! It judges nothing: medians, aims and what to make of them belong to the reader.

mod https;
mod idle;
mod lab;
mod resolver;
mod round;
mod workload;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "One round of `cargo xtask bench start`, inside a lab")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Measure once and write the figures
    Round(RoundArguments),
    /// Ask the cluster's DNS until it answers, then print the moment
    Resolve,
}

#[derive(Args)]
struct RoundArguments {
    /// Where the figures go
    #[arg(long)]
    out: std::path::PathBuf,
    /// Pods that are created and deleted one after the other
    #[arg(long)]
    pods: usize,
    /// Replicas of the deployment
    #[arg(long)]
    replicas: usize,
    /// Length of the idle measurement; none when zero
    #[arg(long, default_value_t = 0)]
    idle_s: u64,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().part {
        Part::Round(arguments) => round::run(&arguments),
        Part::Resolve => resolver::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-start: {error:#}");
            ExitCode::FAILURE
        }
    }
}
