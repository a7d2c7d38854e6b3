//! What containers, pods and the node use: `/stats/summary`, `/metrics/resource`.
//!
//! Pods and containers as the runtime counts them over CRI, the node as the kernel does. What is not counted is left out.

use std::collections::HashMap;

use cri::v1::{
    ContainerStats, CpuUsage, ListContainersRequest, ListPodSandboxStatsRequest, MemoryUsage, NetworkInterfaceUsage,
    NetworkUsage, PodSandboxStats, UInt64Value,
};
use serde_json::{Map, Value, json};

use super::exposition::{Exposition, Sample};
use crate::agent::Agent;
use crate::node::machine;
use crate::pod;
use crate::runtime_view::LABEL_CONTAINER_NAME;

/// Statistics of all pods, and when each container was made, in nanoseconds.
struct Used {
    pods: Vec<PodSandboxStats>,
    created_at: HashMap<String, i64>,
}

async fn used(agent: &Agent) -> Result<Used, cri::Error> {
    let pods = agent.cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await?.stats;
    let listed = agent.cri.list_containers(ListContainersRequest::default()).await?.containers;
    Ok(Used { pods, created_at: listed.into_iter().map(|container| (container.id, container.created_at)).collect() })
}

fn containers(pod: &PodSandboxStats) -> &[ContainerStats] {
    pod.linux.as_ref().map(|linux| linux.containers.as_slice()).unwrap_or_default()
}

fn container_name(stats: &ContainerStats) -> &str {
    let labels = stats.attributes.as_ref().map(|attributes| &attributes.labels);
    labels.and_then(|labels| labels.get(LABEL_CONTAINER_NAME)).map(String::as_str).unwrap_or_default()
}

impl Used {
    fn created_at(&self, stats: &ContainerStats) -> Option<i64> {
        stats.attributes.as_ref().and_then(|attributes| self.created_at.get(&attributes.id)).copied()
    }
}

fn value(given: Option<UInt64Value>) -> Option<u64> {
    given.map(|given| given.value)
}

fn time(nanoseconds: i64) -> Value {
    let at = base::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    meta::time::rfc3339(at).into()
}

/// An object of the fields that have a value.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let given = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(given.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn cpu_json(usage: Option<&CpuUsage>) -> Value {
    usage.map_or(Value::Null, |usage| {
        object([
            ("time", time(usage.timestamp)),
            ("usageNanoCores", json!(value(usage.usage_nano_cores))),
            ("usageCoreNanoSeconds", json!(value(usage.usage_core_nano_seconds))),
        ])
    })
}

fn memory_json(usage: Option<&MemoryUsage>) -> Value {
    usage.map_or(Value::Null, |usage| {
        object([
            ("time", time(usage.timestamp)),
            ("availableBytes", json!(value(usage.available_bytes))),
            ("usageBytes", json!(value(usage.usage_bytes))),
            ("workingSetBytes", json!(value(usage.working_set_bytes))),
            ("rssBytes", json!(value(usage.rss_bytes))),
            ("pageFaults", json!(value(usage.page_faults))),
            ("majorPageFaults", json!(value(usage.major_page_faults))),
        ])
    })
}

fn container_json(stats: &ContainerStats, created_at: Option<i64>) -> Value {
    let layer = stats.writable_layer.as_ref();
    let rootfs = layer.map_or(Value::Null, |layer| {
        object([
            ("time", time(layer.timestamp)),
            ("usedBytes", json!(value(layer.used_bytes))),
            ("inodesUsed", json!(value(layer.inodes_used))),
        ])
    });
    object([
        ("name", container_name(stats).into()),
        ("startTime", created_at.map_or(Value::Null, time)),
        ("cpu", cpu_json(stats.cpu.as_ref())),
        ("memory", memory_json(stats.memory.as_ref())),
        ("rootfs", rootfs),
    ])
}

/// An interface's counters, beside `more`.
fn interface_json(interface: &NetworkInterfaceUsage, more: [(&str, Value); 2]) -> Value {
    let [first, second] = more;
    object([
        first,
        ("name", interface.name.as_str().into()),
        ("rxBytes", json!(value(interface.rx_bytes))),
        ("rxErrors", json!(value(interface.rx_errors))),
        ("txBytes", json!(value(interface.tx_bytes))),
        ("txErrors", json!(value(interface.tx_errors))),
        second,
    ])
}

