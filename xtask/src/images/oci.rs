//! Blobs of images: packing layers, writing configurations and manifests, all by digest.
//!
//! Images are published in the forms that real registries hold (OCI manifest, OCI index with several architectures,
//! Docker schema 2), because a runtime must pull all of them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::recipes::{Compression, Format, Image, Layer};

/// A piece of content in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blob {
    /// `sha256:<hex>`
    pub digest: String,
    pub size: u64,
}

#[derive(Serialize, Deserialize)]
struct LayerRecord {
    blob: Blob,
    diff_id: String,
    gzip: bool,
}

/// An image that is ready to be served.
pub struct Built {
    pub name: &'static str,
    pub repository: &'static str,
    pub tag: &'static str,
    /// What the tag points at.
    pub digest: String,
    /// Manifests and indexes, the tag's own first.
    pub manifests: Vec<Blob>,
    /// Layers and configurations.
    pub blobs: Vec<Blob>,
}

/// Content by digest under one folder.
pub struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    pub fn at(dir: &Path) -> Result<Self> {
        for name in ["blobs", "layers"] {
            fs::create_dir_all(dir.join(name)).context("making the image cache")?;
        }
        Ok(Self { dir: dir.to_path_buf() })
    }

    /// The file that holds the content of `digest`.
    pub fn path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.trim_start_matches("sha256:"))
    }

    pub fn has_layer(&self, key: &str) -> bool {
        self.layer(key).is_ok_and(|record| self.path(&record.blob.digest).exists())
    }

    pub fn store_layer(&self, key: &str, tar: Vec<u8>, compression: Compression) -> Result<()> {
        let diff_id = digest_of(&tar);
        let gzip = compression == Compression::Gzip;
        let packed = if gzip { gzipped(&tar)? } else { tar };
        let record = LayerRecord { blob: self.put(&packed)?, diff_id, gzip };
        write_whole(&self.record_path(key), &serde_json::to_vec(&record)?)
    }

    /// Writes the configuration and manifests of `image` over layers that are already stored.
    pub fn assemble(&self, image: &Image, layers: &[Layer]) -> Result<Built> {
        let records = image.layers.iter().map(|name| {
            let layer = layers.iter().find(|layer| layer.name == *name);
            let layer = layer.with_context(|| format!("{} names an unknown layer {name}", image.name))?;
            self.layer(&layer.key()?)
        });
        let records = records.collect::<Result<Vec<_>>>()?;
        let mut built = Built {
            name: image.name,
            repository: image.repository,
            tag: image.tag,
            digest: String::new(),
            manifests: Vec::new(),
            blobs: records.iter().map(|record| record.blob.clone()).collect(),
        };
        let own = self.manifest(image, &records, architecture(), &mut built)?;
        if image.format == Format::OciIndex {
            let other = if architecture() == "arm64" { "amd64" } else { "arm64" };
            let foreign = self.manifest(image, &records, other, &mut built)?;
            let entry = |blob: &Blob, architecture: &str| {
                json!({"mediaType": OCI_MANIFEST, "digest": blob.digest, "size": blob.size,
                       "platform": {"os": "linux", "architecture": architecture}})
            };
            // the foreign one comes first: taking the first entry must be a mistake that shows
            let manifests = [entry(&foreign, other), entry(&own, architecture())];
            let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
            built.manifests.insert(0, self.put(&serde_json::to_vec(&index)?)?);
        }
        built.digest = built.manifests.first().map(|blob| blob.digest.clone()).unwrap_or_default();
        Ok(built)
    }

    fn manifest(&self, image: &Image, layers: &[LayerRecord], architecture: &str, built: &mut Built) -> Result<Blob> {
        let config = self.put(&serde_json::to_vec(&configuration(image, layers, architecture))?)?;
        let docker = image.format == Format::Docker;
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let kind = if docker {
                    DOCKER_LAYER
                } else if layer.gzip {
                    OCI_LAYER_GZIP
                } else {
                    OCI_LAYER
                };
                json!({"mediaType": kind, "digest": layer.blob.digest, "size": layer.blob.size})
            })
            .collect();
        let (kind, config_kind) = if docker { (DOCKER_MANIFEST, DOCKER_CONFIG) } else { (OCI_MANIFEST, OCI_CONFIG) };
        let config_entry = json!({"mediaType": config_kind, "digest": config.digest, "size": config.size});
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config_entry, "layers": layers});
        let blob = self.put(&serde_json::to_vec(&manifest)?)?;
        built.blobs.push(config);
        built.manifests.push(blob.clone());
        Ok(blob)
    }

    fn layer(&self, key: &str) -> Result<LayerRecord> {
        let path = self.record_path(key);
        let text = fs::read(&path).with_context(|| format!("layer {key} has not been made"))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    }

    fn record_path(&self, key: &str) -> PathBuf {
        self.dir.join("layers").join(format!("{key}.json"))
    }

    fn put(&self, bytes: &[u8]) -> Result<Blob> {
        let digest = digest_of(bytes);
        let path = self.path(&digest);
        if !path.exists() {
            write_whole(&path, bytes)?;
        }
        Ok(Blob { digest, size: bytes.len() as u64 })
    }
}

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// This machine's architecture as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn configuration(image: &Image, layers: &[LayerRecord], architecture: &str) -> Value {
    let start = &image.start;
    let mut config = serde_json::Map::new();
    let mut list = |name: &str, values: &[&str]| {
        if !values.is_empty() {
            config.insert(name.into(), json!(values));
        }
    };
    list("Entrypoint", start.entrypoint);
    list("Cmd", start.cmd);
    list("Env", start.env);
    for (name, value) in [("WorkingDir", start.workdir), ("User", start.user), ("StopSignal", start.stop_signal)] {
        if !value.is_empty() {
            config.insert(name.into(), json!(value));
        }
    }
    if !start.ports.is_empty() {
        let ports: serde_json::Map<_, _> = start.ports.iter().map(|port| ((*port).to_owned(), json!({}))).collect();
        config.insert("ExposedPorts".into(), ports.into());
    }
    // images of the same content are still images of their own: a runtime that knows one by two names may report either
    config.insert(
        "Labels".into(),
        json!({"org.opencontainers.image.title": image.repository, "org.opencontainers.image.version": image.tag}),
    );
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    json!({"created": "1970-01-01T00:00:00Z", "architecture": architecture, "os": "linux", "config": config,
           "rootfs": {"type": "layers", "diff_ids": diff_ids},
           "history": image.layers.iter().map(|name| json!({"created_by": name})).collect::<Vec<_>>()})
}

