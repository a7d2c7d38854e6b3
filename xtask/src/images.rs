//! `cargo xtask images`: the container images that tests pull, made from Debian packages and upstream's pinned programs
//! and never by a container engine.
//!
//! Data flow: `recipes` and `suite` (what is in each image) -> `crate::apt` (packages and sources, fetched into our own cache) -> `tree`
//! (files of a layer, in memory) -> `oci` (layers, configuration, manifests) -> `registry_tree` (the folder that Debian's
//! docker-registry serves as it is, so that nothing needs pushing). Layers are cached by what they are made from,
//! outside the clone.
//!
//! A tag here is only a name: Debian's versions of the programs are inside, and no test asserts them. Nothing is
//! installed on this machine, and root is not needed. Where Go is missing, the images that need it are left out and a
//! line says so; those of the stories never need it.

mod compile;
mod hostile;
mod not_made;
mod oci;
mod recipes;
mod registry_tree;
mod suite;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::paths;
use crate::progress::step;

pub use compile::BUSYBOX_PROGRAM;
pub use oci::Built;
use recipes::{Image, Layer, Make};

/// Whom images are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// What the stories and the demo pull
    Stories,
    /// That, and what upstream's conformance suite pulls
    Suite,
}

impl fmt::Display for Set {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Stories => "stories",
            Self::Suite => "suite",
        })
    }
}

#[derive(Args)]
pub struct ImagesArguments {
    /// Also write a folder that docker-registry can serve
    #[arg(long, value_name = "DIR")]
    registry_dir: Option<PathBuf>,
    /// Which images
    #[arg(long, value_enum, default_value_t = Set::Suite)]
    set: Set,
}

pub fn run(arguments: &ImagesArguments) -> Result<ExitCode> {
    let built = build(arguments.set)?;
    for image in &built {
        println!("{:<56} {}", image.name, image.digest);
    }
    if arguments.set == Set::Suite {
        for (name, reason) in not_made::not_made() {
            println!("{name:<56} not made: {reason}");
        }
    }
    if let Some(dir) = &arguments.registry_dir {
        fill_registry(dir, &built)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes what the cache lacks and returns every image of the set, but those that need Go where there is none.
pub fn build(set: Set) -> Result<Vec<Built>> {
    let cache = paths::cache().join("images");
    let layers = recipes::layers();
    let blobs = oci::Blobs::at(&cache)?;
    let mut missing = Vec::new();
    for layer in &layers {
        if !blobs.has_layer(&layer.key()?) {
            missing.push(layer.name);
        }
    }
    let mut images = recipes::images();
    if set == Set::Suite {
        images.extend(suite::images());
    }
    if paths::find_program("go").is_none() {
        leave_out_what_needs_go(&mut images, &layers, &missing);
    }
    missing.retain(|name| images.iter().any(|image| image.layers.contains(name)));
    for layer in layers.iter().filter(|layer| missing.contains(&layer.name)) {
        step(&format!("making image layer {}", layer.name), || {
            let tar = layer.make(&cache)?;
            blobs.store_layer(&layer.key()?, tar, layer.compression)
        })?;
    }
    images.iter().map(|image| blobs.assemble(image, &layers)).collect()
}

/// Drops the images whose layers are not there yet and cannot be made without Go, and says so.
fn leave_out_what_needs_go(images: &mut Vec<Image>, layers: &[Layer], missing: &[&str]) {
    let needs_go = |name: &str| {
        let layer = layers.iter().find(|layer| layer.name == name);
        missing.contains(&name) && layer.is_some_and(|layer| matches!(layer.make, Make::WithGo(_)))
    };
    let (left_out, made) =
        std::mem::take(images).into_iter().partition::<Vec<_>, _>(|image| image.layers.iter().copied().any(needs_go));
    *images = made;
    if !left_out.is_empty() {
        let names: Vec<&str> = left_out.iter().map(|image| image.name).collect();
        eprintln!("  skipped: images {}, because Go 1.26 is not installed", names.join(", "));
    }
}

/// Lays the images out as the storage folder of a docker-registry that has had them pushed.
pub fn fill_registry(dir: &Path, built: &[Built]) -> Result<()> {
    registry_tree::write(dir, &oci::Blobs::at(&paths::cache().join("images"))?, built)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(images: &[Image]) -> Vec<&str> {
        images.iter().map(|image| image.name).collect()
    }

    #[test]
    fn without_go_the_stories_images_stay_and_what_the_cache_has_stays() {
        let layers = recipes::layers();
        let all: Vec<&str> = layers.iter().map(|layer| layer.name).collect();
        let mut stories = recipes::images();
        leave_out_what_needs_go(&mut stories, &layers, &all);
        assert_eq!(names(&stories), names(&recipes::images()));

        let mut suite = suite::images();
        leave_out_what_needs_go(&mut suite, &layers, &all);
        let short = |image: &Image| image.repository.trim_start_matches("e2e-test-images/").to_owned();
        assert_eq!(suite.iter().map(short).collect::<Vec<_>>(), ["busybox", "nginx", "pause", "nonewprivs"]);

        let mut cached = suite::images();
        leave_out_what_needs_go(&mut cached, &layers, &["debian", "etcd"]);
        assert!(names(&cached).iter().any(|name| name.contains("agnhost")));
        assert!(!names(&cached).iter().any(|name| name.contains("etcd")));
    }

    #[test]
    fn a_set_reads_as_it_is_asked_for() {
        for set in [Set::Stories, Set::Suite] {
            assert_eq!(Set::from_str(&set.to_string(), false), Ok(set));
        }
    }
}
