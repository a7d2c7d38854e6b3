//! Starting processes from the shim: containers, exec'd commands, and the process that holds a pod's shared process ids.
//!
//! Everything up to `clone3` happens without waiting, so nothing can come between entering a process id namespace and leaving
//! it again. `clone3` is sound here because the shim has one thread.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use super::descriptor::Descriptor;
use crate::{
    cgroup::Hierarchies,
    launch::{
        self, LaunchPlan,
        join::{self, Namespaces},
        plan::{PidNamespace, ProcessPlan},
        process::Stdio,
        status::{Message, RunsAs},
    },
    syscalls::{self, Side},
};

/// A process just cloned, with our ends of its streams.
pub struct Started {
    /// As the host numbers it.
    pub pid: i32,
    /// Its status socket.
    status: Descriptor,
    /// Its streams; with a terminal they come with [`Started::settle`].
    pub streams: Streams,
}

/// Our ends of a process' streams.
#[derive(Clone, Default)]
pub struct Streams {
    /// To its standard input.
    pub stdin: Option<Rc<Descriptor>>,
    /// From its standard output.
    pub stdout: Option<Rc<Descriptor>>,
    /// From its standard error.
    pub stderr: Option<Rc<Descriptor>>,
    /// Its terminal, which is then also `stdin` and `stdout`.
    pub terminal: Option<Rc<Descriptor>>,
}

impl Started {
    /// Waits until the process has become its program: who it runs as, and its streams. The error is why it did not.
    pub async fn settle(self) -> Result<(RunsAs, Streams), String> {
        let mut streams = self.streams;
        let mut user = RunsAs::default();
        loop {
            match self.status.receive().await.map_err(|error| format!("read status: {error}"))? {
                None => return Ok((user, streams)),
                Some((Message::Failed(why), _)) => return Err(why),
                Some((Message::User(runs_as), _)) => user = runs_as,
                Some((Message::Terminal, master)) => {
                    let master = master.ok_or("terminal without a descriptor")?;
                    let master = Rc::new(Descriptor::new(master).map_err(|error| format!("watch terminal: {error}"))?);
                    streams = Streams {
                        stdin: Some(master.clone()),
                        stdout: Some(master.clone()),
                        stderr: None,
                        terminal: Some(master),
                    };
                }
            }
        }
    }
}

/// Both ends of a process' streams.
fn stdio(terminal: bool, stdin: bool) -> io::Result<(Stdio, Streams)> {
    if terminal {
        return Ok((Stdio::Terminal, Streams::default()));
    }
    let (input, to_input) = match stdin {
        true => syscalls::pipe().map(|(read, write)| (read, Some(write)))?,
        false => (OwnedFd::from(File::open("/dev/null")?), None),
    };
    let (from_output, output) = syscalls::pipe()?;
    let (from_error, error) = syscalls::pipe()?;
    let watch = |fd| Descriptor::new(fd).map(Rc::new);
    let streams = Streams {
        stdin: to_input.map(watch).transpose()?,
        stdout: Some(watch(from_output)?),
        stderr: Some(watch(from_error)?),
        terminal: None,
    };
    Ok((Stdio::Pipes(input, output, error), streams))
}

/// Clones with the children's process ids in `namespace` when one is given.
fn clone_in(flags: i32, namespace: Option<&File>, cgroup: Option<&OwnedFd>) -> io::Result<Side> {
    let own = File::open("/proc/self/ns/pid")?;
    if let Some(namespace) = namespace {
        syscalls::setns(namespace.as_fd(), libc::CLONE_NEWPID)?;
    }
    // SAFETY: the shim has one thread; see the module's head.
    let side = unsafe { syscalls::clone_process(flags as u64, cgroup.map(|fd| fd.as_fd())) };
    if namespace.is_some() && !matches!(side, Ok(Side::Child)) {
        syscalls::setns(own.as_fd(), libc::CLONE_NEWPID)?;
    }
    side
}

/// Starts a container. `namespace` is the process id namespace that `plan` asks for when it is neither its own nor the host's.
pub fn start(plan: &LaunchPlan, hierarchies: &Hierarchies, namespace: Option<&File>) -> io::Result<Started> {
    let (stdio, streams) = stdio(plan.process.terminal, plan.stdin)?;
    let (status, child_status) = syscalls::message_pair()?;
    let cgroup = hierarchies.open_for_clone(&plan.cgroup)?;
    let own = if plan.pid_namespace == PidNamespace::Own { libc::CLONE_NEWPID } else { 0 };
    match clone_in(libc::CLONE_NEWNS | own, namespace, cgroup.as_ref())? {
        Side::Child => launch::init::run(plan, hierarchies, stdio, child_status),
        Side::Parent(pid) => {
            drop((stdio, child_status));
            Ok(Started { pid, status: Descriptor::new(status)?, streams })
        }
    }
}

/// Starts a command in the container whose first process is `target`.
pub fn exec(
    plan: &ProcessPlan,
    target: i32,
    hierarchies: &Hierarchies,
    cgroup: &str,
    stdin: bool,
) -> io::Result<Started> {
    let namespaces = Namespaces::of(target)?;
    let (stdio, streams) = stdio(plan.terminal, stdin)?;
    let (status, child_status) = syscalls::message_pair()?;
    let folder = hierarchies.open_for_clone(cgroup)?;
    match clone_in(0, Some(&namespaces.pid), folder.as_ref())? {
        Side::Child => join::run(plan, &namespaces, hierarchies, cgroup, stdio, child_status),
        Side::Parent(pid) => {
            drop((stdio, child_status));
            Ok(Started { pid, status: Descriptor::new(status)?, streams })
        }
    }
}

/// Starts the process that is number 1 of a pod whose containers share their process ids: it reaps, and ends when told to.
pub fn start_pause(hierarchies: &Hierarchies, cgroup: &str) -> io::Result<i32> {
    let folder = hierarchies.open_for_clone(cgroup)?;
    match clone_in(libc::CLONE_NEWPID, None, folder.as_ref())? {
        Side::Parent(pid) => Ok(pid),
        Side::Child => {
            let joined = hierarchies.join_self(cgroup).is_ok();
            pause(joined)
        }
    }
}

fn pause(ready: bool) -> ! {
    // Neither can fail in a way that matters: the name is for people, and descriptors not closed only cost memory.
    let _ = rustix::thread::set_name(c"pause");
    let _ = syscalls::close_from(0);
    if !ready {
        // SAFETY: ends this clone at once.
        unsafe { libc::_exit(1) };
    }
    // SAFETY: a set on this stack; waiting for signals that are blocked; nothing else runs in this process.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
            libc::sigaddset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        let mut signal = 0;
        while libc::sigwait(&set, &mut signal) == 0 && signal == libc::SIGCHLD {
            while syscalls::reap_one().is_some() {}
        }
        libc::_exit(0)
    }
}
