//! CRI's metrics: what the kernel counts about pods and containers, under the names and labels that dashboards know.
//!
//! ```text
//! cgroup::Detail, /proc/<shim>/net/dev ─▶ one row of FAMILIES per name ─▶ ListPodSandboxMetrics ─▶ the node API's /metrics/cadvisor
//! ```
//!
//! CRI's values are whole numbers, and upstream's runtimes cut seconds off for it. So times come twice: as `..._seconds_total`
//! for any node agent, and as `..._nanoseconds_total`, which ours turns into seconds with their fraction. Values are taken when
//! asked for, so they carry no timestamp. Nothing is kept between two questions.

use std::{fs, sync::Arc};

use cri::v1::{ContainerMetrics, Metric, MetricDescriptor, MetricType, NamespaceMode, PodSandboxMetrics, UInt64Value};

use crate::{
    Runtime,
    cgroup::{Detail, DeviceUse},
    sandbox::cgroup_parent,
    state::{Container, Sandbox},
};

/// The labels that every metric has, in this order; a family's own come after.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// How node agents name the container in its labels.
const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    /// A counter of nanoseconds, shown in both units.
    Time,
}

/// Values of a family with the values of its own labels.
type Values = Vec<(Vec<String>, u64)>;

struct Family {
    /// Without `_seconds_total` for times.
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    of: fn(&Detail) -> Values,
}

fn one(value: impl Into<Option<u64>>) -> Values {
    value.into().map(|value| (Vec::new(), value)).into_iter().collect()
}

/// For groups with a quota only: in others nothing is ever throttled.
fn limited(detail: &Detail, value: Option<u64>) -> Values {
    one(detail.cpu_quota_us.and(value))
}

fn devices(detail: &Detail, value: fn(&DeviceUse) -> u64) -> Values {
    detail.devices.iter().map(|device| (vec![device_name(&device.number)], value(device))).collect()
}

/// `/dev/sda` for `8:0`; the numbers where the kernel has no name.
fn device_name(number: &str) -> String {
    let text = fs::read_to_string(format!("/sys/dev/block/{number}/uevent")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| number.to_owned(), |name| format!("/dev/{name}"))
}

fn pressure(detail: &Detail, resource: &str, stalled: bool) -> Values {
    let found = detail.pressure.iter().find(|(name, _)| *name == resource);
    one(found.map(|(_, found)| if stalled { found.stalled_us } else { found.waiting_us }.saturating_mul(1000)))
}

fn faults(detail: &Detail) -> Values {
    let labels = |kind: &str| vec![kind.to_owned(), "hierarchy".to_owned()];
    vec![(labels("pgfault"), detail.usage.page_faults), (labels("pgmajfault"), detail.usage.major_page_faults)]
}

