//! The node API on port 10250: logs, exec, attach, port-forward, statistics.
//!
//! ```text
//! TLS (client certificate if there is one) ─▶ who (auth.rs) ─▶ may they (auth.rs, asked of the API server) ─▶ route.rs
//! ```
//!
//! Nobody is let in without an identity: a client certificate of the cluster's authority, or a bearer token that the API server
//! confirms. HTTP/1.1 only, because what is served here mostly ends in an upgrade.

pub mod auth;
mod cadvisor;
pub mod channels;
mod exposition;
pub mod far_streams;
pub mod log_format;
pub mod logs;
pub mod query;
pub mod route;
pub mod session;
pub mod spdy;
pub mod stats;
pub mod stream_routes;
pub mod streams;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::StartError;
use crate::agent::Agent;
use crate::config::Serving;
use auth::{Answers, Identity};
use route::Answer;

/// Connections open at the same time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// How long a handshake and the head of a request may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const HEADERS_LIMIT: Duration = Duration::from_secs(30);
/// How long accepting rests after it failed (no descriptors left, mostly).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The header that names protocols when SPDY is spoken.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

struct Server {
    agent: Arc<Agent>,
    tls: TlsAcceptor,
    answers: Answers,
}

/// Listens; returns the port, 0 when the agent is to serve nothing.
pub async fn start(agent: Arc<Agent>) -> Result<u16, StartError> {
    let (Some(address), Some(serving)) = (agent.config.listen, agent.config.serving.clone()) else { return Ok(0) };
    let tls = TlsAcceptor::from(Arc::new(tls(serving)?));
    let io = |what| move |source| StartError::Io { what, source };
    let listener = TcpListener::bind(address)
        .await
        .map_err(io("the node API cannot have its port 10250; end what has it, such as another kubelet"))?;
    let port = listener.local_addr().map_err(io("the node API has no address"))?.port();
    let server = Arc::new(Server { agent: agent.clone(), tls, answers: Answers::default() });
    agent.tasks.spawn("node-api", server.accept(listener));
    Ok(port)
}

fn tls(serving: Serving) -> Result<rustls::ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(serving.client_ca, provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving.certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    self.agent.tasks.spawn("node-api-connection", async move {
                        server.serve(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the node API cannot accept a connection");
                    self.agent.clock.sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        if let Err(error) = base::connection::tune(&stream) {
            tracing::debug!(%error, "a connection of the node API keeps the kernel's settings");
        }
        let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
            Err(_) => return tracing::debug!("a handshake took too long"),
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.map(|certificate| certificate.clone().into_owned());
        let service = service_fn(move |request| {
            // Read anew each time: the connection may outlive the certificate.
            let read = |shown| auth::from_certificate(shown, &self.agent.clock);
            let (server, identity) = (self.clone(), certificate.as_ref().and_then(read));
            async move { Ok::<_, Infallible>(server.answer(identity.as_ref(), request).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS_LIMIT);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
            tracing::debug!(%error, "a connection of the node API broke off");
        }
    }

    async fn answer(&self, certificate: Option<&Identity>, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let who = match self.answers.authenticate(&self.agent, certificate, &parts).await {
            Ok(Some(who)) => who,
            Ok(None) => return route::text(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Err(status) => {
                tracing::warn!(error = %status, "a caller of the node API cannot be identified");
                return route::text(StatusCode::UNAUTHORIZED, "Unauthorized");
            }
        };
        if let Err(why) = self.answers.authorize(&self.agent, &who, &parts).await {
            return route::text(StatusCode::FORBIDDEN, why);
        }
        route::answer(&self.agent, Request::from_parts(parts, body)).await
    }
}
