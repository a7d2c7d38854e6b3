//! Images from files: an OCI layout (a folder or a tar of one), or what `docker save` writes.
//!
//! An archive is first spread out: only plain files with plain names, up to the same limits as a layer. Then both forms are a folder.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{
    ImageError,
    manifest::{self, Configuration, Descriptor, Document, digest_hex},
    pull::check_layers,
    reference::Name,
    store::{ImageRecord, Images, NewLayer},
    unpack::{UnpackLimits, unpack},
};

/// Where an index entry carries the image's name.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Images {
    /// Imports every image in `path`. `name` names those that carry none. Blocking.
    pub fn import(self: &Arc<Self>, path: &Path, name: Option<&str>) -> Result<Vec<ImageRecord>, ImageError> {
        let name = name.map(Name::parse).transpose()?;
        if path.is_dir() {
            return self.import_folder(path, name.as_ref());
        }
        let spread = self.layers_folder().join(format!("unpacking-import-{}", base::chance::uuid()));
        let result = fs::create_dir(&spread)
            .map_err(ImageError::disk("make import folder"))
            .and_then(|()| File::open(path).map_err(ImageError::disk(format!("open {}", path.display()))))
            .and_then(|archive| Ok(unpack(archive, &spread, &[], UnpackLimits::default())?))
            .and_then(|_| self.import_folder(&spread, name.as_ref()));
        // Swept at the next start otherwise.
        let _ = fs::remove_dir_all(&spread);
        result
    }

    fn import_folder(self: &Arc<Self>, folder: &Path, name: Option<&Name>) -> Result<Vec<ImageRecord>, ImageError> {
        if folder.join("index.json").exists() {
            return self.import_layout(folder, name);
        }
        if folder.join("manifest.json").exists() {
            return self.import_docker(folder, name);
        }
        Err(ImageError::Corrupt("neither index.json nor manifest.json: not an image archive".into()))
    }

    fn import_layout(self: &Arc<Self>, folder: &Path, name: Option<&Name>) -> Result<Vec<ImageRecord>, ImageError> {
        let index: Document = manifest::parse("index.json", &read_file(folder, Path::new("index.json"))?)?;
        let mut images = Vec::new();
        for entry in index.manifests.unwrap_or_default() {
            let carried = NAME_ANNOTATIONS.iter().find_map(|key| entry.annotations.get(*key));
            // A bare tag is no name; then the caller's is used.
            let carried = carried.filter(|text| text.contains(['/', ':'])).map(|text| Name::parse(text)).transpose()?;
            let name = carried.as_ref().or(name);
            images.push(self.import_entry(folder, &entry, name)?);
        }
        Ok(images)
    }

    fn import_entry(
        self: &Arc<Self>,
        folder: &Path,
        entry: &Descriptor,
        name: Option<&Name>,
    ) -> Result<ImageRecord, ImageError> {
        let mut bytes = read_blob(folder, &entry.digest)?;
        let mut document: Document = manifest::parse("manifest", &bytes)?;
        if let Some(manifests) = &document.manifests {
            let entry = manifest::choose(manifests)
                .ok_or_else(|| ImageError::NotFound(format!("{}: no match for platform in manifest", entry.digest)))?;
            bytes = read_blob(folder, &entry.digest)?;
            document = manifest::parse("manifest", &bytes)?;
        }
        let config = document.config.ok_or_else(|| ImageError::Corrupt("manifest has no configuration".into()))?;
        let config = read_blob(folder, &config.digest)?;
        let files = document.layers.iter().map(|layer| Ok((layer.clone(), blob_path(&layer.digest)?)));
        let files = files.collect::<Result<Vec<_>, ImageError>>()?;
        self.add_imported(folder, &bytes, &entry.digest, &config, files, name.cloned().into_iter().collect())
    }

    fn import_docker(self: &Arc<Self>, folder: &Path, name: Option<&Name>) -> Result<Vec<ImageRecord>, ImageError> {
        let entries: Vec<DockerEntry> =
            manifest::parse("manifest.json", &read_file(folder, Path::new("manifest.json"))?)?;
        let mut images = Vec::new();
        for entry in entries {
            let config = read_file(folder, Path::new(&entry.config))?;
            let configuration: Configuration = manifest::parse("image configuration", &config)?;
            let mut files = Vec::new();
            // These layers are uncompressed, so a layer's content digest is its digest.
            for (path, diff_id) in entry.layers.iter().zip(&configuration.rootfs.diff_ids) {
                files.push((Descriptor { digest: diff_id.clone(), ..Default::default() }, PathBuf::from(path)));
            }
            let tags = entry.repo_tags.unwrap_or_default();
            let mut names = tags.iter().map(|tag| Name::parse(tag)).collect::<Result<Vec<_>, _>>()?;
            if names.is_empty() {
                names.extend(name.cloned());
            }
            let bytes = docker_manifest(&config, &files);
            images.push(self.add_imported(folder, &bytes, &manifest::digest(&bytes), &config, files, names)?);
        }
        Ok(images)
    }

    fn add_imported(
        self: &Arc<Self>,
        folder: &Path,
        manifest_bytes: &[u8],
        top_digest: &str,
        config: &[u8],
        files: Vec<(Descriptor, PathBuf)>,
        names: Vec<Name>,
    ) -> Result<ImageRecord, ImageError> {
        let configuration: Configuration = manifest::parse("image configuration", config)?;
        let layers: Vec<Descriptor> = files.iter().map(|(layer, _)| layer.clone()).collect();
        let chain = check_layers(&layers, &configuration)?;
        let mut size = config.len() as u64;
        let mut held = Vec::new();
        for (index, (layer, path)) in files.iter().enumerate() {
            let file = open_file(folder, path)?;
            size += file.metadata().map_err(ImageError::disk("look at layer"))?.len();
            held.push(self.layer_lock(&chain[index]).blocking_lock_owned());
            if !self.has_layer(&chain[index]) {
                let diff_id = &configuration.rootfs.diff_ids[index];
                let new = NewLayer { chain: &chain[index], below: &chain[..index], diff_id, digest: &layer.digest };
                self.add_layer(&new, file)?;
            }
        }
        let image = ImageRecord {
            id: self.keep_blob(config)?,
            manifest: self.keep_blob(manifest_bytes)?,
            tags: names.iter().filter_map(Name::tagged).collect(),
            digests: names.iter().map(|name| name.at(top_digest)).collect::<BTreeSet<_>>(),
            chain,
            size_bytes: size,
            pinned: false,
        };
        self.add(&image)
    }
}

