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
        "/openapi/v2" => Some(match form_of_v2(call.received.header("accept")) {
            Some(Form::Json) => written(&api::openapi::v2(kinds, GIT_VERSION)),
            Some(Form::Protobuf) => {
                let document = api::openapi::v2_protobuf(kinds, GIT_VERSION);
                answer(StatusCode::OK, PROTOBUF_V2, bytes::Bytes::from(document))
            }
            None => {
                let served = "only the following media types are accepted";
                text(StatusCode::NOT_ACCEPTABLE, format!("{served}: application/json, {PROTOBUF_V2}\n"))
            }
        }),
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

/// How version 2 is served in protobuf.
const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The name that clients know it by; it is no valid media type, and is not answered with.
const PROTOBUF_V2_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

#[derive(Debug, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

/// The first form that a client takes; JSON for one that does not say.
fn form_of_v2(accept: &str) -> Option<Form> {
    if accept.is_empty() {
        return Some(Form::Json);
    }
    let media = accept.split(',').filter_map(|clause| clause.split(';').next());
    media.map(str::trim).find_map(|media| match media {
        PROTOBUF_V2 | PROTOBUF_V2_OLD => Some(Form::Protobuf),
        "application/json" | "application/*" | "*/*" => Some(Form::Json),
        _ => None,
    })
}

fn written(document: &Value) -> Response {
    answer(StatusCode::OK, "application/json", bytes::Bytes::from(document.to_string()))
}

/// Changes when this build does or what the document is made of.
fn hash(content: &str) -> String {
    let digest = Sha256::new().chain_update(GIT_VERSION).chain_update(content).finalize();
    digest.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_that_a_client_takes_is_chosen() {
        assert_eq!(form_of_v2(""), Some(Form::Json));
        assert_eq!(form_of_v2("application/json, */*"), Some(Form::Json));
        assert_eq!(form_of_v2(PROTOBUF_V2_OLD), Some(Form::Protobuf));
        assert_eq!(
            form_of_v2("application/com.github.proto-openapi.spec.v2.v1.0+protobuf;q=1,*/*"),
            Some(Form::Protobuf)
        );
        assert_eq!(form_of_v2("application/xml"), None);
    }
}
