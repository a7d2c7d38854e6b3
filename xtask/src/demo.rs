//! `cargo xtask demo`: a cluster at work, from a fresh clone to a rollout that is undone, in one command.
//!
//! It installs what the build needs, starts a lab, and runs `demo.sh` in it: an ordinary shell script with ordinary
//! `kubectl`, so that every line on the screen can be typed by whoever watches.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::lab::{self, LabArguments};
use crate::test;

const SCRIPT: &str = include_str!("demo.sh");

#[derive(Args)]
pub struct DemoArguments {
    /// Leave the cluster running afterwards, and say how to look around
    #[arg(long)]
    keep: bool,
    /// How many nodes
    #[arg(long, default_value_t = 1, value_name = "N")]
    nodes: usize,
}

pub fn run(arguments: &DemoArguments) -> Result<ExitCode> {
    test::install_missing()?;
    // the shell of a kept lab puts in which lab it is
    let kept = if arguments.keep { "${CORACLE_LAB##*/}" } else { "" };
    let script = format!("set -- {kept}\n{SCRIPT}");
    let command = ["sh", "-c", &script, "demo"].map(Into::into).to_vec();
    lab::run(&LabArguments::running(command, arguments.nodes).kept(arguments.keep))
}
