//! `cargo xtask images`: the container images that tests pull, made from Debian packages and never by a container
//! engine.
//!
//! Data flow: `recipes` (what is in each image) -> `crate::apt` (packages and sources, fetched into our own cache) -> `tree`
//! (files of a layer, in memory) -> `oci` (layers, configuration, manifests) -> `registry_tree` (the folder that Debian's
//! docker-registry serves as it is, so that nothing needs pushing). Layers are cached by what they are made from,
//! outside the clone.
//!
//! A tag here is only a name: Debian's versions of the programs are inside, and no test asserts them. Nothing is
//! installed on this machine, and root is not needed.

mod compile;
mod hostile;
mod oci;
mod recipes;
mod registry_tree;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::paths;
use crate::progress::step;

pub use compile::BUSYBOX_PROGRAM;
pub use oci::Built;

#[derive(Args)]
pub struct ImagesArguments {
    /// Also write a folder that docker-registry can serve
    #[arg(long, value_name = "DIR")]
    registry_dir: Option<PathBuf>,
}

pub fn run(arguments: &ImagesArguments) -> Result<ExitCode> {
    let built = build_all()?;
    for image in &built {
        println!("{:<28} {}", image.name, image.digest);
    }
    if let Some(dir) = &arguments.registry_dir {
        fill_registry(dir, &built)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes what the cache lacks and returns every image of the table.
pub fn build_all() -> Result<Vec<Built>> {
    let cache = paths::cache().join("images");
    let layers = recipes::layers();
    let blobs = oci::Blobs::at(&cache)?;
    for layer in layers.iter().filter(|layer| !blobs.has_layer(&layer.key())) {
        step(&format!("making image layer {}", layer.name), || {
            let tar = layer.make(&cache)?;
            blobs.store_layer(&layer.key(), tar, layer.compression)
        })?;
    }
    recipes::images().iter().map(|image| blobs.assemble(image, &layers)).collect()
}

/// Lays the images out as the storage folder of a docker-registry that has had them pushed.
pub fn fill_registry(dir: &Path, built: &[Built]) -> Result<()> {
    registry_tree::write(dir, &oci::Blobs::at(&paths::cache().join("images"))?, built)
}
