//! Pods of one node.

use std::io::ErrorKind;

use cri::network::HostPort;
use net::link::{Links, RouteOwner};

use crate::lab::{Namespace, Node, udp_name};

#[test]
fn pods_reach_each_other_the_node_and_themselves() {
    let (mut node, _outside) = Node::alone();
    let (a, a_ip) = node.pod("a");
    let (b, b_ip) = node.pod("b");
    assert_eq!((&*a_ip, &*b_ip), ("10.42.1.2", "10.42.1.3"));
    b.serve("0.0.0.0:80", "b");
    node.namespace.serve("192.0.2.1:81", "node");
    assert_eq!(a.ask(&format!("{b_ip}:80")), Ok(format!("b {a_ip}")), "no translation between pods");
    assert_eq!(b.ask("127.0.0.1:80"), Ok("b 127.0.0.1".into()));
    assert_eq!(a.ask("192.0.2.1:81"), Ok(format!("node {a_ip}")));
    assert_eq!(node.namespace.ask(&format!("{b_ip}:80")), Ok("b 192.0.2.1".into()));
    // Nobody has this address, and it must not leave by another way.
    assert_eq!(a.ask("10.42.1.200:80"), Err(ErrorKind::HostUnreachable));
}

#[test]
fn only_what_leaves_the_cluster_is_masqueraded() {
    let (mut node, outside) = Node::alone();
    let (a, a_ip) = node.pod("a");
    outside.serve("0.0.0.0:80", "outside");
    assert_eq!(a.ask("192.0.2.100:80"), Ok("outside 192.0.2.1".into()));
    // Once it is known as a node it sees the pod's own address.
    outside.route("10.42.1.0/24", "192.0.2.1");
    node.pods.set_nodes(["192.0.2.100".parse().unwrap()].into()).unwrap();
    assert_eq!(a.ask("192.0.2.100:80"), Ok(format!("outside {a_ip}")));
}

#[test]
fn joining_twice_changes_nothing_and_leaving_leaves_nothing() {
    let (mut node, _outside) = Node::alone();
    let before = node.namespace.devices();
    let pod = Namespace::new();
    let mut sandbox = node.sandbox("a", &pod);
    sandbox.port_mappings =
        vec![HostPort { protocol: "TCP".into(), container_port: 80, host_port: 8080, host_ip: String::new() }];
    let first = node.join(&sandbox).unwrap();
    assert_eq!(node.namespace.devices().len(), before.len() + 1);
    assert_eq!(node.join(&sandbox).unwrap(), first);
    assert_eq!(node.namespace.devices().len(), before.len() + 1);
    assert_eq!(node.namespace.elements("lab-pods", "ports"), 1);
    for _ in 0..2 {
        node.pods.leave("a").unwrap();
        assert_eq!(node.namespace.devices(), before);
        assert_eq!(pod.devices(), ["lo"]);
        assert_eq!(node.namespace.elements("lab-pods", "ports"), 0);
    }
    node.pods.remove().unwrap();
    assert_eq!(node.namespace.tables(), Vec::<String>::new());
}

#[test]
fn a_failed_join_gives_everything_back() {
    let (mut node, _outside) = Node::alone();
    let before = node.namespace.devices();
    let pod = Namespace::new();
    let mut sandbox = node.sandbox("a", &pod);
    sandbox.netns_path = "/proc/self/no-such-namespace".into();
    let error = node.join(&sandbox).unwrap_err().to_string();
    assert!(error.starts_with("enter the pod's network namespace: "), "{error}");
    assert_eq!(node.namespace.devices(), before);
    assert_eq!(node.records(), Vec::<String>::new());
    // Nor does a host port that is taken touch the one who has it.
    let taken = HostPort { protocol: "TCP".into(), container_port: 80, host_port: 8080, host_ip: String::new() };
    let mut other = node.sandbox("b", &pod);
    other.port_mappings = vec![taken.clone()];
    node.join(&other).unwrap();
    let third = Namespace::new();
    let mut sandbox = node.sandbox("c", &third);
    sandbox.port_mappings = vec![taken];
    let error = node.join(&sandbox).unwrap_err().to_string();
    assert_eq!(error, "host port 8080: already used by sandbox b");
    assert_eq!(node.namespace.elements("lab-pods", "ports"), 1);
    assert_eq!(node.namespace.devices().len(), before.len() + 1);
    assert_eq!(third.devices(), ["lo"]);
    let (_pod, address) = node.pod("d");
    assert_eq!(address, "10.42.1.4", "the first failure's address rests, the second took none");
}

