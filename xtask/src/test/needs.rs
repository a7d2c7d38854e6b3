//! What the build and the tests need from Debian, and getting it: installed when we are root, named when we are not.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::step;
use crate::{paths, process};

enum Proof {
    /// A program that must be found.
    Program(&'static str),
    /// A file that must be there.
    File(&'static str),
}

/// How to see that it is there, the package that brings it, and what for.
const NEEDS: &[(Proof, &str, &str)] = &[
    (Proof::Program("gcc"), "build-essential", "linking, and compiling test images"),
    (Proof::Program("make"), "build-essential", "compiling busybox for the test images"),
    (Proof::Program("pkg-config"), "pkg-config", "finding libseccomp"),
    (Proof::File("/usr/include/seccomp.h"), "libseccomp-dev", "the container runtime"),
    (Proof::Program("dpkg-source"), "dpkg-dev", "unpacking busybox's source"),
    (Proof::Program("bzip2"), "bzip2", "unpacking busybox's source"),
    (Proof::Program("ip"), "iproute2", "the lab's network"),
    (Proof::Program("curl"), "curl", "asking the lab's registry"),
    (Proof::Program("ps"), "procps", "listing the processes that a node leaves"),
    (Proof::Program("nft"), "nftables", "checking the rules we make"),
    (Proof::Program("docker-registry"), "docker-registry", "the lab's registry"),
    (Proof::Program("qemu-system-x86_64"), "qemu-system-x86", "the machine with cgroup v2 alone"),
    (Proof::Program("mkfs.ext4"), "e2fsprogs", "that machine's disk"),
    (Proof::Program("git"), "git", "knowing what belongs to the repository"),
];

/// What a lab takes in which upstream's own programs run.
const NEEDS_OF_UPSTREAM: &[(Proof, &str, &str)] = &[
    (Proof::Program("openssl"), "openssl", "the certificates of upstream's programs"),
    (Proof::Program("nft"), "nftables", "kube-proxy"),
    (Proof::File("/usr/lib/cni/bridge"), "containernetworking-plugins", "containerd's pods"),
    (Proof::Program("iptables"), "iptables", "containerd's pods with ports of the node"),
];

/// The same for a lab with upstream's own programs.
pub fn install_for_upstream() -> Result<()> {
    install_of(NEEDS_OF_UPSTREAM)
}

/// Installs what is missing; without root, an error that says what to install.
pub fn install_missing() -> Result<()> {
    install_of(NEEDS)?;
    // Debian 12 has it in qemu's own packages, which are here by now; later releases in one of its own
    let file_server = if paths::find_program("virtiofsd").is_none() { &["virtiofsd"][..] } else { &[] };
    install(file_server)
}

fn install_of(needs: &[(Proof, &'static str, &str)]) -> Result<()> {
    let mut packages: Vec<&str> = Vec::new();
    for (proof, package, reason) in needs.iter().filter(|(proof, ..)| !is_there(proof)) {
        println!("missing: {} ({package}), for {reason}", name(proof));
        packages.push(package);
    }
    packages.dedup();
    install(&packages)
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("install what is missing first: sudo apt-get install {}", packages.join(" "));
    }
    step(&format!("installing {}", packages.join(" ")), || {
        process::quiet(Command::new("apt-get").args(["--quiet", "update"]))?;
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive").args([
            "--quiet",
            "--yes",
            "--no-install-recommends",
            "install",
        ]);
        // a service that starts by itself would be a server on the machine's own network
        install.env("RUNLEVEL", "1").args(packages);
        process::quiet(&mut install)
    })
}

fn is_there(proof: &Proof) -> bool {
    match proof {
        Proof::Program(name) => paths::find_program(name).is_some(),
        Proof::File(path) => Path::new(path).exists(),
    }
}

fn name(proof: &Proof) -> &'static str {
    match proof {
        Proof::Program(name) => name,
        Proof::File(path) => path,
    }
}
