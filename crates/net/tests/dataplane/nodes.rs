//! Pods on different nodes.

use ipnet::IpNet;
use net::route::{Overlay, Peer};

use crate::lab::{Namespace, Node, greeting, round_trip};

fn peer(node: &Node, address: &str) -> Peer {
    Peer { name: node.name.clone(), internal_ip: address.parse().unwrap(), pod_cidrs: vec![node.range] }
}

fn connect(a: &mut Node, a_address: &str, b: &mut Node, b_address: &str) {
    let (to_a, to_b) = (peer(a, a_address), peer(b, b_address));
    a.routes.apply(&[a.range], &[to_b]).unwrap();
    b.routes.apply(&[b.range], &[to_a]).unwrap();
    a.pods.set_nodes([b_address.parse().unwrap()].into()).unwrap();
    b.pods.set_nodes([a_address.parse().unwrap()].into()).unwrap();
}

/// Pods and nodes in all directions, small and large.
fn talk(a: &mut Node, b: &mut Node, seen_from_node: &str) {
    let (pod_a, ip_a) = a.pod("a");
    let (pod_b, ip_b) = b.pod("b");
    pod_b.serve("0.0.0.0:80", "b");
    pod_a.serve("0.0.0.0:80", "a");
    assert_eq!(pod_a.ask(&format!("{ip_b}:80")), Ok(format!("b {ip_a}")));
    assert_eq!(pod_b.ask(&format!("{ip_a}:80")), Ok(format!("a {ip_b}")));
    assert_eq!(a.namespace.ask(&format!("{ip_b}:80")), Ok(format!("b {seen_from_node}")));
    let mut stream = pod_a.connect(&format!("{ip_b}:80")).unwrap();
    greeting(&mut stream).unwrap();
    assert!(round_trip(&mut stream, &[7; 60_000]).unwrap());
}

#[test]
fn nodes_on_one_segment_route_directly() {
    let (one, two) = (Namespace::new(), Namespace::new());
    one.wire("up0", "192.0.2.1/24", &two, "up0", "192.0.2.2/24");
    let mut a = Node::new("n1", one, "10.42.1.0/24", "192.0.2.1", Overlay::Auto);
    let mut b = Node::new("n2", two, "10.42.2.0/24", "192.0.2.2", Overlay::Auto);
    connect(&mut a, "192.0.2.1", &mut b, "192.0.2.2");
    assert!(!a.namespace.devices().contains(&"lab-vx".to_owned()));
    talk(&mut a, &mut b, "192.0.2.1");
}

/// Two nodes with a router in between that knows nothing of pods.
fn apart() -> (Node, Node, Namespace) {
    let (one, two, router) = (Namespace::new(), Namespace::new(), Namespace::new());
    one.wire("up0", "192.0.2.1/24", &router, "left", "192.0.2.254/24");
    two.wire("up0", "198.51.100.2/24", &router, "right", "198.51.100.254/24");
    router.run(|| net::sysctl::set("ipv4/ip_forward", "1").unwrap());
    one.route("198.51.100.0/24", "192.0.2.254");
    two.route("192.0.2.0/24", "198.51.100.254");
    let mut a = Node::new("n1", one, "10.42.1.0/24", "192.0.2.1", Overlay::Auto);
    let mut b = Node::new("n2", two, "10.42.2.0/24", "198.51.100.2", Overlay::Auto);
    connect(&mut a, "192.0.2.1", &mut b, "198.51.100.2");
    (a, b, router)
}

#[test]
fn nodes_apart_use_the_overlay() {
    let (mut a, mut b, _router) = apart();
    assert!(a.namespace.devices().contains(&"lab-vx".to_owned()));
    // A node's own packets take the overlay too, from the node's address in it.
    talk(&mut a, &mut b, "10.42.1.0");
}

#[test]
fn routes_follow_the_peers_and_go_with_them() {
    let (one, two) = (Namespace::new(), Namespace::new());
    one.wire("up0", "192.0.2.1/24", &two, "up0", "192.0.2.2/24");
    let mut a = Node::new("n1", one, "10.42.1.0/24", "192.0.2.1", Overlay::Auto);
    let destinations = |node: &Node| -> Vec<String> {
        let mut found: Vec<_> =
            node.namespace.routes().into_iter().map(|route| route.destination.to_string()).collect();
        found.sort();
        found
    };
    let fixed = ["10.42.0.0/16", "10.43.0.0/16", "fd00:42::/32", "fd00:43::/112"];
    assert_eq!(destinations(&a), fixed);
    let range: IpNet = "10.42.2.0/24".parse().unwrap();
    let peer = |range| Peer { name: "n2".into(), internal_ip: "192.0.2.2".parse().unwrap(), pod_cidrs: vec![range] };
    a.routes.apply(&[a.range], &[peer(range)]).unwrap();
    assert_eq!(destinations(&a), ["10.42.0.0/16", "10.42.2.0/24", "10.43.0.0/16", "fd00:42::/32", "fd00:43::/112"]);
    a.routes.apply(&[a.range], &[peer("10.42.3.0/24".parse().unwrap())]).unwrap();
    assert_eq!(destinations(&a), ["10.42.0.0/16", "10.42.3.0/24", "10.43.0.0/16", "fd00:42::/32", "fd00:43::/112"]);
    a.routes.apply(&[a.range], &[]).unwrap();
    assert_eq!(destinations(&a), fixed);
    a.routes.remove().unwrap();
    assert_eq!(destinations(&a), Vec::<String>::new());
}
