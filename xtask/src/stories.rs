//! in the making
use anyhow::Result;
use std::process::ExitCode;
#[derive(clap::Args)]
pub struct StoriesArguments {}
pub fn run(_arguments: &StoriesArguments) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
