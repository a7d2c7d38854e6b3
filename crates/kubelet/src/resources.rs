//! From requests and limits to what the kernel is told: shares, quota, memory limit, OOM score.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::{self, QosClass};

/// Microseconds over which a quota counts.
pub const CPU_PERIOD_US: i64 = 100_000;
const CPU_QUOTA_US_MIN: i64 = 1_000;
const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;

/// The kernel's settings for a container or a whole pod; zero leaves a setting alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub cpu_shares: i64,
    pub cpu_quota_us: i64,
    pub memory_limit_bytes: i64,
}

/// The settings of one container.
pub fn of_container(container: &Container) -> Settings {
    let request_milli = pod::requested(container, "cpu").map_or(0, |cpu| cpu.milli());
    Settings {
        cpu_shares: shares(request_milli),
        cpu_quota_us: pod::limit(container, "cpu").map_or(0, |cpu| quota_us(cpu.milli())),
        memory_limit_bytes: pod::limit(container, "memory").map_or(0, |memory| memory.units()),
    }
}

/// The settings of the cgroup that holds all containers of the pod. A limit holds for the pod when all containers have one.
pub fn of_pod(pod: &Pod) -> Settings {
    let own = pod::spec(pod)
        .resources
        .clone()
        .map(|resources| Container { resources: Some(resources), ..Container::default() });
    let containers: Vec<&Container> = match &own {
        Some(own) => vec![own],
        None => lasting(pod).collect(),
    };
    let amount = |container: &Container, resource: &str, milli: bool, limit: bool| {
        let quantity = if limit { pod::limit(container, resource) } else { pod::requested(container, resource) };
        quantity.map(|quantity| if milli { quantity.milli() } else { quantity.units() })
    };
    let limits = |resource: &str, milli: bool| -> i64 {
        let sum: Option<i64> = containers.iter().map(|container| amount(container, resource, milli, true)).sum();
        let init =
            passing(pod).filter(|_| own.is_none()).filter_map(|container| amount(container, resource, milli, true));
        sum.map_or(0, |sum| init.fold(sum, i64::max))
    };
    let request: i64 = containers.iter().filter_map(|container| amount(container, "cpu", true, false)).sum();
    let init = passing(pod).filter(|_| own.is_none()).filter_map(|container| amount(container, "cpu", true, false));
    let cpu_limit = limits("cpu", true);
    Settings {
        cpu_shares: shares(init.fold(request, i64::max)),
        cpu_quota_us: if cpu_limit == 0 { 0 } else { quota_us(cpu_limit) },
        memory_limit_bytes: limits("memory", false),
    }
}

/// Containers that run together: regular ones and sidecars.
fn lasting(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = pod::init_containers(pod).iter().filter(|container| pod::is_sidecar(container));
    pod::containers(pod).iter().chain(sidecars)
}

/// Init containers that come and go.
fn passing(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod::init_containers(pod).iter().filter(|container| !pod::is_sidecar(container))
}

fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

fn quota_us(milli: i64) -> i64 {
    (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(CPU_QUOTA_US_MIN)
}

/// Which processes the kernel kills first when memory runs out: 1000 before 3 before -997.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity_bytes: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    if pod::spec(pod).priority.is_some_and(|priority| priority >= 2_000_000_000) {
        return GUARANTEED;
    }
    match pod::qos_class(pod) {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let request = pod::requested(container, "memory").map_or(0, |memory| memory.units());
            let share = 1000_i128 * i128::from(request) / i128::from(memory_capacity_bytes.max(1));
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

/// A v1 share count as the weight of cgroup v2.
pub fn cpu_weight(shares: i64) -> i64 {
    1 + (shares.clamp(CPU_SHARES_MIN, CPU_SHARES_MAX) - CPU_SHARES_MIN) * 9999 / (CPU_SHARES_MAX - CPU_SHARES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod_of;
    use serde_json::json;

    #[test]
    fn settings_of_containers_and_pods() {
        for (containers, container, whole) in [
            (json!([{"name": "a"}]), (2, 0, 0), (2, 0, 0)),
            (json!([{"name": "a", "resources": {"requests": {"cpu": "250m"}}}]), (256, 0, 0), (256, 0, 0)),
            (
                json!([{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "50Mi"}}}]),
                (512, 50_000, 50 << 20),
                (512, 50_000, 50 << 20),
            ),
            (json!([{"name": "a", "resources": {"limits": {"cpu": "1m"}}}]), (2, 1000, 0), (2, 1000, 0)),
            (
                json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {"name": "b"}]),
                (1024, 100_000, 1 << 30),
                (1024, 0, 0),
            ),
        ] {
            let pod = pod_of(json!({"containers": containers}));
            let settings = |(shares, quota, memory)| Settings {
                cpu_shares: shares,
                cpu_quota_us: quota,
                memory_limit_bytes: memory,
            };
            assert_eq!(of_container(&pod::containers(&pod)[0]), settings(container), "{containers}");
            assert_eq!(of_pod(&pod), settings(whole), "{containers}");
        }
    }

    #[test]
    fn the_oom_score_falls_with_the_memory_asked_for() {
        for (resources, expected) in [
            (json!({}), 1000),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), -997),
            (json!({"requests": {"memory": "2Gi"}}), 500),
            (json!({"requests": {"cpu": "1"}}), 999),
            (json!({"requests": {"memory": "4Gi"}}), 3),
        ] {
            let pod = pod_of(json!({"containers": [{"name": "a", "resources": resources}]}));
            assert_eq!(oom_score_adj(&pod, &pod::containers(&pod)[0], 4 << 30), expected, "{resources}");
        }
        assert_eq!((cpu_weight(2), cpu_weight(1024), cpu_weight(262_144)), (1, 39, 10_000));
    }
}
