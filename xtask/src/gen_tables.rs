//! `cargo xtask gen`: writes the data of the API tables (fields, kinds, fixtures) from upstream's public types.
//!
//! A Go program under `tests/upstream/gen` knows how to read them; here it is only run, and what it wrote is compared
//! with what is committed. Without Go, the committed files stand and a line says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::progress::step;
use crate::{paths, process};

/// Folders of `crates/api` that the program writes.
const WRITTEN: [&str; 2] = ["data", "testdata"];

#[derive(Args)]
pub struct GenArguments {
    /// Write nothing; fail if something would change
    #[arg(long)]
    check: bool,
}

pub fn run(arguments: &GenArguments) -> Result<ExitCode> {
    let Some(go) = paths::find_program("go") else {
        println!("skipped: generating the API tables, because Go is not installed");
        return Ok(ExitCode::SUCCESS);
    };
    let fresh = tempfile::tempdir().context("making a folder for the tables")?;
    step("generating the API tables", || {
        let mut command = Command::new(go);
        command.current_dir(paths::root().join("tests/upstream"));
        process::quiet(command.args(["run", "-mod=readonly", "./gen"]).arg(fresh.path()))
    })?;
    let committed = paths::root().join("crates/api");
    let stale = differing(fresh.path(), &committed)?;
    for name in &stale {
        if arguments.check {
            eprintln!("crates/api/{} is not what `cargo xtask gen` writes", name.display());
        } else {
            fs::copy(fresh.path().join(name), committed.join(name))
                .with_context(|| format!("writing {}", name.display()))?;
            println!("wrote crates/api/{}", name.display());
        }
    }
    Ok(if arguments.check && !stale.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Files of `fresh` that `committed` lacks or has otherwise.
fn differing(fresh: &Path, committed: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for dir in WRITTEN.iter().filter(|dir| fresh.join(dir).exists()) {
        for entry in fs::read_dir(fresh.join(dir))? {
            let name = Path::new(dir).join(entry?.file_name());
            if fs::read(fresh.join(&name))? != fs::read(committed.join(&name)).unwrap_or_default() {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_and_missing_files_are_told_and_equal_ones_are_not() {
        let (fresh, committed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [fresh.path(), committed.path()] {
            fs::create_dir(root.join("data")).unwrap();
            fs::write(root.join("data/same"), "1").unwrap();
        }
        fs::write(fresh.path().join("data/changed"), "1").unwrap();
        fs::write(committed.path().join("data/changed"), "2").unwrap();
        fs::write(fresh.path().join("data/new"), "1").unwrap();
        let expected = [PathBuf::from("data/changed"), PathBuf::from("data/new")];
        assert_eq!(differing(fresh.path(), committed.path()).unwrap(), expected);
    }
}
