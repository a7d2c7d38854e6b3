//! The parts of a cluster that can be left out, so that somebody else's program takes their place.

use anyhow::{Result, bail};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The API server and the store behind it; the other parts are clients of who serves on its address.
    Apiserver,
    Scheduler,
    Controllers,
    /// The service proxy of a node.
    Proxy,
    /// The node agent and the container runtime below it; routes, names and the pod network stay.
    Kubelet,
}

impl Part {
    pub const OF_CONTROL_PLANE: &[Part] = &[Part::Apiserver, Part::Scheduler, Part::Controllers];
    pub const OF_NODE: &[Part] = &[Part::Proxy, Part::Kubelet];
    pub const ALL: &[Part] = &[Part::Apiserver, Part::Scheduler, Part::Controllers, Part::Proxy, Part::Kubelet];

    const fn name(self) -> &'static str {
        match self {
            Part::Apiserver => "apiserver",
            Part::Scheduler => "scheduler",
            Part::Controllers => "controllers",
            Part::Proxy => "proxy",
            Part::Kubelet => "kubelet",
        }
    }
}

/// The parts that do not run here.
#[derive(Debug, Clone, Default)]
pub struct Without(Vec<Part>);

impl Without {
    /// Reads `--without` of a command that has these `parts`.
    pub fn read(names: &[String], parts: &[Part]) -> Result<Self> {
        let part = |name: &String| {
            let known = parts.iter().copied().find(|part| part.name() == name.as_str());
            let choice = || parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(", ");
            match known {
                Some(part) => Ok(part),
                None => bail!("--without {name}: there is no such part here; choose from {}", choice()),
            }
        };
        names.iter().map(part).collect::<Result<_>>().map(Without)
    }

    pub fn has(&self, part: Part) -> bool {
        self.0.contains(&part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_left_out_by_name_and_a_command_refuses_those_it_does_not_have() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let without = Without::read(&names(&["proxy", "scheduler"]), Part::ALL).unwrap();
        assert!(without.has(Part::Proxy) && without.has(Part::Scheduler) && !without.has(Part::Kubelet));
        let refused = |name: &str, parts| Without::read(&names(&[name]), parts).unwrap_err().to_string();
        assert!(refused("etcd", Part::ALL).ends_with("choose from apiserver, scheduler, controllers, proxy, kubelet"));
        assert!(refused("proxy", Part::OF_CONTROL_PLANE).ends_with("choose from apiserver, scheduler, controllers"));
        assert!(refused("scheduler", Part::OF_NODE).ends_with("choose from proxy, kubelet"));
    }
}
