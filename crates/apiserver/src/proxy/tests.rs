//! The proxy between a raw TLS client and a node agent, both on loopback, through the real listener.

use std::sync::Arc;

use base::Tasks;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use meta::Status;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Proxy;
use crate::http::{Body, Peer, Received, Response, listen, text};
use crate::reader::fake::FakeReader;
use crate::request_info::RequestInfo;

/// A node agent: echoes upgraded connections, serves one log, tells what it was asked.
struct Agent {
    tasks: Tasks,
}

impl listen::Service for Agent {
    fn call(self: Arc<Self>, mut request: http::Request<Incoming>, _peer: Arc<Peer>) -> BoxFuture<'static, Response> {
        async move {
            let asked = request.uri().to_string();
            if request.headers().contains_key(header::AUTHORIZATION) {
                return text(StatusCode::BAD_REQUEST, "a credential leaked");
            }
            if asked.starts_with("/containerLogs/a/p/broken") {
                return text(StatusCode::BAD_REQUEST, "container \"broken\" in pod \"p\" is waiting to start");
            }
            if asked.starts_with("/containerLogs/") {
                return text(StatusCode::OK, format!("log of {asked}\n"));
            }
            let upgrade = hyper::upgrade::on(&mut request);
            self.tasks.spawn("echo", async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                io.write_all(format!("{asked}\n").as_bytes()).await.unwrap();
                let (mut from, mut to) = tokio::io::split(io);
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            response
        }
        .boxed()
    }

    fn handshake_failed(&self) {}
}

/// Only the routing step of the chain, with the proxy behind it.
struct Route(Proxy);

impl listen::Service for Route {
    fn call(self: Arc<Self>, request: http::Request<Incoming>, peer: Arc<Peer>) -> BoxFuture<'static, Response> {
        async move {
            let mut received = Received::new(request, peer);
            let info = RequestInfo::parse(received.method(), &received.path, &received.query);
            let answered = match info.subresource.as_str() {
                "log" => self.0.log(&mut received, &info).await,
                _ => self.0.stream(&mut received, &info).await,
            };
            answered.unwrap_or_else(|status: Status| text(StatusCode::from_u16(status.code).unwrap(), status.message))
        }
        .boxed()
    }

    fn handshake_failed(&self) {}
}

fn server_tls() -> (Arc<rustls::ServerConfig>, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certificate = made.cert.der().clone();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    (Arc::new(config.with_single_cert(vec![certificate.clone()], key).unwrap()), certificate)
}

fn trusting(certificate: CertificateDer<'static>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

struct Lab {
    tasks: Tasks,
    port: u16,
    trust: Arc<rustls::ClientConfig>,
}

async fn lab(agent_trusted: bool) -> Lab {
    let tasks = Tasks::root();
    let (agent_tls, agent_certificate) = server_tls();
    let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent_port = agent.local_addr().unwrap().port();
    listen::serve(agent, agent_tls, Arc::new(Agent { tasks: tasks.child() }), &tasks);
    let node_tls = if agent_trusted { trusting(agent_certificate) } else { trusting(server_tls().1) };
    let reader = FakeReader::default()
        .with(
            "",
            "pods",
            json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {
            "nodeName": "n", "containers": [{"name": "x"}, {"name": "broken"}]}}),
        )
        .with(
            "",
            "pods",
            json!({"metadata": {"name": "unbound", "namespace": "a"}, "spec": {"containers": [{"name": "x"}]}}),
        )
        .with(
            "",
            "nodes",
            json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": agent_port}}}}),
        );
    let proxy = Proxy {
        reader: Arc::new(reader),
        node_tls,
        unverified_tls: pki::tls::unverified_client_config(),
        tasks: tasks.child(),
        allow_loopback: true,
    };
    let (tls, certificate) = server_tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    listen::serve(listener, tls, Arc::new(Route(proxy)), &tasks);
    Lab { tasks, port, trust: trusting(certificate) }
}

impl Lab {
    async fn open(&self, method: Method, path: &str, headers: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = tokio_rustls::TlsConnector::from(self.trust.clone());
        let mut stream = connector.connect(name, socket).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = self.open(Method::GET, path, "connection: close\r\n").await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8(answer).unwrap()
    }
}

