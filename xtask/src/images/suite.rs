//! The images that upstream's conformance suite pulls; `not_made` has the others of its list.
//!
//! Tags are the ones that the pinned release asks for; inside are Debian's programs, programs built from the pinned Go
//! modules, and files of the pinned source, read where Go keeps it. All images share the layers of `recipes` where they
//! can: agnhost, kitten, nautilus, nginx and the DNS image stand on one Debian layer. Where specs look at what is inside
//! an image (users, links, files at `/`), the recipe says so. Nothing here is known to the product.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::oci::{Blob, Blobs, Built};
use super::recipes::{Compression, Format, Image, Layer, Make, PATH, Recipe, Start, accounts};
use super::tree::Tree;
use super::{compile, recipes};
use crate::apt::Apt;
use crate::upstream;

/// Part of the key of every layer here.
const TEXT: &str = concat!(include_str!("suite.rs"), include_str!("recipes.rs"), include_str!("oci.rs"));

const AGNHOST_PORTS: &[&str] = &["80/tcp", "8080/tcp", "8081/tcp", "9376/tcp", "5000/tcp"];

#[rustfmt::skip]
pub fn layers() -> Vec<Layer> {
    let layer = |name, make, programs| {
        Layer { name, compression: Compression::Gzip, make, recipe: Recipe { text: TEXT, programs } }
    };
    vec![
        layer("network-tools", Make::Files(network_tools), &[]),
        layer("nonewprivs", Make::Files(nonewprivs), &[]),
        layer("agnhost", Make::WithGo(agnhost), &["agnhost"]),
        layer("kitten", Make::WithGo(kitten), &["agnhost"]),
        layer("nautilus", Make::WithGo(nautilus), &["agnhost"]),
        layer("coredns", Make::WithGo(|_cache| program_at("coredns", "coredns")), &["coredns"]),
        layer("etcd", Make::WithGo(|_cache| program_at("etcd", "usr/local/bin/etcd")), &["etcd"]),
        layer("sample-apiserver", Make::WithGo(|_cache| program_at("sample-apiserver", "sample-apiserver")), &["sample-apiserver"]),
    ]
}

pub fn images() -> Vec<Image> {
    let base = || Start { env: &[PATH], ..Start::default() };
    vec![
        agnhost_image("registry.k8s.io/e2e-test-images/agnhost:2.66.1", "2.66.1"),
        agnhost_image("registry.k8s.io/e2e-test-images/agnhost:2.55", "2.55"),
        Image {
            name: "registry.k8s.io/e2e-test-images/busybox:1.37.0-2",
            repository: "e2e-test-images/busybox",
            tag: "1.37.0-2",
            format: Format::OciIndex,
            layers: &["busybox"],
            start: Start { cmd: &["sh"], ..base() },
        },
        Image {
            name: "registry.k8s.io/e2e-test-images/nginx:1.27.0-2",
            repository: "e2e-test-images/nginx",
            tag: "1.27.0-2",
            format: Format::Docker,
            layers: &["debian", "nginx"],
            start: recipes::nginx_start(),
        },
        Image {
            name: "registry.k8s.io/pause:3.10.2",
            repository: "pause",
            tag: "3.10.2",
            format: Format::OciIndex,
            layers: &["pause"],
            start: recipes::pause_start(),
        },
        Image {
            name: "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.1.1",
            repository: "e2e-test-images/glibc-dns-testing",
            tag: "2.1.1",
            format: Format::Oci,
            layers: &["debian", "network-tools", "coredns"],
            start: Start { cmd: &["bash"], ..base() },
        },
        Image {
            name: "registry.k8s.io/etcd:3.7.0-0",
            repository: "etcd",
            tag: "3.7.0-0",
            format: Format::Oci,
            layers: &["etcd"],
            start: Start { cmd: &["/usr/local/bin/etcd"], ..base() },
        },
        Image {
            name: "registry.k8s.io/e2e-test-images/sample-apiserver:1.29.2",
            repository: "e2e-test-images/sample-apiserver",
            tag: "1.29.2",
            format: Format::Docker,
            layers: &["sample-apiserver"],
            start: Start { entrypoint: &["/sample-apiserver"], ..base() },
        },
        picture_image(
            "registry.k8s.io/e2e-test-images/kitten:1.8",
            "e2e-test-images/kitten",
            &["debian", "network-tools", "coredns", "agnhost", "kitten"],
        ),
        picture_image(
            "registry.k8s.io/e2e-test-images/nautilus:1.8",
            "e2e-test-images/nautilus",
            &["debian", "network-tools", "coredns", "agnhost", "nautilus"],
        ),
        Image {
            name: "registry.k8s.io/e2e-test-images/nonewprivs:1.4",
            repository: "e2e-test-images/nonewprivs",
            tag: "1.4",
            format: Format::Oci,
            layers: &["busybox", "nonewprivs"],
            start: Start { cmd: &["nnp"], ..base() },
        },
    ]
}

