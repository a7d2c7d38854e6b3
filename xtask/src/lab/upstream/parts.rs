//! What a cluster of upstream's is made of, and which programs that takes on which node.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// A part that can be had without the others, or in the place of Coracle's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// with etcd behind it
    Apiserver,
    ControllerManager,
    Scheduler,
    /// with containerd below it
    Kubelet,
    KubeProxy,
    /// CoreDNS as a deployment
    Dns,
}

impl Part {
    pub const ALL: [Part; 6] =
        [Part::Apiserver, Part::ControllerManager, Part::Scheduler, Part::Kubelet, Part::KubeProxy, Part::Dns];

    pub const fn name(self) -> &'static str {
        match self {
            Part::Apiserver => "apiserver",
            Part::ControllerManager => "controller-manager",
            Part::Scheduler => "scheduler",
            Part::Kubelet => "kubelet",
            Part::KubeProxy => "kube-proxy",
            Part::Dns => "dns",
        }
    }

    /// What it cannot be without.
    const fn needs(self) -> &'static [Part] {
        match self {
            Part::Apiserver => &[],
            Part::ControllerManager | Part::Scheduler | Part::KubeProxy => &[Part::Apiserver],
            // who gives it the addresses of its pods
            Part::Kubelet => &[Part::Apiserver, Part::ControllerManager],
            Part::Dns => &[Part::Apiserver, Part::ControllerManager, Part::Scheduler, Part::Kubelet, Part::KubeProxy],
        }
    }

    const fn programs(self) -> &'static [Program] {
        match self {
            Part::Apiserver => &[Program::Etcd, Program::Apiserver],
            Part::ControllerManager => &[Program::ControllerManager],
            Part::Scheduler => &[Program::Scheduler],
            Part::Kubelet => &[Program::Containerd, Program::Kubelet],
            Part::KubeProxy => &[Program::KubeProxy],
            Part::Dns => &[],
        }
    }

    /// What Coracle calls the part that this one replaces; none where nothing of upstream's can.
    pub const fn of_coracle(self) -> Option<&'static str> {
        match self {
            Part::Apiserver => Some("apiserver"),
            Part::ControllerManager => Some("controllers"),
            Part::Scheduler => Some("scheduler"),
            Part::Kubelet => Some("kubelet"),
            Part::KubeProxy => Some("proxy"),
            Part::Dns => None,
        }
    }
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Part::ALL.into_iter().find(|part| part.name() == text) {
            Some(part) => Ok(part),
            None => bail!("{text:?} is no part; choose from {}", names(&Part::ALL)),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A part that may take the place of Coracle's.
pub fn swappable(text: &str) -> Result<Part> {
    let swappable: Vec<Part> = Part::ALL.into_iter().filter(|part| part.of_coracle().is_some()).collect();
    match text.parse::<Part>() {
        Ok(part) if swappable.contains(&part) => Ok(part),
        _ => bail!("{text:?} cannot be swapped; choose from {}", names(&swappable)),
    }
}

fn names(parts: &[Part]) -> String {
    parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(", ")
}

/// Parts together with all that they need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts(Vec<Part>);

impl Parts {
    /// A whole cluster.
    pub fn all() -> Self {
        Self::of(&Part::ALL)
    }

    pub fn of(wanted: &[Part]) -> Self {
        let is_needed = |part: &Part| wanted.iter().any(|wanted| wanted == part || wanted.needs().contains(part));
        Self(Part::ALL.into_iter().filter(is_needed).collect())
    }

    pub fn as_slice(&self) -> &[Part] {
        &self.0
    }
}

impl FromStr for Parts {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::all()),
            list => Ok(Self::of(&list.split(',').map(str::parse).collect::<Result<Vec<Part>>>()?)),
        }
    }
}

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Etcd,
    Apiserver,
    ControllerManager,
    Scheduler,
    Containerd,
    Kubelet,
    KubeProxy,
}

impl Program {
    const ALL: [Program; 7] = [
        Program::Etcd,
        Program::Apiserver,
        Program::ControllerManager,
        Program::Scheduler,
        Program::Containerd,
        Program::Kubelet,
        Program::KubeProxy,
    ];

    /// As the program's file, its log and its process number are called.
    pub const fn name(self) -> &'static str {
        match self {
            Program::Etcd => "etcd",
            Program::Apiserver => "kube-apiserver",
            Program::ControllerManager => "kube-controller-manager",
            Program::Scheduler => "kube-scheduler",
            Program::Containerd => "containerd",
            Program::Kubelet => "kubelet",
            Program::KubeProxy => "kube-proxy",
        }
    }

    /// The control plane's are on the first node only.
    const fn is_of_every_node(self) -> bool {
        matches!(self, Program::Containerd | Program::Kubelet | Program::KubeProxy)
    }

    /// What runs on a node for these parts, in the order in which it is started.
    pub fn of(parts: &[Part], node: usize) -> Vec<Program> {
        let programs = parts.iter().flat_map(|part| part.programs()).copied();
        programs.filter(|program| node == 1 || program.is_of_every_node()).collect()
    }
}

impl FromStr for Program {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Program::ALL.into_iter().find(|program| program.name() == text) {
            Some(program) => Ok(program),
            None => bail!("{text:?} is no program of upstream's"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(parts: &str, node: usize) -> Vec<&'static str> {
        let parts: Parts = parts.parse().unwrap();
        Program::of(parts.as_slice(), node).into_iter().map(Program::name).collect()
    }

    #[test]
    fn parts_bring_what_they_need_and_other_nodes_have_no_control_plane() {
        assert_eq!(programs("scheduler", 1), ["etcd", "kube-apiserver", "kube-scheduler"]);
        assert!(programs("apiserver,scheduler", 2).is_empty());
        assert_eq!(programs("all", 2), ["containerd", "kubelet", "kube-proxy"]);
        assert_eq!(programs("all", 1).len(), Program::ALL.len());
        assert_eq!(programs("kube-proxy", 1), ["etcd", "kube-apiserver", "kube-proxy"]);
    }

    #[test]
    fn what_is_no_part_is_refused_with_the_choice() {
        let refused = "apiserver,cloud".parse::<Parts>().unwrap_err().to_string();
        assert!(refused.contains("\"cloud\"") && refused.contains("apiserver, controller-manager"), "{refused}");
        let refused = swappable("dns").unwrap_err().to_string();
        assert!(
            refused.ends_with("choose from apiserver, controller-manager, scheduler, kubelet, kube-proxy"),
            "{refused}"
        );
        assert_eq!(swappable("kube-proxy").unwrap(), Part::KubeProxy);
    }
}
