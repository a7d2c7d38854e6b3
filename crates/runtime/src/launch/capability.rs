//! Capability names and sets.

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Doing, Failure, plan::CapabilityPlan};
use crate::syscalls;

/// The kernel's capabilities by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container gets without asking, as with upstream's runtimes.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Every capability there is.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The bit of a name, with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|index| 1 << index)
}

/// The default set.
pub fn default_set() -> u64 {
    DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | bit)
}

/// The set after `add` and `drop` (either may name `ALL`), adding after dropping as upstream's runtimes do for `ALL` and
/// dropping last for single names. The first unknown name is the error.
pub fn apply(mut set: u64, add: &[String], drop: &[String]) -> Result<u64, String> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    if drop.iter().any(is_all) {
        set = 0;
    }
    if add.iter().any(is_all) {
        set = ALL;
    }
    let known = |name: &&String| !is_all(name);
    for name in add.iter().filter(known) {
        set |= bit(name).ok_or_else(|| name.clone())?;
    }
    for name in drop.iter().filter(known) {
        set &= !bit(name).ok_or_else(|| name.clone())?;
    }
    Ok(set)
}

/// Takes everything out of the bounding set that is not granted. Needs the privileges that are about to go.
pub fn limit_bounding_set(plan: &CapabilityPlan) -> Result<(), Failure> {
    for index in (0..NAMES.len() as u64).filter(|index| plan.granted & (1 << index) == 0) {
        match syscalls::prctl(libc::PR_CAPBSET_DROP, index) {
            // An older kernel does not know the newest ones.
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                return Err(Failure(format!("drop capability {}: {error}", NAMES[index as usize])));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets the process' own sets, limited to what we have ourselves (a nested host may lack some).
pub fn assume(plan: &CapabilityPlan) -> Result<(), Failure> {
    let held = rustix::thread::capabilities(None).doing("read capabilities")?.permitted.bits();
    let granted = plan.granted & held;
    let ambient = plan.ambient & granted;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::from_bits_retain(granted),
            permitted: CapabilitySet::from_bits_retain(granted),
            inheritable: CapabilitySet::from_bits_retain(ambient),
        },
    )
    .doing("set capabilities")?;
    for index in (0..NAMES.len() as u64).filter(|index| ambient & (1 << index) != 0) {
        let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
        // SAFETY: integers only.
        let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, index, 0, 0) };
        syscalls::check(result).doing("raise ambient capability")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn adds_and_drops_as_upstream_does() {
        let base = default_set();
        let cases: [(&[&str], &[&str], u64); 5] = [
            (&[], &[], base),
            (&["NET_ADMIN"], &[], base | bit("NET_ADMIN").unwrap()),
            (&["cap_sys_time"], &["ALL"], bit("SYS_TIME").unwrap()),
            (&["ALL"], &["MKNOD"], ALL & !bit("MKNOD").unwrap()),
            (&[], &["ALL"], 0),
        ];
        for (add, drop, expected) in cases {
            assert_eq!(apply(base, &names(add), &names(drop)), Ok(expected), "add {add:?} drop {drop:?}");
        }
        assert_eq!(apply(base, &names(&["FLY"]), &[]), Err("FLY".to_owned()));
    }
}