/// `docker save` leaves the manifest out; this is the one its parts would have.
fn docker_manifest(config: &[u8], files: &[(Descriptor, PathBuf)]) -> Vec<u8> {
    let layers: Vec<_> = files
        .iter()
        .map(|(layer, _)| serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest}))
        .collect();
    let config = serde_json::json!({
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": manifest::digest(config), "size": config.len(),
    });
    serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes()
}

fn blob_path(digest: &str) -> Result<PathBuf, ImageError> {
    Ok(Path::new("blobs/sha256").join(digest_hex(digest)?))
}

fn read_blob(folder: &Path, digest: &str) -> Result<Vec<u8>, ImageError> {
    let bytes = read_file(folder, &blob_path(digest)?)?;
    if manifest::digest(&bytes) != digest {
        return Err(ImageError::Corrupt(format!("content does not match its digest {digest}")));
    }
    Ok(bytes)
}

/// Opens a file of the archive: a plain one, named without tricks, inside the folder whatever links it holds.
fn open_file(folder: &Path, path: &Path) -> Result<File, ImageError> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(ImageError::Corrupt(format!("{} is not a path inside the archive", path.display())));
    }
    let at = |error: rustix::io::Errno| ImageError::disk(format!("open {}", path.display()))(error.into());
    let root = rustix::fs::openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(at)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    let file = File::from(file.map_err(at)?);
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        _ => Err(ImageError::Corrupt(format!("{} is not a file", path.display()))),
    }
}

fn read_file(folder: &Path, path: &Path) -> Result<Vec<u8>, ImageError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let limit = manifest::DOCUMENT_BYTES_MAX as u64 + 1;
    open_file(folder, path)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(ImageError::disk(format!("read {}", path.display())))?;
    Ok(bytes)
}
