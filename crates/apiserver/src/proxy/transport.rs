//! One HTTP/1.1 connection to a backend, with or without TLS, that may be upgraded.

use std::sync::Arc;
use std::time::Duration;

use base::Tasks;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use meta::Status;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long connecting and shaking hands may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The body of a request that is passed on: the client's own stream, or nothing.
pub type ForwardedBody = Either<Incoming, Empty<Bytes>>;

/// Where a request goes.
#[derive(Clone)]
pub struct Backend {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// None speaks plain HTTP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Backend {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Sends one request on a connection of its own, which `tasks` drives until it ends or is told to stop.
    ///
    /// The request's URI is path and query only. Errors name the URL, as upstream's do.
    pub async fn send(&self, mut request: Request<ForwardedBody>, tasks: &Tasks) -> Result<Response<Incoming>, Status> {
        let url = format!("{}://{}{}", self.scheme(), self.authority(), request.uri());
        let failed = |why: String| Status::internal(format!("error dialing backend: {url}: {why}"));
        let authority = HeaderValue::from_str(&self.authority()).map_err(|error| failed(error.to_string()))?;
        request.headers_mut().entry(header::HOST).or_insert(authority);
        let connecting = tokio::time::timeout(CONNECT_MAX, self.connect());
        let stream =
            connecting.await.map_err(|_| failed("i/o timeout".into()))?.map_err(|error| failed(error.to_string()))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        tasks.spawn("backend connection", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "backend connection ended");
            }
        });
        sender.send_request(request).await.map_err(|error| failed(error.to_string()))
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        base::connection::tune(&socket)?;
        let Some(config) = &self.tls else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
        Ok(Box::new(TlsConnector::from(config.clone()).connect(name, socket).await?))
    }
}

/// Either kind of connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
