//! Decisions on small clusters.

use std::sync::Arc;

use meta::ObjectKey;

use crate::cache::Cache;
use crate::cycle::decide;
use crate::node_info::NodeFacts;
use crate::plugins;
use crate::pod_info::{HostPort, PodInfo};
use crate::resources::Resources;

fn resources(milli_cpu: i64, memory: i64) -> Resources {
    Resources { milli_cpu, memory, ..Resources::default() }
}

fn node(name: &str, milli_cpu: i64) -> NodeFacts {
    NodeFacts { name: name.into(), allocatable: resources(milli_cpu, 1000), pods_max: 3, ..NodeFacts::default() }
}

fn pod(uid: &str, milli_cpu: i64) -> PodInfo {
    PodInfo {
        key: ObjectKey::new("n", uid),
        uid: uid.into(),
        preempts: true,
        requests: resources(milli_cpu, 10),
        requests_floored: resources(milli_cpu, 10),
        ..PodInfo::default()
    }
}

fn cluster(nodes: Vec<NodeFacts>) -> Cache {
    let mut cache = Cache::default();
    nodes.into_iter().for_each(|node| cache.put_node(Arc::new(node)));
    cache
}

fn place(cache: &mut Cache, pod: &PodInfo) -> Result<String, String> {
    let node = decide(&plugins::defaults(), cache, pod).map_err(|(error, _)| error.to_string())?;
    cache.assume(pod, &node);
    Ok(node)
}

#[test]
fn an_assumed_pod_takes_room_until_it_is_forgotten() {
    let mut cache = cluster(vec![node("a", 1000)]);
    assert_eq!(place(&mut cache, &pod("1", 600)), Ok("a".into()));
    let refused = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                   1 No preemption victims found for incoming pod.";
    assert_eq!(place(&mut cache, &pod("2", 600)), Err(refused.into()));
    assert!(cache.forget("1"));
    assert_eq!(place(&mut cache, &pod("2", 600)), Ok("a".into()));
}

#[test]
fn a_bound_pod_seen_after_its_assumption_counts_once() {
    let mut cache = cluster(vec![node("a", 1000)]);
    place(&mut cache, &pod("1", 600)).unwrap();
    let bound = Arc::new(PodInfo { node: "a".into(), ..pod("1", 600) });
    cache.put_pod(bound.clone());
    assert_eq!(cache.node("a").unwrap().requested.milli_cpu, 600);
    assert!(!cache.forget("1"), "the API has confirmed it");
    cache.remove_pod(&bound);
    assert_eq!(cache.node("a").unwrap().requested, Resources::default());
}

#[test]
fn the_emptier_node_wins() {
    let mut cache = cluster(vec![node("a", 1000), node("b", 1000)]);
    let first = place(&mut cache, &pod("1", 100)).unwrap();
    let second = place(&mut cache, &pod("2", 100)).unwrap();
    assert_ne!(first, second);
}

#[test]
fn every_obstacle_is_named_with_its_count() {
    let cordoned = NodeFacts { unschedulable: true, ..node("cordoned", 1000) };
    let mut cache = cluster(vec![node("small", 100), node("smaller", 50), cordoned]);
    let refused = place(&mut cache, &pod("1", 500)).unwrap_err();
    assert_eq!(
        refused,
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/3 nodes are available: \
         3 Preemption is not helpful for scheduling."
    );
}

#[test]
fn pod_count_and_ports_are_room_too() {
    let mut cache = cluster(vec![node("a", 1000)]);
    let port = |ip: &str| HostPort { ip: ip.into(), protocol: "TCP".into(), port: 80 };
    let with_port = |uid: &str, ip: &str| PodInfo { host_ports: vec![port(ip)], ..pod(uid, 1) };
    place(&mut cache, &with_port("1", "127.0.0.1")).unwrap();
    let refused = place(&mut cache, &with_port("2", "0.0.0.0")).unwrap_err();
    assert!(refused.contains("1 node(s) didn't have free ports for the requested pod ports."), "{refused}");
    place(&mut cache, &with_port("3", "127.0.0.2")).unwrap();
    place(&mut cache, &pod("4", 1)).unwrap();
    let refused = place(&mut cache, &pod("5", 1)).unwrap_err();
    assert!(refused.contains("1 Too many pods."), "{refused}");
}

#[test]
fn no_nodes_is_said_plainly() {
    assert_eq!(place(&mut cluster(vec![]), &pod("1", 1)), Err("no nodes available to schedule pods".into()));
}

#[test]
fn a_pod_waits_for_its_claims() {
    use crate::cache::ClaimState;
    let mut cache = cluster(vec![node("a", 1000)]);
    let claimant = PodInfo { claims: vec!["data".into()], ..pod("1", 1) };
    let helpless = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let missing = format!("0/1 nodes are available: persistentvolumeclaim \"data\" not found. {helpless}");
    assert_eq!(place(&mut cache, &claimant), Err(missing));
    let key = ObjectKey::new("n", "data");
    cache.put_claim(&key, Some(ClaimState::Unbound));
    let unbound = format!("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. {helpless}");
    assert_eq!(place(&mut cache, &claimant), Err(unbound));
    cache.put_claim(&key, Some(ClaimState::Bound));
    assert_eq!(place(&mut cache, &claimant), Ok("a".into()));
}
