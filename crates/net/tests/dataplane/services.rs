//! Services, seen from pods, from the node and from outside.

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;

use meta::ObjectKey;
use net::conntrack::Conntrack;
use net::nft::Family;
use net::proxy::{self, Endpoint, Plans, Protocol, Service, ServicePort, Slice, SlicePort, plan};

use crate::lab::{Namespace, Node, greeting, round_trip, udp_name};

const IP: &str = "10.43.0.7";

fn service(protocol: Protocol) -> Service {
    Service {
        cluster_ips: vec![IP.parse().unwrap()],
        ports: vec![ServicePort { name: "p".into(), protocol, port: 80, node_port: 30080 }],
        ..Service::default()
    }
}

/// Endpoints on port 8080: `(address, node)`.
fn slice(protocol: Protocol, endpoints: &[(&str, &str)]) -> Slice {
    let endpoint = |(address, node): &(&str, &str)| Endpoint {
        address: address.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: (*node).into(),
        zones: vec![],
        nodes: vec![],
    };
    Slice {
        service: "web".into(),
        ports: vec![SlicePort { name: "p".into(), protocol, port: 8080 }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn sync(node: &mut Node, name: &str, service: &Service, slices: &[Slice]) {
    let here =
        proxy::Node { name: node.name.clone(), zone: String::new(), addresses: vec!["192.0.2.1".parse().unwrap()] };
    let plan = plan::plan(service, slices.iter(), &here);
    node.proxy.sync(Plans::from([(ObjectKey::new("default", name), plan)])).unwrap();
}

fn web(node: &mut Node, endpoints: &[(&str, &str)]) {
    sync(node, "web", &service(Protocol::Tcp), &[slice(Protocol::Tcp, endpoints)]);
}

/// The names that answer in `tries` connections.
fn who(from: &Namespace, address: &str, tries: usize) -> HashSet<String> {
    (0..tries).map(|_| from.ask_name(address)).collect()
}

fn names(names: &[&str]) -> HashSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_service_spreads_over_its_pods_and_follows_them() {
    let (mut node, _outside) = Node::alone();
    let (client, client_ip) = node.pod("client");
    let (a, a_ip) = node.pod("a");
    let (b, b_ip) = node.pod("b");
    a.serve("0.0.0.0:8080", "a");
    b.serve("0.0.0.0:8080", "b");
    web(&mut node, &[(&a_ip, "n1"), (&b_ip, "n1")]);
    assert_eq!(who(&client, "10.43.0.7:80", 40), names(&["a", "b"]));
    assert_eq!(who(&node.namespace, "10.43.0.7:80", 40), names(&["a", "b"]));
    let answer = client.ask("10.43.0.7:80").unwrap();
    assert!(answer.ends_with(&client_ip), "pods keep their address: {answer}");
    web(&mut node, &[(&b_ip, "n1")]);
    assert_eq!(who(&client, "10.43.0.7:80", 10), names(&["b"]));
    web(&mut node, &[]);
    assert_eq!(who(&client, "10.43.0.7:80", 1), names(&["ConnectionRefused"]));
    assert_eq!(who(&node.namespace, "10.43.0.7:80", 1), names(&["ConnectionRefused"]));
    web(&mut node, &[(&a_ip, "n1")]);
    assert_eq!(who(&client, "10.43.0.7:80", 10), names(&["a"]));
}

#[test]
fn unallocated_addresses_and_ports_are_refused_at_once() {
    let (mut node, _outside) = Node::alone();
    let (client, _) = node.pod("client");
    let (a, a_ip) = node.pod("a");
    a.serve("0.0.0.0:8080", "a");
    web(&mut node, &[(&a_ip, "n1")]);
    for address in ["10.43.9.9:80", "10.43.0.7:81"] {
        assert_eq!(client.ask(address), Err(ErrorKind::ConnectionRefused), "{address}");
        assert_eq!(node.namespace.ask(address), Err(ErrorKind::ConnectionRefused), "{address}");
        assert_eq!(udp_name(&client.udp(address)), Err(ErrorKind::ConnectionRefused), "{address}");
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let (mut node, _outside) = Node::alone();
    let (a, a_ip) = node.pod("a");
    a.serve("0.0.0.0:8080", "a");
    web(&mut node, &[(&a_ip, "n1")]);
    let answer = a.ask("10.43.0.7:80").unwrap();
    assert!(answer.starts_with("a ") && !answer.ends_with(&a_ip), "{answer}");
    assert_eq!(node.namespace.elements("lab-services", "hairpin"), 1);
    web(&mut node, &[]);
    assert_eq!(node.namespace.elements("lab-services", "hairpin"), 0);
}

#[test]
fn node_ports_and_external_addresses_work_from_everywhere() {
    let (mut node, outside) = Node::alone();
    let (client, client_ip) = node.pod("client");
    let (a, a_ip) = node.pod("a");
    a.serve("0.0.0.0:8080", "a");
    let external = Service { external_ips: vec!["203.0.113.5".parse().unwrap()], ..service(Protocol::Tcp) };
    sync(&mut node, "web", &external, &[slice(Protocol::Tcp, &[(&a_ip, "n1")])]);
    outside.route("203.0.113.0/24", "192.0.2.1");
    assert_eq!(outside.ask_name("192.0.2.1:30080"), "a");
    assert_eq!(outside.ask_name("203.0.113.5:80"), "a");
    assert_eq!(node.namespace.ask_name("192.0.2.1:30080"), "a");
    assert_eq!(client.ask_name("192.0.2.1:30080"), "a");
    assert!(
        !outside.ask("192.0.2.1:30080").unwrap().ends_with("192.0.2.100"),
        "masqueraded, so that answers come back"
    );

    let local = Service { external_local: true, ..external };
    sync(&mut node, "web", &local, &[slice(Protocol::Tcp, &[(&a_ip, "n1")])]);
    assert_eq!(outside.ask("192.0.2.1:30080"), Ok("a 192.0.2.100".into()), "the client's address is kept");
    assert_eq!(client.ask("192.0.2.1:30080"), Ok(format!("a {client_ip}")));
    assert_eq!(node.namespace.ask_name("192.0.2.1:30080"), "a");

    // No endpoint here, one elsewhere: outsiders get nothing, pods are served from there.
    sync(&mut node, "web", &local, &[slice(Protocol::Tcp, &[(&a_ip, "n2")])]);
    assert_eq!(outside.ask("192.0.2.1:30080"), Err(ErrorKind::TimedOut));
    assert_eq!(client.ask_name("192.0.2.1:30080"), "a");
    sync(&mut node, "web", &local, &[]);
    assert_eq!(outside.ask("192.0.2.1:30080"), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn a_client_with_affinity_stays_until_its_backend_goes() {
    let (mut node, _outside) = Node::alone();
    let (client, _) = node.pod("client");
    let pods: Vec<_> = ["a", "b", "c"].iter().map(|id| node.pod(id)).collect();
    for ((pod, _), name) in pods.iter().zip(["a", "b", "c"]) {
        pod.serve("0.0.0.0:8080", name);
    }
    let sticky = Service { affinity_s: Some(100), ..service(Protocol::Tcp) };
    let all: Vec<(&str, &str)> = pods.iter().map(|(_, ip)| (&**ip, "n1")).collect();
    sync(&mut node, "web", &sticky, &[slice(Protocol::Tcp, &all)]);
    let first = who(&client, "10.43.0.7:80", 20);
    assert_eq!(first.len(), 1, "{first:?}");
    let chosen = first.into_iter().next().unwrap();
    let rest: Vec<_> = all.iter().zip(["a", "b", "c"]).filter(|(_, name)| **name != *chosen).map(|(e, _)| *e).collect();
    sync(&mut node, "web", &sticky, &[slice(Protocol::Tcp, &rest)]);
    let second = who(&client, "10.43.0.7:80", 20);
    assert!(second.len() == 1 && !second.contains(&chosen), "{second:?} after {chosen}");
    // Back to all three: the client stays where it is now.
    sync(&mut node, "web", &sticky, &[slice(Protocol::Tcp, &all)]);
    assert_eq!(who(&client, "10.43.0.7:80", 20), second);
}

#[test]
fn clients_with_affinity_follow_a_backend_to_its_new_slot() {
    let (mut node, _outside) = Node::alone();
    let clients: Vec<_> = (0..14).map(|index| node.pod(&format!("client{index}"))).collect();
    let pods: Vec<_> = ["a", "b", "c"].iter().map(|id| node.pod(id)).collect();
    for ((pod, _), name) in pods.iter().zip(["a", "b", "c"]) {
        pod.serve("0.0.0.0:8080", name);
    }
    let sticky = Service { affinity_s: Some(100), ..service(Protocol::Tcp) };
    let all: Vec<(&str, &str)> = pods.iter().map(|(_, ip)| (&**ip, "n1")).collect();
    sync(&mut node, "web", &sticky, &[slice(Protocol::Tcp, &all)]);
    let before: Vec<String> = clients.iter().map(|(client, _)| client.ask_name("10.43.0.7:80")).collect();
    assert!(before.iter().collect::<HashSet<_>>().len() > 1, "clients spread over the backends");
    // The first slot's backend goes, and the last one's moves into its place.
    sync(&mut node, "web", &sticky, &[slice(Protocol::Tcp, &all[1..])]);
    for ((client, _), name) in clients.iter().zip(&before) {
        let expected = if name == "a" { names(&["b", "c"]) } else { names(&[name]) };
        let seen = who(client, "10.43.0.7:80", 6);
        assert!(seen.len() == 1 && seen.is_subset(&expected), "{name}: {seen:?}");
    }
}

#[test]
fn a_service_may_lead_to_the_node_itself() {
    // As the service of the API server does.
    let (mut node, _outside) = Node::alone();
    let (client, client_ip) = node.pod("client");
    node.namespace.serve("192.0.2.1:8080", "node");
    web(&mut node, &[("192.0.2.1", "")]);
    assert_eq!(client.ask("10.43.0.7:80"), Ok(format!("node {client_ip}")));
    assert_eq!(node.namespace.ask_name("10.43.0.7:80"), "node");
}

#[test]
fn a_node_without_any_uplink_serves_and_refuses_too() {
    let namespace = Namespace::new();
    namespace.address("lo", "192.0.2.1/32");
    let mut node = Node::new("n1", namespace, "10.42.1.0/24", "192.0.2.1", net::route::Overlay::Auto);
    let (client, _) = node.pod("client");
    let (a, a_ip) = node.pod("a");
    a.serve("0.0.0.0:8080", "a");
    web(&mut node, &[(&a_ip, "n1")]);
    for from in [&client, &node.namespace, &a] {
        assert_eq!(from.ask_name("10.43.0.7:80"), "a");
        assert_eq!(from.ask_name("192.0.2.1:30080"), "a");
        assert_eq!(from.ask("10.43.9.9:80"), Err(ErrorKind::ConnectionRefused));
    }
}

#[test]
fn both_families_are_served() {
    let (mut node, _outside) = Node::alone();
    let ranges = ["10.42.1.0/24".parse().unwrap(), "fd00:42:1::/64".parse().unwrap()];
    node.pods.assign(&ranges).unwrap();
    node.namespace.address("up0", "fd00:1::1/64");
    let (client, _) = node.pod("client");
    let (a, _) = node.pod("a");
    a.serve("[::]:8080", "a");
    assert_eq!(client.ask("[fd00:42:1::3]:8080"), Ok("a fd00:42:1::2".into()));
    let dual =
        Service { cluster_ips: vec![IP.parse().unwrap(), "fd00:43::7".parse().unwrap()], ..service(Protocol::Tcp) };
    let slices = [slice(Protocol::Tcp, &[("10.42.1.3", "n1")]), slice(Protocol::Tcp, &[("fd00:42:1::3", "n1")])];
    sync(&mut node, "web", &dual, &slices);
    assert_eq!(client.ask_name("10.43.0.7:80"), "a");
    assert_eq!(client.ask_name("[fd00:43::7]:80"), "a");
    assert_eq!(a.ask_name("[fd00:43::7]:80"), "a", "hairpin");
    sync(&mut node, "web", &dual, &[]);
    assert_eq!(client.ask("[fd00:43::7]:80"), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn udp_clients_leave_a_backend_that_is_gone() {
    let (mut node, _outside) = Node::alone();
    let (client, _) = node.pod("client");
    let (a, a_ip) = node.pod("a");
    let (b, b_ip) = node.pod("b");
    a.serve_udp("0.0.0.0:8080", "a");
    b.serve_udp("0.0.0.0:8080", "b");
    let udp = service(Protocol::Udp);
    sync(&mut node, "web", &udp, &[slice(Protocol::Udp, &[(&a_ip, "n1")])]);
    let socket = client.udp("10.43.0.7:80");
    assert_eq!(udp_name(&socket), Ok("a".into()));
    sync(&mut node, "web", &udp, &[slice(Protocol::Udp, &[(&b_ip, "n1")])]);
    assert_eq!(udp_name(&socket), Ok("b".into()), "the same socket, the new backend");
}

#[test]
fn a_change_leaves_established_connections_alone() {
    let (mut node, _outside) = Node::alone();
    let (client, _) = node.pod("client");
    let (a, a_ip) = node.pod("a");
    let (b, b_ip) = node.pod("b");
    a.serve("0.0.0.0:8080", "a");
    b.serve("0.0.0.0:8080", "b");
    web(&mut node, &[(&a_ip, "n1")]);
    let mut stream = client.connect("10.43.0.7:80").unwrap();
    assert!(greeting(&mut stream).unwrap().starts_with("a "));
    web(&mut node, &[(&b_ip, "n1")]);
    assert!(round_trip(&mut stream, b"still here").unwrap());
    web(&mut node, &[]);
    assert!(round_trip(&mut stream, b"and here").unwrap());
}

#[test]
fn two_services_with_one_address_do_not_disturb_each_other() {
    let (mut node, _outside) = Node::alone();
    let (client, _) = node.pod("client");
    let (a, a_ip) = node.pod("a");
    let (b, b_ip) = node.pod("b");
    a.serve("0.0.0.0:8080", "a");
    b.serve("0.0.0.0:8080", "b");
    web(&mut node, &[(&a_ip, "n1")]);
    sync(&mut node, "thief", &service(Protocol::Tcp), &[slice(Protocol::Tcp, &[(&b_ip, "n1")])]);
    assert_eq!(who(&client, "10.43.0.7:80", 10), names(&["a"]));
    sync(&mut node, "web", &Service::default(), &[]);
    assert_eq!(who(&client, "10.43.0.7:80", 10), names(&["b"]), "the next in line takes over");
    sync(&mut node, "thief", &Service::default(), &[]);
    assert_eq!(client.ask("10.43.0.7:80"), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn a_table_that_somebody_deleted_comes_back_with_the_next_change() {
    let (mut node, _outside) = Node::alone();
    let (client, _) = node.pod("client");
    let (a, a_ip) = node.pod("a");
    a.serve("0.0.0.0:8080", "a");
    web(&mut node, &[(&a_ip, "n1")]);
    node.namespace.nft(&["delete", "table", "ip", "lab-services"]);
    let other = Service { cluster_ips: vec!["10.43.0.8".parse().unwrap()], ..service(Protocol::Tcp) };
    let other = Service { ports: vec![ServicePort { node_port: 0, ..other.ports[0].clone() }], ..other };
    sync(&mut node, "other", &other, &[slice(Protocol::Tcp, &[(&a_ip, "n1")])]);
    assert_eq!(client.ask_name("10.43.0.7:80"), "a");
    assert_eq!(client.ask_name("10.43.0.8:80"), "a");
    node.proxy.remove().unwrap();
    assert_eq!(node.namespace.tables(), ["lab-pods"]);
}

#[test]
fn an_address_that_the_node_serves_itself_is_left_alone() {
    let (mut node, _outside) = Node::alone();
    let (client, _) = node.pod("client");
    let (a, a_ip) = node.pod("a");
    a.serve("0.0.0.0:8080", "a");
    let dns = Service { cluster_ips: vec![crate::lab::DNS.parse().unwrap()], ..service(Protocol::Tcp) };
    let dns = Service { ports: vec![ServicePort { node_port: 0, ..dns.ports[0].clone() }], ..dns };
    sync(&mut node, "dns", &dns, &[slice(Protocol::Tcp, &[(&a_ip, "n1")])]);
    node.namespace.serve("10.43.0.10:80", "resolver");
    assert_eq!(client.ask_name("10.43.0.10:80"), "resolver");
    assert_eq!(node.namespace.ask_name("10.43.0.10:80"), "resolver");
}

#[test]
fn the_kernel_holds_what_nft_says_it_should() {
    let (mut node, _outside) = Node::alone();
    web(&mut node, &[("10.42.1.8", "n1"), ("10.42.2.9", "n2")]);
    let map = |name| {
        let text = node.namespace.nft(&["-n", "list", "map", "ip", "lab-services", name]);
        let inside = text.split("elements = {").nth(1).unwrap_or_default().split('}').next().unwrap_or_default();
        let mut lines: Vec<_> =
            inside.split(',').map(|line| line.trim().to_owned()).filter(|l| !l.is_empty()).collect();
        lines.sort();
        lines
    };
    let backends: BTreeMap<String, String> =
        map("backends").iter().filter_map(|line| line.split_once(" : ")).map(|(k, v)| (k.into(), v.into())).collect();
    let expected: BTreeMap<String, String> = [
        ("10.43.0.7 . 6 . 80 . 0x00000000", "10.42.1.8 . 8080"),
        ("10.43.0.7 . 6 . 80 . 0x00000001", "10.42.2.9 . 8080"),
        ("192.0.2.1 . 6 . 30080 . 0x00000000", "10.42.1.8 . 8080"),
        ("192.0.2.1 . 6 . 30080 . 0x00000001", "10.42.2.9 . 8080"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    assert_eq!(backends, expected);
    assert_eq!(map("services").len(), 2);
    let sticky = Service { affinity_s: Some(100), ..service(Protocol::Sctp) };
    sync(&mut node, "sticky", &sticky, &[slice(Protocol::Sctp, &[("10.42.1.8", "n1")])]);
    let chains = node.namespace.nft(&["-n", "list", "table", "ip", "lab-services"]);
    for line in [
        "chain pick-2 {",
        "chain pick-2-masq {",
        "chain pick-1-sticky-100 {",
        "numgen random mod 2",
        "type nat hook prerouting priority -100",
    ] {
        assert!(chains.contains(line), "{line} is not in\n{chains}");
    }
}

#[test]
fn the_resolvers_questions_are_not_tracked_but_its_connections_are() {
    let (mut node, _outside) = Node::alone();
    let (client, _) = node.pod("client");
    // Some service has to be there for the table to be.
    web(&mut node, &[]);
    node.namespace.serve_udp("10.43.0.10:53", "resolver");
    node.namespace.serve("10.43.0.10:53", "resolver");
    let tracked = |node: &Node, protocol: i32| {
        let entries = node.namespace.run(|| Conntrack::open().unwrap().entries(Family::V4).unwrap());
        entries.iter().filter(|entry| i32::from(entry.original.protocol) == protocol).count()
    };
    for asking in [&client, &node.namespace] {
        assert_eq!(udp_name(&asking.udp("10.43.0.10:53")).unwrap(), "resolver");
    }
    assert_eq!(tracked(&node, libc::IPPROTO_UDP), 0);
    assert_eq!(client.ask_name("10.43.0.10:53"), "resolver");
    assert_eq!(tracked(&node, libc::IPPROTO_TCP), 1);
    node.namespace.serve_udp("192.0.2.1:53", "other");
    assert_eq!(udp_name(&client.udp("192.0.2.1:53")).unwrap(), "other");
    assert_eq!(tracked(&node, libc::IPPROTO_UDP), 1, "other addresses are as they were");
}
