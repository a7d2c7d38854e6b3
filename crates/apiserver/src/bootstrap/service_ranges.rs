//! The `ServiceCIDR` of the ranges that the server was started with.

use meta::{GroupVersionKind, Object};
use serde_json::Value;

use crate::registry::Registry;

const NAME: &str = "kubernetes";

pub fn wanted(registry: &Registry) -> Vec<Object> {
    let cidrs: Vec<Value> = registry.allocators().cidrs().map(|cidr| cidr.to_string().into()).collect();
    if cidrs.is_empty() {
        return Vec::new();
    }
    let mut range = Object::new(&GroupVersionKind::new("networking.k8s.io", "v1", "ServiceCIDR"));
    range.set_meta("name", NAME);
    range.set(&["spec", "cidrs"], cidrs);
    vec![range]
}
