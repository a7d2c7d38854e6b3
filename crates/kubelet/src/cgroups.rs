//! The cgroup tree of pods: `<parent>/kubepods/{burstable,besteffort}/pod<uid>`, on v1, hybrid and v2 hosts.
//!
//! The agent makes and limits the levels down to the pod; the runtime makes one more for each container. On v1 the same path
//! exists under every controller. Writes that this machine does not allow are clamped or passed over with one log line, never
//! fatal: a pod without a pod-level limit still has the limits of its containers.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::pod::{self, QosClass};
use crate::resources::{self, CPU_PERIOD_US, Settings};

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, PartialEq)]
enum Hierarchy {
    /// One mount per controller (several for `cpu,cpuacct`).
    V1 {
        mounts: Vec<(PathBuf, Vec<String>)>,
    },
    V2 {
        mount: PathBuf,
    },
}

/// The pods' part of the cgroup tree.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchy: Hierarchy,
    /// Relative to the mounts, without slashes at the ends; empty for the root.
    parent: String,
}

impl Cgroups {
    /// Finds the host's hierarchies.
    pub fn detect(parent: &str) -> io::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        Ok(Cgroups { hierarchy: hierarchy(&mounts), parent: parent.trim_matches('/').to_string() })
    }

    /// No hierarchy at all, for tests of others.
    #[cfg(test)]
    pub fn none() -> Self {
        Cgroups { hierarchy: Hierarchy::V1 { mounts: Vec::new() }, parent: String::new() }
    }

    pub fn is_v2(&self) -> bool {
        matches!(self.hierarchy, Hierarchy::V2 { .. })
    }

    /// The path the runtime is told as the parent of a pod's containers.
    pub fn pod_path(&self, pod: &Pod) -> String {
        self.path(&format!("{}pod{}", class_prefix(pod::qos_class(pod)), pod::uid(pod)))
    }

    /// The path of all pods together.
    pub fn pods_path(&self) -> String {
        self.path("")
    }

    fn path(&self, below: &str) -> String {
        let all = [self.parent.as_str(), "kubepods", below.trim_end_matches('/')];
        let parts: Vec<&str> = all.into_iter().filter(|part| !part.is_empty()).collect();
        format!("/{}", parts.join("/"))
    }

    /// Makes the levels above the pods, so that the shares of the classes are right from the first pod on.
    pub fn prepare(&self) -> io::Result<()> {
        self.make(&self.path(""))?;
        for class in ["burstable", "besteffort"] {
            self.make(&self.path(class))?;
        }
        self.limit(&self.path("besteffort"), Settings { cpu_shares: 2, ..Settings::default() });
        Ok(())
    }

    /// Makes and limits the cgroup of a pod.
    pub fn make_pod(&self, pod: &Pod) -> io::Result<()> {
        let path = self.pod_path(pod);
        self.make(&path)?;
        self.limit(&path, resources::of_pod(pod));
        Ok(())
    }

    /// Removes the cgroup of a pod and what is left below it; the class need not be known any more. Errors when processes are
    /// still in it.
    pub fn remove_pod(&self, uid: &str) -> io::Result<()> {
        for prefix in ["", "burstable/", "besteffort/"] {
            let path = self.path(&format!("{prefix}pod{uid}"));
            for directory in self.directories(&path) {
                remove_tree(&directory)?;
            }
        }
        Ok(())
    }

    /// Removes everything of ours, once no pod runs any more.
    pub fn remove(&self) -> io::Result<()> {
        for directory in self.directories(&self.pods_path()) {
            remove_tree(&directory)?;
        }
        Ok(())
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let below = path.trim_start_matches('/');
        match &self.hierarchy {
            Hierarchy::V1 { mounts } => mounts.iter().map(|(mount, _)| mount.join(below)).collect(),
            Hierarchy::V2 { mount } => vec![mount.join(below)],
        }
    }

    fn make(&self, path: &str) -> io::Result<()> {
        match &self.hierarchy {
            Hierarchy::V1 { mounts } => {
                for (mount, controllers) in mounts {
                    make_v1(mount, path, controllers.iter().any(|controller| controller == "cpuset"))?;
                }
                Ok(())
            }
            Hierarchy::V2 { mount } => make_v2(mount, path),
        }
    }

    fn limit(&self, path: &str, settings: Settings) {
        let below = path.trim_start_matches('/');
        match &self.hierarchy {
            Hierarchy::V1 { mounts } => {
                for (mount, controllers) in mounts {
                    let directory = mount.join(below);
                    if controllers.iter().any(|controller| controller == "cpu") {
                        write_if(&directory, "cpu.shares", settings.cpu_shares);
                        if settings.cpu_quota_us > 0 {
                            write_if(&directory, "cpu.cfs_period_us", CPU_PERIOD_US);
                            write_if(&directory, "cpu.cfs_quota_us", settings.cpu_quota_us);
                        }
                    }
                    if controllers.iter().any(|controller| controller == "memory") {
                        write_if(&directory, "memory.limit_in_bytes", settings.memory_limit_bytes);
                    }
                }
            }
            Hierarchy::V2 { mount } => {
                let directory = mount.join(below);
                if settings.cpu_shares > 0 {
                    write_if(&directory, "cpu.weight", resources::cpu_weight(settings.cpu_shares));
                }
                if settings.cpu_quota_us > 0 {
                    write(&directory, "cpu.max", &format!("{} {CPU_PERIOD_US}", settings.cpu_quota_us));
                }
                write_if(&directory, "memory.max", settings.memory_limit_bytes);
            }
        }
    }
}

