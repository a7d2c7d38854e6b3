//! A whole server on loopback for tests: a store in a folder of its own, an authority made on the spot, clients over TLS.

use std::sync::Arc;

use base::{Clock, Tasks};
use client::Client;
use client::https::{self, HttpsDoor};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{ApiServer, Config};
use crate::authn::service_account::{Claims, Verifier};
use crate::context::Identity;
use crate::registry;

/// A server with everything it needs to go away again.
pub struct Lab {
    pub server: Arc<ApiServer>,
    pub tasks: Tasks,
    authority: CertifiedIssuer<'static, KeyPair>,
    _dir: tempfile::TempDir,
}

/// Knows no tokens.
struct NoTokens;

impl Verifier for NoTokens {
    fn verify(&self, _token: &str, _audiences: &[String]) -> Result<Option<Claims>, String> {
        Ok(None)
    }
}

impl Lab {
    pub async fn start() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let (clock, tasks) = (Clock::system(), Tasks::root());
        let store = store::Embedded::open(store::Options::new(dir.path().join("store"), clock.clone(), tasks.clone()));
        let authority = authority();
        let roots = Arc::new(roots(&authority));
        let (chain, key) = issue(&authority, "kube-apiserver", &[], Some("127.0.0.1"));
        let verifier = WebPkiClientVerifier::builder(roots.clone()).allow_unauthenticated().build().unwrap();
        let mut tls =
            rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Config {
            listener: tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tls: Arc::new(tls),
            node_tls: Arc::new(client_tls(&authority, "kube-apiserver-kubelet-client", &["system:masters"])),
            verifier: Arc::new(NoTokens),
            openid_configuration: "{}".into(),
            jwks: "{}".into(),
            registry: registry::Config {
                store: Arc::new(store.unwrap()),
                seal: None,
                service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
                signer: None,
            },
            clock,
            tasks: tasks.clone(),
        };
        let server = ApiServer::start(config).await.unwrap();
        let admin = Client::new(server.door(Identity::new("admin", &["system:masters"])));
        let namespaces = meta::GroupVersionResource::new("", "v1", "namespaces");
        let default = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        match admin.create_object(&namespaces, meta::Object::from_value(default).unwrap()).await {
            Err(status) if !status.is_already_exists() => panic!("{status}"),
            _ => {}
        }
        Lab { server, tasks, authority, _dir: dir }
    }

    /// How a user of these groups connects.
    pub fn tls(&self, user: &str, groups: &[&str]) -> rustls::ClientConfig {
        client_tls(&self.authority, user, groups)
    }

    /// How somebody without a credential connects.
    pub fn anonymous_tls(&self) -> rustls::ClientConfig {
        let roots = roots(&self.authority);
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
    }

    /// A client over HTTPS.
    pub fn client(&self, user: &str, groups: &[&str]) -> Client {
        let server = format!("https://{}", self.server.address()).parse().unwrap();
        let config = https::Config { server, tls: self.tls(user, groups), token: None, user_agent: "lab".into() };
        Client::new(Arc::new(HttpsDoor::new(config)))
    }

    /// A raw request over HTTP/1.1: status line, headers, body.
    pub async fn raw(&self, tls: rustls::ClientConfig, request: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let socket = tokio::net::TcpStream::connect(self.server.address()).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A GET by an administrator.
    pub async fn get(&self, path: &str, headers: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        self.raw(self.tls("admin", &["system:masters"]), &request).await
    }

    /// What is answered to an administrator who wants a WebSocket, in lower case, and the connection behind it.
    pub async fn websocket(
        &self,
        path: &str,
        headers: &str,
    ) -> (String, websocket::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let socket = tokio::net::TcpStream::connect(self.server.address()).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.tls("admin", &["system:masters"])));
        let mut stream = connector.connect(name, socket).await.unwrap();
        let handshake = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{handshake}{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let connection = websocket::WebSocketStream::from_raw_socket(stream, websocket::Role::Client, None).await;
        (String::from_utf8(head).unwrap().to_lowercase(), connection)
    }

    /// A request with a JSON body by an administrator.
    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: &str) -> String {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.raw(self.tls("admin", &["system:masters"]), &request).await
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "lab-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    groups: &[&str],
    host: Option<&str>,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::new(host.map(str::to_string).into_iter().collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn roots(authority: &CertifiedIssuer<'static, KeyPair>) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    roots
}

fn client_tls(authority: &CertifiedIssuer<'static, KeyPair>, user: &str, groups: &[&str]) -> rustls::ClientConfig {
    let (chain, key) = issue(authority, user, groups, None);
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots(authority));
    builder.with_client_auth_cert(chain, key).unwrap()
}
