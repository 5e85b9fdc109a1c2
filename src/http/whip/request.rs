//! What clients ask: where, who says so, and with which body.

use std::collections::HashMap;
use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use serde::de::DeserializeOwned;

use super::answer;
use super::problem::Problem;
use crate::http::admission::Admission;
use crate::http::error::ApiError;
use crate::http::extract::read;
use crate::http::listen::ToClient;
use crate::http::openapi::{Operation, Part, Schemas};
use crate::http::origin::is_from;
use crate::http::signalling::Source;
use crate::http::state::App;
use crate::sdp::OFFER_BYTES_MAX;

/// The type of offers and answers.
pub(super) const SDP: &str = "application/sdp";

/// The type of fragments.
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// The type of what players ask for beside their media.
const JSON: &str = "application/json";

/// A request, with everything that can be wrong with it still to be looked at: whatever it is, the answer is one that a page of another
/// origin can read.
pub(in crate::http) struct WhipRequest {
    headers: HeaderMap,
    source: Source,
    path: Result<HashMap<String, String>, ApiError>,
    body: Result<Bytes, ApiError>,
}

/// Where somebody publishes or watches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// A room, by its id or by a name.
    pub(super) room: String,
    /// A peer, by its name.
    pub(super) peer: Option<String>,
}

impl FromRequest<std::sync::Arc<App>> for WhipRequest {
    type Rejection = Infallible;

    async fn from_request(request: Request, app: &std::sync::Arc<App>) -> Result<Self, Infallible> {
        let (mut parts, body) = request.into_parts();
        let Ok(source) = Source::from_request_parts(&mut parts, app).await;
        let path = Path::from_request_parts(&mut parts, app).await;
        Ok(Self {
            source,
            path: path
                .map(|Path(path)| path)
                .map_err(|rejection| ApiError::invalid(rejection.body_text())),
            body: read(body, OFFER_BYTES_MAX).await,
            headers: parts.headers,
        })
    }
}

impl Part for WhipRequest {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.takes_text(body_type, schemas);
    }
}

/// The type of the body that a route takes: sessions begin with an offer, and what they are told later is JSON or a fragment.
fn body_type(method: &str, path: &str) -> Option<&'static str> {
    match method {
        "post" if path.contains("/sessions/") => Some(JSON),
        "post" => Some(SDP),
        "patch" => Some(FRAGMENT),
        _ => None,
    }
}

impl WhipRequest {
    /// The room, and the peer if the path names one.
    pub(super) fn place(&self) -> Result<Place, Problem> {
        Ok(Place {
            room: self.named("room")?.to_owned(),
            peer: self.named("peer").ok().map(str::to_owned),
        })
    }

    pub(super) fn named(&self, name: &str) -> Result<&str, Problem> {
        let path = self.path.as_ref().map_err(|error| Problem::from(error.clone()))?;
        let missing = || Problem::from(ApiError::invalid(format_args!("the path has no {name}")));
        path.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// What the body says in JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(self.body(JSON)?).map_err(|error| {
            let message = format!("the body is not the JSON that is expected here: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "invalidJson", message)
        })
    }

    /// Whether anything came with it.
    pub(super) fn has_body(&self) -> bool {
        !matches!(&self.body, Ok(body) if body.is_empty())
    }

    /// The body, if it is of this type.
    pub(super) fn body(&self, content_type: &'static str) -> Result<&[u8], Problem> {
        let said = self.text(header::CONTENT_TYPE).unwrap_or_default();
        let essence = said.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(content_type) {
            let message = format!("send the body with `content-type: {content_type}`");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "unsupportedMediaType", message));
        }
        let body = self.body.as_ref().map_err(|error| Problem::from(error.clone()))?;
        Ok(body)
    }

    /// Whether the client takes an answer in SDP; there is no other.
    pub(super) fn check_accepts_sdp(&self) -> Result<(), Problem> {
        let mut said = self.headers.get_all(header::ACCEPT).iter().peekable();
        if said.peek().is_none() {
            return Ok(());
        }
        let ranges = said
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        let mut essences = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
        if essences.any(|range| {
            ["*/*", "application/*", SDP]
                .iter()
                .any(|own| range.eq_ignore_ascii_case(own))
        }) {
            return Ok(());
        }
        let message = format!("the answer is {SDP}; leave out `accept`, or name it there");
        Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "notAcceptable", message))
    }

    /// Whether `If-Match` names what is now (RFC 9725 §4.3.3: `*`; some clients send the tag).
    pub(super) fn check_matches(&self, current: &HeaderValue) -> Result<(), Problem> {
        let mut said = self.headers.get_all(header::IF_MATCH).iter().peekable();
        if said.peek().is_none() {
            let message = "send `if-match: *` to restart ICE";
            return Err(Problem::new(
                StatusCode::PRECONDITION_REQUIRED,
                "preconditionRequired",
                message,
            ));
        }
        let mut tags = said.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        if tags.any(|tag| tag.trim_ascii() == b"*" || tag.trim_ascii() == current.as_bytes()) {
            return Ok(());
        }
        let message = "ICE has been restarted since; send `if-match: *`, or the last answer's `etag`";
        Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "preconditionFailed",
            message,
        ))
    }

    /// A browser asks whether its page may ask.
    pub(super) fn is_preflight(&self) -> bool {
        self.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The answer, which the page that asked may read if it is one that may ask.
    pub(super) fn finish(&self, app: &App, result: Result<Response, Problem>) -> Response {
        let mut response = result.unwrap_or_else(IntoResponse::into_response);
        response.extensions_mut().insert(ToClient);
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.headers.get(header::ORIGIN)
            && app.check_origin(self).is_ok()
        {
            answer::let_read(headers, origin);
        }
        response
    }

    fn text(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl App {
    /// What somebody may do here: as a client of rooms (RFC 9725 §4.7).
    pub(super) fn admits(&self, request: &WhipRequest) -> Result<Admission, Problem> {
        self.check_origin(request)?;
        let hint = "send the clients' token as `authorization: Bearer TOKEN`";
        let admitted = self.signalling.door().admit(&request.headers, hint);
        admitted.map_err(|refusal| {
            let is_guess = refusal.challenge.is_guess();
            let mut problem = Problem::from(refusal);
            problem.delay = is_guess.then(|| self.signalling.count_guess(request.source));
            problem
        })
    }

    /// Whether the request comes from no page, or from one that may.
    pub(super) fn check_origin(&self, request: &WhipRequest) -> Result<(), Problem> {
        if is_from(&request.headers, self.signalling.origins()) {
            return Ok(());
        }
        let message = "pages of this origin may not connect; name it in the setting http_origins if they may";
        Err(Problem::new(StatusCode::FORBIDDEN, "foreignOrigin", message))
    }
}
