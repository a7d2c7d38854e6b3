//! Questions over real sockets on loopback.

use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use hickory_resolver::config::NameServerConfig;
use meta::ObjectKey;
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::forward::Forwarder;
use crate::view::{Endpoint, Meaning, Port, Service, Slice};
use crate::zone::Zone;

pub fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub fn zone(domain: &str) -> Arc<RwLock<Zone>> {
    let mut zone = Zone::new(&name(domain), vec![]);
    zone.set_namespace("default", true);
    let mut service = |name: &str, meaning| {
        let ports = vec![Port { name: "p".into(), protocol: "tcp".into(), port: 80 }];
        zone.set_service(&ObjectKey::new("default", name), Some(Arc::new(Service { meaning, ports })));
    };
    service("web", Meaning::Addresses(vec!["10.43.0.7".parse().unwrap()]));
    service("ext", Meaning::External("web.default.svc.example.com".into()));
    service("loop", Meaning::External("loop.default.svc.cluster.local".into()));
    service("many", Meaning::Headless);
    let endpoint = |index: u8| Endpoint { label: format!("many-{index}"), address: [10, 42, 0, index].into() };
    let slice = Slice { service: "many".into(), ports: vec![], endpoints: (0..100).map(endpoint).collect() };
    zone.set_slice(&ObjectKey::new("default", "many-1"), Some(Arc::new(slice)));
    Arc::new(RwLock::new(zone))
}

fn start(domain: &str, forwarder: Forwarder) -> (Serving, SocketAddr) {
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = sockets.address().unwrap();
    (serve(Resolver::new(zone(domain), forwarder), vec![sockets]), address)
}

/// What has to happen, and would otherwise be waited for without end.
pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("it does not happen")
}

pub fn nobody() -> Forwarder {
    Forwarder::new(b"", &[])
}

pub fn question(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

pub async fn udp(server: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&message.to_vec().unwrap(), server).await.unwrap();
    let mut buffer = [0; 4096];
    let length = in_time(socket.recv(&mut buffer)).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let bytes = message.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

pub fn show(answer: &Message) -> String {
    let data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    format!("{} {}", answer.metadata.response_code, data.join(", "))
}

#[tokio::test]
async fn answers_over_udp_and_tcp_with_authority() {
    let (mut server, address) = start("cluster.local", nobody());
    for answer in [
        udp(address, &question("web.default.svc.cluster.local.", RecordType::A)).await,
        tcp(address, &question("web.default.svc.cluster.local.", RecordType::A)).await,
    ] {
        assert_eq!(show(&answer), "No Error 10.43.0.7");
        assert!(answer.metadata.authoritative && !answer.metadata.recursion_available);
        assert_eq!((answer.metadata.id, answer.answers[0].ttl), (7, 5));
    }
    let missing = udp(address, &question("nope.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert!(matches!(missing.authorities[0].data, RData::SOA(_)));
    let no_data = udp(address, &question("web.default.svc.cluster.local.", RecordType::AAAA)).await;
    assert_eq!((show(&no_data), no_data.authorities.len()), ("No Error ".into(), 1));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_large_answer_is_cut_over_udp_and_whole_over_tcp() {
    let (mut server, address) = start("cluster.local", nobody());
    let ask = question("many.default.svc.cluster.local.", RecordType::A);
    let cut = udp(address, &ask).await;
    assert!(cut.metadata.truncation && cut.answers.len() < 100);
    let whole = tcp(address, &ask).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 100);
    let mut wide = ask.clone();
    wide.edns.insert(Edns::new()).set_max_payload(4096);
    let whole = udp(address, &wide).await;
    assert_eq!(whole.answers.len(), 100);
    assert_eq!(whole.edns.unwrap().max_payload(), 4096);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn other_names_are_asked_upstream_and_aliases_followed() {
    let (mut upstream, upstream_address) = start("example.com", nobody());
    let mut to = NameServerConfig::udp_and_tcp(upstream_address.ip());
    for connection in &mut to.connections {
        connection.port = upstream_address.port();
    }
    let (mut server, address) = start("cluster.local", Forwarder::to(vec![to]));
    let answer = udp(address, &question("web.default.svc.example.com.", RecordType::A)).await;
    assert_eq!(show(&answer), "No Error 10.43.0.7");
    assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
    let alias = udp(address, &question("ext.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(show(&alias), "No Error web.default.svc.example.com., 10.43.0.7");
    let missing = udp(address, &question("nope.default.svc.example.com.", RecordType::A)).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities.len(), 1);
    server.shutdown().await.unwrap();
    upstream.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_upstream_and_with_nonsense_the_answer_is_quick() {
    let own = Forwarder::new(b"nameserver 127.0.0.1\n", &["127.0.0.1".parse().unwrap()]);
    assert!(!own.available(), "it would ask itself");
    let (mut server, address) = start("cluster.local", own);
    let mut chaos = question("web.default.svc.cluster.local.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut status = question("web.default.svc.cluster.local.", RecordType::A);
    status.metadata.op_code = OpCode::Status;
    for (ask, code) in [
        (question("example.com.", RecordType::A), ResponseCode::Refused),
        (question("1.1.1.1.in-addr.arpa.", RecordType::PTR), ResponseCode::NXDomain),
        (question("cluster.local.", RecordType::AXFR), ResponseCode::Refused),
        (question("loop.default.svc.cluster.local.", RecordType::A), ResponseCode::ServFail),
        (chaos, ResponseCode::Refused),
        (status, ResponseCode::NotImp),
    ] {
        assert_eq!(udp(address, &ask).await.metadata.response_code, code, "{ask}");
    }
    // Bytes that are no message do not stop the server.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for junk in [&b"x"[..], &[0xff; 600], &[0; 12]] {
        socket.send_to(junk, address).await.unwrap();
    }
    let answer = udp(address, &question("web.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(show(&answer), "No Error 10.43.0.7");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn answers_begin_with_a_different_address_each_time() {
    let (mut server, address) = start("cluster.local", nobody());
    let mut firsts = std::collections::HashSet::new();
    for _ in 0..30 {
        let answer = tcp(address, &question("many.default.svc.cluster.local.", RecordType::A)).await;
        firsts.insert(answer.answers[0].data.to_string());
    }
    assert!(firsts.len() > 1);
    server.shutdown().await.unwrap();
}
