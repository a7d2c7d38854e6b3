//! in the making
use anyhow::Result;
use std::{ffi::OsString, path::Path, process::ExitCode};
pub fn run(_nodes: usize, _bare: bool, _coracle: &Path, _command: &[OsString]) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
pub fn run_init() -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
