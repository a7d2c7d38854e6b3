//! What containers and pods use, in CRI's words.

use std::{fs, sync::Arc};

use cri::{
    Error,
    v1::{
        ContainerAttributes, ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage, LinuxPodSandboxStats,
        MemoryUsage, NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats, ProcessUsage,
        SwapUsage, UInt64Value,
    },
};

use crate::{
    Runtime,
    cgroup::Usage,
    disk,
    sandbox::cgroup_parent,
    state::{Container, Sandbox},
};

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// Rates over less than this are noise.
const RATE_NS_MIN: i64 = 100_000_000;

/// Processor use per second since the last look, in billionths of a processor; `None` at the first look.
fn rate(container: &Container, now_ns: i64, cpu_ns: u64) -> Option<u64> {
    let mut last = container.last_cpu.lock();
    match *last {
        Some((at_ns, used_ns, _)) if now_ns - at_ns >= RATE_NS_MIN => {
            let used = u128::from(cpu_ns.saturating_sub(used_ns)) * 1_000_000_000;
            let rate = (used / (now_ns - at_ns) as u128) as u64;
            *last = Some((now_ns, cpu_ns, rate));
            Some(rate)
        }
        Some((_, _, rate)) => Some(rate),
        None => {
            *last = Some((now_ns, cpu_ns, 0));
            None
        }
    }
}

fn cpu(usage: &Usage, now_ns: i64, rate: Option<u64>) -> CpuUsage {
    CpuUsage {
        timestamp: now_ns,
        usage_core_nano_seconds: value(usage.cpu_ns),
        usage_nano_cores: rate.map(|value| UInt64Value { value }),
        psi: None,
    }
}

fn memory(usage: &Usage, now_ns: i64) -> MemoryUsage {
    let available = usage.memory_limit_bytes.map(|limit| limit.saturating_sub(usage.working_set_bytes));
    MemoryUsage {
        timestamp: now_ns,
        working_set_bytes: value(usage.working_set_bytes),
        available_bytes: available.map(|value| UInt64Value { value }),
        usage_bytes: value(usage.memory_bytes),
        rss_bytes: value(usage.rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        psi: None,
    }
}

/// The interfaces in a `/proc/<pid>/net/dev`, without loopback.
fn interfaces(text: &str) -> Vec<NetworkInterfaceUsage> {
    let lines = text.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [rx_bytes, _, rx_errors, _, _, _, _, _, tx_bytes, _, tx_errors, ..] = counters[..] else { return None };
        Some(NetworkInterfaceUsage {
            name: name.trim().to_owned(),
            rx_bytes: value(rx_bytes),
            rx_errors: value(rx_errors),
            tx_bytes: value(tx_bytes),
            tx_errors: value(tx_errors),
        })
    });
    lines.filter(|interface| interface.name != "lo").collect()
}

impl Runtime {
    /// One container's use; zeros in it for one that does not run, as upstream's runtimes answer.
    pub(crate) async fn container_stats(&self, container: &Arc<Container>) -> Result<ContainerStats, Error> {
        let now_ns = self.now_ns();
        let running = container.is_running();
        // It may end while we look.
        let usage = if running {
            self.hierarchies().usage(&container.record.cgroup).unwrap_or_default()
        } else {
            Usage::default()
        };
        let upper = container.folder.join("upper");
        let walked = tokio::task::spawn_blocking(move || disk::usage(&upper)).await;
        let (bytes, entries) = walked.ok().and_then(Result::ok).unwrap_or_default();
        let rate = running.then(|| rate(container, now_ns, usage.cpu_ns)).flatten();
        let config = &container.config;
        Ok(ContainerStats {
            attributes: Some(ContainerAttributes {
                id: container.id.clone(),
                metadata: config.metadata.clone(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            }),
            cpu: Some(cpu(&usage, now_ns, rate)),
            memory: Some(memory(&usage, now_ns)),
            writable_layer: Some(FilesystemUsage {
                timestamp: now_ns,
                fs_id: Some(FilesystemIdentifier { mountpoint: self.containers_folder().display().to_string() }),
                used_bytes: value(bytes),
                inodes_used: value(entries),
            }),
            swap: Some(SwapUsage {
                timestamp: now_ns,
                swap_available_bytes: None,
                swap_usage_bytes: value(usage.swap_bytes),
            }),
            io: None,
        })
    }

    /// One pod's use.
    pub(crate) async fn sandbox_stats(&self, sandbox: &Arc<Sandbox>) -> Result<PodSandboxStats, Error> {
        let now_ns = self.now_ns();
        let config = sandbox.config();
        // A pod that has ended has no cgroup any more.
        let usage = self.hierarchies().usage(&cgroup_parent(&sandbox.id, config)).unwrap_or_default();
        let mut containers = Vec::new();
        for container in self.containers_of(&sandbox.id).iter().filter(|container| container.is_running()) {
            containers.push(self.container_stats(container).await?);
        }
        let pid = sandbox.record.lock().shim_pid;
        let interfaces = interfaces(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default());
        let default = interfaces.iter().find(|interface| interface.name == "eth0").cloned();
        Ok(PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: sandbox.id.clone(),
                metadata: config.metadata.clone(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(cpu(&usage, now_ns, None)),
                memory: Some(memory(&usage, now_ns)),
                network: Some(NetworkUsage { timestamp: now_ns, default_interface: default, interfaces }),
                process: Some(ProcessUsage { timestamp: now_ns, process_count: value(usage.tasks) }),
                containers,
                io: None,
            }),
            windows: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table_of_interfaces() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                    lo:  10  1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n  \
                    eth0: 1500 12 3 0 0 0 0 0 900 7 4 0 0 0 0 0\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        let counters = [&found[0].rx_bytes, &found[0].rx_errors, &found[0].tx_bytes, &found[0].tx_errors];
        assert_eq!(counters.map(|counter| counter.as_ref().unwrap().value), [1500, 3, 900, 4]);
    }
}