#[rustfmt::skip]
const FAMILIES: &[Family] = {
    use Kind::{Counter, Gauge, Time};
    &[
        Family { name: "container_cpu_usage", help: "Cumulative cpu time consumed in seconds.", kind: Time, labels: &["cpu"], of: |d| vec![(vec!["total".into()], d.usage.cpu_ns)] },
        Family { name: "container_cpu_user", help: "Cumulative user cpu time consumed in seconds.", kind: Time, labels: &[], of: |d| one(d.cpu_user_ns) },
        Family { name: "container_cpu_system", help: "Cumulative system cpu time consumed in seconds.", kind: Time, labels: &[], of: |d| one(d.cpu_system_ns) },
        Family { name: "container_cpu_cfs_periods_total", help: "Number of elapsed enforcement period intervals.", kind: Counter, labels: &[], of: |d| limited(d, d.periods) },
        Family { name: "container_cpu_cfs_throttled_periods_total", help: "Number of throttled period intervals.", kind: Counter, labels: &[], of: |d| limited(d, d.throttled_periods) },
        Family { name: "container_cpu_cfs_throttled", help: "Total time duration the container has been throttled.", kind: Time, labels: &[], of: |d| limited(d, d.throttled_ns) },
        Family { name: "container_spec_cpu_period", help: "CPU period of the container.", kind: Gauge, labels: &[], of: |d| one(d.cpu_period_us) },
        Family { name: "container_spec_cpu_quota", help: "CPU quota of the container.", kind: Gauge, labels: &[], of: |d| one(d.cpu_quota_us) },
        Family { name: "container_spec_cpu_shares", help: "CPU share of the container.", kind: Gauge, labels: &[], of: |d| one(d.cpu_shares) },
        Family { name: "container_spec_memory_limit_bytes", help: "Memory limit for the container.", kind: Gauge, labels: &[], of: |d| one(d.usage.memory_limit_bytes.unwrap_or(0)) },
        Family { name: "container_spec_memory_reservation_limit_bytes", help: "Memory reservation limit for the container.", kind: Gauge, labels: &[], of: |d| one(d.memory_reservation_bytes.unwrap_or(0)) },
        Family { name: "container_spec_memory_swap_limit_bytes", help: "Memory swap limit for the container.", kind: Gauge, labels: &[], of: |d| one(d.swap_limit_bytes.unwrap_or(0)) },
        Family { name: "container_memory_usage_bytes", help: "Current memory usage in bytes, including all memory regardless of when it was accessed", kind: Gauge, labels: &[], of: |d| one(d.usage.memory_bytes) },
        Family { name: "container_memory_working_set_bytes", help: "Current working set in bytes.", kind: Gauge, labels: &[], of: |d| one(d.usage.working_set_bytes) },
        Family { name: "container_memory_rss", help: "Size of RSS in bytes.", kind: Gauge, labels: &[], of: |d| one(d.usage.rss_bytes) },
        Family { name: "container_memory_cache", help: "Number of bytes of page cache memory.", kind: Gauge, labels: &[], of: |d| one(d.cache_bytes) },
        Family { name: "container_memory_mapped_file", help: "Size of memory mapped files in bytes.", kind: Gauge, labels: &[], of: |d| one(d.mapped_file_bytes) },
        Family { name: "container_memory_kernel_usage", help: "Size of kernel memory allocated in bytes.", kind: Gauge, labels: &[], of: |d| one(d.kernel_bytes) },
        Family { name: "container_memory_swap", help: "Container swap usage in bytes.", kind: Gauge, labels: &[], of: |d| one(d.usage.swap_bytes) },
        Family { name: "container_memory_max_usage_bytes", help: "Maximum memory usage recorded in bytes", kind: Gauge, labels: &[], of: |d| one(d.memory_peak_bytes) },
        Family { name: "container_memory_failcnt", help: "Number of memory usage hits limits", kind: Counter, labels: &[], of: |d| one(d.memory_limit_hits) },
        Family { name: "container_memory_total_active_file_bytes", help: "Current total active file in bytes.", kind: Gauge, labels: &[], of: |d| one(d.active_file_bytes) },
        Family { name: "container_memory_total_inactive_file_bytes", help: "Current total inactive file in bytes.", kind: Gauge, labels: &[], of: |d| one(d.inactive_file_bytes) },
        Family { name: "container_memory_failures_total", help: "Cumulative count of memory allocation failures.", kind: Counter, labels: &["failure_type", "scope"], of: faults },
        Family { name: "container_oom_events_total", help: "Count of out of memory events observed for the container", kind: Counter, labels: &[], of: |d| one(d.oom_kills) },
        Family { name: "container_processes", help: "Number of processes running inside the container.", kind: Gauge, labels: &[], of: |d| one(d.processes) },
        Family { name: "container_threads", help: "Number of threads running inside the container", kind: Gauge, labels: &[], of: |d| one(d.usage.tasks) },
        Family { name: "container_threads_max", help: "Maximum number of threads allowed inside the container, infinity if value is zero", kind: Gauge, labels: &[], of: |d| one(d.tasks_max.unwrap_or(0)) },
        Family { name: "container_fs_reads_bytes_total", help: "Cumulative count of bytes read", kind: Counter, labels: &["device"], of: |d| devices(d, |device| device.read_bytes) },
        Family { name: "container_fs_reads_total", help: "Cumulative count of reads completed", kind: Counter, labels: &["device"], of: |d| devices(d, |device| device.reads) },
        Family { name: "container_fs_writes_bytes_total", help: "Cumulative count of bytes written", kind: Counter, labels: &["device"], of: |d| devices(d, |device| device.written_bytes) },
        Family { name: "container_fs_writes_total", help: "Cumulative count of writes completed", kind: Counter, labels: &["device"], of: |d| devices(d, |device| device.writes) },
        Family { name: "container_pressure_cpu_waiting", help: "Total time duration tasks in the container have waited due to CPU congestion.", kind: Time, labels: &[], of: |d| pressure(d, "cpu", false) },
        Family { name: "container_pressure_cpu_stalled", help: "Total time duration no tasks in the container could make progress due to CPU congestion.", kind: Time, labels: &[], of: |d| pressure(d, "cpu", true) },
        Family { name: "container_pressure_memory_waiting", help: "Total time duration tasks in the container have waited due to memory congestion.", kind: Time, labels: &[], of: |d| pressure(d, "memory", false) },
        Family { name: "container_pressure_memory_stalled", help: "Total time duration no tasks in the container could make progress due to memory congestion.", kind: Time, labels: &[], of: |d| pressure(d, "memory", true) },
        Family { name: "container_pressure_io_waiting", help: "Total time duration tasks in the container have waited due to IO congestion.", kind: Time, labels: &[], of: |d| pressure(d, "io", false) },
        Family { name: "container_pressure_io_stalled", help: "Total time duration no tasks in the container could make progress due to IO congestion.", kind: Time, labels: &[], of: |d| pressure(d, "io", true) },
    ]
};

