//! `image`: the node's images, by hand. Works with and without a running cluster: both look at the same folder.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use base::{Clock, Tasks};
use cri::{PodAddresses, PodNetwork, SandboxNetwork};
use runtime::Runtime;

use crate::arguments::{ImageArguments, ImageCommand};
use crate::instance;

/// Of an error about a file that may hold anything.
const SHOWN_LETTERS_MAX: usize = 200;
/// As much of an image's id as people need.
const SHOWN_ID_LENGTH: usize = 12;

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
    // importing may come before the first `up`
    if !dir.exists() && !matches!(arguments.command, ImageCommand::Import { .. }) {
        anyhow::bail!("there is no Coracle in {}: `coracle up` makes it, or give its --data-dir", dir.display());
    }
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("images are root's: run it with sudo");
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
                let imported = runtime.import(path, name.as_deref()).await;
                let imported = imported.map_err(|error| refusal(path, &error.to_string()))?;
                imported.iter().for_each(|record| println!("{}", record.id));
            }
            ImageCommand::Ls => {
                println!("{:<60} {:<15} {:>10}", "IMAGE", "ID", "SIZE");
                for record in runtime.images().list() {
                    let names = if record.tags.is_empty() { &record.digests } else { &record.tags };
                    let id = record.id.trim_start_matches("sha256:");
                    let id = id.get(..SHOWN_ID_LENGTH).unwrap_or(id);
                    let size = format!("{:.1} MB", record.size_bytes as f64 / 1e6);
                    names.iter().for_each(|name| println!("{name:<60} {id:<15} {size:>10}"));
                }
            }
            ImageCommand::Rm { name } => {
                let before = names(&runtime);
                runtime.remove(name).await?;
                if names(&runtime) == before {
                    anyhow::bail!("no image is called {name}: `coracle image ls` lists them");
                }
            }
        }
        Ok(())
    })
}

fn names(runtime: &Runtime) -> usize {
    runtime.images().list().iter().map(|record| 1 + record.tags.len() + record.digests.len()).sum()
}

/// Why an archive cannot be imported. What is read from it may be anything, so only what can be shown is.
fn refusal(path: &Path, why: &str) -> anyhow::Error {
    let why: String = why.chars().filter(|letter| !letter.is_control()).take(SHOWN_LETTERS_MAX).collect();
    anyhow::anyhow!(
        "cannot import {}: give an archive as `docker save` writes it, or an OCI layout ({})",
        path.display(),
        why.replace(char::REPLACEMENT_CHARACTER, "")
    )
}
