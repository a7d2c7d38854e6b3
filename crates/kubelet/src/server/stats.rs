//! What containers, pods and the node use: `/stats/summary`, `/metrics/resource`.

use cri::v1::{ContainerStats, ListContainerStatsRequest, ListPodSandboxStatsRequest, PodSandboxStats, UInt64Value};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::node::machine;
use crate::runtime_view::{LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};

/// What one container uses now.
struct Usage {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    at: i64,
    cpu_nanoseconds: Option<u64>,
    cpu_nanocores: Option<u64>,
    memory_bytes: Option<u64>,
    rss_bytes: Option<u64>,
    writable_bytes: Option<u64>,
}

async fn containers(agent: &Agent) -> Result<Vec<Usage>, cri::Error> {
    let listed = agent.cri.list_container_stats(ListContainerStatsRequest::default()).await?;
    Ok(listed.stats.into_iter().filter_map(usage).collect())
}

fn usage(stats: ContainerStats) -> Option<Usage> {
    let attributes = stats.attributes?;
    let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
    let value = |given: Option<UInt64Value>| given.map(|given| given.value);
    let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
    Some(Usage {
        namespace: label(LABEL_POD_NAMESPACE),
        pod: label(LABEL_POD_NAME),
        uid: label(LABEL_POD_UID),
        container: label(LABEL_CONTAINER_NAME),
        at: cpu.timestamp,
        cpu_nanoseconds: value(cpu.usage_core_nano_seconds),
        cpu_nanocores: value(cpu.usage_nano_cores),
        memory_bytes: value(memory.working_set_bytes),
        rss_bytes: value(memory.rss_bytes),
        writable_bytes: stats.writable_layer.and_then(|layer| value(layer.used_bytes)),
    })
}

fn time(nanoseconds: i64) -> Value {
    let at = base::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    meta::time::rfc3339(at).into()
}

fn container_json(usage: &Usage) -> Value {
    json!({
        "name": usage.container,
        "startTime": time(usage.at),
        "cpu": {"time": time(usage.at), "usageCoreNanoSeconds": usage.cpu_nanoseconds, "usageNanoCores": usage.cpu_nanocores},
        "memory": {"time": time(usage.at), "workingSetBytes": usage.memory_bytes, "rssBytes": usage.rss_bytes},
        "rootfs": {"time": time(usage.at), "usedBytes": usage.writable_bytes},
    })
}

/// The document of `/stats/summary`.
pub async fn summary(agent: &Agent) -> Result<Value, cri::Error> {
    let used = containers(agent).await?;
    let networks = agent.cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await;
    let networks: Vec<PodSandboxStats> = networks.map(|answer| answer.stats).unwrap_or_default();
    let mut uids: Vec<&str> = used.iter().map(|usage| usage.uid.as_str()).collect();
    uids.sort_unstable();
    uids.dedup();
    let pods: Vec<Value> = uids
        .into_iter()
        .map(|uid| {
            let own: Vec<&Usage> = used.iter().filter(|usage| usage.uid == uid).collect();
            let sum = |of: fn(&Usage) -> Option<u64>| own.iter().filter_map(|usage| of(usage)).sum::<u64>();
            let at = time(own.iter().map(|usage| usage.at).max().unwrap_or(0));
            json!({
                "podRef": {"name": own[0].pod, "namespace": own[0].namespace, "uid": uid},
                "startTime": at,
                "containers": own.iter().map(|usage| container_json(usage)).collect::<Vec<_>>(),
                "cpu": {"time": at, "usageCoreNanoSeconds": sum(|usage| usage.cpu_nanoseconds), "usageNanoCores": sum(|usage| usage.cpu_nanocores)},
                "memory": {"time": at, "workingSetBytes": sum(|usage| usage.memory_bytes)},
                "network": network(&networks, uid),
            })
        })
        .collect();
    Ok(json!({"node": node(agent), "pods": pods}))
}

fn network(all: &[PodSandboxStats], uid: &str) -> Value {
    let own = all.iter().find(|stats| {
        stats
            .attributes
            .as_ref()
            .and_then(|attributes| attributes.metadata.as_ref())
            .is_some_and(|known| known.uid == uid)
    });
    let usage = own.and_then(|stats| stats.linux.as_ref()?.network.as_ref());
    let Some(interface) = usage.and_then(|usage| usage.default_interface.as_ref()) else { return Value::Null };
    let value = |given: &Option<UInt64Value>| given.as_ref().map(|given| given.value);
    json!({"time": time(usage.map_or(0, |usage| usage.timestamp)), "name": interface.name,
           "rxBytes": value(&interface.rx_bytes), "txBytes": value(&interface.tx_bytes)})
}

fn node(agent: &Agent) -> Value {
    let now = meta::time::rfc3339(agent.clock.now());
    let (memory_bytes, available) = node_memory(agent);
    let room = machine::room(&agent.config.data_dir);
    json!({
        "nodeName": agent.config.node_name,
        "cpu": {"time": now, "usageCoreNanoSeconds": node_cpu_nanoseconds()},
        "memory": {"time": now, "workingSetBytes": memory_bytes, "availableBytes": available},
        "fs": {"time": now, "capacityBytes": room.capacity_bytes, "availableBytes": room.available_bytes,
               "usedBytes": room.capacity_bytes.saturating_sub(room.available_bytes),
               "inodes": room.inodes, "inodesFree": room.inodes_free},
    })
}

fn node_memory(agent: &Agent) -> (i64, i64) {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = machine::meminfo(&meminfo, "MemAvailable");
    (agent.machine.memory_bytes - available, available)
}

/// Time all processors spent on anything since boot; the kernel counts it in hundredths of a second.
fn node_cpu_nanoseconds() -> u64 {
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
    let used = containers(agent).await?;
    let mut text = String::new();
    let mut series = |name: &str, kind: &str, help: &str, lines: Vec<String>| {
        text.push_str(&format!("# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n"));
        lines.iter().for_each(|line| text.push_str(&format!("{name}{line}\n")));
    };
    let labels = |usage: &Usage| {
        let Usage { container, namespace, pod, .. } = usage;
        format!("{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"}}")
    };
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let milliseconds = |usage: &Usage| usage.at / 1_000_000;
    let cpu = used.iter().filter_map(|usage| {
        Some(format!("{} {} {}", labels(usage), seconds(usage.cpu_nanoseconds?), milliseconds(usage)))
    });
    series(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        cpu.collect(),
    );
    let memory = used
        .iter()
        .filter_map(|usage| Some(format!("{} {} {}", labels(usage), usage.memory_bytes?, milliseconds(usage))));
    series(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
        memory.collect(),
    );
    let now = agent.clock.now().as_millisecond();
    series(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
        vec![format!(" {} {now}", seconds(node_cpu_nanoseconds()))],
    );
    series(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
        vec![format!(" {} {now}", node_memory(agent).0)],
    );
    series(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        vec![" 0".into()],
    );
    Ok(text)
}
