//! `cargo xtask pull-plug`: power cuts. A machine writes to its store in bursts; its emulator is killed; after reboot,
//! every write that was acknowledged outside the machine must be there.
//!
//! A killed process keeps its page cache, so only this shows that the store waits for the disk. The disk is written
//! through by the emulator. What writes and what checks is the program of `tests/plug`, which knows the store; this file
//! only knows machines and lines: `ack <writer> <count>` outside is a promise, `found <writer> <count>` after the
//! reboot is what became of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::lab::{self, Machine};
use crate::progress::step;
use crate::{images, stories};

#[derive(Args)]
pub struct PullPlugArguments {
    /// How many power cuts
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

/// Acknowledged writes before the first cut; each round waits for a different number.
const ACKS_MIN: usize = 20;
const ACKS_STEP: usize = 37;
const ACKS_SPREAD: usize = 300;

pub fn run(arguments: &PullPlugArguments) -> Result<ExitCode> {
    images::build(images::Set::Stories)?;
    let program = stories::build("plug")?;
    let dir = tempfile::tempdir().context("making a folder for the disk")?;
    let disk = dir.path().join("disk");
    let mut promised = Promises::default();
    for round in 0..=arguments.rounds {
        let acks = ACKS_MIN + (round * ACKS_STEP) % ACKS_SPREAD;
        step(&format!("power cut {round} after {acks} acknowledged writes"), || {
            cut(&program, &disk, acks, &mut promised)
        })?;
    }
    let kept: u64 = promised.counts.values().sum();
    println!("{} power cuts, {kept} acknowledged writes, none lost", arguments.rounds);
    println!("test result: ok. {} passed; 0 failed; 0 ignored", arguments.rounds);
    Ok(ExitCode::SUCCESS)
}

/// Boots, lets the machine check what was promised, listens to its burst, and pulls the plug.
fn cut(program: &Path, disk: &Path, acks: usize, promised: &mut Promises) -> Result<()> {
    let folder = Path::new(lab::DISK_MOUNT).join("plug");
    let mut machine = Machine::start(vec![program.into(), folder.into()], Some(disk), Stdio::piped())?;
    let console = machine.console().context("a machine has a console")?;
    let mut heard = 0;
    let mut said = Vec::new();
    let mut lines = BufReader::new(console).lines();
    while let Some(line) = lines.next().transpose().context("reading the console")? {
        heard += usize::from(promised.hear(&line)?);
        if heard == acks {
            // what was on its way when the power went was acknowledged too
            machine.pull_the_plug()?;
            for line in lines.map_while(Result::ok) {
                promised.hear(&line)?;
            }
            return Ok(());
        }
        said.push(line);
    }
    bail!("the machine ended by itself:\n{}", said.join("\n"));
}

#[derive(Default)]
struct Promises {
    /// The last count that each writer was told is durable.
    counts: BTreeMap<u64, u64>,
}

impl Promises {
    /// Takes in a line; whether it was an acknowledgement. An error when something promised was not found.
    fn hear(&mut self, line: &str) -> Result<bool> {
        let words: Vec<&str> = line.split_whitespace().collect();
        // the end marks a whole line: the last one may be cut short
        let [word, writer, count, "end"] = words[..] else { return Ok(false) };
        let (Ok(writer), Ok(count)) = (writer.parse::<u64>(), count.parse::<u64>()) else { return Ok(false) };
        let promised = self.counts.get(&writer).copied().unwrap_or(0);
        match word {
            "ack" => {
                self.counts.insert(writer, count);
                Ok(true)
            }
            "found" if count < promised => bail!("writer {writer} was promised {promised} and found {count}"),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_is_not_kept_is_an_error() {
        let mut promised = Promises::default();
        assert!(promised.hear("ack 3 17 end").unwrap());
        assert!(!promised.hear("found 3 17 end").unwrap());
        assert!(!promised.hear("found 3 18 end").unwrap(), "a write may be durable before its answer got out");
        assert!(promised.hear("found 3 16 end").is_err());
    }

    #[test]
    fn a_line_that_was_cut_short_promises_nothing() {
        let mut promised = Promises::default();
        assert!(!promised.hear("ack 3 1").unwrap());
        assert!(promised.counts.is_empty());
    }
}
