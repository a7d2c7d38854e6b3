//! Debian's cloud kernel and its modules, fetched as packages and unpacked in our cache, never installed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::progress::step;
use crate::{paths, process};

/// Debian's name for the newest kernel without drivers for real hardware.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

pub struct Kernel {
    dir: PathBuf,
    pub image: PathBuf,
    /// `<dir>/lib/modules/<version>`
    pub modules: PathBuf,
    pub version: String,
}

impl Kernel {
    /// The program that loads modules, for the machine to call by itself.
    pub fn modprobe(&self) -> PathBuf {
        self.dir.join("modprobe")
    }
}

/// Fetches and unpacks Debian's kernel, once per version.
pub fn kernel(cache: &Path) -> Result<Kernel> {
    let named = cache.join("kernel-package");
    if !named.exists() {
        let package = step("fetching Debian's cloud kernel", || {
            let apt = Apt::at(&paths::cache().join("images"))?;
            let package = apt.dependencies(KERNEL_PACKAGE)?.into_iter().find(|name| name.starts_with("linux-image-"));
            let package = package.with_context(|| format!("{KERNEL_PACKAGE} names no kernel"))?;
            let files = apt.packages(&[&package, MODULE_TOOLS[0], MODULE_TOOLS[1]])?;
            unpack_kernel(cache, &package, &files)?;
            Ok(package)
        })?;
        fs::write(&named, package)?;
    }
    let package = fs::read_to_string(&named)?;
    let version = package.trim_start_matches("linux-image-").trim_end_matches("-unsigned").to_owned();
    let dir = cache.join(&package);
    let modules = dir.join("lib/modules").join(&version);
    let image = dir.join(format!("boot/vmlinuz-{version}"));
    Ok(Kernel { image, modules, version, dir })
}

/// Debian's module tools, for the machine: this one may well have none.
const MODULE_TOOLS: [&str; 2] = ["kmod", "libkmod2"];

fn unpack_kernel(cache: &Path, package: &str, files: &[PathBuf]) -> Result<()> {
    let dir = cache.join(package);
    paths::fresh_dir(&dir)?;
    for file in files {
        process::quiet(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&dir))?;
    }
    let kmod = [dir.join("bin/kmod"), dir.join("usr/bin/kmod")].into_iter().find(|path| path.exists());
    for tool in ["depmod", "modprobe"] {
        module_tool(&dir, tool, kmod.as_deref().context("the kmod package has no kmod")?)?;
    }
    let version = package.trim_start_matches("linux-image-").trim_end_matches("-unsigned");
    // what the package's own script would do: modprobe needs the list of what depends on what
    process::quiet(Command::new(dir.join("depmod")).arg("-b").arg(&dir).arg(version))
        .context("listing module dependencies")
}

/// kmod goes by the name it is called by, and has its library beside it.
fn module_tool(dir: &Path, tool: &str, kmod: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("tools"))?;
    let link = dir.join("tools").join(tool);
    symlink(kmod, &link).context("linking a module tool")?;
    let libraries = format!("{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu", dir.display());
    let script = format!("#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {} \"$@\"\n", link.display());
    fs::write(dir.join(tool), script)?;
    fs::set_permissions(dir.join(tool), fs::Permissions::from_mode(0o755)).context("making a module tool executable")
}
