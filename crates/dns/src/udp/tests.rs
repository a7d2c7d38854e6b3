//! Our own way of UDP beside `hickory_server`'s, over real sockets on loopback.

use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_server::Server;
use meta::ObjectKey;

use super::*;
use crate::datagrams::BATCH;
use crate::server::tests::{in_time, nobody, question, show, udp, zone};
use crate::view::{Meaning, Port, Service};

const NAMES: &[&str] = &[
    "web.default.svc.cluster.local.",
    "WEB.default.Svc.cluster.local.",
    "_p._tcp.web.default.svc.cluster.local.",
    "_P._TCP.Web.default.svc.cluster.local.",
    "_q._tcp.web.default.svc.cluster.local.",
    "nope.default.svc.cluster.local.",
    "web.default.svc.cluster.local.default.svc.cluster.local.",
    "example.com.svc.cluster.local.",
    "ext.default.svc.cluster.local.",
    "inner.default.svc.cluster.local.",
    "toward.default.svc.cluster.local.",
    "loop.default.svc.cluster.local.",
    "many.default.svc.cluster.local.",
    "few.default.svc.cluster.local.",
    "many-7.many.default.svc.cluster.local.",
    "default.svc.cluster.local.",
    "10-42-0-7.default.pod.cluster.local.",
    "cluster.local.",
    "dns-version.cluster.local.",
    "7.0.43.10.in-addr.arpa.",
    "1.1.1.1.in-addr.arpa.",
    "example.com.",
    ".",
];
const KINDS: &[RecordType] = &[
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::CNAME,
    RecordType::PTR,
    RecordType::TXT,
    RecordType::SOA,
    RecordType::NS,
    RecordType::MX,
    RecordType::ANY,
    RecordType::AXFR,
];

/// A question in all its plain and some of its rarer forms.
fn forms(text: &str, kind: RecordType) -> Vec<Vec<u8>> {
    let plain = question(text, kind);
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = plain.clone();
        change(&mut message);
        message.to_vec().unwrap()
    };
    let payload = |bytes: u16| {
        move |message: &mut Message| {
            message.edns.insert(Edns::new()).set_max_payload(bytes);
        }
    };
    vec![
        with(&|_| {}),
        with(&|message| message.metadata.recursion_desired = false),
        with(&|message| message.metadata.checking_disabled = true),
        with(&payload(512)),
        with(&payload(1232)),
        with(&payload(4096)),
        with(&|message| {
            message.edns.insert(Edns::new()).set_version(1);
        }),
        with(&|message| {
            message.edns.insert(Edns::new()).set_dnssec_ok(true);
        }),
        with(&|message| {
            message.queries[0].set_query_class(DNSClass::CH);
        }),
        with(&|message| message.metadata.op_code = OpCode::Status),
        with(&|message| {
            message.add_query(plain.queries[0].clone());
        }),
    ]
}

async fn ask(socket: &UdpSocket, server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    socket.send_to(bytes, server).await.unwrap();
    let mut buffer = [0; 5000];
    let (length, from) = in_time(socket.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(from, server);
    buffer[..length].to_vec()
}

/// All that an answer says, where the order of addresses, which is up to chance, does not count, nor which of them are left out.
fn meaning(bytes: &[u8]) -> String {
    let message = Message::from_vec(bytes).unwrap();
    let lines = |records: &[Record]| {
        let mut lines: Vec<String> = records.iter().map(ToString::to_string).collect();
        lines.sort();
        if message.metadata.truncation { format!("{} records", lines.len()) } else { lines.join("; ") }
    };
    let queries: Vec<String> = message.queries.iter().map(ToString::to_string).collect();
    let (answers, authorities) = (lines(&message.answers), lines(&message.authorities));
    format!(
        "{:?} {queries:?} {answers} / {authorities} / {} / {:?} {} bytes",
        message.metadata,
        lines(&message.additionals),
        message.edns,
        bytes.len()
    )
}

#[tokio::test]
async fn every_answer_is_what_the_plain_server_says_whether_it_lay_ready_or_not() {
    let zone = zone("cluster.local");
    {
        let mut zone = zone.write();
        let mut service = |name: &str, meaning| {
            let ports = vec![Port { name: "p".into(), protocol: "tcp".into(), port: 80 }];
            zone.set_service(&ObjectKey::new("default", name), Some(Arc::new(Service { meaning, ports })));
        };
        service("inner", Meaning::External("few.default.svc.cluster.local.".into()));
        service("toward", Meaning::External("Web.Default.svc.cluster.local.".into()));
        let addresses = ["10.43.1.1", "10.43.1.2", "10.43.1.3", "fd43::1", "fd43::2"];
        service("few", Meaning::Addresses(addresses.map(|text| text.parse().unwrap()).into()));
    }
    let resolver = Resolver::new(zone, nobody());
    let bind = || UdpSocket::bind("127.0.0.1:0");
    let (ours, plain) = (bind().await.unwrap(), bind().await.unwrap());
    let (our_address, plain_address) = (ours.local_addr().unwrap(), plain.local_addr().unwrap());
    let mut reference = Server::new(resolver.clone());
    reference.register_socket(plain);
    let serving = tokio::spawn(serve(resolver, ours));
    let client = bind().await.unwrap();
    let mut asked = 0;
    for (text, kind) in NAMES.iter().flat_map(|name| KINDS.iter().map(move |kind| (name, *kind))) {
        for bytes in forms(text, kind) {
            let expected = meaning(&ask(&client, plain_address, &bytes).await);
            let first = ask(&client, our_address, &bytes).await;
            assert_eq!(meaning(&first), expected, "{text} {kind}, asked first");
            let mut again = bytes.clone();
            again[..2].copy_from_slice(&[0xab, 0xcd]);
            let mut second = ask(&client, our_address, &again).await;
            assert_eq!(second[..2], [0xab, 0xcd], "{text} {kind}");
            second[..2].copy_from_slice(&bytes[..2]);
            assert_eq!(meaning(&second), expected, "{text} {kind}, asked again");
            asked += 1;
        }
    }
    assert!(asked > 2000, "{asked} questions");
    serving.abort();
    reference.shutdown_gracefully().await.unwrap();
}

async fn start(resolver: Resolver) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(serve(resolver, socket));
    address
}