const START_TIME: (&str, &str) =
    ("container_start_time_seconds", "Start time of the container since unix epoch in seconds.");
const LAST_SEEN: (&str, &str) = ("container_last_seen", "Last time a container was seen by the exporter");

/// An interface's counters: name, help, and their column in `/proc/<pid>/net/dev`.
#[rustfmt::skip]
const NETWORK: [(&str, &str, usize); 8] = [
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", 0),
    ("container_network_receive_packets_total", "Cumulative count of packets received", 1),
    ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", 2),
    ("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", 3),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", 8),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", 9),
    ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", 10),
    ("container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", 11),
];

impl Family {
    /// The names it is shown under, with what its value is divided by.
    fn names(&self) -> Vec<(String, u64)> {
        match self.kind {
            Kind::Time => vec![
                (format!("{}_seconds_total", self.name), 1_000_000_000),
                (format!("{}_nanoseconds_total", self.name), 1),
            ],
            Kind::Counter | Kind::Gauge => vec![(self.name.to_owned(), 1)],
        }
    }

    fn metric_type(&self) -> MetricType {
        if self.kind == Kind::Gauge { MetricType::Gauge } else { MetricType::Counter }
    }
}

fn metric(name: &str, kind: MetricType, labels: &[String; 6], own: &[String], value: u64) -> Metric {
    Metric {
        name: name.to_owned(),
        timestamp: 0,
        metric_type: kind.into(),
        label_values: labels.iter().chain(own).cloned().collect(),
        value: Some(UInt64Value { value }),
    }
}

/// What is counted about one group, under these labels.
fn group_metrics(detail: &Detail, labels: &[String; 6]) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for family in FAMILIES {
        let values = (family.of)(detail);
        for (name, unit) in family.names() {
            let shown =
                values.iter().map(|(own, value)| metric(&name, family.metric_type(), labels, own, value / unit));
            metrics.extend(shown);
        }
    }
    metrics
}

/// What is counted about the interfaces in a `/proc/<pid>/net/dev`, without loopback.
fn network_metrics(text: &str, labels: &[String; 6]) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for line in text.lines() {
        let Some((interface, counters)) = line.split_once(':') else { continue };
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let interface = interface.trim();
        if interface == "lo" || counters.len() < 16 {
            continue;
        }
        let own = [interface.to_owned()];
        let shown = NETWORK.iter().map(|(name, _, at)| metric(name, MetricType::Counter, labels, &own, counters[*at]));
        metrics.extend(shown);
    }
    metrics
}

/// All that [`Runtime::sandbox_metrics`] may tell of.
pub(crate) fn descriptors() -> Vec<MetricDescriptor> {
    let descriptor = |name: &str, help: &str, own: &[&str]| MetricDescriptor {
        name: name.to_owned(),
        help: help.to_owned(),
        label_keys: LABELS.iter().chain(own).map(|label| (*label).to_owned()).collect(),
    };
    let counted = FAMILIES.iter().flat_map(|family| {
        family.names().into_iter().map(|(name, _)| descriptor(&name, family.help, family.labels)).collect::<Vec<_>>()
    });
    let times = [START_TIME, LAST_SEEN].map(|(name, help)| descriptor(name, help, &[]));
    let network = NETWORK.iter().map(|(name, help, _)| descriptor(name, help, &["interface"]));
    counted.chain(times).chain(network).collect()
}

