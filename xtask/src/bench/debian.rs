//! Peers that come from Debian, unpacked into the cache with the libraries they need: nothing is installed, so nothing
//! starts to serve on the machine itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::progress::step;
use crate::{paths, process};

/// A file beside the unpacked packages.
const VERSION: &str = "debian-version";

struct Peer {
    name: &'static str,
    packages: &'static [&'static str],
    /// Inside the packages.
    path: &'static str,
}

const PEERS: [Peer; 1] = [Peer {
    name: "unbound",
    packages: &["unbound", "libevent-2.1-7", "libnghttp2-14", "libprotobuf-c1", "libpython3.11"],
    path: "usr/sbin/unbound",
}];

/// The program, if it is one of Debian's. Its libraries are in `usr/lib` beside it.
pub fn program(name: &str) -> Option<Result<PathBuf>> {
    PEERS.iter().find(|peer| peer.name == name).map(unpacked)
}

/// Of the package that the program is in.
pub fn version(program: &Path) -> Option<String> {
    let folders = program.ancestors().map(|folder| folder.join(VERSION));
    let version = folders.filter(|file| file.is_file()).find_map(|file| fs::read_to_string(file).ok())?;
    Some(format!("Debian's {}", version.trim()))
}

fn unpacked(peer: &Peer) -> Result<PathBuf> {
    let folder = paths::cache().join("bench").join(peer.name);
    let program = folder.join(peer.path);
    if program.is_file() {
        return Ok(program);
    }
    step(&format!("unpacking Debian's {}", peer.name), || {
        let kept = folder.parent().context("a kept program is in a folder")?;
        fs::create_dir_all(kept)?;
        let scratch = tempfile::tempdir_in(kept).context("making a folder to unpack in")?;
        let packages = Apt::at(&paths::cache().join("images"))?.packages(peer.packages)?;
        for package in &packages {
            process::quiet(Command::new("dpkg-deb").arg("--extract").arg(package).arg(scratch.path()))?;
        }
        let mut field = Command::new("dpkg-deb");
        field.arg("--field").args(packages.first()).arg("Version");
        fs::write(scratch.path().join(VERSION), process::output(&mut field)?)?;
        paths::fresh_dir(&folder)?;
        fs::rename(scratch.keep(), &folder).with_context(|| format!("keeping {}", peer.name))
    })?;
    Ok(program)
}
