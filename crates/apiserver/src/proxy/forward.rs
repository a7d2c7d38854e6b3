//! Passing a request on and its answer back, upgrades included.

use std::sync::Arc;

use base::Tasks;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, BodyStream, Either, Empty};
use hyper_util::rt::TokioIo;
use meta::Status;

use super::links::{self, Links};
use super::transport::{Backend, ForwardedBody};
use crate::http::body::StreamError;
use crate::http::websocket::BEARER_PROTOCOL_PREFIX;
use crate::http::{Body, Received, Response};
use crate::reader::Reader;

/// Headers that concern one connection only.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Bytes copied at once in each direction of an upgraded connection.
const COPY_BUFFER_BYTES: usize = 32 * 1024;

/// Everything that proxying needs.
pub struct Proxy {
    pub reader: Arc<dyn Reader>,
    /// Our identity towards node agents, and the authority we trust them by.
    pub node_tls: Arc<rustls::ClientConfig>,
    /// For pods and services that are asked for over `https:`; their certificates are not ours to judge.
    pub unverified_tls: Arc<rustls::ClientConfig>,
    pub tasks: Tasks,
    /// Whether pods and nodes may be at loopback addresses, as in tests.
    pub allow_loopback: bool,
}

impl Proxy {
    /// Sends the request to `backend` as `path_and_query` and relays the answer; a `101` joins the two connections. With
    /// `links`, what the answer links to is led back through the proxy.
    pub async fn forward(
        &self,
        received: &mut Received,
        backend: &Backend,
        path_and_query: &str,
        links: Option<&Links>,
    ) -> Result<Response, Status> {
        let upgrading = received.wants_upgrade();
        let client_side = received.parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let mut request = outgoing(received, path_and_query, upgrading)?;
        if links.is_some() && asks_for_page(request.headers()) {
            // a page that shall be rewritten has to come readable
            request.headers_mut().remove(header::ACCEPT_ENCODING);
        }
        let mut response = backend.send(request, &self.tasks).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return match links {
                Some(links) => relay_with_links(response, links).await,
                None => Ok(relay(response)),
            };
        }
        let Some(client_side) = client_side else {
            return Err(Status::bad_request("the connection cannot be upgraded"));
        };
        let backend_side = hyper::upgrade::on(&mut response);
        self.tasks.spawn("upgraded connection", async move {
            if let Err(error) = join(client_side, backend_side).await {
                tracing::debug!(%error, "upgraded connection ended");
            }
        });
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = response.headers().clone();
        Ok(answer)
    }
}

async fn join(client: hyper::upgrade::OnUpgrade, backend: hyper::upgrade::OnUpgrade) -> Result<(), StreamError> {
    let (client, backend) = tokio::try_join!(client, backend)?;
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, COPY_BUFFER_BYTES, COPY_BUFFER_BYTES).await?;
    Ok(())
}

/// The request as the backend sees it: no credentials of the client's, no headers of its connection.
fn outgoing(received: &mut Received, path_and_query: &str, upgrading: bool) -> Result<Request<ForwardedBody>, Status> {
    let uri: Uri = path_and_query.parse().map_err(|error| Status::bad_request(format!("bad path: {error}")))?;
    let body = match received.take_body() {
        Some(body) if !upgrading => Either::Left(body),
        _ => Either::Right(Empty::new()),
    };
    let mut request = Request::new(body);
    *request.method_mut() = received.method().clone();
    *request.uri_mut() = uri;
    let mut headers = received.headers().clone();
    strip(&mut headers, upgrading);
    let forwarded_for = HeaderValue::from_str(&received.peer.address.ip().to_string());
    if let Ok(address) = forwarded_for {
        headers.append("x-forwarded-for", address);
    }
    *request.headers_mut() = headers;
    Ok(request)
}

fn strip(headers: &mut HeaderMap, upgrading: bool) {
    let kept = upgrading.then(|| (headers.get(header::CONNECTION).cloned(), headers.get(header::UPGRADE).cloned()));
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some((Some(connection), Some(upgrade))) = kept {
        headers.insert(header::CONNECTION, connection);
        headers.insert(header::UPGRADE, upgrade);
        headers.remove(header::CONTENT_LENGTH);
    }
    headers.remove(header::AUTHORIZATION);
    headers.remove(header::HOST);
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    drop_bearer_protocol(headers);
}

fn drop_bearer_protocol(headers: &mut HeaderMap) {
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    let written: Vec<String> =
        headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).map(str::to_string).collect();
    if !written.iter().any(|value| value.contains(BEARER_PROTOCOL_PREFIX)) {
        return;
    }
    let kept: Vec<&str> = written
        .iter()
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.starts_with(BEARER_PROTOCOL_PREFIX))
        .collect();
    headers.remove(&name);
    if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_str(&kept.join(", "))) {
        headers.insert(name, value);
    }
}

/// The backend's answer, streamed.
pub fn relay(response: http::Response<hyper::body::Incoming>) -> Response {
    let (mut parts, body) = response.into_parts();
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, stream(body))
}

fn asks_for_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// As [`relay`], with a redirect and the links of a page led back through the proxy. What another server says about whose
/// scripts may read it is not said in our name.
async fn relay_with_links(response: http::Response<hyper::body::Incoming>, links: &Links) -> Result<Response, Status> {
    let (mut parts, body) = response.into_parts();
    let cors: Vec<HeaderName> =
        parts.headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in HOP_BY_HOP.into_iter().chain(cors) {
        parts.headers.remove(name);
    }
    links.rewrite_location(&mut parts.headers);
    if !Links::concern(&parts.headers) {
        return Ok(Response::from_parts(parts, stream(body)));
    }
    let mut rest = data(body);
    let (mut chunks, mut length) = (Vec::new(), 0);
    while let Some(chunk) = rest.next().await {
        let chunk = chunk.map_err(|error| Status::internal(format!("error reading the proxied page: {error}")))?;
        length += chunk.len();
        chunks.push(chunk);
        if length > links::PAGE_BYTES_MAX {
            let read = futures::stream::iter(chunks.into_iter().map(Ok));
            return Ok(Response::from_parts(parts, Body::Stream(read.chain(rest).boxed())));
        }
    }
    let page = links.rewrite_page(&chunks.concat().into());
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
    Ok(Response::from_parts(parts, Body::from(page)))
}

/// A body that is passed on as it comes.
fn stream(body: hyper::body::Incoming) -> Body {
    Body::Stream(data(body))
}

/// The bytes of a body as they come.
pub fn data(body: hyper::body::Incoming) -> BoxStream<'static, Result<Bytes, StreamError>> {
    let frames = BodyStream::new(body.map_err(|error| Box::new(error) as StreamError));
    let data = frames.filter_map(|frame| async move {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(error)),
        }
    });
    data.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn credentials_and_connection_headers_stay_here() {
        let mut sent = headers(&[
            ("authorization", "Bearer x"),
            ("impersonate-user", "y"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("keep-alive", "1"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.abc, v5.channel.k8s.io"),
        ]);
        let mut plain = sent.clone();
        strip(&mut sent, true);
        assert_eq!(
            sent,
            headers(&[
                ("sec-websocket-protocol", "v5.channel.k8s.io"),
                ("connection", "Upgrade"),
                ("upgrade", "websocket")
            ])
        );
        strip(&mut plain, false);
        assert_eq!(plain, headers(&[("sec-websocket-protocol", "v5.channel.k8s.io")]));
    }
}
