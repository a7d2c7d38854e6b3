//! The door over a socket: HTTPS to any Kubernetes API server.
//!
//! ```text
//! Request ──path, query, body──▶ hyper (HTTP/2 where offered) ──▶ server
//! Response / WatchEvent ◀──split into encoded objects (answer: JSON, envelope: protobuf)── bytes
//! ```
//!
//! Answers are split into objects without building trees: only metadata is read, the rest stays the bytes that arrived. Sizes
//! and times are bounded; a watch has no time limit of ours, but one that is silent is noticed by HTTP/2 pings.

mod answer;
mod connector;
mod envelope;
mod frames;
mod route;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use meta::{Media, Status};

use crate::door::{Body, Door, EventStream, Request, Response, Verb};
pub use connector::Connector;

/// The longest answer that is read into memory, as upstream's clients allow for lists.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// The longest single watch event.
const EVENT_BYTES_MAX: usize = 32 << 20;
/// How long a plain request may take; longer than the server's own limit of a minute.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);
/// A connection that answers no ping for this long is given up, and its watches end.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Where the API is and who we are.
#[derive(Clone)]
pub struct Config {
    /// `https://host:port`, with no path.
    pub server: http::Uri,
    /// Trusted authorities, and our client certificate if that is how we authenticate.
    pub tls: rustls::ClientConfig,
    /// Asked before each request, so that a token may be renewed underneath.
    pub token: Option<Arc<dyn TokenSource>>,
    /// Names the program in the server's logs.
    pub user_agent: String,
}

/// Gives the bearer token that is valid now.
pub trait TokenSource: Send + Sync {
    fn token(&self) -> Option<String>;
}

/// A token that never changes.
impl TokenSource for String {
    fn token(&self) -> Option<String> {
        Some(self.clone())
    }
}

/// A connection pool to one server with one identity.
pub struct HttpsDoor {
    hyper: HyperClient<Connector, Full<Bytes>>,
    config: Config,
}

impl HttpsDoor {
    pub fn new(config: Config) -> Self {
        let mut builder = HyperClient::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        builder.http2_keep_alive_interval(PING_INTERVAL).http2_keep_alive_timeout(PING_INTERVAL);
        let hyper = builder.build(Connector::new(config.tls.clone()));
        HttpsDoor { hyper, config }
    }

    async fn call(&self, request: &Request) -> Result<http::Response<Incoming>, Status> {
        let uri = route::uri(&self.config.server, request).map_err(|error| Status::bad_request(error.to_string()))?;
        let (media, body) = route::body(&request.body)?;
        let mut builder = http::Request::builder()
            .method(route::method(request.verb))
            .uri(uri)
            .header(ACCEPT, accepted(request.verb, request.options.media))
            .header(USER_AGENT, &self.config.user_agent);
        if let Some(media) = media {
            builder = builder.header(CONTENT_TYPE, media);
        }
        if let Some(token) = self.config.token.as_ref().and_then(|source| source.token()) {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let call = builder.body(Full::new(body)).map_err(|error| Status::bad_request(error.to_string()))?;
        self.hyper.request(call).await.map_err(|error| unreachable_server(&self.config.server, &error))
    }
}

/// What is written back some day is asked for in JSON, whatever is wished.
fn accepted(verb: Verb, wish: Media) -> &'static str {
    match (verb, wish) {
        (Verb::List | Verb::Watch, Media::Protobuf) => "application/vnd.kubernetes.protobuf, application/json",
        _ => "application/json",
    }
}

/// As the answer says.
fn media_of(answer: &http::Response<Incoming>) -> Media {
    let told = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_protobuf = told.starts_with(Media::Protobuf.content_type());
    if is_protobuf { Media::Protobuf } else { Media::Json }
}

fn unreachable_server(server: &http::Uri, error: &dyn std::error::Error) -> Status {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        why = format!("{why}: {inner}");
        source = inner.source();
    }
    Status::unavailable(format!("cannot reach the API server at {server}: {why}"))
}

#[async_trait]
impl Door for HttpsDoor {
    async fn send(&self, request: Request) -> Result<Response, Status> {
        let exchange = async {
            let answer = self.call(&request).await?;
            let (code, media) = (answer.status(), media_of(&answer));
            let bytes = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let bytes =
                bytes.map_err(|error| Status::unavailable(format!("the answer broke off: {error}")))?.to_bytes();
            match media {
                _ if !code.is_success() => Err(answer::failure(code, &bytes)),
                _ if request.verb == Verb::DeleteCollection => Ok(Response::Done),
                Media::Json => answer::read(&bytes),
                Media::Protobuf => envelope::list(&bytes).map(Response::List),
            }
        };
        let timed = tokio::time::timeout(REQUEST_TIMEOUT, exchange).await;
        timed.unwrap_or_else(|_| Err(Status::timeout("the API server did not answer in time", 1)))
    }

    async fn watch(&self, mut request: Request) -> Result<EventStream, Status> {
        request.verb = Verb::Watch;
        request.body = Body::None;
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.call(&request)).await;
        let answer = answer.map_err(|_| Status::timeout("the API server did not answer in time", 1))??;
        let (code, media) = (answer.status(), media_of(&answer));
        if !code.is_success() {
            let bytes = http_body_util::Limited::new(answer.into_body(), EVENT_BYTES_MAX).collect().await;
            return Err(answer::failure(code, &bytes.map(|body| body.to_bytes()).unwrap_or_default()));
        }
        Ok(frames::events(answer.into_body(), media).boxed())
    }
}

#[cfg(test)]
mod tests;
