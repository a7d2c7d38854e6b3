//! Which endpoints count, for every policy.

use super::*;
use crate::proxy::model::SlicePort;

fn port() -> ServicePort {
    ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: 30080 }
}

fn service() -> Service {
    Service {
        cluster_ips: vec!["10.43.0.7".parse().unwrap()],
        external_ips: vec!["192.0.2.9".parse().unwrap()],
        ports: vec![port()],
        ..Service::default()
    }
}

fn node() -> Node {
    Node { name: "n1".into(), zone: "z1".into(), addresses: vec!["192.0.2.1".parse().unwrap()] }
}

/// `r` ready, `s` serving while terminating, `x` neither; `@n` its node, `zZ` its zone hint.
fn slice(endpoints: &[&str]) -> Slice {
    let read = |(index, text): (usize, &&str)| {
        let (state, rest) = text.split_at(1);
        let mut parts = rest.split('z');
        Endpoint {
            address: [10, 42, 0, index as u8 + 1].into(),
            ready: state == "r",
            serving: state != "x",
            terminating: state == "s",
            node: parts.next().unwrap_or_default().trim_start_matches('@').into(),
            zones: parts.map(|zone| format!("z{zone}")).collect(),
            nodes: vec![],
        }
    };
    Slice {
        service: "web".into(),
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.iter().enumerate().map(read).collect(),
    }
}

fn show(pool: &Pool) -> String {
    match pool {
        Pool::Reject => "reject".into(),
        Pool::Drop => "drop".into(),
        Pool::Backends(masquerade, backends) => {
            let last = |backend: &Backend| backend.address.to_string().rsplit('.').next().unwrap().to_owned();
            format!("{masquerade:?} {}", backends.iter().map(last).collect::<Vec<_>>().join(","))
        }
    }
}

/// Cluster address, then node port with what outsiders get.
fn outcome(service: &Service, endpoints: &[&str]) -> (String, String) {
    let slices = [slice(endpoints)];
    let plans = plan(service, slices.iter(), &node());
    let at = |address: &str, port| {
        let frontend = Frontend { address: address.parse().unwrap(), protocol: Protocol::Tcp, port };
        let plan = &plans[&frontend];
        match &plan.outside {
            None => show(&plan.main),
            Some(outside) => format!("{} / {}", show(&plan.main), show(outside)),
        }
    };
    assert_eq!(at("192.0.2.9", 80), at("192.0.2.1", 30080));
    (at("10.43.0.7", 80), at("192.0.2.1", 30080))
}

#[test]
fn picks_endpoints_as_the_policies_say() {
    let cluster = service();
    let local = Service { internal_local: true, external_local: true, ..service() };
    for (service, endpoints, internal, external) in [
        (&cluster, &["r@n1", "r@n2", "x@n2"][..], "OffCluster 1,2", "Always 1,2"),
        (&cluster, &["s@n1", "x@n2"], "OffCluster 1", "Always 1"),
        (&cluster, &["r@n1", "s@n2"], "OffCluster 1", "Always 1"),
        (&cluster, &["x@n1"], "reject", "reject"),
        (&cluster, &[], "reject", "reject"),
        (&local, &["r@n1", "r@n2"], "OffCluster 1", "OffCluster 1,2 / Never 1"),
        (&local, &["r@n2"], "drop", "OffCluster 1 / drop"),
        (&local, &["s@n1", "r@n2"], "OffCluster 1", "OffCluster 2 / Never 1"),
        (&local, &[], "reject", "reject / reject"),
        // Hints count when every ready endpoint has some and one is meant for us.
        (&cluster, &["r@n1z1", "r@n2z2"], "OffCluster 1", "Always 1"),
        (&cluster, &["r@n1z1", "r@n2"], "OffCluster 1,2", "Always 1,2"),
        (&cluster, &["r@n1z3", "r@n2z2"], "OffCluster 1,2", "Always 1,2"),
    ] {
        let expected = (internal.to_owned(), external.to_owned());
        assert_eq!(outcome(service, endpoints), expected, "{endpoints:?} {}", service.internal_local);
    }
}

#[test]
fn ports_of_other_names_and_headless_services_lead_nowhere() {
    let mut other = slice(&["r@n1"]);
    other.ports[0].name = "admin".into();
    let plans = plan(&service(), [&other].into_iter(), &node());
    assert!(plans.values().all(|plan| plan.main == Pool::Reject));
    assert!(plan(&Service::default(), [&other].into_iter(), &node()).is_empty());
}
