//! One emulated machine: its files, its file server, its qemu.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::kernel::{Kernel, kernel};
use super::{PLAN_PARAMETER, SHARE_TAG, SLOWNESS, initramfs};
use crate::lab::{enter, spawn, state};
use crate::{images, paths, process};

const MEMORY_MIB: u32 = 4096;
const DISK_BYTES: u64 = 8 << 30;
/// All that emulation can do, save what only costs there: a fifth level of page tables, and guards against a hostile
/// program that are switched on and off at every entry into the kernel.
const PROCESSOR: &str = "max,la57=off,smap=off,smep=off,pku=off";
/// What an emulated kernel need not do: guard against flaws of real processors, and ask an emulated timer chip for the
/// time (the processor's own counter is this machine's). Nor must it give up because the timer seems dead or a
/// processor stuck: on a busy machine, the whole of it stands still now and then.
const PACE: &str = "mitigations=off tsc=reliable clocksource=tsc no_timer_check nowatchdog";
/// How long the file server may take to offer its socket.
const SHARE_MS_MAX: u64 = 10_000;

/// What process 1 of the machine is told.
#[derive(Serialize, Deserialize)]
pub struct GuestPlan {
    /// A program and its arguments.
    pub command: Vec<OsString>,
    pub directory: PathBuf,
    pub environment: Vec<(String, String)>,
    pub modules: PathBuf,
    pub modprobe: PathBuf,
}

/// A machine that runs.
pub struct Machine {
    share: Child,
    qemu: Child,
    scratch: TempDir,
}

impl Machine {
    /// Boots a machine that runs `command` and switches itself off. Its disk is the file `disk`, made if it is missing,
    /// or one that nobody keeps. `output` is where its console goes.
    pub fn start(command: Vec<OsString>, disk: Option<&Path>, output: Stdio) -> Result<Self> {
        let cache = paths::cache().join("vm");
        fs::create_dir_all(&cache)?;
        let kernel = kernel(&cache)?;
        let scratch = tempfile::tempdir_in(&cache).context("making the machine's folder")?;
        let plan = scratch.path().join("plan.json");
        fs::write(&plan, serde_json::to_vec(&guest_plan(command, &kernel)?)?)?;
        let initrd = scratch.path().join("initrd");
        fs::write(&initrd, initramfs::build(&kernel.modules, &busybox(), &paths::own_program()?)?)?;
        let disk = disk.map_or_else(|| scratch.path().join("disk"), Path::to_path_buf);
        make_disk(&disk)?;
        let share = share_root(scratch.path())?;
        let mut command = qemu(&kernel, &disk, scratch.path())?;
        let qemu = command.stdout(output).spawn().context("starting qemu")?;
        Ok(Self { share, qemu, scratch })
    }

    /// The machine's console, where it was asked for as a pipe.
    pub fn console(&mut self) -> Option<ChildStdout> {
        self.qemu.stdout.take()
    }

    /// `kill -9`: what a power cut is to a machine.
    pub fn pull_the_plug(mut self) -> Result<()> {
        self.qemu.kill().context("killing qemu")?;
        self.ended().map(drop)
    }

    /// Waits until the machine has switched itself off; the status of what it ran.
    pub fn status(mut self) -> Result<u8> {
        let how = self.ended()?;
        let told = fs::read_to_string(status_file(self.scratch.path())).unwrap_or_default();
        told.trim()
            .parse()
            .with_context(|| format!("the machine ended ({how}) before its command did; what it said is above"))
    }

    fn ended(&mut self) -> Result<String> {
        let how = self.qemu.wait().context("waiting for qemu")?;
        // it ends by itself when qemu hangs up, unless qemu never came
        let _ = self.share.kill();
        self.share.wait().context("waiting for the file server")?;
        Ok(how.to_string())
    }
}

fn guest_plan(command: Vec<OsString>, kernel: &Kernel) -> Result<GuestPlan> {
    let kept = ["PATH", "HOME", "XDG_CACHE_HOME", "CARGO_TARGET_DIR", "LANG"];
    let mut environment: Vec<(String, String)> =
        kept.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    environment.push((state::SLOWNESS_VARIABLE.into(), SLOWNESS.to_string()));
    Ok(GuestPlan {
        command,
        directory: std::env::current_dir()?,
        environment,
        modules: kernel.modules.parent().context("modules have a folder")?.to_path_buf(),
        modprobe: kernel.modprobe(),
    })
}

/// The statically linked busybox of the test images: the machine's first steps are taken with it.
fn busybox() -> PathBuf {
    paths::cache().join("images").join(images::BUSYBOX_PROGRAM)
}

fn status_file(scratch: &Path) -> PathBuf {
    scratch.join("status")
}

fn make_disk(disk: &Path) -> Result<()> {
    if disk.exists() {
        return Ok(());
    }
    File::create(disk).and_then(|file| file.set_len(DISK_BYTES)).context("making the machine's disk")?;
    let mkfs = paths::find_program("mkfs.ext4").context("mkfs.ext4 is missing: apt-get install e2fsprogs")?;
    process::quiet(Command::new(mkfs).args(["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"]).arg(disk))
}

/// Serves this machine's root to the other one, which may keep what it has read: nothing it runs changes while it does.
/// Debian has had two programs for it, with different flags.
fn share_root(scratch: &Path) -> Result<Child> {
    let program = paths::find_program("virtiofsd")
        .context("virtiofsd is missing: apt-get install qemu-system-common (Debian 12) or virtiofsd (later)")?;
    let socket = scratch.join("share.sock");
    let mut command = Command::new(&program);
    command.arg(format!("--socket-path={}", socket.display()));
    if program.starts_with("/usr/lib/qemu") {
        command.args(["-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always"]);
    } else {
        command.args(["--shared-dir=/", "--sandbox=chroot", "--cache=always"]);
    }
    let log = File::create(scratch.join("share.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = spawn::dying_with_parent(&mut command).spawn().context("starting virtiofsd")?;
    enter::wait_for(SHARE_MS_MAX, || socket.exists())
        .with_context(|| fs::read_to_string(scratch.join("share.log")).unwrap_or_default())?;
    Ok(child)
}

fn qemu(kernel: &Kernel, disk: &Path, scratch: &Path) -> Result<Command> {
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
    command.args(["-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", &processors.to_string()]);
    command.args(["-m", &format!("{MEMORY_MIB}M"), "-numa", "node,memdev=memory", "-object"]);
    command.arg(format!("memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on"));
    command.arg("-chardev").arg(format!("socket,id=share,path={}", scratch.join("share.sock").display()));
    command.args(["-device", &format!("vhost-user-fs-pci,chardev=share,tag={SHARE_TAG}")]);
    command.arg("-drive").arg(format!("file={},format=raw,if=virtio,cache=directsync", disk.display()));
    command.args(["-serial", "stdio", "-serial"]).arg(format!("file:{}", status_file(scratch).display()));
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(scratch.join("initrd")).arg("-append");
    command.arg(format!(
        "console=ttyS0 quiet loglevel=3 panic=-1 reboot=t {PACE} {PLAN_PARAMETER}{}",
        scratch.join("plan.json").display()
    ));
    eprintln!("  booting Debian's {} under qemu", kernel.version);
    spawn::dying_with_parent(&mut command);
    Ok(command)
}
