//! `cargo xtask upstream`: upstream's programs, built from the Go modules pinned under `tests/upstream`.
//!
//! `kubectl` is what every test speaks through; the others are built on demand, to compare behaviour side by side.
//! Binaries are kept outside the clone by version and by how they are built, so a fresh clone builds nothing and nobody
//! goes on with a program that an older recipe made. Without Go, a `kubectl` on the PATH
//! has to do, and a line says so. Upstream's programs are test tools and never part of the product.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use sha2::{Digest, Sha256};

use crate::progress::step;
use crate::{paths, process};

/// The release that Coracle is compatible with.
pub const VERSION: &str = "v1.37.1";

/// Without the system's C library, so that the programs run in any image.
const ENVIRONMENT: [(&str, &str); 1] = [("CGO_ENABLED", "0")];
const FLAGS: [&str; 3] = ["-mod=readonly", "-trimpath", "-buildvcs=false"];

/// One program and where it comes from.
struct Program {
    name: &'static str,
    /// the Go module that pins it, a folder under `tests/upstream`
    module: &'static str,
    package: &'static str,
    /// built as the test binary of its package
    test: bool,
}

const fn program_of(name: &'static str, module: &'static str, package: &'static str) -> Program {
    Program { name, module, package, test: false }
}

/// Everything that can be built: Kubernetes' own programs and suite, and what they need beside them.
const PROGRAMS: [Program; 14] = [
    program_of("kubectl", ".", "k8s.io/kubernetes/cmd/kubectl"),
    program_of("kube-apiserver", ".", "k8s.io/kubernetes/cmd/kube-apiserver"),
    program_of("kube-controller-manager", ".", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    program_of("kube-scheduler", ".", "k8s.io/kubernetes/cmd/kube-scheduler"),
    program_of("kubelet", ".", "k8s.io/kubernetes/cmd/kubelet"),
    program_of("kube-proxy", ".", "k8s.io/kubernetes/cmd/kube-proxy"),
    program_of("agnhost", ".", "k8s.io/kubernetes/test/images/agnhost"),
    Program { name: "e2e.test", module: ".", package: "k8s.io/kubernetes/test/e2e", test: true },
    program_of("ginkgo", ".", "github.com/onsi/ginkgo/v2/ginkgo"),
    program_of("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    program_of("containerd", "containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    program_of(
        "containerd-shim-runc-v2",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    program_of("coredns", "coredns", "github.com/coredns/coredns"),
    program_of("sample-apiserver", "sample-apiserver", "k8s.io/sample-apiserver"),
];

#[derive(Args)]
pub struct UpstreamArguments {
    /// Programs to build, such as kube-apiserver, kubelet, e2e.test or etcd
    #[arg(default_value = "kubectl")]
    programs: Vec<String>,
}

pub fn run(arguments: &UpstreamArguments) -> Result<ExitCode> {
    for name in &arguments.programs {
        let path = if name == "kubectl" { kubectl()? } else { program(name)? };
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The kubectl that tests use.
pub fn kubectl() -> Result<PathBuf> {
    match (cached("kubectl"), paths::find_program("go"), paths::find_program("kubectl")) {
        (Some(built), _, _) => offered("kubectl", &built),
        (None, Some(_go), _) => program("kubectl"),
        (None, None, Some(found)) => {
            eprintln!("  skipped: building kubectl {VERSION}, because Go is not installed; using {}", found.display());
            Ok(found)
        }
        (None, None, None) => bail!("there is no kubectl and no Go to build one: install Go 1.26 or a kubectl"),
    }
}

/// A program of the table, built when this machine has not built it yet. Needs Go.
pub fn program(name: &str) -> Result<PathBuf> {
    let Some(program) = find(name) else {
        let known: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        bail!("{name:?} is not an upstream program that can be built; these are: {}", known.join(", "));
    };
    let built = match cached(name) {
        Some(built) => built,
        None => step(&format!("building upstream's {name}"), || build(program))?,
    };
    offered(name, &built)
}

/// Whether this machine has a program of the table or can build it.
pub fn can_offer(name: &str) -> bool {
    cached(name).is_some() || paths::find_program("go").is_some()
}

fn find(name: &str) -> Option<&'static Program> {
    PROGRAMS.iter().find(|program| program.name == name)
}

fn module(program: &Program) -> PathBuf {
    paths::root().join("tests/upstream").join(program.module)
}

/// Where a program is kept: by release and by everything its build depends on.
fn place(program: &Program) -> Result<PathBuf> {
    Ok(paths::cache().join("upstream").join(VERSION).join(recipe(program)?).join(program.name))
}

/// Names everything that a program's build depends on, for what is made from it to follow.
pub fn recipe_of(name: &str) -> Result<String> {
    recipe(find(name).with_context(|| format!("{name:?} is not an upstream program that can be built"))?)
}

/// The pinned source of Kubernetes, in Go's module cache. Needs Go.
pub fn kubernetes_source() -> Result<PathBuf> {
    let go = paths::find_program("go").context("upstream's source needs Go 1.26, which is not installed")?;
    let mut command = Command::new(go);
    command.current_dir(paths::root().join("tests/upstream")).args(["mod", "download", "-json", "k8s.io/kubernetes"]);
    let told: serde_json::Value =
        serde_json::from_str(&process::output(&mut command)?).context("reading what Go said")?;
    told["Dir"].as_str().map(PathBuf::from).context("Go does not say where it keeps k8s.io/kubernetes")
}

fn recipe(program: &Program) -> Result<String> {
    let recipe: String = ENVIRONMENT.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    let pins = fs::read(module(program).join("go.sum")).context("reading the pinned module's go.sum")?;
    let digest = Sha256::new()
        .chain_update(recipe)
        .chain_update(FLAGS.join(" "))
        .chain_update(stamp())
        .chain_update(program.package)
        .chain_update(pins)
        .finalize();
    Ok(digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect())
}

fn cached(name: &str) -> Option<PathBuf> {
    place(find(name)?).ok().filter(|path| path.is_file())
}

fn build(program: &Program) -> Result<PathBuf> {
    let name = program.name;
    let go = paths::find_program("go")
        .with_context(|| format!("building upstream's {name} needs Go 1.26, which is not installed"))?;
    let built = place(program)?;
    let folder = built.parent().context("a kept program is in a folder")?;
    fs::create_dir_all(folder)?;
    // a second task that wants the same program waits for the first one's
    let lock = fs::File::create(folder.join("lock")).context("making a lock to build under")?;
    lock.lock().with_context(|| format!("waiting for another build of {name}"))?;
    if built.is_file() {
        return Ok(built);
    }
    let scratch = tempfile::tempdir_in(folder).context("making a folder to build in")?;
    let out = scratch.path().join(name);
    let mut command = Command::new(go);
    command.current_dir(module(program)).envs(ENVIRONMENT);
    command.args(if program.test { ["test", "-c"].as_slice() } else { ["build"].as_slice() });
    command.args(FLAGS).args(["-ldflags", &stamp(), "-o"]);
    command.arg(&out).arg(program.package);
    process::quiet(&mut command).with_context(|| format!("building {name}"))?;
    fs::rename(&out, &built).with_context(|| format!("keeping {name}"))?;
    Ok(built)
}

/// Linker flags that make a program say which release it is, as release builds do.
fn stamp() -> String {
    let mut numbers = VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut flags = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        let values = [("gitVersion", VERSION), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")];
        for (name, value) in values {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

/// Shows the program under the target folder, where people look for what this clone made.
fn offered(name: &str, built: &Path) -> Result<PathBuf> {
    let dir = paths::target()?.join("upstream");
    fs::create_dir_all(&dir)?;
    let link = dir.join(name);
    if fs::read_link(&link).ok().as_deref() != Some(built) {
        // a stale link or an old copy: replaced whole, so that a parallel task never sees none
        let fresh = dir.join(format!(".{name}-{}", std::process::id()));
        symlink(built, &fresh).context("linking the program")?;
        fs::rename(&fresh, &link).context("offering the program")?;
    }
    Ok(built.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_stamped_with_the_release() {
        let flags = stamp();
        assert!(flags.contains("-X k8s.io/component-base/version.gitVersion=v1.37.1 "), "{flags}");
        assert!(flags.contains("-X k8s.io/client-go/pkg/version.gitMinor=37"), "{flags}");
    }

    #[test]
    fn a_program_outside_upstream_s_folder_is_refused() {
        for name in ["", "../x", "a b", "-ldflags=x y"] {
            assert!(program(name).is_err(), "{name:?}");
        }
    }
}
