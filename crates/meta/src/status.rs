//! The API error: the `Status` object that every refusal is answered with.
//!
//! Reason, details and causes are data, so callers branch on them and never on the message. Messages are upstream's, because
//! people and tools search for them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::quote::quoted;
use crate::{FieldError, GroupKind, GroupResource};

/// Why a request was refused, as `status.reason` names it. The HTTP code follows from it unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    #[default]
    #[serde(rename = "")]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
    #[serde(untagged)]
    Other(String),
}

impl Reason {
    /// The HTTP status code that goes with the reason.
    pub fn code(&self) -> u16 {
        match self {
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::BadRequest => 400,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
            Reason::Unknown
            | Reason::ServerTimeout
            | Reason::StoreReadError
            | Reason::InternalError
            | Reason::Other(_) => 500,
        }
    }
}

/// One of several things wrong with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// A machine-readable word such as `FieldValueRequired`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The path of the field, such as `spec.containers[0].name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Upstream puts the resource here for most errors and the kind for `Invalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// The API error. Also the answer to a successful delete, which is why `success` exists.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<StatusDetails>>,
    /// `metadata.continue`, which an expired list answers so that a client may go on inconsistently.
    pub continue_token: Option<String>,
}

impl Status {
    /// An error with the code that goes with its reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Status { code: reason.code(), reason, message: message.into(), details: None, continue_token: None }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = resource.group.to_string();
        details.kind = resource.resource.to_string();
        details.name = name.to_string();
        self
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(Reason::NotFound, format!("{resource} {} not found", quoted(name))).about(resource, name)
    }

    /// No such path or resource type.
    pub fn no_such_resource() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(Reason::AlreadyExists, format!("{resource} {} already exists", quoted(name))).about(resource, name)
    }

    /// An update that lost a race or whose precondition does not hold.
    pub fn conflict(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(Reason::Conflict, message).about(resource, name)
    }

    /// The ordinary optimistic-lock conflict.
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub fn forbidden(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Self::new(Reason::Forbidden, message).about(resource, name)
    }

    /// The object breaks the rules of its kind; one cause for each rule broken.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[FieldError]) -> Self {
        let listed = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let mut status = Self::new(Reason::Invalid, format!("{kind} {} is invalid: {listed}", quoted(name)));
        status.details = Some(Box::new(StatusDetails {
            name: name.to_string(),
            group: kind.group.to_string(),
            kind: kind.kind.to_string(),
            causes: errors.iter().map(FieldError::cause).collect(),
            ..StatusDetails::default()
        }));
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// Something of ours is broken; `why` is for the log and the user's report.
    pub fn internal(why: impl fmt::Display) -> Self {
        let mut status = Self::new(Reason::InternalError, format!("Internal error occurred: {why}"));
        let cause = StatusCause { message: why.to_string(), ..StatusCause::default() };
        status.details = Some(Box::new(StatusDetails { causes: vec![cause], ..StatusDetails::default() }));
        status
    }

    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(Reason::MethodNotAllowed, message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(Reason::UnsupportedMediaType, message)
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(Reason::NotAcceptable, message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(Reason::RequestEntityTooLarge, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    /// The revision asked for is no longer kept: list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(Reason::TooManyRequests, message);
        status.details.get_or_insert_default().retry_after_seconds = retry_after_seconds;
        status
    }

    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(Reason::Timeout, message);
        status.details.get_or_insert_default().retry_after_seconds = retry_after_seconds;
        status
    }

    /// Adds a cause, keeping those there are.
    pub fn with_cause(mut self, cause: StatusCause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// Whether a watch or list has to start over from the present.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason, Reason::Expired | Reason::Gone)
    }

    /// The `v1.Status` object as JSON.
    pub fn to_json(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure"});
        if !self.message.is_empty() {
            status["message"] = self.message.as_str().into();
        }
        if self.reason != Reason::Unknown {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = json!(details);
        }
        status["code"] = self.code.into();
        status
    }

    /// Reads a `v1.Status` that says `Failure`; none for anything else.
    pub fn from_json(value: &Value) -> Option<Self> {
        if value.get("kind")?.as_str()? != "Status" || value.get("status")?.as_str()? == "Success" {
            return None;
        }
        let reason = value.get("reason").and_then(|reason| Reason::deserialize(reason).ok()).unwrap_or_default();
        let code = value.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        Some(Status {
            code: code.unwrap_or_else(|| reason.code()),
            reason,
            message: value.get("message").and_then(Value::as_str).unwrap_or_default().to_string(),
            details: value.get("details").and_then(|details| StatusDetails::deserialize(details).ok()).map(Box::new),
            continue_token: value.pointer("/metadata/continue").and_then(Value::as_str).map(String::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_details_are_upstreams() {
        let pods = GroupResource::new("", "pods");
        let deployments = GroupResource::new("apps", "deployments");
        assert_eq!(Status::not_found(&pods, "x").to_string(), "pods \"x\" not found");
        assert_eq!(Status::already_exists(&deployments, "x").to_string(), "deployments.apps \"x\" already exists");
        assert_eq!(
            Status::not_found(&deployments, "x").to_json(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                   "message": "deployments.apps \"x\" not found", "reason": "NotFound",
                   "details": {"name": "x", "group": "apps", "kind": "deployments"}, "code": 404})
        );
    }

    #[test]
    fn json_round_trips_and_success_is_not_an_error() {
        let status = Status::too_many_requests("slow down", 3);
        assert_eq!(Status::from_json(&status.to_json()), Some(status));
        assert_eq!(Status::from_json(&json!({"kind": "Status", "status": "Success"})), None);
        let odd = json!({"kind": "Status", "status": "Failure", "reason": "Strange", "message": "m"});
        assert_eq!(Status::from_json(&odd).unwrap().reason, Reason::Other("Strange".into()));
    }
}
