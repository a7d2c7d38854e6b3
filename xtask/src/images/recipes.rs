//! The table of test images: what each layer is made from and how each image is started.
//!
//! One fact in one place: a new image is a row in `images` and, if it needs files of its own, a layer in `layers`. The
//! key of a layer is made from the very file that makes it, and from the recipes of upstream's programs in it, so a
//! changed recipe is remade and nothing stale is ever served. `suite` has the rows of the conformance suite.

use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::compile;
use super::tree::Tree;
use super::{hostile, suite};
use crate::apt::Apt;
use crate::upstream;

/// How a layer's tar is packed; both occur in real registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    None,
}

/// Whose manifest format an image is published in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Oci,
    /// An OCI index that names another architecture too.
    OciIndex,
    Docker,
}

pub struct Layer {
    pub name: &'static str,
    pub compression: Compression,
    pub make: Make,
    pub recipe: Recipe,
}

pub enum Make {
    /// Files, from packages and texts; the folder is the cache.
    Files(fn(&Path) -> Result<Tree>),
    /// Files that need Go: its programs, or the source of its modules.
    WithGo(fn(&Path) -> Result<Tree>),
    /// An archive that no library would write.
    Archive(Vec<u8>),
}

/// What a layer's content follows from: when it changes, the layer is made anew.
pub struct Recipe {
    /// The source that makes it.
    pub text: &'static str,
    /// Programs of `upstream` in it.
    pub programs: &'static [&'static str],
}

impl Layer {
    /// Names the layer's content in the cache.
    pub fn key(&self) -> Result<String> {
        let programs = self.recipe.programs.iter().map(|name| upstream::recipe_of(name));
        Ok(self.key_with(&programs.collect::<Result<Vec<_>>>()?))
    }

    fn key_with(&self, programs: &[String]) -> String {
        let own =
            [self.name, self.recipe.text, include_str!("compile.rs"), include_str!("tree.rs"), compile::PROGRAMS_TEXT];
        let parts = own.into_iter().chain(programs.iter().map(String::as_str));
        let digest = parts.fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update([0])).finalize();
        let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{short}", self.name)
    }

    /// Makes the archive; `cache` holds what was fetched and compiled before.
    pub fn make(&self, cache: &Path) -> Result<Vec<u8>> {
        match &self.make {
            Make::Archive(tar) => Ok(tar.clone()),
            Make::Files(make) | Make::WithGo(make) => {
                let mut tar = Vec::new();
                let tree = make(cache).with_context(|| format!("making image layer {}", self.name))?;
                tree.write_tar(&mut tar).map(|()| tar)
            }
        }
    }
}

#[derive(Default)]
pub struct Start {
    pub entrypoint: &'static [&'static str],
    pub cmd: &'static [&'static str],
    pub env: &'static [&'static str],
    pub workdir: &'static str,
    pub user: &'static str,
    pub stop_signal: &'static str,
    pub ports: &'static [&'static str],
}

pub struct Image {
    /// As a manifest would name it.
    pub name: &'static str,
    /// As the registry knows it.
    pub repository: &'static str,
    pub tag: &'static str,
    pub format: Format,
    pub layers: &'static [&'static str],
    pub start: Start,
}

pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Every layer, of the stories' images and of the suite's.
#[rustfmt::skip]
pub fn layers() -> Vec<Layer> {
    use Compression::{Gzip, None as Plain};
    let files = |name, compression, make, programs| {
        Layer { name, compression, make: Make::Files(make), recipe: Recipe { text: include_str!("recipes.rs"), programs } }
    };
    let mut layers = vec![
        files("busybox", Gzip, busybox, &[]),
        files("debian", Gzip, debian, &[]),
        files("nginx", Gzip, nginx, &[]),
        files("redis", Gzip, redis, &[]),
        files("stress", Plain, stress, &[]),
        files("pause", Gzip, pause, &[]),
        files("kubectl", Gzip, kubectl, &["kubectl"]),
        files("payment-service", Gzip, payment_service, &[]),
    ];
    layers.extend(hostile::layers().into_iter().map(|hostile| Layer {
        name: hostile.name,
        compression: hostile::COMPRESSION,
        make: Make::Archive(hostile.tar),
        recipe: Recipe { text: include_str!("hostile.rs"), programs: &[] },
    }));
    layers.extend(suite::layers());
    layers
}

