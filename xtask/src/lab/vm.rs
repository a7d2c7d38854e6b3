//! `cargo xtask lab --vm`: the same lab inside a machine of its own, with Debian's cloud kernel and cgroup v2 alone.
//!
//! Most users' machines have cgroup v2 and nothing else; the machine that runs the tests may not. qemu emulates one in
//! software: its root file system is this machine's (virtiofs, read-only, with a layer of memory on top), so that the
//! same programs are at the same paths; its disk is a fresh ext4 image, written through; it has no network card at all.
//! In there, `guest` is process 1 and runs `xtask lab` with the same arguments.
//!
//! Console output comes over the first serial line, the exit status over the second.

mod guest;
mod initramfs;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::LabArguments;
use crate::apt::Apt;
use crate::progress::step;
use crate::{images, paths, process, upstream};

pub use guest::run_vm_init;

/// Debian's name for the newest kernel without drivers for real hardware.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const MEMORY_MIB: u32 = 4096;
const DISK_BYTES: u64 = 8 << 30;
/// How many times slower than a plain machine emulation is taken to be, for deadlines.
const SLOWNESS: u64 = 8;
const SHARE_TAG: &str = "root";
/// Names the plan's file on the kernel's command line.
const PLAN_PARAMETER: &str = "coracle.plan=";
/// How long the file server may take to offer its socket.
const SHARE_MS_MAX: u64 = 10_000;

/// What process 1 of the machine is told.
#[derive(Serialize, Deserialize)]
struct GuestPlan {
    xtask: PathBuf,
    arguments: Vec<OsString>,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    modules: PathBuf,
    modprobe: PathBuf,
}

struct Kernel {
    dir: PathBuf,
    image: PathBuf,
    /// `<dir>/lib/modules/<version>`
    modules: PathBuf,
    version: String,
}

/// Boots the machine, runs the lab in it, and ends with the status of the lab's command.
pub fn run(arguments: &LabArguments, coracle: &Path) -> Result<ExitCode> {
    images::build_all()?;
    upstream::kubectl()?;
    let cache = paths::cache().join("vm");
    fs::create_dir_all(&cache)?;
    let kernel = kernel(&cache)?;
    let scratch = tempfile::tempdir_in(&cache).context("making the machine's folder")?;
    let plan = guest_plan(arguments, coracle, &kernel)?;
    let plan_file = scratch.path().join("plan.json");
    fs::write(&plan_file, serde_json::to_vec(&plan)?)?;
    let initrd = scratch.path().join("initrd");
    fs::write(&initrd, initramfs::build(&kernel.modules, &busybox(), &plan.xtask)?)?;
    let disk = match &arguments.disk {
        Some(kept) => kept.clone(),
        None => scratch.path().join("disk"),
    };
    make_disk(&disk)?;
    let mut share = share_root(scratch.path())?;
    let status_file = scratch.path().join("status");
    let ended =
        qemu(&kernel, &initrd, &disk, &plan_file, scratch.path(), &status_file)?.status().context("starting qemu");
    // it ends by itself when qemu hangs up, unless qemu never came
    let _ = share.kill();
    share.wait()?;
    let ended = ended?;
    let status = fs::read_to_string(&status_file).unwrap_or_default();
    let status = status.trim().parse::<u8>();
    status
        .map(ExitCode::from)
        .with_context(|| format!("the machine ended ({ended}) before its lab did; what it said is above"))
}

fn guest_plan(arguments: &LabArguments, coracle: &Path, kernel: &Kernel) -> Result<GuestPlan> {
    let mut words: Vec<OsString> = vec!["lab".into(), format!("--nodes={}", arguments.nodes).into()];
    if arguments.bare {
        words.push("--bare".into());
    } else {
        words.extend(["--coracle".into(), coracle.into()]);
    }
    words.push("--".into());
    words.extend(super::shell_or(&arguments.command));
    let kept = ["PATH", "HOME", "XDG_CACHE_HOME", "CARGO_TARGET_DIR", "LANG"];
    let mut environment: Vec<(String, String)> =
        kept.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    environment.push((super::state::SLOWNESS_VARIABLE.into(), SLOWNESS.to_string()));
    Ok(GuestPlan {
        xtask: std::env::current_exe()?,
        arguments: words,
        directory: std::env::current_dir()?,
        environment,
        modules: kernel.modules.parent().context("modules have a folder")?.to_path_buf(),
        modprobe: kernel.dir.join("modprobe"),
    })
}

/// The statically linked busybox of the test images: the machine's first steps are taken with it.
fn busybox() -> PathBuf {
    paths::cache().join("images").join(images::BUSYBOX_PROGRAM)
}

/// Fetches and unpacks Debian's kernel, once per version.
fn kernel(cache: &Path) -> Result<Kernel> {
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

fn make_disk(disk: &Path) -> Result<()> {
    if disk.exists() {
        return Ok(());
    }
    File::create(disk).and_then(|file| file.set_len(DISK_BYTES)).context("making the machine's disk")?;
    let mkfs = paths::find_program("mkfs.ext4").context("mkfs.ext4 is missing: apt-get install e2fsprogs")?;
    process::quiet(Command::new(mkfs).args(["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"]).arg(disk))
}

/// Serves this machine's root to the other one. Debian has had two programs for it, with different flags.
fn share_root(scratch: &Path) -> Result<Child> {
    let program = paths::find_program("virtiofsd")
        .context("virtiofsd is missing: apt-get install qemu-system-common (Debian 12) or virtiofsd (later)")?;
    let socket = scratch.join("share.sock");
    let mut command = Command::new(&program);
    command.arg(format!("--socket-path={}", socket.display()));
    if program.starts_with("/usr/lib/qemu") {
        command.args(["-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=auto"]);
    } else {
        command.args(["--shared-dir=/", "--sandbox=chroot", "--cache=auto"]);
    }
    let log = File::create(scratch.join("share.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = super::spawn::dying_with_parent(&mut command).spawn().context("starting virtiofsd")?;
    super::enter::wait_for(SHARE_MS_MAX, || socket.exists())
        .with_context(|| fs::read_to_string(scratch.join("share.log")).unwrap_or_default())?;
    Ok(child)
}

fn qemu(kernel: &Kernel, initrd: &Path, disk: &Path, plan: &Path, scratch: &Path, status: &Path) -> Result<Command> {
    let Some(program) = paths::find_program("qemu-system-x86_64") else {
        bail!("qemu-system-x86_64 is missing: apt-get install qemu-system-x86");
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = Command::new(program);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-machine",
        "q35",
        "-nic",
        "none",
    ]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", &processors.to_string()]);
    command.args(["-m", &format!("{MEMORY_MIB}M"), "-numa", "node,memdev=memory", "-object"]);
    command.arg(format!("memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on"));
    command.arg("-chardev").arg(format!("socket,id=share,path={}", scratch.join("share.sock").display()));
    command.args(["-device", &format!("vhost-user-fs-pci,chardev=share,tag={SHARE_TAG}")]);
    command.arg("-drive").arg(format!("file={},format=raw,if=virtio,cache=directsync", disk.display()));
    command.args(["-serial", "stdio", "-serial"]).arg(format!("file:{}", status.display()));
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initrd).arg("-append");
    command.arg(format!("console=ttyS0 quiet loglevel=3 panic=-1 reboot=t {PLAN_PARAMETER}{}", plan.display()));
    eprintln!("  booting Debian's {} under qemu", kernel.version);
    super::spawn::dying_with_parent(&mut command);
    Ok(command)
}
