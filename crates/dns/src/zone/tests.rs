//! Questions and answers, side by side with what CoreDNS says to them.

use expect_test::{Expect, expect};

use super::*;
use crate::view::dashed;

fn port(name: &str, protocol: &str, port: u16) -> Port {
    Port { name: name.into(), protocol: protocol.into(), port }
}

fn endpoints(list: &[(&str, &str)]) -> Vec<Endpoint> {
    let endpoint = |(label, address): &(&str, &str)| {
        let address: IpAddr = address.parse().unwrap();
        Endpoint { label: if label.is_empty() { dashed(address) } else { (*label).into() }, address }
    };
    list.iter().map(endpoint).collect()
}

fn zone() -> Zone {
    let mut zone = Zone::new(&Name::from_ascii("cluster.local").unwrap(), vec!["10.43.0.10".parse().unwrap()]);
    zone.set_namespace("default", true);
    let mut service = |name: &str, meaning, ports| {
        zone.set_service(&ObjectKey::new("default", name), Some(Arc::new(Service { meaning, ports })));
    };
    let dual = vec!["10.43.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    service("web", Meaning::Addresses(dual), vec![port("http", "tcp", 80), port("dns", "udp", 53)]);
    service("db", Meaning::Headless, vec![port("pg", "tcp", 5432)]);
    service("empty", Meaning::Headless, vec![]);
    service("bare", Meaning::Headless, vec![]);
    service("ext", Meaning::External("example.com".into()), vec![]);
    service("inner", Meaning::External("web.default.svc.cluster.local.".into()), vec![]);
    service("pending", Meaning::Nothing, vec![]);
    let mut slice = |service: &str, ports, list: &[(&str, &str)]| {
        let slice = Slice { service: service.into(), ports, endpoints: endpoints(list) };
        zone.set_slice(&ObjectKey::new("default", &format!("{service}-x1")), Some(Arc::new(slice)));
    };
    slice("db", vec![port("pg", "tcp", 5432)], &[("db-0", "10.42.1.2"), ("db-1", "10.42.2.3")]);
    slice("web", vec![port("http", "tcp", 8080)], &[("", "10.42.1.9")]);
    slice("bare", vec![], &[("", "10.42.1.4")]);
    zone
}

fn ask(zone: &Zone, name: &str, kind: RecordType) -> String {
    let Some(answer) = zone.answer(&Name::from_ascii(name).unwrap(), kind) else { return "not ours".into() };
    let mut lines: Vec<String> = answer.records.iter().map(|record| format!("{}", record.data)).collect();
    lines.extend(answer.additionals.iter().map(|record| format!("+ {} {}", record.name, record.data)));
    if let Some(alias) = &answer.alias {
        lines.push(format!("then {alias}"));
    }
    match (answer.no_such_name, answer.soa.is_some()) {
        (true, true) => lines.push("NXDOMAIN".into()),
        (false, true) => lines.push("NODATA".into()),
        _ => (),
    }
    lines.join("; ")
}

fn check(questions: &[(&str, RecordType)], expected: Expect) {
    let zone = zone();
    let lines: Vec<String> =
        questions.iter().map(|(name, kind)| format!("{name} {kind}: {}\n", ask(&zone, name, *kind))).collect();
    expected.assert_eq(&lines.concat());
}

use RecordType::{A as V4, AAAA as V6, CNAME as Alias, MX, NS as Ns, PTR as Ptr, SOA as Soa, SRV as Srv, TXT as Txt};

#[test]
fn services_have_their_addresses_and_ports() {
    check(
        &[
            ("web.default.svc.cluster.local.", V4),
            ("WEB.Default.svc.Cluster.LOCAL.", V4),
            ("web.default.svc.cluster.local.", V6),
            ("web.default.svc.cluster.local.", MX),
            ("web.default.svc.cluster.local.", Srv),
            ("_http._tcp.web.default.svc.cluster.local.", Srv),
            ("_http._tcp.web.default.svc.cluster.local.", V4),
            ("_http._udp.web.default.svc.cluster.local.", Srv),
            ("_nope._tcp.web.default.svc.cluster.local.", Srv),
            ("10-42-1-9.web.default.svc.cluster.local.", V4),
            ("pending.default.svc.cluster.local.", V4),
            ("missing.default.svc.cluster.local.", V4),
            ("web.missing.svc.cluster.local.", V4),
        ],
        expect![[r#"
            web.default.svc.cluster.local. A: 10.43.0.7
            WEB.Default.svc.Cluster.LOCAL. A: 10.43.0.7
            web.default.svc.cluster.local. AAAA: fd00::7
            web.default.svc.cluster.local. MX: NODATA
            web.default.svc.cluster.local. SRV: 0 50 80 web.default.svc.cluster.local.; 0 50 53 web.default.svc.cluster.local.; + web.default.svc.cluster.local. 10.43.0.7; + web.default.svc.cluster.local. fd00::7
            _http._tcp.web.default.svc.cluster.local. SRV: 0 100 80 web.default.svc.cluster.local.; + web.default.svc.cluster.local. 10.43.0.7; + web.default.svc.cluster.local. fd00::7
            _http._tcp.web.default.svc.cluster.local. A: 10.43.0.7
            _http._udp.web.default.svc.cluster.local. SRV: NXDOMAIN
            _nope._tcp.web.default.svc.cluster.local. SRV: NXDOMAIN
            10-42-1-9.web.default.svc.cluster.local. A: 10.42.1.9
            pending.default.svc.cluster.local. A: NXDOMAIN
            missing.default.svc.cluster.local. A: NXDOMAIN
            web.missing.svc.cluster.local. A: NXDOMAIN
        "#]],
    );
}

#[test]
fn headless_services_are_their_endpoints() {
    check(
        &[
            ("db.default.svc.cluster.local.", V4),
            ("db.default.svc.cluster.local.", V6),
            ("db-1.db.default.svc.cluster.local.", V4),
            ("db-2.db.default.svc.cluster.local.", V4),
            ("_pg._tcp.db.default.svc.cluster.local.", Srv),
            ("empty.default.svc.cluster.local.", V4),
            ("bare.default.svc.cluster.local.", V4),
            ("bare.default.svc.cluster.local.", Srv),
        ],
        expect![[r#"
            db.default.svc.cluster.local. A: 10.42.1.2; 10.42.2.3
            db.default.svc.cluster.local. AAAA: NODATA
            db-1.db.default.svc.cluster.local. A: 10.42.2.3
            db-2.db.default.svc.cluster.local. A: NXDOMAIN
            _pg._tcp.db.default.svc.cluster.local. SRV: 0 50 5432 db-0.db.default.svc.cluster.local.; 0 50 5432 db-1.db.default.svc.cluster.local.; + db-0.db.default.svc.cluster.local. 10.42.1.2; + db-1.db.default.svc.cluster.local. 10.42.2.3
            empty.default.svc.cluster.local. A: NXDOMAIN
            bare.default.svc.cluster.local. A: 10.42.1.4
            bare.default.svc.cluster.local. SRV: NODATA
        "#]],
    );
}

#[test]
fn external_names_are_aliases() {
    check(
        &[
            ("ext.default.svc.cluster.local.", V4),
            ("ext.default.svc.cluster.local.", Alias),
            ("ext.default.svc.cluster.local.", Txt),
            ("inner.default.svc.cluster.local.", V6),
        ],
        expect![[r#"
            ext.default.svc.cluster.local. A: example.com.; then example.com.
            ext.default.svc.cluster.local. CNAME: example.com.
            ext.default.svc.cluster.local. TXT: NODATA
            inner.default.svc.cluster.local. AAAA: web.default.svc.cluster.local.; then web.default.svc.cluster.local.
        "#]],
    );
}

#[test]
fn pods_have_names_in_namespaces_that_exist() {
    check(
        &[
            ("10-42-1-7.default.pod.cluster.local.", V4),
            ("fd00--1.default.pod.cluster.local.", V6),
            ("10-42-1-7.default.pod.cluster.local.", V6),
            ("10-42-1-7.missing.pod.cluster.local.", V4),
            ("web-0.default.pod.cluster.local.", V4),
            ("10-42-1-300.default.pod.cluster.local.", V4),
        ],
        expect![[r#"
            10-42-1-7.default.pod.cluster.local. A: 10.42.1.7
            fd00--1.default.pod.cluster.local. AAAA: fd00::1
            10-42-1-7.default.pod.cluster.local. AAAA: NODATA
            10-42-1-7.missing.pod.cluster.local. A: NXDOMAIN
            web-0.default.pod.cluster.local. A: NXDOMAIN
            10-42-1-300.default.pod.cluster.local. A: NXDOMAIN
        "#]],
    );
}

#[test]
fn the_zone_itself_and_its_inner_nodes_exist() {
    check(
        &[
            ("cluster.local.", Ns),
            ("cluster.local.", V4),
            ("cluster.local.", Soa),
            ("svc.cluster.local.", V4),
            ("default.svc.cluster.local.", V4),
            ("missing.svc.cluster.local.", V4),
            ("dns-version.cluster.local.", Txt),
            ("ns.dns.cluster.local.", V4),
            ("a.b.c.d.e.svc.cluster.local.", V4),
            ("nothing.cluster.local.", V4),
            ("example.com.", V4),
            ("local.", V4),
            ("notcluster.local.", V4),
            (".", Ns),
        ],
        expect![[r#"
            cluster.local. NS: ns.dns.cluster.local.
            cluster.local. A: NODATA
            cluster.local. SOA: ns.dns.cluster.local. hostmaster.cluster.local. 12 7200 1800 86400 5
            svc.cluster.local. A: NODATA
            default.svc.cluster.local. A: NODATA
            missing.svc.cluster.local. A: NXDOMAIN
            dns-version.cluster.local. TXT: 1.1.0
            ns.dns.cluster.local. A: 10.43.0.10
            a.b.c.d.e.svc.cluster.local. A: NXDOMAIN
            nothing.cluster.local. A: NXDOMAIN
            example.com. A: not ours
            local. A: not ours
            notcluster.local. A: not ours
            . NS: not ours
        "#]],
    );
}

#[test]
fn addresses_lead_back_to_names() {
    check(
        &[
            ("7.0.43.10.in-addr.arpa.", Ptr),
            ("3.2.42.10.in-addr.arpa.", Ptr),
            ("9.1.42.10.in-addr.arpa.", Ptr),
            ("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", Ptr),
            ("7.0.43.10.in-addr.arpa.", V4),
            ("1.1.1.1.in-addr.arpa.", Ptr),
            ("43.10.in-addr.arpa.", Ptr),
        ],
        expect![[r#"
            7.0.43.10.in-addr.arpa. PTR: web.default.svc.cluster.local.
            3.2.42.10.in-addr.arpa. PTR: db-1.db.default.svc.cluster.local.
            9.1.42.10.in-addr.arpa. PTR: 10-42-1-9.web.default.svc.cluster.local.
            7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR: web.default.svc.cluster.local.
            7.0.43.10.in-addr.arpa. A: NODATA
            1.1.1.1.in-addr.arpa. PTR: not ours
            43.10.in-addr.arpa. PTR: not ours
        "#]],
    );
}

#[test]
fn what_goes_leaves_no_names_behind() {
    let mut zone = zone();
    zone.set_service(&ObjectKey::new("default", "web"), None);
    let key = ObjectKey::new("default", "db-x1");
    let old = zone.slices[&ObjectKey::new("default", "db")]["db-x1"].clone();
    let one = Slice { endpoints: old.endpoints[..1].to_vec(), ..(*old).clone() };
    zone.set_slice(&key, Some(Arc::new(one)));
    assert_eq!(ask(&zone, "web.default.svc.cluster.local.", V4), "NXDOMAIN");
    assert_eq!(ask(&zone, "7.0.43.10.in-addr.arpa.", Ptr), "not ours");
    assert_eq!(ask(&zone, "db.default.svc.cluster.local.", V4), "10.42.1.2");
    assert_eq!(ask(&zone, "3.2.42.10.in-addr.arpa.", Ptr), "not ours");
    let addresses: Vec<String> = zone.endpoint_ips.keys().map(IpAddr::to_string).collect();
    assert!(!addresses.contains(&"10.42.2.3".to_owned()), "{addresses:?}");
    zone.set_namespace("default", false);
    assert_eq!(ask(&zone, "10-42-1-7.default.pod.cluster.local.", V4), "NXDOMAIN");
}
