//! Process 1 of the emulated machine: mounts what a machine has, runs its command (a lab, mostly), tells its status, switches off.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};

use super::machine::GuestPlan;
use super::{DISK_MOUNT, PLAN_PARAMETER};
use crate::lab::state;

const CONSOLE: &str = "/dev/ttyS0";
const STATUS_LINE: &str = "/dev/ttyS1";
const DISK: &str = "/dev/vda";

pub fn run_vm_init() -> Result<ExitCode> {
    let status = match command_status() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("xtask: in the machine: {error:#}");
            u8::MAX
        }
    };
    let told = File::options().write(true).open(STATUS_LINE).and_then(|mut line| writeln!(line, "{status}"));
    if let Err(error) = told {
        eprintln!("xtask: telling the status: {error}");
    }
    nix::unistd::sync();
    // with -no-reboot this ends the emulator; it does not return
    match reboot(RebootMode::RB_AUTOBOOT)? {}
}

fn command_status() -> Result<u8> {
    let none: Option<&str> = None;
    let simple = |kind: &str, target: &str, options: Option<&str>| {
        fs::create_dir_all(target).with_context(|| format!("making {target}"))?;
        mount(Some(kind), target, Some(kind), MsFlags::empty(), options).with_context(|| format!("mounting {target}"))
    };
    simple("proc", "/proc", None)?;
    let plan = read_plan()?;
    simple("sysfs", "/sys", None)?;
    simple("devtmpfs", "/dev", None)?;
    simple("devpts", "/dev/pts", Some("ptmxmode=0666"))?;
    simple("tmpfs", "/dev/shm", None)?;
    simple("tmpfs", "/run", Some("mode=0755"))?;
    simple("cgroup2", "/sys/fs/cgroup", None)?;
    mount(Some(DISK), DISK_MOUNT, Some("ext4"), MsFlags::empty(), none).context("mounting the machine's disk")?;
    let labs = Path::new(DISK_MOUNT).join("labs");
    fs::create_dir_all(&labs)?;
    fs::create_dir_all(state::DATA_DIR)?;
    mount(Some(&labs), state::DATA_DIR, none, MsFlags::MS_BIND, none).context("giving labs the machine's disk")?;
    fs::create_dir_all("/lib/modules")?;
    mount(Some(&plan.modules), "/lib/modules", none, MsFlags::MS_BIND, none).context("showing the kernel's modules")?;
    fs::write("/proc/sys/kernel/modprobe", plan.modprobe.as_os_str().as_encoded_bytes()).context("naming modprobe")?;
    nix::unistd::sethostname("lab-vm")?;
    run_command(&plan)
}

fn read_plan() -> Result<GuestPlan> {
    let parameters = fs::read_to_string("/proc/cmdline").context("reading the kernel's parameters")?;
    let path = parameters.split_whitespace().find_map(|word| word.strip_prefix(PLAN_PARAMETER));
    let text = fs::read(Path::new(path.context("no plan was named")?)).context("reading the plan")?;
    serde_json::from_slice(&text).context("understanding the plan")
}

fn run_command(plan: &GuestPlan) -> Result<u8> {
    let console = File::options().read(true).write(true).open(CONSOLE).context("opening the console")?;
    let mut settings = tcgetattr(&console)?;
    // what is on the other side adds its own carriage returns
    settings.output_flags.remove(OutputFlags::OPOST);
    tcsetattr(&console, SetArg::TCSANOW, &settings)?;
    let (program, arguments) = plan.command.split_first().context("the machine has nothing to run")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&plan.directory).env_clear().envs(plan.environment.iter().cloned());
    command.stdin(Stdio::from(console.try_clone()?)).stdout(console.try_clone()?).stderr(console);
    // SAFETY: setsid is a bare system call and allowed between fork and exec.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from)) };
    let status = command.status().with_context(|| format!("starting {}", program.to_string_lossy()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}