#[tokio::test]
async fn a_change_of_the_zone_changes_the_next_answer() {
    let zone = zone("cluster.local");
    let server = start(Resolver::new(zone.clone(), nobody())).await;
    let asked = question("web.default.svc.cluster.local.", RecordType::A);
    for last in [7, 8, 9] {
        let meaning = Meaning::Addresses(vec![[10, 43, 0, last].into()]);
        let ports = vec![Port { name: "p".into(), protocol: "tcp".into(), port: 80 }];
        zone.write().set_service(&ObjectKey::new("default", "web"), Some(Arc::new(Service { meaning, ports })));
        for _ in 0..2 {
            assert_eq!(show(&udp(server, &asked).await), format!("No Error 10.43.0.{last}"));
        }
    }
    zone.write().set_service(&ObjectKey::new("default", "web"), None);
    assert_eq!(show(&udp(server, &asked).await), "Non-Existent Domain ");
}

#[tokio::test]
async fn ready_answers_begin_with_a_different_address_each_time() {
    let server = start(Resolver::new(zone("cluster.local"), nobody())).await;
    let mut wide = question("many.default.svc.cluster.local.", RecordType::A);
    wide.edns.insert(Edns::new()).set_max_payload(4096);
    let (mut firsts, mut all) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for _ in 0..60 {
        let answer = udp(server, &wide).await;
        firsts.insert(answer.answers[0].data.to_string());
        all.insert({
            let mut addresses: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
            addresses.sort();
            addresses
        });
    }
    assert!(firsts.len() > 10, "{} of 100", firsts.len());
    assert_eq!(all.len(), 1, "always the same addresses");
}

#[tokio::test]
async fn a_crowd_is_answered_whole_and_nonsense_with_silence_or_a_refusal() {
    let server = start(Resolver::new(zone("cluster.local"), nobody())).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut response = question("web.default.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    response[2] |= 0x80;
    for junk in [&b""[..], b"x", &response, &[0xff; 600]] {
        client.send_to(junk, server).await.unwrap();
    }
    let broken = ask(&client, server, &[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63]).await;
    assert_eq!((broken[1], broken[3] & 0x0f), (9, 1), "a format error is the first that is said");
    let mut asked = question("web.default.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    let crowd = 3 * BATCH as u16 + 1;
    for number in 0..crowd {
        asked[..2].copy_from_slice(&number.to_be_bytes());
        client.send_to(&asked, server).await.unwrap();
    }
    let mut heard = std::collections::BTreeSet::new();
    let mut buffer = [0; 512];
    while heard.len() < usize::from(crowd) {
        let length = in_time(client.recv(&mut buffer)).await.unwrap();
        assert_eq!(&buffer[length - 4..length], [10, 43, 0, 7]);
        assert!(heard.insert(u16::from_be_bytes([buffer[0], buffer[1]])), "answered twice");
    }
}

#[tokio::test]
async fn those_who_ask_elsewhere_hold_up_nobody() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut to = hickory_resolver::config::NameServerConfig::udp(silent.local_addr().unwrap().ip());
    to.connections[0].port = silent.local_addr().unwrap().port();
    let server = start(Resolver::new(zone("cluster.local"), crate::forward::Forwarder::to(vec![to]))).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&question("example.com.", RecordType::A).to_vec().unwrap(), server).await.unwrap();
    // It is on its way, and stays there.
    in_time(silent.recv(&mut [0; 512])).await.unwrap();
    let near = question("web.default.svc.cluster.local.", RecordType::A);
    assert_eq!(show(&udp(server, &near).await), "No Error 10.43.0.7");
    let far = tokio::time::timeout(Duration::ZERO, client.recv(&mut [0; 512])).await;
    assert!(far.is_err(), "nobody has answered that yet");
}

#[test]
fn there_is_nobody_at_some_addresses() {
    for (client, answered) in [
        ("10.42.0.7:4096", true),
        ("[fd00::1]:4096", true),
        ("10.42.0.7:0", false),
        ("0.0.0.0:53", false),
        ("255.255.255.255:53", false),
        ("[::]:53", false),
    ] {
        assert_eq!(can_be_answered(&client.parse().unwrap()), answered, "{client}");
    }
}
