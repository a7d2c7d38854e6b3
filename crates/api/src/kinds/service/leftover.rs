//! What a service's new type has no use for: fields that the server filled in for the old type, and that the writer did not
//! touch, are dropped. A field that the writer did change stays, so that validation tells what is wrong with it.

use meta::Object;
use serde_json::Value;

use super::{kind, uses_node_ports};
use crate::kinds::tree::{Read, Write};

/// Drops from `new` what only the type of `old` needed.
pub(super) fn drop_of_old_type(new: &mut Object, old: &Object) {
    let ended = |needs: fn(&Object) -> bool, new: &Object| needs(old) && !needs(new);
    if ended(has_address, new) {
        drop_unless_changed(new, old, &["clusterIP", "clusterIPs"]);
        drop_unless_changed(new, old, &["ipFamilies"]);
        drop_unless_changed(new, old, &["ipFamilyPolicy"]);
    }
    if ended(uses_node_ports, new) && port_numbers(new) == port_numbers(old) {
        for port in new.0.get_mut("spec").into_iter().flat_map(|spec| spec.items_mut("ports")) {
            port.drop_field("nodePort");
        }
    }
    if ended(is_checked_by_balancer, new) {
        drop_unless_changed(new, old, &["healthCheckNodePort"]);
    }
    if ended(is_balanced, new) {
        drop_unless_changed(new, old, &["allocateLoadBalancerNodePorts"]);
        drop_unless_changed(new, old, &["loadBalancerClass"]);
    }
    if ended(is_reached_from_outside, new) {
        drop_unless_changed(new, old, &["externalTrafficPolicy"]);
    }
    if !is_balanced(new) {
        new.set(&["status", "loadBalancer"], Value::Object(serde_json::Map::new()));
    }
}

fn has_address(service: &Object) -> bool {
    kind(service) != "ExternalName"
}

fn is_balanced(service: &Object) -> bool {
    kind(service) == "LoadBalancer"
}

fn is_checked_by_balancer(service: &Object) -> bool {
    is_balanced(service) && service.str_at(&["spec", "externalTrafficPolicy"]) == "Local"
}

fn is_reached_from_outside(service: &Object) -> bool {
    match kind(service) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !service.list_at(&["spec", "externalIPs"]).is_empty(),
        _ => false,
    }
}

fn port_numbers(service: &Object) -> Vec<Option<i64>> {
    service.list_at(&["spec", "ports"]).iter().map(|port| port.number("nodePort")).collect()
}

fn drop_unless_changed(new: &mut Object, old: &Object, fields: &[&str]) {
    if fields.iter().all(|field| new.get(&["spec", field]) == old.get(&["spec", field])) {
        for field in fields {
            new.remove(&["spec", field]);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node_port_service() -> Object {
        Object::from_value(json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "nodePort": 30080}]}, "status": {"loadBalancer": {}}}))
        .unwrap()
    }

    #[test]
    fn a_service_that_becomes_a_name_keeps_neither_address_nor_node_port() {
        let old = node_port_service();
        let mut new = old.clone();
        new.set(&["spec", "type"], "ExternalName");
        new.set(&["spec", "externalName"], "example.com");
        drop_of_old_type(&mut new, &old);
        let left = json!({"type": "ExternalName", "externalName": "example.com", "ports": [{"port": 80}]});
        assert_eq!(new.get(&["spec"]), Some(&left));
    }

    #[test]
    fn what_the_writer_changed_himself_stays_to_be_judged() {
        let old = node_port_service();
        let mut new = old.clone();
        new.set(&["spec", "type"], "ClusterIP");
        new.set(&["spec", "ports"], json!([{"port": 80, "nodePort": 30081}]));
        drop_of_old_type(&mut new, &old);
        assert_eq!(new.get(&["spec", "ports"]), Some(&json!([{"port": 80, "nodePort": 30081}])));
        assert_eq!(new.str_at(&["spec", "clusterIP"]), "10.43.0.9", "a ClusterIP service still needs its address");
    }

    #[test]
    fn a_service_of_the_same_type_loses_nothing() {
        let old = node_port_service();
        let mut new = old.clone();
        drop_of_old_type(&mut new, &old);
        assert_eq!(new, old);
    }
}