async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn an_exec_is_joined_byte_for_byte_with_the_node_agent() {
    let lab = lab(true).await;
    let path = "/api/v1/namespaces/a/pods/p/exec?container=x&command=cat&stdin=true&stdout=true";
    let mut stream = lab.open(Method::POST, path, "connection: Upgrade\r\nupgrade: SPDY/3.1\r\n").await;
    let head = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: spdy/3.1"), "{head}");
    assert_eq!(read_until(&mut stream, "\n").await, "/exec/a/p/x?input=1&output=1&command=cat\n");
    let sent: Bytes = (0..200_000u32).map(|n| n as u8).collect();
    let (mut from, mut to) = tokio::io::split(stream);
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        to.write_all(&copy).await.unwrap();
        to
    });
    let mut back = vec![0; sent.len()];
    from.read_exact(&mut back).await.unwrap();
    assert!(back == sent, "bytes came back changed");
    drop(writer.await.unwrap());
    drop(from);
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn logs_are_streamed_and_refusals_translated() {
    let lab = lab(true).await;
    let log = "/api/v1/namespaces/a/pods/p/log";
    let answer = lab.get(&format!("{log}?container=x&tailLines=5")).await;
    assert!(answer.contains("200 OK") && answer.contains("log of /containerLogs/a/p/x?tailLines=5"), "{answer}");
    let answer = lab.get(&format!("{log}?container=broken")).await;
    assert!(answer.contains("400") && answer.ends_with("is waiting to start"), "{answer}");
    assert!(lab.get("/api/v1/namespaces/a/pods/unbound/log").await.contains("204"));
    assert!(lab.get("/api/v1/namespaces/a/pods/unbound/exec").await.contains("does not have a host assigned"));
    assert!(lab.get("/api/v1/namespaces/a/pods/none/log").await.contains("404"));
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn a_node_agent_with_a_strange_certificate_is_not_talked_to() {
    let lab = lab(false).await;
    let answer = lab.get("/api/v1/namespaces/a/pods/p/log?container=x").await;
    assert!(answer.contains("500") && answer.contains("error dialing backend: https://127.0.0.1:"), "{answer}");
    let skipped = lab.get("/api/v1/namespaces/a/pods/p/log?container=x&insecureSkipTLSVerifyBackend=true").await;
    assert!(skipped.contains("200 OK"), "{skipped}");
    lab.tasks.shutdown().await;
}

const HANDSHAKE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn logs_come_over_websocket_in_the_protocol_asked_for() {
    use futures::StreamExt;
    use websocket::{CloseCode, Message, Role, WebSocketStream};
    let lab = lab(true).await;
    let log = "/api/v1/namespaces/a/pods/p/log?container=x&follow=true";
    let bearer = "base64url.bearer.authorization.k8s.io.dA";
    for (offered, chosen, text) in [
        ("", None, false),
        ("binary.k8s.io", Some("binary.k8s.io"), false),
        ("base64.binary.k8s.io, binary.k8s.io", Some("base64.binary.k8s.io"), true),
        (&format!("{bearer}, binary.k8s.io"), Some("binary.k8s.io"), false),
        (bearer, None, false),
    ] {
        let offer = if offered.is_empty() { String::new() } else { format!("sec-websocket-protocol: {offered}\r\n") };
        let mut stream = lab.open(Method::GET, log, &format!("{HANDSHAKE}{offer}")).await;
        let head = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
        assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
        let told = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(told, chosen, "{head}");
        let mut client = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        let line = "log of /containerLogs/a/p/x?follow=true\n";
        use base64::Engine;
        let expected = match text {
            true => vec![Message::text(""), Message::text(base64::engine::general_purpose::STANDARD.encode(line))],
            false => vec![Message::binary(""), Message::binary(line)],
        };
        for message in expected {
            assert_eq!(client.next().await.unwrap().unwrap(), message);
        }
        let Some(Ok(Message::Close(Some(end)))) = client.next().await else { panic!("a close") };
        assert_eq!(end.code, CloseCode::Normal);
    }
    lab.tasks.shutdown().await;
}

#[tokio::test]
async fn handshakes_that_cannot_be_are_refused_and_refusals_stay_answers() {
    let lab = lab(true).await;
    let log = "/api/v1/namespaces/a/pods/p/log";
    let strange = format!("{HANDSHAKE}sec-websocket-protocol: channel.k8s.io\r\n");
    let old = HANDSHAKE.replace("13", "8");
    for (query, headers, code, words) in [
        ("container=x", strange.as_str(), "403", "protocol(s) are not supported: [\"channel.k8s.io\"]"),
        ("container=x", old.as_str(), "400", "missing or bad WebSocket Version"),
        ("container=broken", HANDSHAKE, "400", "is waiting to start"),
    ] {
        let mut stream = lab.open(Method::GET, &format!("{log}?{query}"), headers).await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {code}")), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains(words), "{body:?}");
    }
    lab.tasks.shutdown().await;
}
