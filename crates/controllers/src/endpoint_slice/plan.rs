//! Which slices a service needs: pure.
//!
//! Endpoints with the same address family and the same ports share slices of at most a hundred. An endpoint stays in the slice
//! it is in, so that a change of one pod rewrites one slice; holes are filled before new slices are made.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::service_pods::Port;

/// Upstream's `--max-endpoints-per-slice`.
pub const ENDPOINTS_MAX: usize = 100;

/// What the endpoints of a slice have in common: `IPv4` or `IPv6`, and the ports.
pub type Group = (&'static str, Vec<Port>);

/// A slice as it is.
#[derive(Clone, Debug)]
pub struct Slice {
    pub name: String,
    pub address_type: String,
    /// As stored.
    pub ports: Value,
    pub endpoints: Vec<Value>,
    /// Labels and owner are right.
    pub labelled: bool,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Create {
        address_type: &'static str,
        ports: Value,
        endpoints: Vec<Value>,
    },
    /// New ports only for a slice that serves another purpose from now on.
    Update {
        name: String,
        ports: Option<Value>,
        endpoints: Vec<Value>,
    },
    Delete {
        name: String,
    },
}

/// Ports as a slice stores them.
pub fn ports_json(ports: &[Port]) -> Value {
    let all = ports.iter().map(|port| {
        let mut value = json!({"name": port.name, "protocol": port.protocol, "port": port.number});
        if let Some(app) = &port.app_protocol {
            value["appProtocol"] = app.as_str().into();
        }
        value
    });
    Value::Array(all.collect())
}

/// What an endpoint is recognized by.
fn identity(endpoint: &Value) -> String {
    let uid = endpoint.pointer("/targetRef/uid").and_then(Value::as_str).unwrap_or_default();
    format!("{uid}/{}", endpoint["addresses"][0].as_str().unwrap_or_default())
}

fn sorted_ports(ports: &Value) -> Vec<String> {
    let mut words: Vec<String> = ports.as_array().into_iter().flatten().map(Value::to_string).collect();
    words.sort();
    words
}

pub fn plan(wanted: BTreeMap<Group, Vec<Value>>, existing: Vec<Slice>) -> Vec<Action> {
    let (mut actions, mut used) = (Vec::new(), BTreeSet::new());
    for ((address_type, ports), endpoints) in wanted {
        let ports = ports_json(&ports);
        let ours =
            |slice: &&Slice| slice.address_type == address_type && sorted_ports(&slice.ports) == sorted_ports(&ports);
        let slices: Vec<&Slice> = existing.iter().filter(ours).collect();
        used.extend(slices.iter().map(|slice| slice.name.clone()));
        fill(address_type, &ports, endpoints, &slices, &mut actions);
    }
    let unused = existing.into_iter().filter(|slice| !used.contains(&slice.name));
    reuse(&mut actions, unused.collect());
    actions
}

/// Turns slices that nobody needs into those that are missing, so that no watcher sees both or neither, and removes the rest.
fn reuse(actions: &mut Vec<Action>, mut unused: Vec<Slice>) {
    for action in actions.iter_mut() {
        let Action::Create { address_type, ports, endpoints } = action else { continue };
        let Some(at) = unused.iter().position(|slice| slice.address_type == *address_type) else { continue };
        let name = unused.swap_remove(at).name;
        *action = Action::Update { name, ports: Some(ports.take()), endpoints: std::mem::take(endpoints) };
    }
    actions.extend(unused.into_iter().map(|slice| Action::Delete { name: slice.name }));
}

/// Distributes the endpoints of one group over its slices.
fn fill(
    address_type: &'static str,
    ports: &Value,
    endpoints: Vec<Value>,
    slices: &[&Slice],
    actions: &mut Vec<Action>,
) {
    let mut left: BTreeMap<String, Value> = endpoints.into_iter().map(|it| (identity(&it), it)).collect();
    let mut kept: Vec<(&Slice, Vec<Value>)> = Vec::new();
    for slice in slices {
        let stay = slice.endpoints.iter().filter_map(|endpoint| left.remove(&identity(endpoint)));
        kept.push((slice, stay.collect()));
    }
    let mut left: Vec<Value> = left.into_values().collect();
    // The fullest with room first, so that the fewest slices change.
    kept.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut kept {
        let room = ENDPOINTS_MAX.saturating_sub(endpoints.len()).min(left.len());
        endpoints.extend(left.drain(..room));
    }
    // A service with no endpoints keeps one empty slice, which says so to those who watch.
    let mut alive = kept.iter().filter(|(_, endpoints)| !endpoints.is_empty()).count();
    for (slice, endpoints) in kept {
        if endpoints.is_empty() && alive > 0 {
            actions.push(Action::Delete { name: slice.name.clone() });
            continue;
        }
        alive = alive.max(1);
        if endpoints != slice.endpoints || !slice.labelled {
            actions.push(Action::Update { name: slice.name.clone(), ports: None, endpoints });
        }
    }
    for chunk in left.chunks(ENDPOINTS_MAX) {
        actions.push(Action::Create { address_type, ports: ports.clone(), endpoints: chunk.to_vec() });
    }
    if slices.is_empty() && left.is_empty() {
        actions.push(Action::Create { address_type, ports: ports.clone(), endpoints: Vec::new() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: &str) -> Value {
        json!({"addresses": [ip], "targetRef": {"uid": ip}})
    }

    fn port(number: i32) -> Vec<Port> {
        vec![Port { name: "http".into(), protocol: "TCP".into(), number, app_protocol: None }]
    }

    fn wanted(number: i32, ips: &[&str]) -> BTreeMap<Group, Vec<Value>> {
        [(("IPv4", port(number)), ips.iter().map(|ip| endpoint(ip)).collect())].into()
    }

    fn slice(name: &str, number: i32, ips: &[&str]) -> Slice {
        Slice {
            name: name.into(),
            address_type: "IPv4".into(),
            ports: ports_json(&port(number)),
            endpoints: ips.iter().map(|ip| endpoint(ip)).collect(),
            labelled: true,
        }
    }

    #[test]
    fn nothing_changes_when_all_is_right() {
        assert_eq!(plan(wanted(80, &["a", "b"]), vec![slice("s", 80, &["b", "a"])]), []);
    }

    #[test]
    fn a_new_endpoint_goes_where_there_is_room() {
        let actions = plan(wanted(80, &["a", "b"]), vec![slice("s", 80, &["a"])]);
        assert_eq!(
            actions,
            [Action::Update { name: "s".into(), ports: None, endpoints: vec![endpoint("a"), endpoint("b")] }]
        );
    }

    #[test]
    fn other_ports_take_over_a_slice_that_nobody_needs_and_the_rest_goes() {
        let actions = plan(wanted(81, &["a"]), vec![slice("s", 80, &["a"]), slice("t", 82, &[])]);
        let taken =
            Action::Update { name: "s".into(), ports: Some(ports_json(&port(81))), endpoints: vec![endpoint("a")] };
        assert_eq!(actions, [taken, Action::Delete { name: "t".into() }]);
    }

    #[test]
    fn a_slice_of_another_address_family_is_not_taken_over() {
        let other = Slice { address_type: "IPv6".into(), ..slice("s", 80, &[]) };
        let actions = plan(wanted(80, &["a"]), vec![other]);
        assert!(matches!(&actions[..], [Action::Create { .. }, Action::Delete { name }] if name == "s"), "{actions:?}");
    }

    #[test]
    fn many_endpoints_need_several_slices() {
        let ips: Vec<String> = (0..250).map(|number| number.to_string()).collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        let sizes: Vec<usize> = plan(wanted(80, &ips), vec![])
            .iter()
            .map(|action| match action {
                Action::Create { endpoints, .. } => endpoints.len(),
                _ => 0,
            })
            .collect();
        assert_eq!(sizes, [100, 100, 50]);
    }

    #[test]
    fn the_last_endpoint_leaves_an_empty_slice_behind() {
        let actions = plan(wanted(80, &[]), vec![slice("s", 80, &["a"])]);
        assert_eq!(actions, [Action::Update { name: "s".into(), ports: None, endpoints: vec![] }]);
        assert_eq!(plan(wanted(80, &[]), vec![slice("s", 80, &[])]), []);
    }
}
