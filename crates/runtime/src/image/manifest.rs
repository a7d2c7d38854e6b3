//! The JSON of images, Docker's and OCI's alike: only the fields that are used, and lenient about the rest.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ImageError;

/// Media types accepted from a registry.
pub const ACCEPTED: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// The longest manifest or configuration taken, in bytes; registries hold to the same.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most layers an image may have; overlay's own limit is 500.
pub const LAYERS_MAX: usize = 500;

/// Something in the content store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: i64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// What an index entry runs on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub variant: Option<String>,
}

/// An index (several platforms) or a manifest (one image).
#[derive(Debug, Deserialize)]
pub struct Document {
    #[serde(default)]
    pub manifests: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

/// The image configuration.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Configuration {
    #[serde(default)]
    pub config: Option<ProcessDefaults>,
    #[serde(default)]
    pub rootfs: RootFs,
}

/// The layers' uncompressed digests, bottom first.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// What an image says about the process it is for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProcessDefaults {
    /// `user[:group]`.
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// The command's fixed part.
    #[serde(deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// The command's replaceable part.
    #[serde(deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// How it wants to be stopped.
    pub stop_signal: String,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a document, which must not be longer than [`DOCUMENT_BYTES_MAX`].
pub fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, ImageError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(ImageError::Corrupt(format!("{what} of {} bytes is too long", bytes.len())));
    }
    serde_json::from_slice(bytes).map_err(|error| ImageError::Corrupt(format!("{what} cannot be read: {error}")))
}

/// `sha256:` and the digest in hex.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hex part of a well-formed digest. Only that may become part of a path.
pub fn digest_hex(digest: &str) -> Result<&str, ImageError> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    hex.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
        .ok_or_else(|| ImageError::Corrupt(format!("digest {digest:?} is not supported")))
}

/// The chain ids of a stack of layers: each names a layer together with all below it.
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// The entry of an index that runs here.
pub fn choose(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |entry: &&Descriptor| match &entry.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture,
        None => false,
    };
    manifests.iter().find(fits).or_else(|| manifests.iter().find(|entry| entry.platform.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_name_a_layer_with_all_below_it() {
        let ids = [digest(b"a"), digest(b"b")];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(chain[1], digest(format!("{} {}", ids[0], ids[1]).as_bytes()));
    }

    #[test]
    fn only_well_formed_digests_become_paths() {
        assert!(digest_hex(&digest(b"")).is_ok());
        for bad in ["", "sha256:", "sha256:../../etc", "sha512:00", &format!("sha256:{}", "G".repeat(64))] {
            assert!(digest_hex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn configurations_with_nulls_are_read() {
        let text = br#"{"config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,"User":""},"rootfs":{"diff_ids":["x"]}}"#;
        let read: Configuration = parse("config", text).unwrap();
        assert_eq!(read.config.unwrap().cmd, ["sh"]);
    }
}
