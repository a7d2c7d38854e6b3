//! Validation errors with the field they are about, in upstream's words.

use std::fmt;

use serde_json::Value;

use crate::StatusCause;
use crate::quote::quoted;

/// Where in an object: `spec.containers[0].ports[2].name`, `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(String);

impl FieldPath {
    pub fn root() -> Self {
        FieldPath(String::new())
    }

    /// Upstream's path of one empty name, which some rules about a whole object have.
    pub fn unnamed() -> Self {
        FieldPath("[]".to_string())
    }

    /// A path from its text.
    pub fn new(path: &str) -> Self {
        FieldPath(path.to_string())
    }

    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { FieldPath(name.to_string()) } else { FieldPath(format!("{}.{name}", self.0)) }
    }

    pub fn index(&self, index: usize) -> Self {
        FieldPath(format!("{}[{index}]", self.0))
    }

    /// An entry of a map.
    pub fn key(&self, key: &str) -> Self {
        FieldPath(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field. The variants are upstream's `ErrorType`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    InternalError,
    TypeInvalid,
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{path}: {}", self.body())]
pub struct FieldError {
    pub kind: FieldErrorKind,
    pub path: FieldPath,
    /// The offending value, shown for kinds where it helps.
    pub value: Value,
    pub detail: String,
    /// The value as upstream shows it, where that is not its JSON with sorted keys.
    pub shown: Option<String>,
}

impl FieldError {
    fn new(kind: FieldErrorKind, path: &FieldPath, value: Value, detail: impl Into<String>) -> Self {
        FieldError { kind, path: path.clone(), value, detail: detail.into(), shown: None }
    }

    pub fn required(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, Value::Null, detail)
    }

    pub fn invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, value.into(), detail)
    }

    pub fn forbidden(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, Value::Null, detail)
    }

    pub fn duplicate(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, value.into(), "")
    }

    pub fn not_found(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, value.into(), "")
    }

    pub fn too_long(path: &FieldPath, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::new(FieldErrorKind::TooLong, path, Value::Null, format!("may not be more than {max} {unit}"))
    }

    pub fn too_many(path: &FieldPath, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(FieldErrorKind::TooMany, path, actual.into(), format!("must have at most {max} {unit}"))
    }

    pub fn type_invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, value.into(), detail)
    }

    pub fn internal(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::InternalError, path, Value::Null, detail)
    }

    /// A value outside a closed set, which the message lists in the order given: upstream sorts some sets and not others.
    pub fn not_supported(path: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let words: Vec<String> = supported.iter().map(|word| quoted(word)).collect();
        let detail = if words.is_empty() { String::new() } else { format!("supported values: {}", words.join(", ")) };
        Self::new(FieldErrorKind::NotSupported, path, value.into(), detail)
    }

    /// Shows the value in this text instead.
    pub fn shown_as(mut self, text: impl Into<String>) -> Self {
        self.shown = Some(text.into());
        self
    }

    /// The message without the path, as the cause of a `Status` carries it.
    pub fn body(&self) -> String {
        let heading = match self.kind {
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Invalid | FieldErrorKind::TypeInvalid => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::InternalError => "Internal error",
        };
        let shows_value = !matches!(
            self.kind,
            FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::TooLong
                | FieldErrorKind::InternalError
        );
        let mut body = heading.to_string();
        if shows_value {
            body.push_str(": ");
            body.push_str(&self.shown.clone().unwrap_or_else(|| shown(&self.value)));
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }

    /// The word in `details.causes[].reason`.
    pub fn reason(&self) -> &'static str {
        match self.kind {
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::InternalError => "InternalError",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    pub fn cause(&self) -> StatusCause {
        StatusCause { reason: self.reason().to_string(), message: self.body(), field: self.path.to_string() }
    }
}

/// A value as Go prints it in such messages: text quoted, null as `null`, the rest as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_upstream_writes_it() {
        let path = FieldPath::new("spec").child("containers").index(0).child("name");
        for (error, expected) in [
            (FieldError::required(&path, ""), "spec.containers[0].name: Required value"),
            (
                FieldError::invalid(&path, "A", "must be lower"),
                "spec.containers[0].name: Invalid value: \"A\": must be lower",
            ),
            (FieldError::duplicate(&path, "a"), "spec.containers[0].name: Duplicate value: \"a\""),
            (
                FieldError::not_supported(&FieldPath::new("x"), "Q", &["B", "A"]),
                "x: Unsupported value: \"Q\": supported values: \"B\", \"A\"",
            ),
            (FieldError::too_long(&FieldPath::new("x"), 63), "x: Too long: may not be more than 63 bytes"),
            (FieldError::invalid(&FieldPath::new("x"), -1, "no"), "x: Invalid value: -1: no"),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }
}