fn agnhost_image(name: &'static str, tag: &'static str) -> Image {
    Image {
        name,
        repository: "e2e-test-images/agnhost",
        tag,
        format: Format::OciIndex,
        layers: &["debian", "network-tools", "coredns", "agnhost"],
        start: Start {
            entrypoint: &["/agnhost"],
            cmd: &["pause"],
            env: &[PATH],
            ports: AGNHOST_PORTS,
            ..Start::default()
        },
    }
}

/// agnhost that serves a picture.
fn picture_image(name: &'static str, repository: &'static str, layers: &'static [&'static str]) -> Image {
    Image {
        name,
        repository,
        tag: "1.8",
        format: Format::Docker,
        layers,
        start: Start {
            entrypoint: &["/agnhost"],
            cmd: &["test-webserver"],
            env: &[PATH],
            ports: AGNHOST_PORTS,
            ..Start::default()
        },
    }
}

/// What specs call inside their pods, and the libraries that the Debian layer lacks for it.
#[rustfmt::skip]
const NETWORK_TOOLS: [&str; 54] = [
    "bind9-dnsutils", "bind9-host", "bind9-libs", "curl", "iperf", "iproute2", "netcat-openbsd", "socat", "wget",
    "libbpf1", "libbrotli1", "libbsd0", "libcap2-bin", "libcom-err2", "libcurl4", "libdb5.3", "libedit2", "libelf1", "libffi8",
    "libfstrm0", "libgnutls30", "libgssapi-krb5-2", "libhogweed6", "libicu72", "libidn2-0", "libjemalloc2", "libjson-c5",
    "libk5crypto3", "libkeyutils1", "libkrb5-3", "libkrb5support0", "libldap-2.5-0", "liblmdb0", "libmaxminddb0", "libmd0",
    "libmnl0", "libnettle8", "libnghttp2-14", "libnsl2", "libp11-kit0", "libprotobuf-c1", "libpsl5", "librtmp1", "libsasl2-2",
    "libssh2-1", "libtasn1-6", "libtirpc-common", "libtirpc3", "libunistring2", "libuuid1", "libuv1", "libwrap0", "libxml2",
    "libxtables12",
];

fn network_tools(cache: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    for package in Apt::at(cache)?.packages(&NETWORK_TOOLS)? {
        tree.add_package(&package)?;
    }
    // what installing the packages would have linked
    tree.symlink("usr/bin/nc", "nc.openbsd").symlink("usr/local/bin/iperf", "/usr/bin/iperf");
    Ok(tree)
}

/// A program that says whose rights it runs with, owned by root and with the set-user-ID bit.
fn nonewprivs(_cache: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("usr/local/bin/nnp", 0o4755, compile::effective_uid()?);
    Ok(tree)
}

fn program_at(name: &str, path: &str) -> Result<Tree> {
    let program = fs::read(upstream::program(name)?).with_context(|| format!("reading {name}"))?;
    let mut tree = Tree::default();
    tree.file(path, 0o755, program);
    Ok(tree)
}

/// The account that the image defines: specs look for its extra group.
const AGNHOST_PASSWD: &str = "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n";
const AGNHOST_GROUP: &str = "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n";
/// What the registry inside the image serves.
const SERVED_TAG: &str = "testing";

fn agnhost(cache: &Path) -> Result<Tree> {
    let mut tree = program_at("agnhost", "agnhost")?;
    tree.symlink("agnhost-2", "agnhost").dir("uploads", 0o755);
    accounts(cache, &mut tree, AGNHOST_PASSWD, AGNHOST_GROUP)?;
    tree.dir("home/user-defined-in-image", 0o755).owned_by("home/user-defined-in-image", 1000, 1000);
    for name in ["localhost.crt", "localhost.key"] {
        tree.file(name, 0o644, source_file(&format!("test/images/agnhost/porter/{name}"))?);
    }
    let pause = recipes::pause(cache)?;
    add_served_image(&mut tree, &pause)?;
    Ok(tree)
}

/// A file of Kubernetes' pinned source.
fn source_file(path: &str) -> Result<Vec<u8>> {
    let file = upstream::kubernetes_source()?.join(path);
    fs::read(&file).with_context(|| format!("reading {}", file.display()))
}

