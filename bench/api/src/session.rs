//! A client of the API: HTTP/2 over TLS, as upstream's clients speak; one connection a value, shared by its clones.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// As Go's client asks for, per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// As upstream's client: so often, and so long apart as servers ask for.
const TRIES_MAX: u32 = 10;
const RETRY_AFTER_S: u64 = 1;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where the API is and who asks.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    token: Option<HeaderValue>,
    authority: Vec<u8>,
}

impl Target {
    /// With a client certificate; all in PEM.
    pub fn with_certificate(address: SocketAddr, authority: &[u8], chain: &[u8], key: &[u8]) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key)?;
        let config = ClientConfig::builder().with_root_certificates(roots(authority)?);
        let tls = over_http2(config.with_client_auth_cert(chain, key)?);
        Ok(Self { address, tls, token: None, authority: authority.to_vec() })
    }

    /// The same API with a token instead of a certificate.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        let tls =
            over_http2(ClientConfig::builder().with_root_certificates(roots(&self.authority)?).with_no_client_auth());
        let mut token = HeaderValue::try_from(format!("Bearer {token}"))?;
        token.set_sensitive(true);
        Ok(Self { tls, token: Some(token), ..self.clone() })
    }
}

fn roots(authority: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

fn over_http2(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[derive(Clone)]
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    base: String,
    token: Option<HeaderValue>,
}

impl Api {
    pub async fn connect(target: &Target) -> Result<Self> {
        let socket = TcpStream::connect(target.address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(target.address.ip().into());
        let stream = TlsConnector::from(target.tls.clone()).connect(name, socket).await.context("agreeing on TLS")?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "the server does not speak HTTP/2");
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        // requests of many callers that are ready together go out together, whoever serves them
        let (stream, mut turns) = cork::cork(stream);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        // its end is told to every caller
        tokio::spawn(async move { turns.drive(pin!(connection)).await });
        Ok(Self { sender, base: format!("https://{}", target.address), token: target.token.clone() })
    }

    /// `count` connections.
    pub async fn connections(target: &Target, count: usize) -> Result<Vec<Self>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Self::connect(target).await?);
        }
        Ok(connections)
    }

    /// Asks and reads the whole answer.
    pub async fn ask(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<(StatusCode, Bytes)> {
        let (status, mut incoming) = self.open(method, path, body.into()).await?;
        let first = next_data(&mut incoming).await?.unwrap_or_default();
        let Some(second) = next_data(&mut incoming).await? else { return Ok((status, first)) };
        let mut whole = [first, second].concat();
        while let Some(data) = next_data(&mut incoming).await? {
            whole.extend_from_slice(&data);
        }
        Ok((status, whole.into()))
    }

    /// As `ask`, but an answer other than success is an error. One that asks to come back later is obeyed, as upstream's
    /// clients do; the wait counts.
    pub async fn must(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Bytes> {
        let body = body.into();
        for _ in 0..TRIES_MAX {
            let (status, answer) = self.ask(method.clone(), path, body.clone()).await?;
            match status {
                StatusCode::TOO_MANY_REQUESTS => tokio::time::sleep(Duration::from_secs(RETRY_AFTER_S)).await,
                status if status.is_success() => return Ok(answer),
                status => bail!("{method} {path} answers {status}: {}", String::from_utf8_lossy(&answer)),
            }
        }
        bail!("{method} {path} is answered with {} each time", StatusCode::TOO_MANY_REQUESTS)
    }

    /// Asks and hands over the answer's body as it comes; an answer other than success is an error.
    pub async fn stream(&mut self, path: &str) -> Result<Incoming> {
        let (status, body) = self.open(Method::GET, path, Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "GET {path} answers {status}");
        Ok(body)
    }

    async fn open(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Incoming)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header("accept", JSON).header("user-agent", "bench-api");
        if !body.is_empty() {
            request = request.header("content-type", JSON);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        Ok((response.status(), response.into_body()))
    }
}

/// Some more of a body; none at its end.
pub async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