fn network_json(usage: Option<&NetworkUsage>) -> Value {
    let Some((usage, default)) = usage.and_then(|usage| Some((usage, usage.default_interface.as_ref()?))) else {
        return Value::Null;
    };
    let all = usage.interfaces.iter().chain([default].into_iter().filter(|_| usage.interfaces.is_empty()));
    let all: Vec<Value> = all.map(|each| interface_json(each, [("", Value::Null), ("", Value::Null)])).collect();
    interface_json(default, [("time", time(usage.timestamp)), ("interfaces", all.into())])
}

fn pod_json(agent: &Agent, used: &Used, stats: &PodSandboxStats) -> Value {
    let about = stats.attributes.clone().and_then(|attributes| attributes.metadata).unwrap_or_default();
    let known = agent.pods.lister().get(&meta::ObjectKey::new(&about.namespace, &about.name));
    let known = known.filter(|known| pod::uid(known) == about.uid);
    let started = known.and_then(|known| pod::status(&known).start_time.clone());
    let linux = stats.linux.as_ref();
    let processes = linux.and_then(|linux| value(linux.process.as_ref()?.process_count));
    let own: Vec<Value> = containers(stats).iter().map(|each| container_json(each, used.created_at(each))).collect();
    object([
        ("podRef", json!({"name": about.name, "namespace": about.namespace, "uid": about.uid})),
        ("startTime", json!(started)),
        ("containers", own.into()),
        ("cpu", cpu_json(linux.and_then(|linux| linux.cpu.as_ref()))),
        ("memory", memory_json(linux.and_then(|linux| linux.memory.as_ref()))),
        ("network", network_json(linux.and_then(|linux| linux.network.as_ref()))),
        ("process_stats", processes.map_or(Value::Null, |count| json!({"process_count": count}))),
    ])
}

/// The document of `/stats/summary`.
pub async fn summary(agent: &Agent) -> Result<Value, cri::Error> {
    let used = used(agent).await?;
    let pods: Vec<Value> = used.pods.iter().map(|stats| pod_json(agent, &used, stats)).collect();
    Ok(json!({"node": node(agent), "pods": pods}))
}

fn node(agent: &Agent) -> Value {
    let now = meta::time::rfc3339(agent.clock.now());
    let (memory_bytes, available) = node_memory(agent);
    let room = machine::room(&agent.config.data_dir);
    json!({
        "nodeName": agent.config.node_name,
        "startTime": boot_time_seconds().map(|at| time(at.saturating_mul(1_000_000_000))),
        "cpu": {"time": now, "usageCoreNanoSeconds": node_cpu_nanoseconds()},
        "memory": {"time": now, "workingSetBytes": memory_bytes, "availableBytes": available},
        "fs": {"time": now, "capacityBytes": room.capacity_bytes, "availableBytes": room.available_bytes,
               "usedBytes": room.capacity_bytes.saturating_sub(room.available_bytes),
               "inodes": room.inodes, "inodesFree": room.inodes_free,
               "inodesUsed": room.inodes.saturating_sub(room.inodes_free)},
    })
}

fn boot_time_seconds() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// Memory in use and memory left, in bytes.
pub fn node_memory(agent: &Agent) -> (i64, i64) {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = machine::meminfo(&meminfo, "MemAvailable");
    (agent.machine.memory_bytes - available, available)
}

/// Time all processors spent on anything since boot; the kernel counts it in hundredths of a second.
pub fn node_cpu_nanoseconds() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    let all: u64 = fields.iter().take(8).sum();
    (all - idle.min(all)) * 10_000_000
}

