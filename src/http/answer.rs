//! What several routes take and answer alike.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::message::Profile;

use super::error::ApiError;
use crate::Side;

/// 200 with JSON, or a refusal.
pub(super) type Reply<T> = Result<Json<T>, ApiError>;

/// An empty body.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A body with nothing but the app data for the event.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AppData {
    #[serde(default)]
    pub(super) app_data: Value,
}

/// The side that pauses or resumes, and the app data for the event.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pause {
    /// `local` (the default): the application pauses or resumes. `remote`: the peer's client does, through an
    /// application that speaks with it. What one side has paused the other cannot resume.
    #[serde(default)]
    pub(super) side: Side,
    #[serde(default)]
    pub(super) app_data: Value,
}

/// `{"profile":"low"}`
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreferredProfile {
    pub(super) profile: Profile,
}

/// 201, where the new thing is, and what it is.
pub(super) struct Created<T>(pub(super) String, pub(super) T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let Self(location, view) = self;
        let mut response = (StatusCode::CREATED, Json(view)).into_response();
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// `{"id":7,"closed":true}`
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Closed{T}")]
pub(super) struct Closed<T> {
    id: T,
    closed: bool,
}

impl<T> Closed<T> {
    pub(super) fn new(id: T) -> Self {
        Self { id, closed: true }
    }
}
