//! Decisions on small clusters.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Affinity;
use meta::ObjectKey;
use serde_json::json;

use crate::affinity::{Kin, PodRules};
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

/// A pod of the app `app` with such affinity.
fn pod_with(uid: &str, app: &str, affinity: serde_json::Value) -> PodInfo {
    let affinity: Affinity = serde_json::from_value(affinity).unwrap();
    let labels = [("app".to_string(), app.to_string())].into();
    let kin = Arc::new(Kin { namespace: "n".into(), labels });
    PodInfo { rules: PodRules::of(&affinity, "n"), kin, ..pod(uid, 1) }
}

fn in_zone(name: &str, zone: &str) -> NodeFacts {
    NodeFacts { labels: [("zone".to_string(), zone.to_string())].into(), ..node(name, 1000) }
}

fn required(kind: &str, app: &str) -> serde_json::Value {
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}});
    json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
}

#[test]
fn pods_keep_apart_by_zone_whoever_of_them_says_so() {
    let mut cache = cluster(vec![in_zone("a1", "a"), in_zone("a2", "a"), in_zone("b1", "b")]);
    let lonely = |uid: &str| pod_with(uid, "lonely", required("podAntiAffinity", "lonely"));
    let first = place(&mut cache, &lonely("1")).unwrap();
    let second = place(&mut cache, &lonely("2")).unwrap();
    assert_ne!(first[..1], second[..1], "{first} {second}");
    let helpless = "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.";
    let own = format!("0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. {helpless}");
    assert_eq!(place(&mut cache, &lonely("3")), Err(own));
    let theirs =
        format!("0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules. {helpless}");
    assert_eq!(place(&mut cache, &pod_with("4", "lonely", json!({}))), Err(theirs));
    assert!(cache.forget("1"));
    assert_eq!(place(&mut cache, &pod_with("4", "lonely", json!({}))).unwrap()[..1], first[..1]);
}

#[test]
fn pods_follow_those_they_require_and_the_first_of_a_group_may_go_anywhere() {
    let mut cache = cluster(vec![in_zone("a1", "a"), in_zone("a2", "a"), in_zone("b1", "b"), node("bare", 1000)]);
    let follower = |uid: &str, app: &str| pod_with(uid, app, required("podAffinity", "leader"));
    let refused = "0/4 nodes are available: 4 node(s) didn't match pod affinity rules. \
                   preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.";
    assert_eq!(place(&mut cache, &follower("1", "other")), Err(refused.into()));
    let first = place(&mut cache, &follower("2", "leader")).unwrap();
    assert_ne!(first, "bare", "even the first needs the label");
    assert_eq!(place(&mut cache, &follower("3", "other")).unwrap()[..1], first[..1]);
}

#[test]
fn preferred_pods_and_pods_that_draw_make_a_node_better() {
    let mut cache = cluster(vec![in_zone("a1", "a"), in_zone("b1", "b")]);
    let leader = PodInfo { node: "b1".into(), ..pod_with("leader", "leader", json!({})) };
    cache.put_pod(Arc::new(leader));
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "leader"}}});
    let likes = json!([{"weight": 100, "podAffinityTerm": term}]);
    let near = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": likes}});
    let far = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": likes}});
    assert_eq!(place(&mut cache, &pod_with("1", "x", near)), Ok("b1".into()));
    assert_eq!(place(&mut cache, &pod_with("2", "shy", far)), Ok("a1".into()));
    assert_eq!(place(&mut cache, &pod_with("3", "leader", json!({}))), Ok("b1".into()), "drawn by 1, put off by 2");
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