fn gzipped(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Writes a file so that nobody ever sees half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file has a folder")?;
    let mut file = tempfile::NamedTempFile::new_in(dir).context("making a temporary file")?;
    file.write_all(bytes)?;
    file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::recipes::Start;
    use crate::images::tree::Tree;

    const IMAGE: Image = Image {
        name: "x:1",
        repository: "library/x",
        tag: "1",
        format: Format::OciIndex,
        layers: &["pause"],
        start: Start {
            entrypoint: &["/x"],
            cmd: &[],
            env: &["A=B"],
            workdir: "",
            user: "7",
            stop_signal: "",
            ports: &["80/tcp"],
        },
    };

    fn built(dir: &Path, format: Format) -> (Blobs, Built) {
        let blobs = Blobs::at(dir).unwrap();
        let layers = crate::images::recipes::layers();
        let pause = layers.iter().find(|layer| layer.name == "pause").unwrap();
        let mut tar = Vec::new();
        Tree::default().file("x", 0o755, "program").write_tar(&mut tar).unwrap();
        blobs.store_layer(&pause.key().unwrap(), tar, Compression::Gzip).unwrap();
        let image = Image { format, start: Start { ..IMAGE.start }, ..IMAGE };
        let built = blobs.assemble(&image, &layers).unwrap();
        (blobs, built)
    }

    fn read(blobs: &Blobs, digest: &str) -> Value {
        serde_json::from_slice(&fs::read(blobs.path(digest)).unwrap()).unwrap()
    }

    #[test]
    fn an_index_leads_to_a_manifest_of_this_architecture_whose_layer_unpacks_to_its_diff_id() {
        let dir = tempfile::tempdir().unwrap();
        let (blobs, built) = built(dir.path(), Format::OciIndex);
        let index = read(&blobs, &built.digest);
        let entries = index["manifests"].as_array().unwrap();
        let own = entries.iter().find(|entry| entry["platform"]["architecture"] == architecture()).unwrap();
        let manifest = read(&blobs, own["digest"].as_str().unwrap());
        let config = read(&blobs, manifest["config"]["digest"].as_str().unwrap());
        assert_eq!(config["architecture"], architecture());
        assert_eq!(
            config["config"],
            json!({"Entrypoint": ["/x"], "Env": ["A=B"], "User": "7", "ExposedPorts": {"80/tcp": {}},
                   "Labels": {"org.opencontainers.image.title": "library/x", "org.opencontainers.image.version": "1"}})
        );
        let packed = fs::read(blobs.path(manifest["layers"][0]["digest"].as_str().unwrap())).unwrap();
        let mut unpacked = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut unpacked).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest_of(&unpacked));
        assert_eq!(manifest["layers"][0]["size"], packed.len());
    }

    #[test]
    fn two_versions_of_the_same_content_are_two_images() {
        let dir = tempfile::tempdir().unwrap();
        let (blobs, first) = built(dir.path(), Format::Oci);
        let second = Image { tag: "2", start: Start { ..IMAGE.start }, format: Format::Oci, ..IMAGE };
        let second = blobs.assemble(&second, &crate::images::recipes::layers()).unwrap();
        assert_ne!(first.digest, second.digest);
        assert_eq!(first.blobs[0].digest, second.blobs[0].digest);
    }

    #[test]
    fn every_blob_has_the_digest_it_is_called_by() {
        let dir = tempfile::tempdir().unwrap();
        let (blobs, built) = built(dir.path(), Format::Docker);
        for blob in built.manifests.iter().chain(&built.blobs) {
            let bytes = fs::read(blobs.path(&blob.digest)).unwrap();
            assert_eq!((digest_of(&bytes), bytes.len() as u64), (blob.digest.clone(), blob.size));
        }
        assert_eq!(read(&blobs, &built.digest)["mediaType"], DOCKER_MANIFEST);
    }
}