impl Runtime {
    /// One pod's metrics: the pod's own group and network, and each running container's.
    pub(crate) fn sandbox_metrics(&self, sandbox: &Arc<Sandbox>) -> PodSandboxMetrics {
        let config = sandbox.config();
        let group = cgroup_parent(&sandbox.id, config);
        let about = config.metadata.clone().unwrap_or_default();
        let labels = ["".into(), group.clone(), "".into(), "".into(), about.namespace.clone(), about.name.clone()];
        // A pod that is ending has no group any more.
        let mut metrics = self.hierarchies().detail(&group).map(|detail| group_metrics(&detail, &labels));
        if let Ok(metrics) = &mut metrics {
            metrics.extend(self.times(&labels, sandbox.record.lock().created_at_ns));
        }
        let mut metrics = metrics.unwrap_or_default();
        let namespaces =
            config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()?.namespace_options.as_ref());
        // In the host's network the counters would be the host's.
        if namespaces.is_none_or(|options| options.network() != NamespaceMode::Node) {
            let pid = sandbox.record.lock().shim_pid;
            let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
            metrics.extend(network_metrics(&text, &labels));
        }
        let containers = self.containers_of(&sandbox.id);
        let running = containers.iter().filter(|container| container.is_running());
        PodSandboxMetrics {
            pod_sandbox_id: sandbox.id.clone(),
            metrics,
            container_metrics: running.filter_map(|container| self.container_metrics(container, &labels)).collect(),
        }
    }

    /// `None` for one that has just ended.
    fn container_metrics(&self, container: &Arc<Container>, pod: &[String; 6]) -> Option<ContainerMetrics> {
        let config = &container.config;
        let image = config.image.clone().unwrap_or_default();
        let image = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
        let name = config.labels.get(LABEL_CONTAINER_NAME).cloned();
        let name = name.unwrap_or_else(|| config.metadata.clone().unwrap_or_default().name);
        let [.., namespace, pod_name] = pod.clone();
        let labels = [name, container.record.cgroup.clone(), image, container.id.clone(), namespace, pod_name];
        let detail = self.hierarchies().detail(&container.record.cgroup).ok()?;
        let mut metrics = group_metrics(&detail, &labels);
        let started = container.life.borrow().started.as_ref().map(|started| started.at_ns);
        metrics.extend(self.times(&labels, started.unwrap_or(container.record.created_at_ns)));
        Some(ContainerMetrics { container_id: container.id.clone(), metrics })
    }

    fn times(&self, labels: &[String; 6], started_at_ns: i64) -> [Metric; 2] {
        let seconds = |at_ns: i64| u64::try_from(at_ns / 1_000_000_000).unwrap_or(0);
        [(START_TIME.0, started_at_ns), (LAST_SEEN.0, self.now_ns())]
            .map(|(name, at_ns)| metric(name, MetricType::Gauge, labels, &[], seconds(at_ns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> [String; 6] {
        ["app", "/pod1/c", "busybox:1.36", "c", "shop", "web"].map(String::from)
    }

    fn value(metrics: &[Metric], name: &str) -> Option<u64> {
        metrics.iter().find(|metric| metric.name == name).and_then(|metric| metric.value.map(|value| value.value))
    }

    #[test]
    fn every_metric_has_a_descriptor_that_names_its_labels() {
        let known: std::collections::BTreeMap<_, _> =
            descriptors().into_iter().map(|descriptor| (descriptor.name.clone(), descriptor)).collect();
        assert_eq!(known.len(), descriptors().len(), "a name is described twice");
        let detail = Detail {
            cpu_quota_us: Some(1),
            periods: Some(1),
            devices: vec![DeviceUse::default()],
            ..Detail::default()
        };
        let mut metrics = group_metrics(&detail, &labels());
        metrics.extend(network_metrics("eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0", &labels()));
        for metric in metrics {
            let keys = &known[&metric.name].label_keys;
            assert_eq!(keys.len(), metric.label_values.len(), "{}", metric.name);
            assert_eq!((keys[0].as_str(), metric.label_values[0].as_str()), ("container", "app"));
        }
    }

    #[test]
    fn times_come_in_whole_seconds_and_in_nanoseconds_and_throttling_only_under_a_quota() {
        let mut detail = Detail { throttled_ns: Some(1_700_000_000), throttled_periods: Some(9), ..Detail::default() };
        assert_eq!(value(&group_metrics(&detail, &labels()), "container_cpu_cfs_throttled_periods_total"), None);
        detail.cpu_quota_us = Some(5000);
        let metrics = group_metrics(&detail, &labels());
        assert_eq!(value(&metrics, "container_cpu_cfs_throttled_periods_total"), Some(9));
        assert_eq!(value(&metrics, "container_cpu_cfs_throttled_seconds_total"), Some(1));
        assert_eq!(value(&metrics, "container_cpu_cfs_throttled_nanoseconds_total"), Some(1_700_000_000));
    }

    #[test]
    fn an_interface_s_columns_go_under_their_names() {
        let metrics =
            network_metrics("lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0", &labels());
        let values: Vec<u64> = NETWORK.iter().filter_map(|(name, ..)| value(&metrics, name)).collect();
        assert_eq!((values, metrics.len()), ((1..=8).collect(), 8));
    }
}