fn class_prefix(class: QosClass) -> &'static str {
    match class {
        QosClass::Guaranteed => "",
        QosClass::Burstable => "burstable/",
        QosClass::BestEffort => "besteffort/",
    }
}

/// A host counts as v1 when the memory controller is mounted the v1 way; a hybrid host is one.
fn hierarchy(mounts: &str) -> Hierarchy {
    let fields = mounts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let (mut v1, mut v2) = (Vec::new(), PathBuf::from("/sys/fs/cgroup"));
    for entry in fields.filter(|entry| entry.len() >= 4) {
        match entry[2] {
            "cgroup2" => v2 = PathBuf::from(entry[1]),
            "cgroup" if !entry[3].split(',').any(|option| option.starts_with("name=")) => {
                let controllers = entry[3].split(',').filter(|option| CONTROLLERS.contains(option));
                v1.push((PathBuf::from(entry[1]), controllers.map(String::from).collect::<Vec<_>>()));
            }
            _ => {}
        }
    }
    if v1.iter().any(|(_, controllers)| controllers.iter().any(|controller| controller == "memory")) {
        return Hierarchy::V1 { mounts: v1 };
    }
    Hierarchy::V2 { mount: v2 }
}

const CONTROLLERS: [&str; 10] =
    ["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb", "net_cls"];

fn make_v1(mount: &Path, path: &str, cpuset: bool) -> io::Result<()> {
    let mut directory = mount.to_path_buf();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let above = directory.clone();
        directory.push(part);
        match std::fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        if cpuset {
            // A cpuset with nothing in it takes no process: it starts out as its parent.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
                if own.trim().is_empty() {
                    let inherited = std::fs::read_to_string(above.join(file))?;
                    std::fs::write(directory.join(file), inherited.trim())?;
                }
            }
        }
    }
    Ok(())
}

fn make_v2(mount: &Path, path: &str) -> io::Result<()> {
    let mut directory = mount.to_path_buf();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let available = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        for controller in available.split_whitespace() {
            // One that is refused (the root of a delegated tree may be) must not keep the others away.
            write(&directory, "cgroup.subtree_control", &format!("+{controller}"));
        }
        directory.push(part);
        match std::fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_if(directory: &Path, file: &str, value: i64) {
    if value > 0 {
        write(directory, file, &value.to_string());
    }
}

fn write(directory: &Path, file: &str, value: &str) {
    if let Err(error) = std::fs::write(directory.join(file), value) {
        tracing::debug!(directory = %directory.display(), file, value, %error, "cgroup setting not taken");
    }
}

/// Removes a cgroup and those below it, deepest first. Files in it belong to the kernel.
fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod_of;
    use serde_json::json;

    const HYBRID: &str = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
        cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n";

    #[test]
    fn a_hybrid_host_is_v1_and_a_pure_one_v2() {
        let Hierarchy::V1 { mounts } = hierarchy(HYBRID) else { panic!("v1") };
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].1, ["cpu", "cpuacct"]);
        let v2 = hierarchy("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        assert_eq!(v2, Hierarchy::V2 { mount: "/sys/fs/cgroup".into() });
    }

    #[test]
    fn paths_follow_the_class() {
        let cgroups = Cgroups { hierarchy: hierarchy(HYBRID), parent: "lab/node1".into() };
        let pod = |resources| pod_of(json!({"containers": [{"name": "a", "resources": resources}]}));
        assert_eq!(cgroups.pod_path(&pod(json!({}))), "/lab/node1/kubepods/besteffort/podu");
        assert_eq!(cgroups.pod_path(&pod(json!({"requests": {"cpu": "1"}}))), "/lab/node1/kubepods/burstable/podu");
        let guaranteed = pod(json!({"limits": {"cpu": "1", "memory": "1Mi"}}));
        assert_eq!(cgroups.pod_path(&guaranteed), "/lab/node1/kubepods/podu");
    }

    #[test]
    fn makes_limits_and_removes_in_a_tree_of_files() {
        let root = tempfile::tempdir().unwrap();
        let mounts = vec![
            (root.path().join("cpu"), vec!["cpu".to_string()]),
            (root.path().join("memory"), vec!["memory".to_string()]),
        ];
        mounts.iter().for_each(|(mount, _)| std::fs::create_dir(mount).unwrap());
        let cgroups = Cgroups { hierarchy: Hierarchy::V1 { mounts }, parent: String::new() };
        let limits = json!({"limits": {"cpu": "500m", "memory": "50Mi"}});
        let pod = pod_of(json!({"containers": [{"name": "a", "resources": limits}]}));
        cgroups.make_pod(&pod).unwrap();
        let at = root.path().join("cpu/kubepods/podu");
        assert_eq!(std::fs::read_to_string(at.join("cpu.shares")).unwrap(), "512");
        assert_eq!(std::fs::read_to_string(at.join("cpu.cfs_quota_us")).unwrap(), "50000");
        let memory = root.path().join("memory/kubepods/podu/memory.limit_in_bytes");
        assert_eq!(std::fs::read_to_string(&memory).unwrap(), (50 << 20).to_string());
        // The files of a real cgroup vanish with it; these have to be taken away first.
        for file in [at.join("cpu.shares"), at.join("cpu.cfs_quota_us"), at.join("cpu.cfs_period_us"), memory] {
            std::fs::remove_file(file).unwrap();
        }
        cgroups.remove_pod("u").unwrap();
        assert!(!at.exists());
    }
}
