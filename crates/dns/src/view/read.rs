//! The fields of Services and EndpointSlices that names are made of, as the API names them. Everything else is skipped.
//!
//! JSON may say null for a list or a text that protobuf leaves out, hence the options.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Service {
    pub spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub type_: Option<String>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    pub external_name: Option<String>,
    pub ports: Option<Vec<Port>>,
}

/// Of a service or of a slice.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Port {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub port: Option<i32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Slice {
    pub metadata: Metadata,
    pub ports: Option<Vec<Port>>,
    pub endpoints: Option<Vec<Endpoint>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    pub addresses: Option<Vec<String>>,
    pub hostname: Option<String>,
    pub conditions: Conditions,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    pub ready: Option<bool>,
}
