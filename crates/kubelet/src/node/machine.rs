//! What the machine is: processors, memory, identity, file system.

use std::path::Path;

/// Facts read once at the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    /// In Go's words: `amd64`, `arm64`, ...
    pub architecture: String,
}

impl Machine {
    pub fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default();
        let machine_id = text("/etc/machine-id");
        let system_uuid = text("/sys/class/dmi/id/product_uuid");
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1)),
            memory_bytes: meminfo(&text("/proc/meminfo"), "MemTotal"),
            system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
            machine_id,
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            kernel_version: text("/proc/sys/kernel/osrelease"),
            os_image: os_image(&text("/etc/os-release")),
            architecture: architecture(std::env::consts::ARCH).to_string(),
        }
    }
}

/// A line of `/proc/meminfo` in bytes; 0 when it is not there.
pub fn meminfo(text: &str, field: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<i64>().ok());
    kibibytes.map_or(0, |kibibytes| kibibytes * 1024)
}

fn os_image(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map(|name| name.trim_matches('"').to_string()).unwrap_or_else(|| "Unknown".to_string())
}

fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Size and room of the file system that holds `path`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Room {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

pub fn room(path: &Path) -> Room {
    match nix::sys::statvfs::statvfs(path) {
        Ok(found) => Room {
            capacity_bytes: found.blocks() * found.fragment_size(),
            available_bytes: found.blocks_available() * found.fragment_size(),
            inodes: found.files(),
            inodes_free: found.files_available(),
        },
        Err(_) => Room::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_the_kernels_text() {
        assert_eq!(meminfo("MemTotal:       16384 kB\nMemFree: 1 kB\n", "MemTotal"), 16 << 20);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && !machine.kernel_version.is_empty());
    }
}
