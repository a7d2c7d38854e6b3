//! The last steps before `exec`, shared by a container's first process and by exec: who, with which rights, doing what.
//!
//! The order matters: groups before user, bounding set before both, the filter as late as the kernel allows (without
//! `no_new_privileges` it can only be installed while we still have the rights to).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::Path,
};

use super::{
    Doing, Failure, capability,
    plan::{ProcessPlan, SeccompPlan},
    seccomp,
    status::{self, Message},
    user,
};
use crate::syscalls;

/// Where the process' standard streams come from.
pub enum Stdio {
    /// Standard input, output and error.
    Pipes(OwnedFd, OwnedFd, OwnedFd),
    /// A terminal of the container's own, whose master goes to the shim.
    Terminal,
}

/// Where commands are looked for when the environment does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Connects the standard streams; the current root must be the container's already. Returns the terminal's slave.
pub fn connect_stdio(stdio: Stdio, status: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Failure> {
    match stdio {
        Stdio::Pipes(stdin, stdout, stderr) => {
            for (number, stream) in [stdin, stdout, stderr].iter().enumerate() {
                syscalls::duplicate_onto(stream.as_fd(), number as i32).doing("connect standard streams")?;
            }
            Ok(None)
        }
        Stdio::Terminal => {
            let (master, slave) = syscalls::open_terminal(Path::new("/dev/pts/ptmx")).doing("open terminal")?;
            status::send(status, &Message::Terminal, Some(master.as_fd())).doing("pass terminal on")?;
            syscalls::take_terminal(slave.as_fd()).doing("take terminal")?;
            for number in 0..3 {
                syscalls::duplicate_onto(slave.as_fd(), number).doing("connect terminal")?;
            }
            Ok(Some(slave))
        }
    }
}

/// Becomes the program. Returns only when that failed. `filter` was compiled while the host's files could still be read.
pub fn become_program(
    plan: &ProcessPlan,
    filter: &seccomp::Filter,
    terminal: Option<OwnedFd>,
    status: BorrowedFd<'_>,
) -> Failure {
    match prepare_and_exec(plan, filter, terminal, status) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn prepare_and_exec(
    plan: &ProcessPlan,
    filter: &seccomp::Filter,
    terminal: Option<OwnedFd>,
    status: BorrowedFd<'_>,
) -> Result<std::convert::Infallible, Failure> {
    enter_directory(&plan.directory)?;
    if let Some(adjustment) = plan.oom_score_adj {
        set_oom_score_adj(adjustment)?;
    }
    if let Some(profile) = &plan.apparmor {
        std::fs::write("/proc/self/attr/apparmor/exec", format!("exec {profile}")).doing("apply apparmor profile")?;
    }
    let found = user::resolve(&plan.user)?;
    if let Some(slave) = &terminal {
        rustix::fs::fchown(slave, Some(rustix::fs::Uid::from_raw(found.runs_as.uid)), None).doing("own terminal")?;
    }
    let environment = environment(plan, &found.home);
    if plan.seccomp != SeccompPlan::Unconfined && !plan.no_new_privileges {
        seccomp::install(filter)?;
    }
    capability::limit_bounding_set(&plan.capabilities)?;
    assume_user(&found.runs_as)?;
    capability::assume(&plan.capabilities)?;
    if plan.no_new_privileges {
        syscalls::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).doing("set no_new_privs")?;
    }
    let path = search_path(&environment);
    let program = find_program(&plan.arguments[0], &path)?;
    status::send(status, &Message::User(found.runs_as), None).doing("report user")?;
    syscalls::close_on_exec_from(3).doing("close descriptors")?;
    if plan.seccomp != SeccompPlan::Unconfined && plan.no_new_privileges {
        seccomp::install(filter)?;
    }
    let error = exec(&program, &plan.arguments, &environment);
    Err(Failure(format!("exec {program}: {}", super::os_message(&error))))
}

fn enter_directory(directory: &str) -> Result<(), Failure> {
    let directory = if directory.is_empty() { "/" } else { directory };
    if std::env::set_current_dir(directory).is_ok() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).doing(format!("mkdir {directory}"))?;
    std::env::set_current_dir(directory).doing(format!("chdir to cwd (\"{directory}\") set in config.json failed"))
}

