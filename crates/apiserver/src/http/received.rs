//! A request as it arrived: head, peer and a body that is read at most once and never beyond its limit.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, request::Parts};
use http_body::Body as _;
use http_body_util::BodyExt;
use meta::Status;
use rustls_pki_types::CertificateDer;

use super::REQUEST_BODY_BYTES_MAX;
use super::query::Query;

/// How much of a refused body is still read, in bytes.
const DRAINED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Who is at the other end of the connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The client's certificate chain, leaf first; empty when it showed none.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// A request with its path and query decoded.
pub struct Received {
    pub parts: Parts,
    pub path: String,
    pub query: Query,
    pub peer: Arc<Peer>,
    body: Option<hyper::body::Incoming>,
}

impl Received {
    pub fn new(request: http::Request<hyper::body::Incoming>, peer: Arc<Peer>) -> Self {
        let (parts, body) = request.into_parts();
        Self::from_parts(parts, Some(body), peer)
    }

    /// A request without a body, or with one.
    pub fn from_parts(parts: Parts, body: Option<hyper::body::Incoming>, peer: Arc<Peer>) -> Self {
        let path = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        Received { parts, path, query, peer, body }
    }

    /// Whether every escape in the path is one. What is not is refused before anybody asks who sent it.
    pub fn is_well_escaped(&self) -> bool {
        let mut tails = self.parts.uri.path().split('%').skip(1);
        tails.all(|tail| tail.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
    }

    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// A header as text; empty when absent or unreadable.
    pub fn header(&self, name: &str) -> &str {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether the client wants to leave HTTP on this connection (WebSocket or SPDY).
    pub fn wants_upgrade(&self) -> bool {
        self.header("connection").split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
            && !self.header("upgrade").is_empty()
    }

    /// Whether the client wants a WebSocket.
    pub fn wants_websocket(&self) -> bool {
        self.wants_upgrade() && self.header("upgrade").eq_ignore_ascii_case("websocket")
    }

    /// The body as a stream, for a proxied request.
    pub fn take_body(&mut self) -> Option<hyper::body::Incoming> {
        self.body.take()
    }

    /// The whole body, refused when it is larger than [`REQUEST_BODY_BYTES_MAX`].
    pub async fn read_body(&mut self) -> Result<Bytes, Status> {
        let Some(mut body) = self.body.take() else { return Ok(Bytes::new()) };
        if body.size_hint().lower() > REQUEST_BODY_BYTES_MAX as u64 {
            drain(body).await;
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Status::bad_request(format!("unable to read the body: {error}")))?;
            let Some(data) = frame.data_ref() else { continue };
            if whole.len() + data.len() > REQUEST_BODY_BYTES_MAX {
                drain(body).await;
                return Err(too_large());
            }
            whole.extend_from_slice(data);
        }
        Ok(whole.freeze())
    }
}

/// Reads on for a while and throws it away: a client that is still sending when the connection closes never sees the answer.
async fn drain(mut body: hyper::body::Incoming) {
    let mut left = DRAINED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > left {
            return;
        }
        left -= length;
    }
}

fn too_large() -> Status {
    Status::too_large(format!("Request entity too large: limit is {REQUEST_BODY_BYTES_MAX}"))
}
