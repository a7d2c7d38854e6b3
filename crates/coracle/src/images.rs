//! `image`: the node's images, by hand. Works with and without a running cluster: both look at the same folder.

use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use base::{Clock, Tasks};
use cri::{PodAddresses, PodNetwork, SandboxNetwork};
use runtime::Runtime;

use crate::arguments::{ImageArguments, ImageCommand};
use crate::instance;

/// Images need no network; a sandbox would.
struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn join(&self, _: &SandboxNetwork) -> Result<PodAddresses, cri::Error> {
        Err(cri::Error::unknown("no pods are started by this command"))
    }

    async fn leave(&self, _: &SandboxNetwork) -> Result<(), cri::Error> {
        Err(cri::Error::unknown("no pods are stopped by this command"))
    }
}

pub fn image(arguments: &ImageArguments) -> Result<()> {
    let dir = std::path::absolute(&arguments.data.data_dir)?;
    if let Some(process) = instance::running(&dir)? {
        anyhow::bail!("Coracle (process {process}) has the images open; stop it with `coracle down` first");
    }
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    threads.block_on(async {
        let options = runtime::Options {
            root: dir.join("runtime"),
            registries: runtime::image::Registries::default(),
            layer_limits: runtime::image::unpack::UnpackLimits::default(),
            hierarchies: None,
            network: Arc::new(NoNetwork),
            clock: Clock::system(),
            tasks: Tasks::root(),
        };
        let runtime = Runtime::open(options).await.context("cannot open the image store")?;
        match &arguments.command {
            ImageCommand::Import { path, name } => {
                for record in runtime.import(path, name.as_deref()).await? {
                    println!("{}", record.id);
                }
            }
            ImageCommand::Ls => {
                for record in runtime.images().list() {
                    println!("{:?}", record);
                }
            }
            ImageCommand::Rm { name } => runtime.remove(name).await?,
        }
        Ok(())
    })
}