/// Adds `pause:testing` as agnhost's registry finds it: `/var/registry/pause` with a file per tag that holds a digest,
/// and manifests and blobs by digest.
fn add_served_image(tree: &mut Tree, files: &Tree) -> Result<()> {
    let scratch = tempfile::tempdir().context("making a folder to pack in")?;
    let blobs = Blobs::at(scratch.path())?;
    let mut tar = Vec::new();
    files.write_tar(&mut tar)?;
    let all = recipes::layers();
    let pause = all.iter().find(|layer| layer.name == "pause").context("there is no layer for pause")?;
    blobs.store_layer(&pause.key()?, tar, Compression::Gzip)?;
    let image = Image {
        name: "pause:testing",
        repository: "pause",
        tag: SERVED_TAG,
        format: Format::OciIndex,
        layers: &["pause"],
        start: recipes::pause_start(),
    };
    let Built { digest, manifests, blobs: contents, .. } = blobs.assemble(&image, &all)?;
    tree.file(&format!("var/registry/pause/manifests/{SERVED_TAG}"), 0o644, format!("{digest}\n"));
    for (folder, kind) in [("manifests", &manifests), ("blobs", &contents)] {
        for blob in kind {
            let bytes = fs::read(blobs.path(&blob.digest)).context("reading what was packed")?;
            tree.file(&served_at(folder, blob), 0o644, bytes);
        }
    }
    Ok(())
}

fn served_at(folder: &str, blob: &Blob) -> String {
    let hex = blob.digest.trim_start_matches("sha256:");
    format!("var/registry/pause/{folder}/sha256/{}/{hex}/data", hex.get(..2).unwrap_or_default())
}

/// What a spec reads through an image volume.
const KITTEN_OS_RELEASE: &str = "NAME=\"Alpine Linux\"\nID=alpine\nPRETTY_NAME=\"Alpine Linux\"\n";

fn kitten(_cache: &Path) -> Result<Tree> {
    let mut tree = picture("kitten")?;
    tree.file("etc/os-release", 0o644, KITTEN_OS_RELEASE);
    Ok(tree)
}

fn nautilus(_cache: &Path) -> Result<Tree> {
    picture("nautilus")
}

fn picture(name: &str) -> Result<Tree> {
    let mut tree = Tree::default();
    for file in [format!("{name}.jpg"), "data.json".to_owned()] {
        let bytes = source_file(&format!("test/images/{name}/html/{file}"))?;
        tree.file(&file, 0o644, bytes);
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::images::not_made::not_made;

    /// What conformance specs of the pinned release pull, as their list of images names it.
    const ASKED: [&str; 11] = [
        "registry.k8s.io/e2e-test-images/agnhost:2.55",
        "registry.k8s.io/e2e-test-images/agnhost:2.66.1",
        "registry.k8s.io/e2e-test-images/busybox:1.37.0-2",
        "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.1.1",
        "registry.k8s.io/e2e-test-images/kitten:1.8",
        "registry.k8s.io/e2e-test-images/nautilus:1.8",
        "registry.k8s.io/e2e-test-images/nginx:1.27.0-2",
        "registry.k8s.io/e2e-test-images/nonewprivs:1.4",
        "registry.k8s.io/e2e-test-images/sample-apiserver:1.29.2",
        "registry.k8s.io/etcd:3.7.0-0",
        "registry.k8s.io/pause:3.10.2",
    ];

    #[test]
    fn everything_that_conformance_pulls_is_made_and_nothing_else() {
        let mut made: Vec<&str> = images().iter().map(|image| image.name).collect();
        made.sort_unstable();
        assert_eq!(made, ASKED);
        let refused: Vec<_> = not_made().filter(|(name, _)| ASKED.contains(name)).collect();
        assert_eq!(refused, []);
    }

    #[test]
    fn an_image_is_served_under_the_name_that_specs_pull() {
        for image in images() {
            let (_registry, path) = image.name.split_once('/').unwrap();
            assert_eq!(path, format!("{}:{}", image.repository, image.tag));
        }
    }

    #[test]
    fn the_registry_inside_agnhost_leads_from_its_tag_to_every_blob() {
        let mut files = Tree::default();
        files.file("pause", 0o755, "program");
        let mut tree = Tree::default();
        add_served_image(&mut tree, &files).unwrap();
        let content = |folder: &str, digest: &Value| {
            let blob = Blob { digest: digest.as_str().unwrap().to_owned(), size: 0 };
            let bytes = tree.read(&served_at(folder, &blob)).unwrap();
            let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(blob.digest, format!("sha256:{hex}"));
            bytes.to_vec()
        };
        let read = |digest: &Value| -> Value { serde_json::from_slice(&content("manifests", digest)).unwrap() };
        let tag = tree.read("var/registry/pause/manifests/testing").unwrap();
        let index = read(&Value::from(String::from_utf8_lossy(tag).trim()));
        let manifests = index["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), 2);
        for manifest in manifests {
            let manifest = read(&manifest["digest"]);
            content("blobs", &manifest["config"]["digest"]);
            content("blobs", &manifest["layers"][0]["digest"]);
        }
        let mut again = Tree::default();
        add_served_image(&mut again, &files).unwrap();
        let tar = |tree: &Tree| {
            let mut bytes = Vec::new();
            tree.write_tar(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(tar(&tree), tar(&again));
    }
}
