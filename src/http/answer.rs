//! What several routes take and answer alike.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use weir_channel::message::Profile;

use super::error::ApiError;
use crate::Side;

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
    /// application that speaks with it.
    #[serde(default)]
    pub(super) side: PausingSide,
    #[serde(default)]
    pub(super) app_data: Value,
}

/// One of the two who may pause: what one has paused the other cannot resume.
#[derive(Clone, Copy, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum PausingSide {
    #[default]
    Local,
    Remote,
}

impl From<PausingSide> for Side {
    fn from(side: PausingSide) -> Self {
        match side {
            PausingSide::Local => Self::Local,
            PausingSide::Remote => Self::Remote,
        }
    }
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

/// A dump as JSON.
pub(super) fn shown_dump(dump: &impl Serialize) -> Result<Value, ApiError> {
    let mut dump = serde_json::to_value(dump).map_err(ApiError::internal)?;
    camel_case(&mut dump);
    Ok(dump)
}

/// Renames the members of all objects in `value`, from snake_case to camelCase.
pub(super) fn camel_case(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let renamed = std::mem::take(members).into_iter().map(|(name, mut value)| {
                // What applications keep with things is theirs, names included.
                if name != "app_data" && name != "appData" {
                    camel_case(&mut value);
                }
                (camel_case_name(&name), value)
            });
            *members = Map::from_iter(renamed);
        }
        Value::Array(items) => items.iter_mut().for_each(camel_case),
        _ => {}
    }
}

fn camel_case_name(name: &str) -> String {
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut chars = word.chars();
        out.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_renamed_wherever_they_are() {
        let mut value = json!({"app_data": {"as_it_is": 1}});
        camel_case(&mut value);
        assert_eq!(value, json!({"appData": {"as_it_is": 1}}));
        let mut value = json!({"rtcp_mux": [{"last_seq_out": 1, "plain": "left_alone"}], "": null});
        camel_case(&mut value);
        assert_eq!(
            value,
            json!({"rtcpMux": [{"lastSeqOut": 1, "plain": "left_alone"}], "": null})
        );
    }
}
