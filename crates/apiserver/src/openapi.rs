//! The OpenAPI paths. The documents themselves are `api::openapi`'s; they are written on request and not kept, because clients
//! cache them by the hash in their URL.

use api::Kinds;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::chain::Call;
use crate::http::{Response, answer, text};
use crate::version::GIT_VERSION;

/// Answers an OpenAPI path; none for any other.
pub fn serve(kinds: &Kinds, call: &Call) -> Option<Response> {
    match call.info.path.trim_end_matches('/') {
        "/openapi/v2" if wants_protobuf_only(call.received.header("accept")) => {
            Some(text(StatusCode::NOT_ACCEPTABLE, "only application/json is served here\n"))
        }
        "/openapi/v2" => Some(written(&api::openapi::v2(kinds, GIT_VERSION))),
        "/openapi/v3" => Some(written(&api::openapi::index(kinds, hash))),
        path => {
            let document = api::openapi::v3(kinds, path.strip_prefix("/openapi/v3/")?, GIT_VERSION)?;
            let mut response = written(&document);
            if call.received.query.first("hash").is_some() {
                let forever = HeaderValue::from_static("public, immutable");
                response.headers_mut().insert(header::CACHE_CONTROL, forever);
            }
            Some(response)
        }
    }
}

/// The gnostic protobuf form of version 2 is not written; who takes nothing else is told so.
fn wants_protobuf_only(accept: &str) -> bool {
    !accept.is_empty() && accept.split(',').all(|clause| clause.contains("protobuf"))
}

fn written(document: &Value) -> Response {
    answer(StatusCode::OK, "application/json", bytes::Bytes::from(document.to_string()))
}

/// Changes when this build does or what the document is made of.
fn hash(content: &str) -> String {
    let digest = Sha256::new().chain_update(GIT_VERSION).chain_update(content).finalize();
    digest.iter().map(|byte| format!("{byte:02X}")).collect()
}
