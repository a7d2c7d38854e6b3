//! Which pods are behind a service, and on which ports: what EndpointSlices and Endpoints have in common.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::{LabelSelector, ObjectKey};

use client::Lister;

use crate::views::{Meta, PodView};

/// A port of a service as it is found on a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub number: i32,
    pub app_protocol: Option<String>,
}

/// The selector of a service; none when somebody else manages its endpoints.
pub fn selector(service: &Service) -> Option<LabelSelector> {
    let labels = service.spec.as_ref()?.selector.as_ref().filter(|labels| !labels.is_empty())?;
    if service.spec.as_ref()?.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    Some(LabelSelector::from_labels(labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
}

/// The services whose selector matches a pod's labels, now.
pub fn services_of(pod: &Meta, services: &Lister<Service>) -> Vec<ObjectKey> {
    let all = services.in_namespace(&pod.key.namespace);
    let matching = all
        .iter()
        .filter(|service| selector(service).is_some_and(|selector| selector.matches_labels(|key| pod.label(key))));
    matching.map(|service| client::Typed::key(&**service)).collect()
}

/// The ports of a service on a pod. A named target that the pod does not have is left out.
pub fn ports(service: &Service, pod: &PodView) -> Vec<Port> {
    let spec = service.spec.clone().unwrap_or_default();
    let found = spec.ports.iter().flatten().filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_string());
        let number = target(port, &protocol, pod)?;
        let name = port.name.clone().unwrap_or_default();
        Some(Port { name, protocol, number, app_protocol: port.app_protocol.clone() })
    });
    let mut ports: Vec<Port> = found.collect();
    ports.sort();
    ports
}

fn target(port: &ServicePort, protocol: &str, pod: &PodView) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => Some(*number),
        Some(IntOrString::String(name)) if !name.is_empty() => {
            let named = pod.ports.iter().find(|(known, of, _)| known == name && of == protocol);
            named.map(|(_, _, number)| *number)
        }
        _ => Some(port.port),
    }
}

/// The pod's address of a family.
pub fn address(pod: &PodView, v6: bool) -> Option<&str> {
    pod.ips.iter().map(String::as_str).find(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == v6))
}

/// Whether a change of a pod can matter to any service.
pub fn matters(old: &PodView, new: &PodView) -> bool {
    old.ips != new.ips
        || old.ready != new.ready
        || old.node != new.node
        || old.meta.labels != new.meta.labels
        || old.meta.deleting.is_some() != new.meta.deleting.is_some()
        || old.is_terminal() != new.is_terminal()
        || old.hostname != new.hostname
        || old.subdomain != new.subdomain
}

pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

/// The name a pod has under a headless service, if it has one of its own.
pub fn hostname<'a>(service: &Service, pod: &'a PodView) -> Option<&'a str> {
    let governs = service.metadata.name.as_deref() == Some(pod.subdomain.as_str());
    (governs && !pod.hostname.is_empty()).then_some(pod.hostname.as_str())
}
