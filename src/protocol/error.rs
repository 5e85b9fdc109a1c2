//! What a client is told when it does not get what it asked for: a class and a sentence (spec, appendix A).

use std::fmt;

use serde::Serialize;
use weir_channel::message::WorkerError;

use crate::Error;

/// What kind of fault it is. The names are those that JavaScript gives to its errors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum ErrorClass {
    /// What was asked for cannot be done in this state: the object is closed, or enabled already.
    InvalidStateError,
    /// The message is not what it should be, or names a transport that the client does not have.
    TypeError,
    /// Everything else.
    Error,
}

impl ErrorClass {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidStateError => "InvalidStateError",
            Self::TypeError => "TypeError",
            Self::Error => "Error",
        }
    }
}

/// A refusal, to be told to the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProtocolError {
    /// What kind of fault it is.
    pub class: ErrorClass,
    /// What was wrong.
    pub message: String,
}

impl ProtocolError {
    pub(crate) fn type_error(message: impl fmt::Display) -> Self {
        Self {
            class: ErrorClass::TypeError,
            message: message.to_string(),
        }
    }

    pub(crate) fn error(message: impl fmt::Display) -> Self {
        Self {
            class: ErrorClass::Error,
            message: message.to_string(),
        }
    }

    pub(crate) fn invalid_state(message: impl fmt::Display) -> Self {
        Self {
            class: ErrorClass::InvalidStateError,
            message: message.to_string(),
        }
    }
}

impl From<Error> for ProtocolError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidState { .. } | Error::AlreadyEnabled { .. } | Error::NotEnabled { .. } => {
                Self::invalid_state(error)
            }
            // v2's words, which applications look for.
            Error::DuplicatePeer { name, .. } => Self::error(format!("duplicated Peer [peerName:\"{name}\"]")),
            // How the server works inside, and which addresses and ports it has, is not a client's business.
            Error::WorkerDied { .. }
            | Error::Protocol { .. }
            | Error::Io { .. }
            | Error::Timeout { .. }
            | Error::NoWorker(_)
            | Error::PortsExhausted { .. }
            | Error::PortTaken { .. }
            | Error::Worker(
                WorkerError::Os { .. }
                | WorkerError::Descriptors { .. }
                | WorkerError::DeadlinePassed
                | WorkerError::TooMany { .. },
            ) => Self::error("the server failed to do this; try again"),
            other => Self::error(other),
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.name(), self.message)
    }
}

impl std::error::Error for ProtocolError {}
