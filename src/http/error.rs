//! What a client is told when it does not get what it asked for.

use std::fmt;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A refusal: a status for programs that only look at that, a code for those that tell causes apart, and a sentence for
/// people. Sent as `{"error":{"code":"unknownRoom","message":"no such room 7"}}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    /// Its class.
    pub status: StatusCode,
    /// Its cause, in camelCase; listed in `docs/api.md`.
    pub code: &'static str,
    /// What was wrong, with the offending name or number.
    pub message: String,
}

impl ApiError {
    /// A refusal of any class.
    pub fn new(status: StatusCode, code: &'static str, message: impl fmt::Display) -> Self {
        Self {
            status,
            code,
            message: message.to_string(),
        }
    }

    /// 400: the request cannot be understood or asks for what cannot be.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalidRequest", message)
    }

    /// 400: the query string asks for what cannot be.
    pub fn query(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalidQuery", message)
    }

    /// 500: the server's fault.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for ApiError {}

/// The body of every answer that reports an error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorInfo,
}

/// Inside [`ErrorBody`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorInfo {
    /// See [`ApiError::code`].
    pub code: String,
    /// See [`ApiError::message`].
    pub message: String,
}

impl From<ApiError> for ErrorInfo {
    fn from(error: ApiError) -> Self {
        Self {
            code: error.code.to_owned(),
            message: error.message,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        (status, Json(ErrorBody { error: self.into() })).into_response()
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let code = error.code();
        let status = match code {
            "invalidParameters" => StatusCode::BAD_REQUEST,
            "notFound" => StatusCode::NOT_FOUND,
            "invalidState" | "conflict" => StatusCode::CONFLICT,
            "timeout" => StatusCode::GATEWAY_TIMEOUT,
            "workerDied" | "noWorker" | "portsExhausted" | "descriptorsExhausted" | "memoryExhausted" | "tooMany" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, code, error)
    }
}
