//! What the agent asks of a pod again and again: its containers by sort, its names, its QoS class.
//!
//! Everything here reads the typed view and nothing else.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::{ObjectKey, Quantity};

/// The class of service that requests and limits buy, upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// Which list of the spec a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sort {
    Init,
    Regular,
    Ephemeral,
}

impl Sort {
    /// The field of the spec, as `fieldPath` of an event names it.
    pub fn field(self) -> &'static str {
        match self {
            Sort::Init => "initContainers",
            Sort::Regular => "containers",
            Sort::Ephemeral => "ephemeralContainers",
        }
    }
}

/// A time in the API's precision: whole seconds.
pub fn time(at: base::Timestamp) -> Time {
    Time(base::Timestamp::from_second(at.as_second()).unwrap_or(at))
}

pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub fn status(pod: &Pod) -> &PodStatus {
    static EMPTY: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);
    pod.status.as_ref().unwrap_or(&EMPTY)
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The revision that the API shows the pod as of; 0 when it does not say.
pub fn revision(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

pub fn key(pod: &Pod) -> ObjectKey {
    ObjectKey::new(namespace(pod), name(pod))
}

/// `name_namespace(uid)`, as messages name a pod.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// Ephemeral containers in the form of ordinary ones; the container whose processes one shares is
/// [`ephemeral_target`].
pub fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    let listed = spec(pod).ephemeral_containers.as_deref().unwrap_or_default();
    listed
        .iter()
        .map(|ephemeral| Container {
            args: ephemeral.args.clone(),
            command: ephemeral.command.clone(),
            env: ephemeral.env.clone(),
            env_from: ephemeral.env_from.clone(),
            image: ephemeral.image.clone(),
            image_pull_policy: ephemeral.image_pull_policy.clone(),
            name: ephemeral.name.clone(),
            security_context: ephemeral.security_context.clone(),
            stdin: ephemeral.stdin,
            stdin_once: ephemeral.stdin_once,
            termination_message_path: ephemeral.termination_message_path.clone(),
            termination_message_policy: ephemeral.termination_message_policy.clone(),
            tty: ephemeral.tty,
            volume_mounts: ephemeral.volume_mounts.clone(),
            working_dir: ephemeral.working_dir.clone(),
            ..Container::default()
        })
        .collect()
}

/// The container whose process namespace an ephemeral container joins.
pub fn ephemeral_target<'a>(pod: &'a Pod, ephemeral: &str) -> Option<&'a str> {
    let listed = spec(pod).ephemeral_containers.as_deref().unwrap_or_default();
    let found = listed.iter().find(|container| container.name == ephemeral)?;
    found.target_container_name.as_deref().filter(|target| !target.is_empty())
}

/// Every container with its sort: init, regular, ephemeral.
pub fn all_containers(pod: &Pod) -> Vec<(Sort, Container)> {
    let init = init_containers(pod).iter().map(|container| (Sort::Init, container.clone()));
    let regular = containers(pod).iter().map(|container| (Sort::Regular, container.clone()));
    let ephemeral = ephemeral_containers(pod).into_iter().map(|container| (Sort::Ephemeral, container));
    init.chain(regular).chain(ephemeral).collect()
}

/// The container of a name, of any sort.
pub fn find_container(pod: &Pod, name: &str) -> Option<(Sort, Container)> {
    all_containers(pod).into_iter().find(|(_, container)| container.name == name)
}

