//! What a CRI call fails with: a gRPC code and the runtime's message, whether or not a socket was involved.

use std::fmt;

/// The gRPC status codes, by number on the wire.
pub use tonic::Code;

/// A failed CRI call.
///
/// `Display` is the form upstream's users see in events and statuses: `rpc error: code = NotFound desc = ...`.
/// [`Error::message`] is the bare message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    code: Code,
    message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rpc error: code = {:?} desc = {}", self.code, self.message)
    }
}

impl Error {
    /// An error with any code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into() }
    }

    /// Something went wrong that no code describes; what most runtime failures are.
    pub fn unknown(message: impl Into<String>) -> Self {
        Error::new(Code::Unknown, message)
    }

    /// There is no such sandbox, container or image.
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(Code::NotFound, message)
    }

    /// The request cannot be carried out whatever the state.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(Code::InvalidArgument, message)
    }

    /// The request does not fit the present state, such as starting what runs.
    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Error::new(Code::FailedPrecondition, message)
    }

    /// The command or call took longer than its limit.
    pub fn deadline_exceeded(message: impl Into<String>) -> Self {
        Error::new(Code::DeadlineExceeded, message)
    }

    /// The runtime does not have this call.
    pub fn unimplemented(call: &str) -> Self {
        Error::new(Code::Unimplemented, format!("method {call} not implemented"))
    }

    /// The runtime cannot be reached.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Error::new(Code::Unavailable, message)
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message without the gRPC decoration.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the thing asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// Whether the runtime does not have the call.
    pub fn is_unimplemented(&self) -> bool {
        self.code == Code::Unimplemented
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Error::new(status.code(), status.message())
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        tonic::Status::new(error.code, error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_upstream_prints_it_and_survives_the_wire() {
        let error = Error::not_found("container \"a\" not found");
        assert_eq!(error.to_string(), "rpc error: code = NotFound desc = container \"a\" not found");
        assert_eq!(Error::from(tonic::Status::from(error.clone())), error);
    }
}
