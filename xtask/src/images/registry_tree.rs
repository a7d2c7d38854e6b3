//! The folder that Debian's docker-registry keeps its content in, written directly: as if every image had been pushed.
//!
//! Blobs are hard links into the cache where the file system allows, so a lab's registry costs nothing. The registry
//! may take further pushes: it never changes a blob in place.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::oci::{Blob, Blobs, Built};

/// Writes the storage under `dir`; what is there already stays.
pub fn write(dir: &Path, blobs: &Blobs, images: &[Built]) -> Result<()> {
    let root = dir.join("docker/registry/v2");
    for image in images {
        let repository = root.join("repositories").join(image.repository);
        for blob in &image.blobs {
            place(&root, blobs, blob)?;
            link(&repository.join("_layers"), blob)?;
        }
        for manifest in &image.manifests {
            place(&root, blobs, manifest)?;
            link(&repository.join("_manifests/revisions"), manifest)?;
        }
        let tag = repository.join("_manifests/tags").join(image.tag);
        if let Some(head) = image.manifests.first() {
            write_link(&tag.join("current/link"), &head.digest)?;
            link(&tag.join("index"), head)?;
        }
    }
    Ok(())
}

fn place(root: &Path, blobs: &Blobs, blob: &Blob) -> Result<()> {
    let hex = hex(blob);
    let data = root.join("blobs/sha256").join(&hex[..2]).join(hex).join("data");
    if data.exists() {
        return Ok(());
    }
    let source = blobs.path(&blob.digest);
    fs::create_dir_all(data.parent().context("a blob has a folder")?)?;
    // another file system refuses the link: then it is a copy
    fs::hard_link(&source, &data)
        .or_else(|_| fs::copy(&source, &data).map(drop))
        .with_context(|| format!("placing {} in the registry", source.display()))
}

fn link(dir: &Path, blob: &Blob) -> Result<()> {
    write_link(&dir.join("sha256").join(hex(blob)).join("link"), &blob.digest)
}

fn write_link(path: &Path, digest: &str) -> Result<()> {
    fs::create_dir_all(path.parent().context("a link has a folder")?)?;
    fs::write(path, digest).with_context(|| format!("writing {}", path.display()))
}

fn hex(blob: &Blob) -> &str {
    blob.digest.trim_start_matches("sha256:")
}