#[test]
fn host_ports_work_from_outside_from_the_node_and_from_the_pod_itself() {
    let (mut node, outside) = Node::alone();
    let pod = Namespace::new();
    let mut sandbox = node.sandbox("a", &pod);
    let port = |protocol: &str, container_port, host_port, host_ip: &str| HostPort {
        protocol: protocol.into(),
        container_port,
        host_port,
        host_ip: host_ip.into(),
    };
    sandbox.port_mappings =
        vec![port("TCP", 80, 8080, ""), port("TCP", 80, 9090, "127.0.0.1"), port("UDP", 53, 5353, "0.0.0.0")];
    node.join(&sandbox).unwrap();
    pod.serve("0.0.0.0:80", "a");
    pod.serve_udp("0.0.0.0:53", "a");
    assert_eq!(outside.ask("192.0.2.1:8080"), Ok("a 192.0.2.100".into()));
    assert_eq!(node.namespace.ask_name("192.0.2.1:8080"), "a");
    assert_eq!(node.namespace.ask_name("127.0.0.1:8080"), "a");
    assert_eq!(node.namespace.ask_name("127.0.0.1:9090"), "a");
    assert_eq!(outside.ask("192.0.2.1:9090"), Err(ErrorKind::ConnectionRefused));
    assert_eq!(pod.ask_name("192.0.2.1:8080"), "a", "a pod reaches itself");
    assert_eq!(udp_name(&outside.udp("192.0.2.1:5353")), Ok("a".into()));
}

#[test]
fn a_pod_cannot_reach_the_loopback_of_its_node() {
    let (mut node, _outside) = Node::alone();
    let (pod, _) = node.pod("a");
    node.namespace.serve("127.0.0.1:7000", "secret");
    // A hostile pod takes loopback off its own stack and sends it to the node, whose device routes it for host ports' sake.
    pod.run(|| {
        let mut links = Links::open(RouteOwner::Pods).unwrap();
        let loopback = links.index("lo").unwrap();
        links.delete_address(loopback, "127.0.0.1".parse().unwrap(), 8).unwrap();
        net::sysctl::set("ipv4/conf/all/route_localnet", "1").unwrap();
    });
    pod.route("127.0.0.0/8", "169.254.1.1");
    assert_eq!(pod.ask("127.0.0.1:7000"), Err(ErrorKind::TimedOut));
}

#[test]
fn a_restart_keeps_live_sandboxes_and_forgets_the_others() {
    let (mut node, outside) = Node::alone();
    let kept = Namespace::new();
    let mut sandbox = node.sandbox("kept", &kept);
    sandbox.port_mappings =
        vec![HostPort { protocol: "TCP".into(), container_port: 80, host_port: 8080, host_ip: String::new() }];
    let addresses = node.join(&sandbox).unwrap();
    kept.serve("0.0.0.0:80", "kept");
    let (_gone, _) = node.pod("gone");
    let devices = node.namespace.devices().len();
    node.pods.reconcile(&[(sandbox, addresses)]).unwrap();
    assert_eq!(node.namespace.devices().len(), devices - 1);
    assert_eq!(outside.ask_name("192.0.2.1:8080"), "kept");
}

#[test]
fn cleanup_removes_everything_of_an_instance_and_nothing_else() {
    let (mut node, _outside) = Node::alone();
    let before = node.namespace.devices();
    let (_pod, _) = node.pod("a");
    node.proxy.sync(net::proxy::Plans::new()).unwrap();
    node.namespace.nft(&["add", "table", "ip", "stranger"]);
    node.namespace.run(|| net::cleanup("lab").unwrap());
    assert_eq!(node.namespace.devices(), before);
    assert_eq!(node.namespace.tables(), ["stranger"]);
    assert_eq!(node.namespace.routes(), vec![]);
}
