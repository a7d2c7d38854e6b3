//! Amounts of resources, as the scheduler adds and compares them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use meta::Quantity;

/// What a pod that asks for nothing is taken to use when nodes are compared (never when they are filtered): 100m CPU.
const DEFAULT_MILLI_CPU: i64 = 100;
/// As above: 200 MB of memory.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// A sum of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Huge pages, devices and other named things, in whole units.
    pub others: BTreeMap<String, i64>,
}

impl Resources {
    pub fn of(list: &BTreeMap<String, Text>) -> Self {
        let mut sum = Resources::default();
        for (name, text) in list {
            // The server has validated quantities; one that cannot be read counts as nothing.
            let Ok(quantity) = text.0.parse::<Quantity>() else { continue };
            match name.as_str() {
                "cpu" => sum.milli_cpu = quantity.milli(),
                "memory" => sum.memory = quantity.units(),
                "ephemeral-storage" => sum.ephemeral_storage = quantity.units(),
                "pods" => {}
                other => drop(sum.others.insert(other.to_string(), quantity.units())),
            }
        }
        sum
    }

    pub fn add(&mut self, other: &Resources) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        for (name, amount) in &other.others {
            *self.others.entry(name.clone()).or_default() += amount;
        }
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, amount) in &other.others {
            *self.others.entry(name.clone()).or_default() -= amount;
        }
    }

    fn max(&mut self, other: &Resources) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.others {
            let known = self.others.entry(name.clone()).or_default();
            *known = (*known).max(*amount);
        }
    }
}

/// What containers ask for, combined as they run: regular ones and sidecars together, plain init containers one at a time beside
/// the sidecars that were started before them.
pub fn requests(regular: &[Container], init: &[Container], floor: bool) -> Resources {
    let of = |container: &Container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut sum = requests.map(Resources::of).unwrap_or_default();
        if floor {
            let asks = |name: &str| requests.is_some_and(|requests| requests.contains_key(name));
            sum.milli_cpu = if asks("cpu") { sum.milli_cpu } else { DEFAULT_MILLI_CPU };
            sum.memory = if asks("memory") { sum.memory } else { DEFAULT_MEMORY };
        }
        sum
    };
    let mut total = Resources::default();
    regular.iter().for_each(|container| total.add(&of(container)));
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in init {
        let mut now = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&now);
            now = sidecars.clone();
        } else {
            now.add(&sidecars);
        }
        peak.max(&now);
    }
    total.add(&sidecars);
    total.max(&peak);
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(cpu: &str, sidecar: bool) -> Container {
        let policy = if sidecar { Some("Always") } else { None };
        serde_json::from_value(json!({"name": "c", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}}))
            .unwrap()
    }

    #[test]
    fn init_containers_count_only_where_they_exceed_the_rest() {
        let regular = [container("1", false), container("500m", false)];
        let init = [container("200m", true), container("2", false)];
        assert_eq!(requests(&regular, &init, false).milli_cpu, 2200);
        assert_eq!(requests(&regular, &init[..1], false).milli_cpu, 1700);
        assert_eq!(requests(&regular, &[], true).memory, 2 * DEFAULT_MEMORY);
    }
}
