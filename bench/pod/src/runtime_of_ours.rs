//! Our runtime on a CRI socket, as a program of its own, so that the same client can measure it and containerd.
//!
//! Its sandboxes are in the node's network: what the pod network does for a pod is no part of a container's life.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use base::{Clock, Tasks};
use cri::{Error, PodAddresses, PodNetwork, SandboxNetwork};
use runtime::image::unpack::UnpackLimits;
use runtime::image::{Mirror, Registries};
use runtime::{Options, Runtime};
use tokio_util::sync::CancellationToken;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    socket: PathBuf,
    /// Where images come from, host and port
    #[arg(long)]
    mirror: String,
}

/// Serves until it is killed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    executor.block_on(async {
        let tasks = Tasks::root();
        let mirror = Mirror { host: arguments.mirror.clone(), plain_http: true };
        let options = Options {
            root: arguments.root.clone(),
            registries: Registries { mirrors: [("*".into(), vec![mirror])].into(), ..Registries::default() },
            layer_limits: UnpackLimits::default(),
            hierarchies: None,
            network: Arc::new(NoNetwork),
            clock: Clock::system(),
            tasks: tasks.clone(),
        };
        let runtime = Runtime::open(options).await.context("opening our runtime")?;
        cri::serve(Arc::new(runtime), &arguments.socket, CancellationToken::new()).await?;
        bail!("nobody may end this but by a signal")
    })
}

/// No pod network.
struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn join(&self, sandbox: &SandboxNetwork) -> Result<PodAddresses, Error> {
        Err(Error::unavailable(format!("{} wants a network, and there is none", sandbox.name)))
    }

    async fn leave(&self, _sandbox: &SandboxNetwork) -> Result<(), Error> {
        Ok(())
    }
}
