//! `/metrics/cadvisor`: what containers and pods use, under the names and labels that cAdvisor made common.
//!
//! Everything about containers comes over CRI: from its metrics where the runtime has them, else the few that its statistics
//! hold. CRI's values are whole numbers; where a runtime gives a time in nanoseconds beside the one in seconds (ours does), the
//! finer one is shown, in seconds. What is said about the machine and its root group (`id="/"`) is read here.

use std::collections::{BTreeMap, HashMap};

use cri::v1::{
    ListMetricDescriptorsRequest, ListPodSandboxMetricsRequest, ListPodSandboxStatsRequest, Metric, MetricDescriptor,
    MetricType, PodSandboxMetrics, PodSandboxStats, UInt64Value,
};

use super::exposition::{Exposition, Sample};
use super::stats;
use crate::agent::Agent;
use crate::node::machine;
use crate::runtime_view::LABEL_CONTAINER_NAME;

const WHOLE: &str = "_seconds_total";
const FINE: &str = "_nanoseconds_total";

/// A family's kind, help and samples, by name.
type Families = BTreeMap<String, (&'static str, String, Vec<Sample>)>;

/// The text of `/metrics/cadvisor`.
pub async fn metrics(agent: &Agent) -> Result<String, cri::Error> {
    let mut families = match from_metrics(agent).await {
        Err(error) if error.is_unimplemented() => {
            let listed = agent.cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await?;
            from_stats(&listed.stats)
        }
        other => other?,
    };
    root_group(agent, &mut families);
    machine_families(agent, &mut families);
    let mut exposition = Exposition::default();
    for (name, (kind, help, samples)) in families {
        exposition.family(&name, kind, &help, samples);
    }
    Ok(exposition.finish())
}

async fn from_metrics(agent: &Agent) -> Result<Families, cri::Error> {
    let described = agent.cri.list_metric_descriptors(ListMetricDescriptorsRequest {}).await?;
    let listed = agent.cri.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await?;
    Ok(described_families(described.descriptors, &listed.pod_metrics))
}

/// Metrics under their descriptors; one without a descriptor, or with other labels than it says, is left out.
fn described_families(descriptors: Vec<MetricDescriptor>, pods: &[PodSandboxMetrics]) -> Families {
    let known: HashMap<String, MetricDescriptor> =
        descriptors.into_iter().map(|descriptor| (descriptor.name.clone(), descriptor)).collect();
    let has_finer =
        |name: &str| name.strip_suffix(WHOLE).is_some_and(|stem| known.contains_key(&format!("{stem}{FINE}")));
    let mut families = Families::new();
    let containers = pods.iter().flat_map(|pod| pod.container_metrics.iter().flat_map(|container| &container.metrics));
    for metric in pods.iter().flat_map(|pod| &pod.metrics).chain(containers) {
        let Some(descriptor) = known.get(&metric.name) else { continue };
        if descriptor.label_keys.len() != metric.label_values.len() || has_finer(&metric.name) {
            continue;
        }
        let (name, unit) = match metric.name.strip_suffix(FINE) {
            Some(stem) => (format!("{stem}{WHOLE}"), 1e9),
            None => (metric.name.clone(), 1.0),
        };
        let kind = if metric.metric_type() == MetricType::Gauge { "gauge" } else { "counter" };
        let family = families.entry(name).or_insert_with(|| (kind, descriptor.help.clone(), Vec::new()));
        family.2.push(sample(descriptor, metric, unit));
    }
    families
}

fn sample(descriptor: &MetricDescriptor, metric: &Metric, unit: f64) -> Sample {
    Sample {
        labels: descriptor.label_keys.iter().cloned().zip(metric.label_values.iter().cloned()).collect(),
        value: metric.value.map_or(0, |value| value.value) as f64 / unit,
        at_ms: (metric.timestamp != 0).then_some(metric.timestamp / 1_000_000),
    }
}

/// What the statistics of a runtime without metrics hold.
fn from_stats(pods: &[PodSandboxStats]) -> Families {
    let mut families = Families::new();
    for pod in pods {
        let about = pod.attributes.clone().and_then(|attributes| attributes.metadata).unwrap_or_default();
        for container in pod.linux.iter().flat_map(|linux| &linux.containers) {
            let attributes = container.attributes.clone().unwrap_or_default();
            let name = attributes.labels.get(LABEL_CONTAINER_NAME).cloned().unwrap_or_default();
            let labels =
                [("container", &name), ("name", &attributes.id), ("namespace", &about.namespace), ("pod", &about.name)];
            let labels: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
            let mut add = |name: &str, kind, help: &str, value: Option<&UInt64Value>, unit: f64| {
                let Some(value) = value else { return };
                let family = families.entry(name.into()).or_insert_with(|| (kind, help.into(), Vec::new()));
                family.2.push(Sample::new(&labels, value.value as f64 / unit));
            };
            let (cpu, memory) = (container.cpu.unwrap_or_default(), container.memory.unwrap_or_default());
            add(CPU.0, "counter", CPU.1, cpu.usage_core_nano_seconds.as_ref(), 1e9);
            add(WORKING_SET.0, "gauge", WORKING_SET.1, memory.working_set_bytes.as_ref(), 1.0);
            add(
                "container_memory_usage_bytes",
                "gauge",
                "Current memory usage in bytes.",
                memory.usage_bytes.as_ref(),
                1.0,
            );
            add("container_memory_rss", "gauge", "Size of RSS in bytes.", memory.rss_bytes.as_ref(), 1.0);
        }
    }
    families
}

const CPU: (&str, &str) = ("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.");
const WORKING_SET: (&str, &str) = ("container_memory_working_set_bytes", "Current working set in bytes.");

/// The machine as a whole, which dashboards look for under the root group's name.
fn root_group(agent: &Agent, families: &mut Families) {
    let labels = [("container", ""), ("id", "/"), ("image", ""), ("name", ""), ("namespace", ""), ("pod", "")];
    let with_cpu: Vec<_> = labels.into_iter().chain([("cpu", "total")]).collect();
    let cpu = Sample::new(&with_cpu, stats::node_cpu_nanoseconds() as f64 / 1e9);
    let memory = Sample::new(&labels, stats::node_memory(agent).0 as f64);
    for ((name, help), kind, sample) in [(CPU, "counter", cpu), (WORKING_SET, "gauge", memory)] {
        families.entry(name.into()).or_insert_with(|| (kind, help.into(), Vec::new())).2.push(sample);
    }
}

fn machine_families(agent: &Agent, families: &mut Families) {
    let machine = &agent.machine;
    let labels = [
        ("boot_id", machine.boot_id.as_str()),
        ("machine_id", machine.machine_id.as_str()),
        ("system_uuid", machine.system_uuid.as_str()),
    ];
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", machine.cpus),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", machine.memory_bytes),
        (
            "machine_swap_bytes",
            "Amount of swap memory available on the machine.",
            machine::meminfo(&meminfo, "SwapTotal"),
        ),
    ] {
        families.insert(name.into(), ("gauge", help.into(), vec![Sample::new(&labels, value as f64)]));
    }
    let none = Sample::new(&[], 0.0);
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    families.insert("container_scrape_error".into(), ("gauge", help.into(), vec![none]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::v1::{ContainerAttributes, ContainerMetrics, ContainerStats, CpuUsage, LinuxPodSandboxStats};

    fn described(name: &str) -> MetricDescriptor {
        MetricDescriptor { name: name.into(), help: "Help.".into(), label_keys: vec!["container".into(), "pod".into()] }
    }

    fn counted(name: &str, container: &str, value: u64) -> Metric {
        let label_values = vec![container.to_owned(), "web".to_owned()];
        Metric { name: name.into(), label_values, value: Some(UInt64Value { value }), ..Metric::default() }
    }

    #[test]
    fn the_finer_of_two_times_is_shown_and_what_nobody_described_is_not() {
        let throttled = |unit: &str| format!("container_cpu_cfs_throttled_{unit}_total");
        let descriptors = ["seconds", "nanoseconds"].map(|unit| described(&throttled(unit)));
        let other = described("other_seconds_total");
        let mut odd = counted("other_seconds_total", "app", 9);
        odd.label_values.push("too many".into());
        let pods = [PodSandboxMetrics {
            metrics: vec![counted(&throttled("nanoseconds"), "", 2_500_000_000), counted("unknown", "", 1), odd],
            container_metrics: vec![ContainerMetrics {
                metrics: vec![
                    counted(&throttled("seconds"), "app", 1),
                    counted(&throttled("nanoseconds"), "app", 1_250_000_000),
                    counted("other_seconds_total", "app", 3),
                ],
                ..ContainerMetrics::default()
            }],
            ..PodSandboxMetrics::default()
        }];
        let families = described_families(descriptors.into_iter().chain([other]).collect(), &pods);
        let names: Vec<&str> = families.keys().map(String::as_str).collect();
        assert_eq!(names, ["container_cpu_cfs_throttled_seconds_total", "other_seconds_total"]);
        let values = |name: &str| families[name].2.iter().map(|sample| sample.value).collect::<Vec<_>>();
        assert_eq!(values("container_cpu_cfs_throttled_seconds_total"), [2.5, 1.25]);
        assert_eq!(values("other_seconds_total"), [3.0]);
        let (kind, _, samples) = &families["container_cpu_cfs_throttled_seconds_total"];
        assert_eq!(*kind, "counter");
        assert_eq!(samples[1], Sample::new(&[("container", "app"), ("pod", "web")], 1.25));
    }

    #[test]
    fn a_runtime_without_metrics_is_asked_for_its_statistics() {
        let labels = [(LABEL_CONTAINER_NAME.to_owned(), "app".to_owned())].into();
        let container = ContainerStats {
            attributes: Some(ContainerAttributes { id: "c1".into(), labels, ..Default::default() }),
            cpu: Some(CpuUsage {
                usage_core_nano_seconds: Some(UInt64Value { value: 500_000_000 }),
                ..Default::default()
            }),
            ..ContainerStats::default()
        };
        let linux = LinuxPodSandboxStats { containers: vec![container], ..Default::default() };
        let families = from_stats(&[PodSandboxStats { linux: Some(linux), ..Default::default() }]);
        assert_eq!(families.keys().collect::<Vec<_>>(), [CPU.0]);
        let expected = Sample::new(&[("container", "app"), ("name", "c1"), ("namespace", ""), ("pod", "")], 0.5);
        assert_eq!(families[CPU.0].2, [expected]);
    }
}
