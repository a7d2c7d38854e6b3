//! What is special about each built-in kind: the register of strategies and printer columns.
//!
//! A kind that is not named here gets the default strategy and the columns `Name` and `Age`.

mod config;
mod container_rules;
mod endpoints;
mod event;
mod namespace;
mod node;
mod pod;
mod pod_columns;
mod pod_defaults;
mod pod_rules;
pub mod qos;
mod rbac;
mod rules;
mod service;
mod small;
mod tree;
mod volume_rules;
mod workload_columns;
mod workloads;

use std::sync::Arc;

use crate::columns::{Column, age_column, default_columns, name_column};
use crate::strategy::{DefaultStrategy, Strategy};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The strategy of a built-in kind.
pub fn strategy(group: &str, kind: &str) -> Arc<dyn Strategy> {
    match (group, kind) {
        ("", "Pod") => Arc::new(pod::Pod),
        ("", "Namespace") => Arc::new(namespace::Namespace),
        ("", "Node") => Arc::new(node::Node),
        ("", "Service") => Arc::new(service::Service),
        ("", "ConfigMap") => Arc::new(config::ConfigMap),
        ("", "Secret") => Arc::new(config::Secret),
        ("", "ServiceAccount") => Arc::new(small::ServiceAccount),
        ("", "Endpoints") => Arc::new(endpoints::Endpoints),
        ("" | "events.k8s.io", "Event") => Arc::new(event::Event),
        ("apps", "Deployment") => Arc::new(workloads::Deployment),
        ("apps", "ReplicaSet") => Arc::new(workloads::ReplicaSet),
        ("discovery.k8s.io", "EndpointSlice") => Arc::new(endpoints::EndpointSlice),
        ("coordination.k8s.io", "Lease") => Arc::new(small::Lease),
        ("scheduling.k8s.io", "PriorityClass") => Arc::new(small::PriorityClass),
        ("certificates.k8s.io", "CertificateSigningRequest") => Arc::new(small::CertificateSigningRequest),
        ("networking.k8s.io", "ServiceCIDR") => Arc::new(small::ServiceCidr),
        ("networking.k8s.io", "IPAddress") => Arc::new(small::IpAddress),
        ("node.k8s.io", "RuntimeClass") => Arc::new(small::RuntimeClass),
        ("", "PersistentVolume" | "PersistentVolumeClaim") => Arc::new(small::Claimed),
        (RBAC, "Role") => Arc::new(rbac::Role),
        (RBAC, "ClusterRole") => Arc::new(rbac::ClusterRole),
        (RBAC, "RoleBinding" | "ClusterRoleBinding") => Arc::new(rbac::Binding),
        _ if STATUS_ALONE.contains(&(group, kind)) => Arc::new(small::StatusAlone),
        _ => Arc::new(DefaultStrategy),
    }
}

/// Kinds of the default strategy whose `status` writers may not touch metadata.
const STATUS_ALONE: [(&str, &str); 15] = [
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("certificates.k8s.io", "PodCertificateRequest"),
    ("internal.apiserver.k8s.io", "StorageVersion"),
    ("lifecycle.k8s.io", "Eviction"),
    ("lifecycle.k8s.io", "EvictionRequest"),
    ("resource.k8s.io", "DeviceTaintRule"),
    ("resource.k8s.io", "ResourceClaim"),
    ("resource.k8s.io", "ResourcePoolStatusRequest"),
    ("scheduling.k8s.io", "CompositePodGroup"),
    ("scheduling.k8s.io", "PodGroup"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storagemigration.k8s.io", "StorageVersionMigration"),
];

/// The printer columns of a built-in kind.
pub fn columns(group: &str, kind: &str) -> Vec<Column> {
    match (group, kind) {
        ("", "Pod") => pod_columns::columns(),
        ("", "Namespace") => {
            let status = workload_columns::string("Status", 0, |it, _| it.str_at(&["status", "phase"]).into());
            vec![name_column(), status, age_column()]
        }
        ("", "Node") => node::columns(),
        ("", "Service") => service::columns(),
        ("", "ConfigMap") => config::config_map_columns(),
        ("", "Secret") => config::secret_columns(),
        ("", "ServiceAccount") => small::service_account_columns(),
        ("", "Endpoints") => endpoints::endpoints_columns(),
        ("" | "events.k8s.io", "Event") => event::columns(),
        ("apps", "Deployment") => workload_columns::deployment(),
        ("apps", "ReplicaSet") => workload_columns::replica_set(),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice_columns(),
        ("coordination.k8s.io", "Lease") => small::lease_columns(),
        ("scheduling.k8s.io", "PriorityClass") => small::priority_class_columns(),
        ("certificates.k8s.io", "CertificateSigningRequest") => small::csr_columns(),
        ("networking.k8s.io", "ServiceCIDR") => small::service_cidr_columns(),
        ("networking.k8s.io", "IPAddress") => small::ip_address_columns(),
        (RBAC, "Role" | "ClusterRole") => rbac::role_columns(),
        (RBAC, "RoleBinding" | "ClusterRoleBinding") => rbac::binding_columns(),
        _ => default_columns(),
    }
}