/// Sets how readily the kernel kills us. Lowering it below the present value needs a right that some hosts withhold: then
/// the present value stays (the runtime says so once at start).
fn set_oom_score_adj(adjustment: i32) -> Result<(), Failure> {
    match std::fs::write("/proc/self/oom_score_adj", adjustment.to_string()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
        other => other.doing("set oom_score_adj"),
    }
}

fn environment(plan: &ProcessPlan, home: &str) -> Vec<String> {
    let mut environment = plan.environment.clone();
    let has = |name: &str| plan.environment.iter().any(|entry| entry.starts_with(name));
    if !has("HOME=") {
        environment.push(format!("HOME={home}"));
    }
    if !has("PATH=") {
        environment.push(format!("PATH={DEFAULT_PATH}"));
    }
    environment
}

/// The last `PATH` wins, as for a shell.
fn search_path(environment: &[String]) -> String {
    let entry = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    entry.unwrap_or(DEFAULT_PATH).to_owned()
}

fn assume_user(runs_as: &status::RunsAs) -> Result<(), Failure> {
    syscalls::prctl(libc::PR_SET_KEEPCAPS, 1).doing("keep capabilities")?;
    let (uid, gid) = (runs_as.uid, runs_as.gid);
    // SAFETY: the list lives across the call; the others take integers.
    unsafe {
        syscalls::check(libc::setgroups(runs_as.groups.len(), runs_as.groups.as_ptr())).doing("setgroups")?;
        syscalls::check(libc::setresgid(gid, gid, gid)).doing("setgid")?;
        syscalls::check(libc::setresuid(uid, uid, uid)).doing("setuid")?;
    }
    syscalls::prctl(libc::PR_SET_KEEPCAPS, 0).doing("drop capabilities")
}

/// Finds the program as upstream's runtimes do, with their messages, which users know from pod statuses.
fn find_program(name: &str, path: &str) -> Result<String, Failure> {
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(reason) => Err(Failure(format!("exec: \"{name}\": {reason}"))),
        };
    }
    let mut reason = "executable file not found in $PATH".to_owned();
    for folder in path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = format!("{folder}/{name}");
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(denied) if denied == "permission denied" => reason = denied,
            Err(_) => {}
        }
    }
    Err(Failure(format!("exec: \"{name}\": {reason}")))
}

fn executable(path: &str) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("stat {path}: {}", super::os_message(&error)))?;
    if metadata.is_dir() {
        return Err("is a directory".into());
    }
    if metadata.mode() & 0o111 == 0 {
        return Err("permission denied".into());
    }
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).map_err(|error| super::os_message(&io::Error::from(error)))
}

/// `execve`; returns only with an error.
fn exec(program: &str, arguments: &[String], environment: &[String]) -> io::Error {
    let strings = |list: &[String]| list.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>();
    let (Ok(program), Ok(arguments), Ok(environment)) =
        (CString::new(program), strings(arguments), strings(environment))
    else {
        return io::Error::from_raw_os_error(libc::EINVAL);
    };
    match nix::unistd::execve(&program, &arguments, &environment) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_what_cannot_run_in_upstreams_words() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("plain"), "x").unwrap();
        let path = folder.path().display().to_string();
        let message = |name: &str| find_program(name, &path).unwrap_err().0;
        assert_eq!(message("xyz"), "exec: \"xyz\": executable file not found in $PATH");
        assert_eq!(message("plain"), "exec: \"plain\": permission denied");
        assert_eq!(message(&at("plain")), format!("exec: \"{}\": permission denied", at("plain")));
        let absent = at("absent");
        assert_eq!(message(&absent), format!("exec: \"{absent}\": stat {absent}: no such file or directory"));
        assert_eq!(message("/tmp"), "exec: \"/tmp\": is a directory");
        assert!(find_program("sh", "/nowhere:/bin").unwrap().ends_with("/bin/sh"));
    }
}
