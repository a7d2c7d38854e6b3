//! The programs in the test images that no package holds: a default-configuration static busybox from Debian's source
//! package, `pause`, a program that tells its user, and the service of the rollout story.
//!
//! Debian's packaged busybox falls short for tests: it resolves names differently and its shell drops environment
//! variables whose names are not identifiers. So the source package is built with upstream's own default configuration,
//! and without Debian's patches, one of which makes the shell drop those.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::{paths, process};

const PAUSE_TEXT: &str = include_str!("../../../tests/images/pause.c");
const EFFECTIVE_UID_TEXT: &str = include_str!("../../../tests/images/effective_uid.c");
const PAYMENT_TEXT: &str = include_str!("../../../tests/images/payment_service.rs");
/// The sources of our own programs: part of every layer's key.
pub const PROGRAMS_TEXT: &str = concat!(
    include_str!("../../../tests/images/pause.c"),
    include_str!("../../../tests/images/effective_uid.c"),
    include_str!("../../../tests/images/payment_service.rs"),
);

/// What the built program is called in the cache.
pub const BUSYBOX_PROGRAM: &str = "busybox-static";

pub struct Busybox {
    pub bytes: Vec<u8>,
    pub applets: Vec<String>,
}

/// Builds busybox once per cache: it takes a minute.
pub fn busybox(cache: &Path) -> Result<Busybox> {
    let program = cache.join(BUSYBOX_PROGRAM);
    if !program.exists() {
        build_busybox(cache, &program)?;
    }
    let listed = process::output(Command::new(&program).arg("--list"))?;
    let bytes = fs::read(&program).context("reading the built busybox")?;
    Ok(Busybox { bytes, applets: listed.lines().map(str::to_owned).collect() })
}

fn build_busybox(cache: &Path, program: &Path) -> Result<()> {
    let dir = cache.join("busybox-source");
    paths::fresh_dir(&dir)?;
    let tree = Apt::at(cache)?.source("busybox", &dir)?;
    process::quiet(Command::new("make").current_dir(&tree).arg("defconfig"))?;
    let config = fs::read_to_string(tree.join(".config")).context("busybox has no configuration")?;
    let config = config.replace("# CONFIG_STATIC is not set", "CONFIG_STATIC=y");
    fs::write(tree.join(".config"), config).context("writing busybox's configuration")?;
    // new questions that the changed answer opens get their defaults
    process::quiet(Command::new("sh").current_dir(&tree).args(["-c", "yes '' | make oldconfig"]))?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    process::quiet(Command::new("make").current_dir(&tree).arg(format!("-j{jobs}")).arg("busybox"))?;
    let ready = cache.join("busybox-static.new");
    fs::copy(tree.join("busybox"), &ready).context("taking the built busybox")?;
    fs::rename(&ready, program).context("keeping the built busybox")?;
    fs::remove_dir_all(&dir).context("removing busybox's source tree")
}

/// The program that holds a pod's namespaces open.
pub fn pause() -> Result<Vec<u8>> {
    built("pause.c", PAUSE_TEXT, gcc)
}

/// The program that says which user's rights it runs with.
pub fn effective_uid() -> Result<Vec<u8>> {
    built("effective_uid.c", EFFECTIVE_UID_TEXT, gcc)
}

fn gcc(source: &Path, out: &Path) -> Command {
    let mut command = Command::new("gcc");
    command.args(["-Os", "-static", "-s", "-o"]).arg(out).arg(source);
    command
}

/// The HTTP service of the rollout story; its version comes from the image's environment.
pub fn payment_service() -> Result<Vec<u8>> {
    built("payment_service.rs", PAYMENT_TEXT, |source, out| {
        let mut command = Command::new("rustc");
        command.current_dir(paths::root()).args(["--edition=2024", "-Copt-level=s", "-Cstrip=symbols"]);
        // the folder is another every time, the program shall not be
        let folder = source.parent().unwrap_or(source).display();
        command.arg(format!("--remap-path-prefix={folder}=/")).args(["-Ctarget-feature=+crt-static", "-o"]);
        command.arg(out).arg(source);
        command
    })
}

fn built(name: &str, text: &str, compiler: impl Fn(&Path, &Path) -> Command) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().context("making a folder to compile in")?;
    let (source, out) = (dir.path().join(name), dir.path().join("out"));
    fs::write(&source, text).context("writing the source")?;
    process::quiet(&mut compiler(&source, &out)).with_context(|| format!("compiling {name}"))?;
    fs::read(&out).with_context(|| format!("reading what {name} became"))
}
