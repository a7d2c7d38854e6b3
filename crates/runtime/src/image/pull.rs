//! Pulling an image from a registry: endpoints in turn, platform, layers as they stream, bounded retries.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base::{Backoff, BackoffPolicy, Clock};
use cri::v1::AuthConfig;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{
    ImageError,
    manifest::{self, Configuration, Descriptor, Document},
    reference::Name,
    registry::{Endpoint, Registries},
    store::{ImageRecord, Images, NewLayer},
};

/// How often a layer is tried.
const ATTEMPTS_MAX: u32 = 3;

/// The waits between tries.
const BACKOFF: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(500), Duration::from_secs(4));

/// Indexes may point to indexes, but not for ever.
const INDEX_DEPTH_MAX: usize = 3;

/// How a pull is coming along. Steps that nobody takes in time are skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is known what has to be fetched.
    Resolved {
        /// Layers that are not here yet.
        layers: usize,
        /// Their size, compressed.
        bytes: u64,
    },
    /// Bytes received since the last such step.
    Received(u64),
    /// A layer is unpacked.
    LayerDone,
}

/// Someone who wants to know, or nobody.
pub type ProgressSender = Option<mpsc::Sender<Progress>>;

fn report(progress: &ProgressSender, step: Progress) {
    if let Some(sender) = progress {
        // Progress is for people to look at; one who is slow misses steps.
        let _ = sender.try_send(step);
    }
}

impl Images {
    /// Pulls `text` and returns the image.
    pub async fn pull(
        self: &Arc<Self>,
        registries: &Registries,
        text: &str,
        auth: Option<&AuthConfig>,
        clock: &Clock,
        progress: ProgressSender,
    ) -> Result<ImageRecord, ImageError> {
        let name = Name::parse(text)?;
        let mut failures = Vec::new();
        for endpoint in registries.endpoints(&name, auth)? {
            match self.pull_from(&endpoint, &name, clock, &progress).await {
                Ok(image) => return Ok(image),
                // A mirror that lacks it or is down is passed over; what it said may be all there is to know.
                Err(error) => failures.push(error),
            }
        }
        Err(together(failures).unwrap_or_else(|| ImageError::NotFound(name.full())))
    }

    async fn pull_from(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        name: &Name,
        clock: &Clock,
        progress: &ProgressSender,
    ) -> Result<ImageRecord, ImageError> {
        let (top_digest, manifest_bytes, document) = resolve(endpoint, name).await?;
        let config = document.config.ok_or_else(|| ImageError::Corrupt("manifest has no configuration".into()))?;
        let config_bytes = small_blob(endpoint, &config).await?;
        let configuration: Configuration = manifest::parse("image configuration", &config_bytes)?;
        let chain = check_layers(&document.layers, &configuration)?;
        let missing: Vec<usize> = (0..chain.len()).filter(|index| !self.has_layer(&chain[*index])).collect();
        let bytes = missing.iter().map(|index| document.layers[*index].size.max(0) as u64).sum();
        report(progress, Progress::Resolved { layers: missing.len(), bytes });
        // Held to the end, so that a removal meanwhile does not sweep what is about to be named.
        let mut held = Vec::new();
        for (index, layer) in document.layers.iter().enumerate() {
            let lock = self.layer_lock(&chain[index]);
            held.push(lock.lock_owned().await);
            if !self.has_layer(&chain[index]) {
                self.fetch_layer(endpoint, layer, &configuration.rootfs.diff_ids, &chain, index, clock, progress)
                    .await?;
            }
        }
        let manifest_digest = self.keep_blob(&manifest_bytes)?;
        let id = self.keep_blob(&config_bytes)?;
        let size: i64 = document.layers.iter().map(|layer| layer.size.max(0)).sum();
        self.add(&ImageRecord {
            id,
            manifest: manifest_digest,
            tags: name.tagged().filter(|_| name.digest().is_none()).into_iter().collect(),
            digests: BTreeSet::from([name.at(&top_digest)]),
            chain,
            size_bytes: size as u64 + config_bytes.len() as u64,
            pinned: false,
        })
    }

