//! An image made of the host's static busybox, as an OCI layout.

use std::{collections::BTreeMap, fs, path::Path};

use sha2::{Digest, Sha256};

/// The programs that the image has, as links to busybox.
const PROGRAMS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "id", "ls", "mount", "touch", "hostname", "kill", "ps", "true", "false", "dd", "nc",
    "stty", "tail", "test", "env", "mknod", "wc", "head", "unshare", "grep", "mkdir", "rm", "stat", "ln", "trap",
    "sync", "tty", "pwd",
];

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A tar of files: (path, mode, content), links: (path, target).
pub fn layer(folders: &[(&str, u32)], files: &[(&str, u32, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    for (path, mode) in folders {
        builder.append_data(&mut header(tar::EntryType::Directory, *mode, 0), path, std::io::empty()).unwrap();
    }
    for (path, mode, content) in files {
        builder.append_data(&mut header(tar::EntryType::Regular, *mode, content.len() as u64), path, *content).unwrap();
    }
    for (path, target) in links {
        builder.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The blobs of an image, by digest, and its manifest's digest.
pub struct Blobs {
    pub by_digest: BTreeMap<String, Vec<u8>>,
    pub manifest: String,
}

/// An image of these layers: the first as it is, the second gzip, the third zstd.
pub fn image(layers: &[Vec<u8>], config: &serde_json::Value) -> Blobs {
    let mut by_digest = BTreeMap::new();
    let mut keep = |bytes: Vec<u8>| {
        let name = digest(&bytes);
        let size = bytes.len();
        by_digest.insert(name.clone(), bytes);
        serde_json::json!({"mediaType": "application/octet-stream", "digest": name, "size": size})
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let layers: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            keep(match index {
                0 => layer.clone(),
                1 => gzip(layer),
                _ => zstd::encode_all(layer.as_slice(), 1).unwrap(),
            })
        })
        .collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = keep(config.to_string().into_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
    });
    let manifest = keep(manifest.to_string().into_bytes())["digest"].as_str().unwrap().to_owned();
    Blobs { by_digest, manifest }
}

/// Busybox in three layers, with a user of its own and something whited out.
pub fn busybox() -> Blobs {
    let program = fs::read("/bin/busybox").unwrap();
    let names: Vec<String> = PROGRAMS.iter().map(|name| format!("bin/{name}")).collect();
    let links: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "busybox")).collect();
    let folders = [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("old", 0o755), ("proc", 0o555), ("root", 0o700)];
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/tmp:/bin/sh\n";
    let group = b"root:x:0:\nweb:x:1001:\nextra:x:50000:web\n";
    let base = layer(
        &folders,
        &[("bin/busybox", 0o755, &program), ("old/gone", 0o644, b"x"), ("old/kept", 0o644, b"kept")],
        &links,
    );
    let middle =
        layer(&[], &[("etc/passwd", 0o644, passwd), ("etc/group", 0o644, group), ("old/.wh.gone", 0o644, b"")], &[]);
    let top = layer(&[], &[("etc/notes", 0o644, b"top\n"), ("bin/plain", 0o644, b"not a program")], &[]);
    let config = serde_json::json!({"Env": ["PATH=/bin", "FROM=image"], "Cmd": ["sh"], "WorkingDir": "/tmp"});
    image(&[base, middle, top], &config)
}

/// Writes the blobs as an OCI layout under a name.
pub fn layout(blobs: &Blobs, folder: &Path, name: &str) {
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    for (digest, bytes) in &blobs.by_digest {
        fs::write(folder.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), bytes).unwrap();
    }
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": blobs.manifest, "size": 1,
        "annotations": {"org.opencontainers.image.ref.name": name},
    }]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
}