/// The images of the stories.
pub fn images() -> Vec<Image> {
    vec![
        Image {
            name: "busybox:1.36",
            repository: "library/busybox",
            tag: "1.36",
            format: Format::OciIndex,
            layers: &["busybox"],
            start: Start { cmd: &["sh"], env: &[PATH], ..Start::default() },
        },
        Image {
            name: "nginx:1.27",
            repository: "library/nginx",
            tag: "1.27",
            format: Format::Docker,
            layers: &["debian", "nginx"],
            start: nginx_start(),
        },
        Image {
            name: "redis:7.2",
            repository: "library/redis",
            tag: "7.2",
            format: Format::Oci,
            layers: &["debian", "redis"],
            start: Start {
                cmd: &["redis-server", "--protected-mode", "no"],
                env: &[PATH],
                workdir: "/data",
                user: "redis",
                ports: &["6379/tcp"],
                ..Start::default()
            },
        },
        Image {
            name: "polinux/stress",
            repository: "polinux/stress",
            tag: "latest",
            format: Format::Oci,
            layers: &["debian", "stress"],
            start: Start { cmd: &["stress", "--help"], env: &[PATH], ..Start::default() },
        },
        Image {
            name: "registry.k8s.io/pause:3.10",
            repository: "pause",
            tag: "3.10",
            format: Format::Oci,
            layers: &["pause"],
            start: pause_start(),
        },
        Image {
            name: "kubectl:1.37",
            repository: "library/kubectl",
            tag: "1.37",
            format: Format::Oci,
            layers: &["busybox", "kubectl"],
            start: Start { entrypoint: &["kubectl"], env: &[PATH], ..Start::default() },
        },
        payment("payment-service:1.0", "1.0", &[PATH, "APP_VERSION=1.0"]),
        payment("payment-service:1.1", "1.1", &[PATH, "APP_VERSION=1.1"]),
        hostile::image("hostile/climbing:1", "hostile/climbing", &["busybox", "climbing"]),
        hostile::image("hostile/absolute:1", "hostile/absolute", &["busybox", "absolute"]),
        hostile::image("hostile/through-link:1", "hostile/through-link", &["busybox", "through-link"]),
        hostile::image("hostile/stealing:1", "hostile/stealing", &["busybox", "stealing"]),
        hostile::image("hostile/device:1", "hostile/device", &["busybox", "device"]),
        hostile::image("hostile/bomb:1", "hostile/bomb", &["busybox", "bomb"]),
        hostile::image("hostile/garbage:1", "hostile/garbage", &["busybox", "garbage"]),
    ]
}

pub fn nginx_start() -> Start {
    Start {
        cmd: &["nginx", "-g", "daemon off;"],
        env: &[PATH],
        stop_signal: "SIGQUIT",
        ports: &["80/tcp"],
        ..Start::default()
    }
}

pub fn pause_start() -> Start {
    Start { entrypoint: &["/pause"], env: &[PATH], user: "65535:65535", ..Start::default() }
}

fn payment(name: &'static str, tag: &'static str, env: &'static [&'static str]) -> Image {
    Image {
        name,
        repository: "library/payment-service",
        tag,
        format: Format::Oci,
        layers: &["busybox", "payment-service"],
        start: Start {
            entrypoint: &["/payment-service"],
            env,
            user: "10001",
            ports: &["8080/tcp"],
            ..Start::default()
        },
    }
}

const BUSYBOX_PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
    bin:x:2:2:bin:/bin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\n\
    nobody:x:65534:65534:nobody:/home:/bin/false\n";
