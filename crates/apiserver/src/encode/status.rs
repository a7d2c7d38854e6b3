//! `v1.Status` as an answer: refusals, and the success of requests that have nothing else to show.

use bytes::Bytes;
use http::{StatusCode, header};
use meta::status::StatusDetails;
use meta::{Media, Object, Status};
use serde_json::{Value, json};

use super::answer::{document, encode};
use crate::http::{Response, answer};
use crate::negotiate::{Accepted, Format};

/// A refusal, encoded as the client asked.
pub fn refusal(status: &Status, accepted: &Accepted) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = write(code, status.to_json(), accepted);
    let wait = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if wait > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, wait.into());
    }
    response
}

/// `Success`, with what it was about.
pub fn success(details: Option<&StatusDetails>, created: bool, accepted: &Accepted) -> Response {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if let Some(details) = details {
        status["details"] = json!(details);
    }
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    if created {
        status["code"] = code.as_u16().into();
    }
    write(code, status, accepted)
}

fn write(code: StatusCode, status: Value, accepted: &Accepted) -> Response {
    if accepted.format == Format::Protobuf
        && let Some(bytes) = protobuf(&status)
    {
        return answer(code, Format::Protobuf.content_type(), bytes);
    }
    let format = if accepted.format == Format::Yaml { Format::Yaml } else { Format::Json };
    let text = Accepted { format, ..accepted.clone() };
    // A tree of texts and numbers can always be written.
    answer(code, format.content_type(), document(&status, &text).unwrap_or_default())
}

/// The envelope of a status; none when the codecs do not know it.
pub fn protobuf(status: &Value) -> Option<Bytes> {
    encode(Media::Protobuf, &Object::from_value(status.clone())?).ok()
}

/// The JSON of a status, with keys in upstream's order.
pub fn json_bytes(status: &Status) -> Bytes {
    encode(Media::Json, &Object::from_value(status.to_json()).unwrap_or_default())
        .unwrap_or_else(|_| status.to_json().to_string().into())
}
