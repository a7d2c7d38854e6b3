//! Paths that are no resource: health, version, metrics, discovery, OpenAPI, token issuer documents.

use http::{Method, StatusCode};
use meta::Status;
use serde_json::json;

use crate::chain::{Call, Front};
use crate::encode::answer::document;
use crate::http::{Response, answer, page_not_found};
use crate::{openapi, version};

/// What `/` lists.
const PATHS: [&str; 14] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// Serves a path, or says that there is nothing.
pub fn serve(front: &Front, call: &Call) -> Result<Response, Status> {
    let method = call.received.method();
    if *method != Method::GET && *method != Method::HEAD {
        return Ok(method_not_allowed());
    }
    let path = call.info.path.as_str();
    if let Some(response) = front.health.answer(path, &call.received.query) {
        return Ok(response);
    }
    if let Some(response) = front.documents.answer(&front.registry, call)? {
        return Ok(response);
    }
    if path.starts_with("/openapi/")
        && let Some(response) = openapi::serve(&front.registry.kinds(), call)
    {
        return Ok(response);
    }
    Ok(match path.trim_end_matches('/') {
        "" => written(&json!({"paths": PATHS}), call)?,
        "/version" => written(&version::document(), call)?,
        "/metrics" => answer(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            bytes::Bytes::from(front.metrics.page()),
        ),
        _ => page_not_found(),
    })
}

fn written(value: &serde_json::Value, call: &Call) -> Result<Response, Status> {
    Ok(answer(StatusCode::OK, "application/json", document(value, &call.accepted)?))
}

fn method_not_allowed() -> Response {
    crate::http::text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n")
}