/// The text of `/metrics/resource`, which metrics servers read.
pub async fn resource_metrics(agent: &Agent) -> Result<String, cri::Error> {
    let used = used(agent).await?;
    let mut exposition = Exposition::default();
    used_families(&used, &mut exposition);
    let now = agent.clock.now().as_millisecond();
    let cpu = Sample::new(&[], seconds(node_cpu_nanoseconds())).at(now);
    let memory = Sample::new(&[], node_memory(agent).0 as f64).at(now);
    for (name, kind, help, sample) in [
        (
            "node_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
            cpu,
        ),
        ("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes", memory),
        (
            "resource_scrape_error",
            "gauge",
            "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
            Sample::new(&[], 0.0),
        ),
    ] {
        exposition.family(name, kind, help, [sample]);
    }
    Ok(exposition.finish())
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Processor time and working set of one container or pod.
fn cpu_and_memory(
    labels: &[(&str, &str)],
    cpu: Option<&CpuUsage>,
    memory: Option<&MemoryUsage>,
) -> [Option<Sample>; 2] {
    let milliseconds = |nanoseconds: i64| nanoseconds / 1_000_000;
    let cpu = cpu.and_then(|cpu| {
        let used = value(cpu.usage_core_nano_seconds)?;
        Some(Sample::new(labels, seconds(used)).at(milliseconds(cpu.timestamp)))
    });
    let memory = memory.and_then(|memory| {
        let used = value(memory.working_set_bytes)?;
        Some(Sample::new(labels, used as f64).at(milliseconds(memory.timestamp)))
    });
    [cpu, memory]
}

fn used_families(used: &Used, exposition: &mut Exposition) {
    let (mut containers_use, mut pods_use) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut starts = Vec::new();
    for pod in &used.pods {
        let about = pod.attributes.clone().and_then(|attributes| attributes.metadata).unwrap_or_default();
        let pod_labels = [("namespace", about.namespace.as_str()), ("pod", about.name.as_str())];
        for stats in containers(pod) {
            let labels = [("container", container_name(stats)), pod_labels[0], pod_labels[1]];
            let found = cpu_and_memory(&labels, stats.cpu.as_ref(), stats.memory.as_ref());
            containers_use.iter_mut().zip(found).for_each(|(all, found)| all.extend(found));
            let started = used.created_at(stats).and_then(|at| u64::try_from(at).ok());
            starts.extend(started.map(|at| Sample::new(&labels, seconds(at))));
        }
        let linux = pod.linux.as_ref();
        let (cpu, memory) = (linux.and_then(|linux| linux.cpu.as_ref()), linux.and_then(|linux| linux.memory.as_ref()));
        pods_use.iter_mut().zip(cpu_and_memory(&pod_labels, cpu, memory)).for_each(|(all, found)| all.extend(found));
    }
    for (what, [cpu, memory]) in [("container", containers_use), ("pod", pods_use)] {
        let help = format!("[STABLE] Cumulative cpu time consumed by the {what} in core-seconds");
        exposition.family(&format!("{what}_cpu_usage_seconds_total"), "counter", &help, cpu);
        let help = format!("[STABLE] Current working set of the {what} in bytes");
        exposition.family(&format!("{what}_memory_working_set_bytes"), "gauge", &help, memory);
    }
    let help = "[STABLE] Start time of the container since unix epoch in seconds";
    exposition.family("container_start_time_seconds", "gauge", help, starts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::v1::{ContainerAttributes, LinuxPodSandboxStats, PodSandboxAttributes, PodSandboxMetadata};

    fn counted(number: u64) -> Option<UInt64Value> {
        Some(UInt64Value { value: number })
    }

    fn stats() -> PodSandboxStats {
        let labels: HashMap<_, _> = [(LABEL_CONTAINER_NAME.to_owned(), "app".to_owned())].into();
        let cpu =
            CpuUsage { timestamp: 2_000_000, usage_core_nano_seconds: counted(1_500_000_000), ..Default::default() };
        let memory = MemoryUsage { timestamp: 2_000_000, working_set_bytes: counted(4096), ..Default::default() };
        let container = ContainerStats {
            attributes: Some(ContainerAttributes { id: "c1".into(), labels, ..Default::default() }),
            cpu: Some(cpu),
            memory: Some(memory),
            ..Default::default()
        };
        let metadata = PodSandboxMetadata { name: "web".into(), namespace: "shop".into(), ..Default::default() };
        PodSandboxStats {
            attributes: Some(PodSandboxAttributes { metadata: Some(metadata), ..Default::default() }),
            linux: Some(LinuxPodSandboxStats { cpu: Some(cpu), containers: vec![container], ..Default::default() }),
            windows: None,
        }
    }

    #[test]
    fn metrics_servers_find_use_and_start_of_each_container() {
        let used = Used { pods: vec![stats()], created_at: [("c1".to_owned(), 1_000_000_000)].into() };
        let mut exposition = Exposition::default();
        used_families(&used, &mut exposition);
        let text = exposition.finish();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "container_cpu_usage_seconds_total{container=\"app\",namespace=\"shop\",pod=\"web\"} 1.5 2",
                "container_memory_working_set_bytes{container=\"app\",namespace=\"shop\",pod=\"web\"} 4096 2",
                "pod_cpu_usage_seconds_total{namespace=\"shop\",pod=\"web\"} 1.5 2",
                "container_start_time_seconds{container=\"app\",namespace=\"shop\",pod=\"web\"} 1",
            ]
        );
    }

    #[test]
    fn a_summary_says_when_a_container_started_and_leaves_out_what_nobody_counted() {
        let shown = container_json(&containers(&stats())[0], Some(1_000_000_000));
        assert_eq!(shown["startTime"], "1970-01-01T00:00:01Z");
        assert_eq!(shown["memory"], json!({"time": "1970-01-01T00:00:00Z", "workingSetBytes": 4096}));
        assert_eq!(shown.get("rootfs"), None);
    }
}
