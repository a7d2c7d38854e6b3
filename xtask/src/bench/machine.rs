//! What was measured on: the date, the kernel, the processors, the memory.

use std::fs;
use std::process::Command;

use anyhow::Result;
use bench_harness::Machine;

use crate::process;

pub fn today() -> Result<String> {
    Ok(process::output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?.trim().to_owned())
}

pub fn this_one() -> Result<Machine> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib: f64 = field(&memory, "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    Ok(Machine {
        kernel: process::output(Command::new("uname").arg("-sr"))?.trim().to_owned(),
        processor: field(&processors, "model name").to_owned(),
        processors: std::thread::available_parallelism()?.get(),
        memory_gb: kib * 1024.0 / 1e9,
    })
}

/// What stands behind `key` and a colon.
fn field<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    line.unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_whatever_stands_between_its_name_and_the_colon() {
        assert_eq!(field("model\t: 5\nmodel name\t: Fast One\n", "model name"), "Fast One");
        assert_eq!(field("MemTotal:       100 kB\n", "MemTotal"), "100 kB");
        assert_eq!(field("", "MemTotal"), "");
    }
}
