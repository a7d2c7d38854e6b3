//! The HTTP edge: sockets, TLS, bodies, queries, compression, and the answers that carry no object.
//!
//! Everything behind this edge works on [`Incoming`] requests and [`Response`]s; only [`listen`] knows sockets.

pub mod body;
pub mod compress;
pub mod listen;
pub mod query;
pub mod received;
pub mod websocket;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

pub use body::Body;
pub use received::{Peer, Received};

/// What a client is answered with.
pub type Response = http::Response<Body>;

/// The largest request body that is read, in bytes.
pub const REQUEST_BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// An answer with a body of a known content type.
pub fn answer(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = http::Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Plain text, as probes and unknown paths are answered.
pub fn text(code: StatusCode, body: impl Into<String>) -> Response {
    let mut response = answer(code, "text/plain; charset=utf-8", Bytes::from(body.into()));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A JSON document.
pub fn json(body: impl Into<Bytes>) -> Response {
    answer(StatusCode::OK, "application/json", body.into())
}

/// What a path that nothing serves is answered with.
pub fn page_not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