    #[allow(clippy::too_many_arguments)]
    async fn fetch_layer(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        layer: &Descriptor,
        diff_ids: &[String],
        chain: &[String],
        index: usize,
        clock: &Clock,
        progress: &ProgressSender,
    ) -> Result<(), ImageError> {
        let mut backoff = Backoff::new(BACKOFF);
        loop {
            let stream = endpoint.blob(layer).await?;
            let counted = stream.inspect({
                let progress = progress.clone();
                move |chunk| {
                    if let Ok(chunk) = chunk {
                        report(&progress, Progress::Received(chunk.len() as u64));
                    }
                }
            });
            let reader = SyncIoBridge::new(StreamReader::new(counted));
            let (images, digest) = (self.clone(), layer.digest.clone());
            let (diff_id, chain_id, below) = (diff_ids[index].clone(), chain[index].clone(), chain[..index].to_vec());
            let unpacked = tokio::task::spawn_blocking(move || {
                let layer = NewLayer { chain: &chain_id, below: &below, diff_id: &diff_id, digest: &digest };
                images.add_layer(&layer, reader)
            });
            let result = unpacked.await.unwrap_or_else(|_| Err(ImageError::Corrupt("unpacking panicked".into())));
            match result {
                Ok(()) => {
                    report(progress, Progress::LayerDone);
                    return Ok(());
                }
                // A broken connection shows as a failed read; what is wrong in itself does not get better.
                Err(error @ (ImageError::Unpack(super::unpack::UnpackError::Io { .. }) | ImageError::Disk { .. })) => {
                    let wait = backoff.next(clock.instant());
                    if backoff.failures() >= ATTEMPTS_MAX {
                        return Err(error);
                    }
                    clock.sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Follows indexes down to the manifest for this machine: the digest of what the name means, and the manifest.
/// One error for all endpoints: the registry's own, with what its mirrors said before it.
fn together(mut failures: Vec<ImageError>) -> Option<ImageError> {
    let last = failures.pop()?;
    if failures.is_empty() {
        return Some(last);
    }
    let mirrors: Vec<String> = failures.iter().map(|error| format!("a mirror said: {}", error.words())).collect();
    Some(match last {
        ImageError::Registry { reference, words } => {
            ImageError::Registry { reference, words: format!("{words} ({})", mirrors.join("; ")) }
        }
        other => other,
    })
}

async fn resolve(endpoint: &Endpoint, name: &Name) -> Result<(String, Vec<u8>, Document), ImageError> {
    let mut bytes = endpoint.document(None).await?;
    let top = manifest::digest(&bytes);
    for _ in 0..INDEX_DEPTH_MAX {
        let document: Document = manifest::parse("manifest", &bytes)?;
        let Some(manifests) = &document.manifests else { return Ok((top, bytes, document)) };
        let entry = manifest::choose(manifests)
            .ok_or_else(|| ImageError::NotFound(format!("{}: no match for platform in manifest", name.full())))?;
        manifest::digest_hex(&entry.digest)?;
        bytes = endpoint.document(Some(&entry.digest)).await?;
    }
    Err(ImageError::Corrupt(format!("{}: indexes are nested too deep", name.full())))
}

async fn small_blob(endpoint: &Endpoint, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    manifest::digest_hex(&descriptor.digest)?;
    let mut stream = endpoint.blob(descriptor).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(ImageError::disk("receive image configuration"))?);
        if bytes.len() > manifest::DOCUMENT_BYTES_MAX {
            return Err(ImageError::Corrupt("image configuration is too long".into()));
        }
    }
    if manifest::digest(&bytes) != descriptor.digest {
        return Err(ImageError::Corrupt(format!(
            "image configuration does not match its digest {}",
            descriptor.digest
        )));
    }
    Ok(bytes)
}

/// The chain ids, after a look at whether manifest and configuration agree.
pub(super) fn check_layers(layers: &[Descriptor], configuration: &Configuration) -> Result<Vec<String>, ImageError> {
    let diff_ids = &configuration.rootfs.diff_ids;
    if layers.is_empty() || layers.len() != diff_ids.len() || layers.len() > manifest::LAYERS_MAX {
        let (layers, contents) = (layers.len(), diff_ids.len());
        return Err(ImageError::Corrupt(format!("image has {layers} layers and {contents} contents")));
    }
    for digest in layers.iter().map(|layer| &layer.digest).chain(diff_ids) {
        manifest::digest_hex(digest)?;
    }
    Ok(manifest::chain_ids(diff_ids))
}
