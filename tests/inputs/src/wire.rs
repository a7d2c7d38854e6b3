//! Raw HTTPS to a server: one connection per call, nothing added and nothing corrected on the way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use kube::config::Kubeconfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// After this a call counts as hung. Upstream itself waits 3 s for a revision that has not come to pass.
pub const CALL_S_MAX: u64 = 20;

/// One request.
#[derive(Clone, Debug, Default)]
pub struct Call {
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Call {
    pub fn new(method: &str, path: &str) -> Self {
        Call { method: method.into(), path: path.into(), ..Call::default() }
    }

    pub fn with_json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self.header("content-type", "application/json")
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// One answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Where a server is, and as whom to call it.
#[derive(Clone)]
pub struct Wire {
    address: String,
    roots: Arc<RootCertStore>,
    tls: Arc<ClientConfig>,
}

impl Wire {
    /// As the user of the first context.
    pub fn from_kubeconfig(path: &Path) -> Result<Self> {
        // As JSON, because secrets are shown in it and the type that hides them is of a crate that nobody here names.
        let config = Kubeconfig::read_from(path).context("reading the kubeconfig")?;
        let config = serde_json::to_value(config)?;
        let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).with_context(|| pointer.to_owned());
        let server = text("/clusters/0/cluster/server")?;
        let address = server.strip_prefix("https://").context("the server is not HTTPS")?.trim_end_matches('/');
        let authority = STANDARD.decode(text("/clusters/0/cluster/certificate-authority-data")?)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&authority) {
            roots.add(certificate.map_err(|error| anyhow::anyhow!("{error:?}"))?)?;
        }
        let certificate = STANDARD.decode(text("/users/0/user/client-certificate-data")?)?;
        let key = STANDARD.decode(text("/users/0/user/client-key-data")?)?;
        let anonymous = Arc::new(trusting(Arc::new(roots.clone()))?.with_no_client_auth());
        Wire { address: address.to_owned(), roots: Arc::new(roots), tls: anonymous }.showing(&certificate, &key)
    }

    /// The same server, called with another certificate (both PEM).
    pub fn showing(&self, certificate: &[u8], key: &[u8]) -> Result<Self> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let tls = trusting(self.roots.clone())?.with_client_auth_cert(chain, key)?;
        Ok(Wire { tls: Arc::new(tls), ..self.clone() })
    }

    /// The same server, called without a certificate.
    pub fn without_certificate(&self) -> Result<Self> {
        Ok(Wire { tls: Arc::new(trusting(self.roots.clone())?.with_no_client_auth()), ..self.clone() })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection with the handshake done, for bytes that no HTTP client would send.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(&self.address).await.context("connecting")?;
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        Ok(TlsConnector::from(self.tls.clone()).connect(name, socket).await?)
    }

    /// Sends the call and reads the whole answer, within the deadline.
    pub async fn call(&self, call: &Call) -> Result<Answer> {
        let answer = tokio::time::timeout(Duration::from_secs(CALL_S_MAX), self.send(call));
        answer.await.with_context(|| format!("{} {} hangs", call.method, call.path))?
    }

    async fn send(&self, call: &Call) -> Result<Answer> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let mut request = Request::builder().method(Method::from_bytes(call.method.as_bytes())?).uri(&call.path);
        request = request.header("host", &self.address).header("user-agent", "inputs/1");
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(call.body.clone()))?;
        // Ends with the connection; what goes wrong on it, the request says.
        let driver = tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        drop(sender);
        driver.abort();
        Ok(Answer { code: head.status.as_u16(), headers: head.headers, body })
    }
}

fn trusting(roots: Arc<RootCertStore>) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let provider: Arc<CryptoProvider> = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots))
}
