//! `status`: whether Coracle runs here, and where to go on.

use anyhow::{Result, bail};

use crate::arguments::DataArguments;
use crate::instance;
use crate::settings::admin_kubeconfig;

pub fn status(arguments: &DataArguments) -> Result<()> {
    let dir = std::path::absolute(&arguments.data_dir)?;
    match instance::running(&dir)? {
        Some(process) => {
            println!("Coracle runs (process {process}) on {}.", dir.display());
            println!("  export KUBECONFIG={}", admin_kubeconfig(&dir).display());
            Ok(())
        }
        None => bail!("Coracle does not run on {}; start it with `coracle up`", dir.display()),
    }
}