/// An init container that is started once and kept running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Always, OnFailure or Never.
pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// Whether a container that ended with `exit_code` is to run again, as its own rules, its own policy and the pod's say.
pub fn restarts_after(pod: &Pod, sort: Sort, container: &Container, exit_code: i32) -> bool {
    if sort == Sort::Ephemeral {
        return false;
    }
    if container.restart_policy_rules.iter().flatten().any(|rule| rule_restarts(rule, exit_code)) {
        return true;
    }
    let policy = container.restart_policy.as_deref().unwrap_or_else(|| match (sort, restart_policy(pod)) {
        // An init container that is done is done, whatever the pod's policy.
        (Sort::Init, "Always") => "OnFailure",
        (_, policy) => policy,
    });
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

fn rule_restarts(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = rule.exit_codes.as_ref().filter(|_| rule.action == "Restart") else { return false };
    let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

/// How long the pod has to end by itself, in seconds: what its deletion says, else its spec, never less than 1.
pub fn grace_period_seconds(pod: &Pod) -> i64 {
    let deleted = pod.metadata.deletion_timestamp.is_some();
    let of_deletion = pod.metadata.deletion_grace_period_seconds.filter(|_| deleted);
    of_deletion.or(spec(pod).termination_grace_period_seconds).unwrap_or(30).max(1)
}

pub fn is_terminal(pod: &Pod) -> bool {
    matches!(status(pod).phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The QoS class: the one the server wrote down, else computed from requests and limits.
pub fn qos_class(pod: &Pod) -> QosClass {
    match status(pod).qos_class.as_deref() {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("Burstable") => QosClass::Burstable,
        Some("BestEffort") => QosClass::BestEffort,
        _ => computed_qos_class(pod),
    }
}

fn computed_qos_class(pod: &Pod) -> QosClass {
    let (mut any, mut all_equal) = (false, true);
    let own = spec(pod).resources.iter().cloned();
    let of_containers = init_containers(pod).iter().chain(containers(pod));
    let considered: Vec<_> = match spec(pod).resources {
        Some(_) => own.collect(),
        None => of_containers.map(|container| container.resources.clone().unwrap_or_default()).collect(),
    };
    for resources in considered {
        for resource in ["cpu", "memory"] {
            let amount = |list: &Option<std::collections::BTreeMap<String, _>>| {
                list.as_ref().and_then(|list| list.get(resource)).and_then(quantity).filter(|q| !q.is_zero())
            };
            let (request, limit) = (amount(&resources.requests), amount(&resources.limits));
            any |= request.is_some() || limit.is_some();
            all_equal &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, all_equal) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// A quantity of the typed view as a number; none when it is malformed, which validation refuses.
pub fn quantity(text: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Option<Quantity> {
    text.0.parse().ok()
}

/// A request or limit of a container; a limit stands in for a missing request.
pub fn requested(container: &Container, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let of = |list: &Option<std::collections::BTreeMap<String, _>>| list.as_ref()?.get(resource).and_then(quantity);
    of(&resources.requests).or_else(|| of(&resources.limits))
}

pub fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(resource).and_then(quantity)
}

/// A port of the container by its name.
pub fn named_port(container: &Container, name: &str) -> Option<u16> {
    let ports = container.ports.as_deref().unwrap_or_default();
    let found = ports.iter().find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(found.container_port).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A pod from the JSON of its spec; named `p` in namespace `n` with uid `u`.
    pub fn pod_of(spec: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}, "spec": spec,
        }))
        .unwrap()
    }

    fn container(value: Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn restart_policies_of_pod_and_container_are_combined() {
        let plain = container(json!({"name": "a"}));
        let own = container(json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}));
        for (policy, sort, container, code, expected) in [
            ("Always", Sort::Regular, &plain, 0, true),
            ("OnFailure", Sort::Regular, &plain, 0, false),
            ("OnFailure", Sort::Regular, &plain, 1, true),
            ("Never", Sort::Regular, &plain, 1, false),
            ("Always", Sort::Init, &plain, 0, false),
            ("Always", Sort::Init, &plain, 1, true),
            ("Always", Sort::Ephemeral, &plain, 1, false),
            ("Always", Sort::Regular, &own, 1, false),
            ("Always", Sort::Regular, &own, 42, true),
        ] {
            let pod = pod_of(json!({"containers": [], "restartPolicy": policy}));
            assert_eq!(restarts_after(&pod, sort, container, code), expected, "{policy} {sort:?} {code}");
        }
    }

    #[test]
    fn qos_class_follows_requests_and_limits() {
        for (resources, expected) in [
            (json!({}), QosClass::BestEffort),
            (json!({"requests": {"cpu": "1"}}), QosClass::Burstable),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), QosClass::Guaranteed),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
                QosClass::Guaranteed,
            ),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}}), QosClass::Burstable),
            (json!({"limits": {"memory": "1Gi"}}), QosClass::Burstable),
        ] {
            let pod = pod_of(json!({"containers": [{"name": "a", "resources": resources}]}));
            assert_eq!(qos_class(&pod), expected, "{resources}");
        }
    }
}
