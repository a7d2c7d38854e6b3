//! The place of auditing in the chain: after authentication, before anything may refuse.
//!
//! Every request has an audit id from here on, which the answer shows. Policies and log files are not built yet; what there is
//! goes to the trace log.

use crate::context::Identity;
use crate::request_info::RequestInfo;

/// The longest audit id a client may choose, in bytes.
const AUDIT_ID_BYTES_MAX: usize = 64;

/// The id of a request: the client's own if it sent a sane one.
pub fn id(sent: &str) -> String {
    let sane = !sent.is_empty() && sent.len() <= AUDIT_ID_BYTES_MAX && sent.bytes().all(|byte| byte.is_ascii_graphic());
    if sane { sent.to_string() } else { base::chance::uuid() }
}

/// Notes that a request begins.
pub fn begin(id: &str, user: &Identity, info: &RequestInfo) {
    tracing::debug!(audit_id = id, user = &*user.name, verb = info.verb, path = info.path, "request");
}
