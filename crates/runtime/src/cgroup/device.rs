//! Which devices a group may use: lists on v1, a small program in the kernel on v2.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

/// Allows access to some devices.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceRule {
    /// `c`, `b`, or `a` for both.
    pub kind: char,
    /// Major number; `None` for any.
    pub major: Option<u32>,
    /// Minor number; `None` for any.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

impl DeviceRule {
    /// Everything.
    pub fn all() -> Self {
        DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".into() }
    }

    /// What every container has: making nodes (harmless by itself), the standard nodes, terminals.
    pub fn standard() -> Vec<Self> {
        let rule = |kind, major, minor, access: &str| DeviceRule { kind, major, minor, access: access.into() };
        let mut rules = vec![rule('c', None, None, "m"), rule('b', None, None, "m")];
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
            rules.push(rule('c', Some(major), Some(minor), "rwm"));
        }
        rules.push(rule('c', Some(136), None, "rwm"));
        rules
    }
}

pub fn write_lists(folder: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    if rules.iter().any(|rule| rule.kind == 'a') {
        return fs::write(folder.join("devices.allow"), "a");
    }
    fs::write(folder.join("devices.deny"), "a")?;
    let part = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    for rule in rules {
        let line = format!("{} {}:{} {}", rule.kind, part(rule.major), part(rule.minor), rule.access);
        fs::write(folder.join("devices.allow"), line)?;
    }
    Ok(())
}

/// One eBPF instruction: opcode, registers (low half destination), offset, immediate.
fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..8].copy_from_slice(&immediate.to_ne_bytes());
    bytes
}

/// The program: the context is (access << 16 | kind, major, minor); it answers 1 to allow.
fn program(rules: &[DeviceRule]) -> Vec<[u8; 8]> {
    const LOAD_WORD: u8 = 0x61;
    const COPY: u8 = 0xbc;
    const AND: u8 = 0x54;
    const SHIFT_RIGHT: u8 = 0x74;
    const UNLESS_EQUAL: u8 = 0x55;
    const UNLESS_EQUAL_REGISTER: u8 = 0x5d;
    const SET: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    // r2 kind, r3 access, r4 major, r5 minor
    let mut code = vec![
        instruction(LOAD_WORD, 0x12, 0, 0),
        instruction(COPY, 0x23, 0, 0),
        instruction(AND, 0x02, 0, 0xffff),
        instruction(SHIFT_RIGHT, 0x03, 0, 16),
        instruction(LOAD_WORD, 0x14, 4, 0),
        instruction(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in rules {
        let mut tests: Vec<(u8, u8, i32)> = Vec::new();
        match rule.kind {
            'b' => tests.push((UNLESS_EQUAL, 0x02, 1)),
            'c' => tests.push((UNLESS_EQUAL, 0x02, 2)),
            _ => {}
        }
        let access = rule.access.chars().fold(0, |bits, letter| {
            bits | match letter {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            }
        });
        let mut block: Vec<[u8; 8]> = Vec::new();
        if let Some(major) = rule.major {
            tests.push((UNLESS_EQUAL, 0x04, major as i32));
        }
        if let Some(minor) = rule.minor {
            tests.push((UNLESS_EQUAL, 0x05, minor as i32));
        }
        // r1 = access wanted and allowed; must be all that is wanted.
        let tail = 5;
        let total = tests.len() + tail;
        for (position, (code, registers, value)) in tests.iter().enumerate() {
            block.push(instruction(*code, *registers, (total - position - 1) as i16, *value));
        }
        block.push(instruction(COPY, 0x31, 0, 0));
        block.push(instruction(AND, 0x01, 0, access));
        block.push(instruction(UNLESS_EQUAL_REGISTER, 0x31, 2, 0));
        block.push(instruction(SET, 0x00, 0, 1));
        block.push(instruction(EXIT, 0, 0, 0));
        code.extend(block);
    }
    code.push(instruction(SET, 0x00, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0));
    code
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Groups below may add programs of their own; all must agree.
const BPF_F_ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are plain data that outlives the call, and their size is passed along.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *const T, size_of::<T>()) };
    crate::syscalls::check(result as i32)
}

pub fn attach_program(folder: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    if rules.iter().any(|rule| rule.kind == 'a') {
        return Ok(());
    }
    let code = program(rules);
    let license = c"Apache-2.0";
    let load = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Default::default()
    };
    let loaded = bpf(BPF_PROG_LOAD, &load)?;
    // SAFETY: the kernel just made this descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let group = fs::File::open(folder)?;
    let attach = AttachAttributes {
        target: group.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attach).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_accepts_the_program() {
        let code = program(&DeviceRule::standard());
        let load = LoadAttributes {
            kind: BPF_PROG_TYPE_CGROUP_DEVICE,
            instruction_count: code.len() as u32,
            instructions: code.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            ..Default::default()
        };
        match bpf(BPF_PROG_LOAD, &load) {
            // SAFETY: just made for us.
            Ok(fd) => drop(unsafe { OwnedFd::from_raw_fd(fd) }),
            // A kernel without BPF cannot judge.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
