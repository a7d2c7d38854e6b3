//! The command line that every benchmark's program has: `describe` and `round`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::{Round, Side, Subject};

#[derive(Parser)]
#[command(about = "A benchmark; `cargo xtask bench` runs it")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

/// What a benchmark's program can be asked for. A program with parts of its own has this as one of them
/// (`#[command(flatten)]`) and hands it to [`run_part`].
#[derive(Subcommand)]
pub enum Part {
    /// Print what is measured, as JSON
    Describe,
    /// Measure one side once
    Round(RoundArguments),
}

#[derive(Args, Clone)]
pub struct RoundArguments {
    #[arg(long, value_enum)]
    pub side: Side,
    /// The round's number, from 1
    #[arg(long, default_value_t = 1)]
    pub number: u32,
    /// Where the figures go
    #[arg(long)]
    out: PathBuf,
    /// An empty folder for data and logs, which becomes the working folder
    #[arg(long)]
    scratch: PathBuf,
    /// Measure only figures whose names begin with one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The program of ours
    #[arg(long)]
    coracle: Option<PathBuf>,
    /// Other programs, as NAME=PATH
    #[arg(long = "program", value_parser = named)]
    programs: Vec<(String, PathBuf)>,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    text.split_once('=').map(|(name, path)| (name.into(), path.into())).ok_or_else(|| "expected NAME=PATH".into())
}

impl RoundArguments {
    /// Whether `--only` leaves room for figures whose names begin with `group`.
    pub fn wants(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| group.starts_with(wanted) || wanted.starts_with(group))
    }

    /// The program of ours.
    pub fn coracle(&self) -> Result<&Path> {
        self.coracle.as_deref().context("--coracle is missing")
    }

    /// One of the programs that the row in xtask's table asks for.
    pub fn program(&self, name: &str) -> Result<&Path> {
        let found = self.programs.iter().find(|(known, _)| known == name);
        found.map(|(_, path)| path.as_path()).with_context(|| format!("--program {name}=PATH is missing"))
    }

    /// An empty folder for data and logs, on the disk of the clone's target folder; xtask removes it.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }
}

/// A whole benchmark program.
pub fn main(subject: fn() -> Subject, round: impl FnOnce(&RoundArguments) -> Result<Round>) -> ExitCode {
    ended(run_part(&Arguments::parse().part, subject, round))
}

/// One of the parts that all programs share.
pub fn run_part(
    part: &Part,
    subject: fn() -> Subject,
    round: impl FnOnce(&RoundArguments) -> Result<Round>,
) -> Result<()> {
    match part {
        Part::Describe => println!("{}", serde_json::to_string(&subject())?),
        Part::Round(asked) => {
            std::env::set_current_dir(&asked.scratch).context("entering the folder for data and logs")?;
            let measured = round(asked)?;
            check(&subject(), asked, &measured)?;
            measured.write(&asked.out)?;
        }
    }
    Ok(())
}

/// Says what went wrong, if anything.
pub fn ended(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A round has what was declared and nothing else.
fn check(subject: &Subject, asked: &RoundArguments, round: &Round) -> Result<()> {
    let declared: BTreeMap<&str, bool> =
        subject.figures.iter().map(|figure| (figure.name.as_str(), figure.alone)).collect();
    for name in round.figures.keys() {
        ensure!(declared.contains_key(name.as_str()), "{name} was measured and is not declared");
    }
    for (name, alone) in declared {
        let due = asked.only.is_empty() && (asked.side == Side::Ours || !alone);
        let value = round.figures.get(name);
        ensure!(!due || value.is_some(), "{name} was not measured");
        ensure!(value.is_none_or(|value| value.is_finite()), "{name} is {value:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Figure;

    fn asked(side: &str, only: &str) -> RoundArguments {
        let mut words = vec!["bench", "round", "--side", side, "--out", "x", "--scratch", "y"];
        if !only.is_empty() {
            words.extend(["--only", only]);
        }
        match Arguments::parse_from(words).part {
            Part::Round(asked) => asked,
            Part::Describe => unreachable!("a round was asked for"),
        }
    }

    #[test]
    fn a_round_that_lacks_a_figure_is_an_error_unless_it_was_not_asked_for() {
        let figures = [Figure::higher("puts", "", "1/s"), Figure::higher("inside", "", "1/s").alone()];
        let subject = Subject::new("a", "", "").figures(figures);
        let mut round = Round::default();
        assert!(check(&subject, &asked("peer", ""), &round).is_err());
        assert!(check(&subject, &asked("peer", "inside"), &round).is_ok());
        round.put("puts", 1.0);
        assert!(check(&subject, &asked("peer", ""), &round).is_ok(), "inside is measured on our side only");
        assert!(check(&subject, &asked("ours", ""), &round).is_err(), "and there it is due");
        round.put("inside", f64::NAN);
        assert!(check(&subject, &asked("ours", ""), &round).is_err(), "not a number is no measurement");
        round.put("inside", 1.0);
        assert!(check(&subject, &asked("ours", ""), &round).is_ok());
        round.put("other", 1.0);
        assert!(check(&subject, &asked("ours", ""), &round).is_err(), "it is not declared");
    }

    #[test]
    fn only_selects_by_the_beginning_of_a_name() {
        assert!(asked("ours", "").wants("puts"));
        assert!(asked("ours", "puts").wants("puts_1"));
        assert!(asked("ours", "puts_1").wants("puts"), "a group is entered for one of its figures");
        assert!(!asked("ours", "range,watch").wants("puts"));
    }
}
