//! What a client is told when it does not get what it asked for: problem details (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::Error;
use crate::http::admission::{Challenge, Refusal};
use crate::http::error::ApiError;
use crate::http::guesses::AnswerAfter;
use crate::sdp::SdpError;

/// After which time somebody may try again who found no place.
const RETRY_AFTER_S: u32 = 5;

/// A refusal.
#[derive(Debug)]
pub(in crate::http) struct Problem {
    error: ApiError,
    /// In seconds, after which it may be different.
    pub(super) retry_after_s: Option<u32>,
    /// What was wrong with the token.
    challenge: Option<Challenge>,
    /// How long to wait with the answer to a wrong token.
    pub(super) delay: Option<AnswerAfter>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl std::fmt::Display) -> Self {
        ApiError::new(status, code, message).into()
    }
}

/// Problem details (RFC 9457).
#[derive(Serialize, JsonSchema)]
pub(super) struct ProblemBody {
    /// Always `about:blank`: the status says what kind of problem it is.
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// The cause, in camelCase.
    code: &'static str,
    /// What is wrong and what to do, in a sentence.
    detail: String,
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let is_overload = error.status == StatusCode::SERVICE_UNAVAILABLE;
        Self {
            error,
            retry_after_s: is_overload.then_some(RETRY_AFTER_S),
            challenge: None,
            delay: None,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self {
            challenge: Some(refusal.challenge),
            ..refusal.error.into()
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        ApiError::from(error).into()
    }
}

impl From<SdpError> for Problem {
    fn from(error: SdpError) -> Self {
        match error {
            SdpError::Malformed(message) => Self::new(StatusCode::BAD_REQUEST, "invalidSdp", message),
            SdpError::Unsupported(message) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unsupportedOffer", message),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let ApiError { status, code, message } = self.error;
        let body = ProblemBody {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code,
            detail: message,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge.header());
        }
        if let Some(delay) = self.delay {
            response.extensions_mut().insert(delay);
        }
        response
    }
}