const BUSYBOX_GROUP: &str = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nwww-data:x:33:\nusers:x:100:\nnobody:x:65534:\n";

fn busybox(cache: &Path) -> Result<Tree> {
    let program = compile::busybox(cache)?;
    let mut tree = Tree::default();
    for (dir, mode) in [("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("root", 0o700), ("tmp", 0o1777)] {
        tree.dir(dir, mode);
    }
    tree.dir("usr/sbin", 0o755).dir("var/www", 0o755).dir("var/spool/mail", 0o755);
    tree.file("etc/passwd", 0o644, BUSYBOX_PASSWD).file("etc/group", 0o644, BUSYBOX_GROUP);
    tree.file("etc/shadow", 0o640, "root:*:10933:0:99999:7:::\n");
    tree.file("etc/nsswitch.conf", 0o644, "hosts: files dns\n");
    tree.owned_by("home", 65534, 65534).owned_by("var/www", 33, 33);
    tree.file("bin/busybox", 0o755, program.bytes);
    for applet in program.applets.iter().filter(|applet| *applet != "busybox") {
        tree.hardlink(&format!("bin/{applet}"), "bin/busybox");
    }
    tree.symlink("usr/bin/env", "../../bin/env");
    Ok(tree)
}

/// The programs a person expects in a Debian container, and the libraries that the images on top share.
const DEBIAN: [&str; 36] = [
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "hostname",
    "libacl1",
    "libattr1",
    "libc-bin",
    "libc6",
    "libcap2",
    "libcrypt1",
    "libgcc-s1",
    "libgcrypt20",
    "libgmp10",
    "libgpg-error0",
    "liblz4-1",
    "liblzma5",
    "libpcre2-8-0",
    "libproc2-0",
    "libselinux1",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "libtinfo6",
    "libzstd1",
    "mawk",
    "netbase",
    "procps",
    "sed",
    "tzdata",
    "util-linux",
    "libsmartcols1",
    "zlib1g",
];

fn debian(cache: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.merged_usr();
    for package in Apt::at(cache)?.packages(&DEBIAN)? {
        tree.add_package(&package)?;
    }
    for name in ["passwd", "group"] {
        let master = format!("usr/share/base-passwd/{name}.master");
        let content = tree.read(&master).with_context(|| format!("base-passwd has no {master}"))?.to_vec();
        tree.file(&format!("etc/{name}"), 0o644, content);
    }
    tree.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n");
    tree.symlink("usr/bin/sh", "dash")
        .symlink("usr/bin/awk", "mawk")
        .symlink("etc/localtime", "/usr/share/zoneinfo/UTC");
    tree.dir("tmp", 0o1777).dir("var/tmp", 0o1777).dir("root", 0o700);
    Ok(tree)
}

const NGINX_CONF: &str = "user www-data;\nworker_processes auto;\nerror_log /var/log/nginx/error.log notice;\n\
    pid /run/nginx.pid;\nevents { worker_connections 1024; }\nhttp {\n    include /etc/nginx/mime.types;\n    \
    default_type application/octet-stream;\n    access_log /var/log/nginx/access.log;\n    sendfile on;\n    \
    keepalive_timeout 65;\n    include /etc/nginx/conf.d/*.conf;\n}\n";
const NGINX_SITE: &str = "server {\n    listen 80;\n    server_name localhost;\n    root /usr/share/nginx/html;\n    \
    index index.html;\n}\n";

fn nginx(cache: &Path) -> Result<Tree> {
    let mut packages = Tree::default();
    for package in Apt::at(cache)?.packages(&["nginx", "nginx-common"])? {
        packages.add_package(&package)?;
    }
    let mut tree = Tree::default();
    for (path, mode) in [("usr/sbin/nginx", 0o755), ("etc/nginx/mime.types", 0o644)] {
        let bytes = packages.read(path).with_context(|| format!("Debian's nginx has no {path}"))?.to_vec();
        tree.file(path, mode, bytes);
    }
    tree.file("etc/nginx/nginx.conf", 0o644, NGINX_CONF).file("etc/nginx/conf.d/default.conf", 0o644, NGINX_SITE);
    let page = "<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n<h1>Welcome to nginx!</h1>\n";
    tree.file("usr/share/nginx/html/index.html", 0o644, page);
    tree.symlink("var/log/nginx/access.log", "/dev/stdout").symlink("var/log/nginx/error.log", "/dev/stderr");
    tree.dir("var/lib/nginx", 0o755).owned_by("var/lib/nginx", 33, 33).dir("run", 0o755);
    Ok(tree)
}

const REDIS: [&str; 8] =
    ["redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblua5.1-0", "liblzf1", "lua-bitop", "lua-cjson"];

fn redis(cache: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    for package in Apt::at(cache)?.packages(&REDIS)? {
        tree.add_package(&package)?;
    }
    accounts(cache, &mut tree, "redis:x:999:999::/data:/usr/sbin/nologin\n", "redis:x:999:\n")?;
    tree.dir("data", 0o755).owned_by("data", 999, 999);
    Ok(tree)
}

/// Debian's accounts and these.
pub fn accounts(cache: &Path, tree: &mut Tree, passwd: &str, group: &str) -> Result<()> {
    let mut masters = Tree::default();
    for package in &Apt::at(cache)?.packages(&["base-passwd"])? {
        masters.add_package(package)?;
    }
    for (name, lines) in [("passwd", passwd), ("group", group)] {
        let master = format!("usr/share/base-passwd/{name}.master");
        let mut content = masters.read(&master).with_context(|| format!("base-passwd has no {master}"))?.to_vec();
        content.extend_from_slice(lines.as_bytes());
        tree.file(&format!("etc/{name}"), 0o644, content);
    }
    Ok(())
}

fn stress(cache: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    for package in Apt::at(cache)?.packages(&["stress"])? {
        tree.add_package(&package)?;
    }
    Ok(tree)
}

pub fn pause(_cache: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("pause", 0o755, compile::pause()?);
    Ok(tree)
}

/// The client that every test uses, for a pod that talks to the API it runs under; built without a C library, which the
/// layer below does not have.
fn kubectl(_cache: &Path) -> Result<Tree> {
    let program = std::fs::read(upstream::kubectl()?).context("reading kubectl")?;
    let mut tree = Tree::default();
    tree.file("usr/bin/kubectl", 0o755, program);
    Ok(tree)
}

fn payment_service(_cache: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("payment-service", 0o755, compile::payment_service()?);
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_stands_on_layers_of_the_table_and_every_layer_is_used() {
        let layers = layers();
        let images: Vec<Image> = images().into_iter().chain(suite::images()).collect();
        let used: Vec<&str> = images.iter().flat_map(|image| image.layers).copied().collect();
        for layer in &used {
            assert_eq!(layers.iter().filter(|known| known.name == *layer).count(), 1, "{layer}");
        }
        for layer in &layers {
            assert!(used.contains(&layer.name), "{}", layer.name);
        }
    }

    #[test]
    fn no_two_images_share_a_name() {
        let images: Vec<Image> = images().into_iter().chain(suite::images()).collect();
        for image in &images {
            let same = |other: &&Image| (other.repository, other.tag) == (image.repository, image.tag);
            assert_eq!(images.iter().filter(same).count(), 1, "{}", image.name);
        }
    }

    #[test]
    fn a_layer_is_made_anew_when_a_program_in_it_is_built_another_way() {
        let layers = layers();
        let agnhost = layers.iter().find(|layer| layer.name == "agnhost").unwrap();
        assert_eq!(agnhost.recipe.programs, ["agnhost"]);
        assert_ne!(agnhost.key_with(&["one".into()]), agnhost.key_with(&["another".into()]));
        assert_eq!(agnhost.key().unwrap(), agnhost.key_with(&[upstream::recipe_of("agnhost").unwrap()]));
    }
}
