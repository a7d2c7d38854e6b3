//! in the making
use anyhow::Result;
use std::process::ExitCode;
#[derive(clap::Args)]
pub struct DemoArguments {}
pub fn run(_arguments: &DemoArguments) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
