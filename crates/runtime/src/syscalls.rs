//! The few system calls that no crate wraps the way we need them, each as a small safe function.
//!
//! Everything here runs in a single-threaded process (the shim and what it clones), so that `clone3` without `exec` is sound.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

/// Turns a libc return value into a result.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A path as the kernel takes it.
pub fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// The child is born inside a v2 cgroup. (libc's constant is too narrow.)
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Who returned from [`clone_process`].
pub enum Side {
    /// The caller, with the child's process id as the caller sees it.
    Parent(i32),
    /// The new process.
    Child,
}

/// `clone3` without a new stack: a fork with `flags`, born inside `cgroup` (v2) when one is given.
///
/// # Safety
/// The calling process must have a single thread: the child gets a copy of memory in which any lock held by another thread
/// would never be released.
pub unsafe fn clone_process(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    // SAFETY: `clone_args` is plain integers, for all of which zero is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no stack is given, so this is a fork; the caller vouches for there being one thread.
    let pid = check_long(unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of::<libc::clone_args>()) })?;
    Ok(if pid == 0 { Side::Child } else { Side::Parent(pid as i32) })
}

/// Leaves shared namespaces for new ones.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Enters the namespace behind `fd`, which must be of kind `flag`.
pub fn setns(fd: BorrowedFd<'_>, flag: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::setns(fd.as_raw_fd(), flag) }).map(drop)
}

/// Changes read-only and propagation attributes of the mount `fd` stands for, of all below it when `recursive`.
pub fn mount_setattr(fd: BorrowedFd<'_>, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant, the structure lives on this stack and its size is passed along.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Marks every descriptor from `first` on to be closed by `exec`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: takes no pointers; only sets a flag.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes every descriptor from `first` on. Only for a fresh process that is about to do nothing else with them.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller's remaining life uses none of these descriptors.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Makes `to` the same open file as `from`, kept across `exec`.
pub fn duplicate_onto(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    if from.as_raw_fd() == to {
        // SAFETY: takes no pointers; clears close-on-exec.
        return check(unsafe { libc::fcntl(to, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: takes no pointers; `to` is one of the standard three.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }).map(drop)
}

/// All signals at their default, none blocked: what a new program expects.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting the default action is always sound; numbers that cannot be set fail harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set on this stack.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// A pair of connected sockets that keep message borders and can carry descriptors.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) })?;
    // SAFETY: both were just made for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// A pipe, both ends closed by `exec`: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both were just made for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Makes reads and writes return at once.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// A new pseudo-terminal from the multiplexer at `path`: (master, slave).
pub fn open_terminal(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let path = c_path(path)?;
    // SAFETY: the path is a C string that outlives the call; results are checked before they are owned.
    unsafe {
        let master = check(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))?;
        let master = OwnedFd::from_raw_fd(master);
        let unlock: libc::c_int = 0;
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock))?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let slave = check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags))?;
        Ok((master, OwnedFd::from_raw_fd(slave)))
    }
}

/// Makes the terminal behind `slave` this session's own; call after `setsid`.
pub fn take_terminal(slave: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is an integer.
    check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Sets a terminal's size in cells.
pub fn set_terminal_size(master: BorrowedFd<'_>, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure lives on this stack.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// Reaps one ended child, if any: its process id and how it ended (exit code, or 128 + signal).
pub fn reap_one() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the status lives on this stack.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then(|| (pid, exit_code(status)))
}

fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Sends a signal to one process.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// `prctl` with one integer argument.
pub fn prctl(option: i32, argument: u64) -> io::Result<()> {
    // SAFETY: only used with options whose argument is an integer.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) }).map(drop)
}

/// Brings the loopback interface of the present network namespace up.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: the request is plain data on this stack, large enough for both calls.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request)).map(drop)
    }
}

/// A copy of the running program on a read-only mount that is attached nowhere: what is executed from it can never be
/// opened for writing through `/proc/<pid>/exe`, so a container cannot overwrite the host's program.
pub fn readonly_self() -> io::Result<OwnedFd> {
    use rustix::mount::OpenTreeFlags;
    let path = std::fs::read_link("/proc/self/exe")?;
    // After an upgrade in place the name may lead elsewhere or nowhere; the kernel's link always leads to what runs.
    let path = if path.exists() { path } else { "/proc/self/exe".into() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, path, flags)?;
    mount_setattr(std::os::fd::AsFd::as_fd(&tree), libc::MOUNT_ATTR_RDONLY, 0, false)?;
    Ok(tree)
}
