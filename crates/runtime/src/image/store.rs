//! What images and layers there are on this node.
//!
//! `images.json` is the truth, replaced as a whole and durably. Layer folders and blobs that it does not name are left-overs of an
//! interrupted pull and are swept at start; a layer that a container still stands on is kept even when its image is removed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    ImageError,
    manifest::{self, Configuration, ProcessDefaults, digest_hex},
    reference::Name,
    unpack::{UnpackLimits, unpack},
};
use crate::disk;

/// An image on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The configuration's digest: what CRI calls the image's id.
    pub id: String,
    /// The manifest's digest.
    pub manifest: String,
    /// Names with tags, in full.
    pub tags: BTreeSet<String>,
    /// Names with digests, in full.
    pub digests: BTreeSet<String>,
    /// Chain ids, bottom first.
    pub chain: Vec<String>,
    /// Compressed, with configuration, in bytes.
    pub size_bytes: u64,
    /// Never to be collected.
    #[serde(default)]
    pub pinned: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LayerRecord {
    folder: String,
    bytes: u64,
    entries: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Index {
    images: BTreeMap<String, ImageRecord>,
    layers: BTreeMap<String, LayerRecord>,
    next_layer: u64,
}

/// The images of a node.
pub struct Images {
    root: PathBuf,
    limits: UnpackLimits,
    index: Mutex<Index>,
    /// Held while a layer is unpacked, so that two pulls do not both do it.
    unpacking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Opens or makes the store under `root`; `in_use` are the layer folders that containers stand on.
    pub fn open(root: &Path, limits: UnpackLimits, in_use: &BTreeSet<String>) -> Result<Self, ImageError> {
        for folder in ["blobs/sha256", "layers"] {
            fs::create_dir_all(root.join(folder)).map_err(ImageError::disk("make image folders"))?;
        }
        disk::private(&root.join("layers")).map_err(ImageError::disk("protect layers"))?;
        let index = disk::read_json(&root.join("images.json")).map_err(ImageError::disk("read images.json"))?;
        let images = Images {
            root: root.to_owned(),
            limits,
            index: Mutex::new(index.unwrap_or_default()),
            unpacking: Mutex::default(),
        };
        images.sweep(in_use)?;
        Ok(images)
    }

    /// Where layers are; [`Images::layers`] are names in it.
    pub fn layers_folder(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The image of an id (also its hex, or the start of that) or a name.
    pub fn find(&self, text: &str) -> Option<ImageRecord> {
        let index = self.index.lock();
        let bare = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = bare.len() >= ID_LETTERS_MIN && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id {
            let wanted = format!("sha256:{bare}");
            let mut found = index.images.values().filter(|image| image.id.starts_with(&wanted));
            if let (Some(image), None) = (found.next(), found.next()) {
                return Some(image.clone());
            }
        }
        let name = Name::parse(text).ok()?;
        let named = |image: &&ImageRecord| match name.digest() {
            Some(digest) => image.digests.contains(&name.at(digest)),
            None => name.tagged().is_some_and(|tagged| image.tags.contains(&tagged)),
        };
        index.images.values().find(named).cloned()
    }

    /// All images.
    pub fn list(&self) -> Vec<ImageRecord> {
        self.index.lock().images.values().cloned().collect()
    }

    /// What the image says about its process.
    pub fn defaults(&self, image: &ImageRecord) -> Result<ProcessDefaults, ImageError> {
        let bytes = self.blob(&image.id)?;
        Ok(manifest::parse::<Configuration>("image configuration", &bytes)?.config.unwrap_or_default())
    }

    /// The folders of the image's layers, top first.
    pub fn layers(&self, image: &ImageRecord) -> Result<Vec<String>, ImageError> {
        let index = self.index.lock();
        let folder = |chain: &String| index.layers.get(chain).map(|layer| layer.folder.clone());
        let folders: Option<Vec<String>> = image.chain.iter().rev().map(folder).collect();
        folders.ok_or_else(|| ImageError::Corrupt(format!("image {} lacks a layer", image.id)))
    }

    /// Bytes and files of all layers, unpacked.
    pub fn usage(&self) -> (u64, u64) {
        let index = self.index.lock();
        let sum = |of: fn(&LayerRecord) -> u64| index.layers.values().map(of).sum();
        (sum(|layer| layer.bytes), sum(|layer| layer.entries))
    }

    /// Forgets the image under all its names, and lets go of layers that no image and nothing in `in_use` needs. Fine when there
    /// is no such image.
    pub fn remove(&self, text: &str, in_use: &BTreeSet<String>) -> Result<(), ImageError> {
        let Some(image) = self.find(text) else { return Ok(()) };
        self.change(|index| {
            index.images.remove(&image.id);
        })?;
        self.sweep(in_use)
    }

    /// Adds an image whose layers and blobs are there. Names move to it from other images.
    pub(super) fn add(&self, image: &ImageRecord) -> Result<ImageRecord, ImageError> {
        let mut added = image.clone();
        self.change(|index| {
            for other in index.images.values_mut().filter(|other| other.id != image.id) {
                other.tags.retain(|tag| !image.tags.contains(tag));
            }
            if let Some(known) = index.images.get(&image.id) {
                added.tags.extend(known.tags.iter().cloned());
                added.digests.extend(known.digests.iter().cloned());
                added.pinned |= known.pinned;
            }
            index.images.insert(image.id.clone(), added.clone());
        })?;
        Ok(added)
    }

    /// Changes the index in memory and on disk, or neither.
    fn change(&self, change: impl FnOnce(&mut Index)) -> Result<(), ImageError> {
        let mut index = self.index.lock();
        let mut changed = index.clone();
        change(&mut changed);
        disk::write_json(&self.root.join("images.json"), &changed).map_err(ImageError::disk("write images.json"))?;
        *index = changed;
        Ok(())
    }

    /// A small blob that is here.
    pub(super) fn blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let path = self.blob_path(digest)?;
        fs::read(path).map_err(ImageError::disk(format!("read {digest}")))
    }

    /// Keeps a small blob.
    pub(super) fn keep_blob(&self, bytes: &[u8]) -> Result<String, ImageError> {
        let digest = manifest::digest(bytes);
        disk::write(&self.blob_path(&digest)?, bytes).map_err(ImageError::disk(format!("write {digest}")))?;
        Ok(digest)
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf, ImageError> {
        Ok(self.root.join("blobs/sha256").join(digest_hex(digest)?))
    }

    /// Whether the layer is unpacked.
    pub(super) fn has_layer(&self, chain: &str) -> bool {
        self.index.lock().layers.contains_key(chain)
    }

    /// To be held while a layer is fetched and unpacked.
    pub(super) fn layer_lock(&self, chain: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut unpacking = self.unpacking.lock();
        unpacking.retain(|_, lock| Arc::strong_count(lock) > 1);
        unpacking.entry(chain.to_owned()).or_default().clone()
    }

    /// Unpacks a layer from its possibly compressed stream and checks both digests. `below` are the chain ids below it, bottom
    /// first. Blocking; nothing is kept on failure.
    pub(super) fn add_layer(&self, layer: &NewLayer<'_>, stream: impl Read) -> Result<(), ImageError> {
        let folder = {
            let mut index = self.index.lock();
            index.next_layer += 1;
            index.next_layer.to_string()
        };
        let staging = self.layers_folder().join(format!("{STAGING}{folder}"));
        let result = self.fill_layer(layer, stream, &staging);
        let unpacked = match result {
            Ok(unpacked) => unpacked,
            Err(error) => {
                // What cannot be removed now is swept at the next start.
                let _ = fs::remove_dir_all(&staging);
                return Err(error);
            }
        };
        fs::rename(&staging, self.layers_folder().join(&folder)).map_err(ImageError::disk("move layer into place"))?;
        let record = LayerRecord { folder, bytes: unpacked.bytes, entries: unpacked.entries };
        self.change(|index| {
            index.layers.insert(layer.chain.to_owned(), record);
        })
    }

    fn fill_layer(
        &self,
        layer: &NewLayer<'_>,
        stream: impl Read,
        staging: &Path,
    ) -> Result<super::unpack::Unpacked, ImageError> {
        fs::create_dir(staging).map_err(ImageError::disk("make layer folder"))?;
        disk::set_mode(staging, 0o755).map_err(ImageError::disk("make layer folder"))?;
        let below = {
            let index = self.index.lock();
            let known = layer.below.iter().rev().filter_map(|chain| index.layers.get(chain));
            known.map(|record| self.layers_folder().join(&record.folder)).collect::<Vec<_>>()
        };
        let mut compressed = Hashing::new(stream);
        let mut content = Hashing::new(decompress(&mut compressed).map_err(ImageError::disk("read layer"))?);
        let unpacked = unpack(&mut content, staging, &below, self.limits)?;
        // What follows an archive's end belongs to its digest; it is padding, so a little is plenty.
        let rest = io::copy(&mut (&mut content).take(TRAILER_BYTES_MAX), &mut io::sink());
        rest.map_err(ImageError::disk("read layer"))?;
        let content = content.finish();
        if content != layer.diff_id {
            return Err(ImageError::Corrupt(format!("layer's content is {content}, not {}", layer.diff_id)));
        }
        io::copy(&mut (&mut compressed).take(TRAILER_BYTES_MAX), &mut io::sink())
            .map_err(ImageError::disk("read layer"))?;
        let received = compressed.finish();
        if received != layer.digest {
            return Err(ImageError::Corrupt(format!("layer is {received}, not {}", layer.digest)));
        }
        disk::sync_file_system(staging).map_err(ImageError::disk("sync layer"))?;
        Ok(unpacked)
    }

    /// Removes layers and blobs that nothing needs.
    fn sweep(&self, in_use: &BTreeSet<String>) -> Result<(), ImageError> {
        let index = self.index.lock().clone();
        let chains: BTreeSet<&String> = index.images.values().flat_map(|image| &image.chain).collect();
        let busy = self.unpacking.lock().values().any(|lock| Arc::strong_count(lock) > 1);
        let unused =
            |(chain, layer): &(&String, &LayerRecord)| !chains.contains(chain) && !in_use.contains(&layer.folder);
        let unused: Vec<String> = index.layers.iter().filter(unused).map(|(chain, _)| chain.clone()).collect();
        if busy {
            // A pull under way may count on any of them; the next removal or start sweeps.
            return Ok(());
        }
        if !unused.is_empty() {
            self.change(|index| unused.iter().for_each(|chain| drop(index.layers.remove(chain))))?;
        }
        let index = self.index.lock().clone();
        let folders: BTreeSet<&str> = index.layers.values().map(|layer| layer.folder.as_str()).collect();
        let blobs: BTreeSet<&str> = index
            .images
            .values()
            .flat_map(|image| [&image.id, &image.manifest])
            .filter_map(|digest| digest_hex(digest).ok())
            .collect();
        disk::remove_all_but(&self.layers_folder(), |name| folders.contains(name) || in_use.contains(name))
            .and_then(|()| disk::remove_all_but(&self.root.join("blobs/sha256"), |name| blobs.contains(name)))
            .map_err(ImageError::disk("sweep images"))
    }
}

/// A layer to be added.
pub(super) struct NewLayer<'a> {
    /// Its chain id.
    pub chain: &'a str,
    /// Those below, bottom first.
    pub below: &'a [String],
    /// The digest of its uncompressed content.
    pub diff_id: &'a str,
    /// The digest of its stream.
    pub digest: &'a str,
}

/// An image id is not abbreviated to fewer letters.
const ID_LETTERS_MIN: usize = 12;

/// How layers that are being unpacked are named.
const STAGING: &str = "unpacking-";

/// What may follow an archive's end, in bytes.
const TRAILER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A reader that knows the digest of what has passed.
struct Hashing<R> {
    reader: R,
    hash: Sha256,
}

impl<R> Hashing<R> {
    fn new(reader: R) -> Self {
        Hashing { reader, hash: Sha256::new() }
    }

    fn finish(self) -> String {
        format!("sha256:{}", manifest::hex(&self.hash.finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// Undoes whatever compression the first bytes show; media types are not always true.
fn decompress<'a>(mut stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(4);
    (&mut stream).take(4).read_to_end(&mut start)?;
    let kind = start.clone();
    let whole = io::Cursor::new(start).chain(stream);
    Ok(match kind.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}
