//! `cargo xtask upstream`: upstream's programs, built from the Go module pinned under `tests/upstream`.
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
const VERSION: &str = "v1.37.1";

/// Without the system's C library, so that the programs run in any image.
const ENVIRONMENT: [(&str, &str); 1] = [("CGO_ENABLED", "0")];
const FLAGS: [&str; 3] = ["-mod=readonly", "-trimpath", "-buildvcs=false"];

#[derive(Args)]
pub struct UpstreamArguments {
    /// Programs of k8s.io/kubernetes/cmd, such as kube-apiserver or kubelet
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

fn program(name: &str) -> Result<PathBuf> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        bail!("{name:?} is not the name of an upstream program");
    }
    let built = match cached(name) {
        Some(built) => built,
        None => step(&format!("building upstream's {name} {VERSION}"), || build(name))?,
    };
    offered(name, &built)
}

fn cache() -> PathBuf {
    let recipe: String = ENVIRONMENT.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    let digest = Sha256::new().chain_update(recipe).chain_update(FLAGS.join(" ")).chain_update(stamp()).finalize();
    let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    paths::cache().join("upstream").join(format!("{VERSION}-{short}"))
}

fn cached(name: &str) -> Option<PathBuf> {
    Some(cache().join(name)).filter(|path| path.is_file())
}

fn build(name: &str) -> Result<PathBuf> {
    let go = paths::find_program("go").context("building upstream programs needs Go 1.26")?;
    let cache = cache();
    fs::create_dir_all(&cache)?;
    let scratch = tempfile::tempdir_in(&cache).context("making a folder to build in")?;
    let out = scratch.path().join(name);
    let mut command = Command::new(go);
    command.current_dir(paths::root().join("tests/upstream")).envs(ENVIRONMENT);
    command.arg("build").args(FLAGS).args(["-ldflags", &stamp(), "-o"]);
    command.arg(&out).arg(format!("k8s.io/kubernetes/cmd/{name}"));
    process::quiet(&mut command).with_context(|| format!("building {name}"))?;
    let built = cache.join(name);
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
