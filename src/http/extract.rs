//! Reading requests: bodies, query strings and ids, with refusals that say where the fault is.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use axum::body::HttpBody as _;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;
use weir_channel::id::RoomId;

use super::error::ApiError;

/// Largest request body. RTP parameters with three encodings are about 2 KiB; the rest is for `appData`.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads an id that is written as a number, or as text with its digits: clients of mediasoup 3 know no ids but text.
pub(super) fn number_or_digits<'de, D, T>(reader: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Digits(String),
    }
    let refused = || D::Error::custom("an id is a whole number, or text with its digits");
    let digits = match Written::deserialize(reader).map_err(|_| refused())? {
        Written::Number(number) => number.to_string(),
        Written::Digits(digits) => digits,
    };
    // One way to write each: no sign, no space, no leading zero.
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    is_plain.then(|| digits.parse().ok()).flatten().ok_or_else(refused)
}

/// How such an id is described.
pub(super) fn number_or_digits_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]})
}

/// A JSON body. No body at all is read as `{}`, so that a pause needs none.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        // A body that says beforehand that it is too large need not be sent.
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(too_large(BODY_BYTES_MAX));
        }
        let bytes = read(body, BODY_BYTES_MAX).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        require_json(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

/// A body of at most so many bytes.
pub(super) async fn read(body: axum::body::Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let collected = timeout(BODY_TIMEOUT, Limited::new(body, bytes_max).collect())
        .await
        .map_err(|_| {
            let message = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "bodyTimeout", message)
        })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Err(error) => Err(ApiError::invalid(format_args!(
            "the body did not arrive whole: {error}"
        ))),
    }
}

fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("the body is larger than {} KiB", bytes_max / 1024);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "bodyTooLarge", message)
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next()).map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupportedMediaType",
        "send the body with `content-type: application/json`",
    ))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde reads a struct from an array too, in the order of its fields; that order is nobody's business.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let message = "the body must be a JSON object, not an array";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "invalidBody", message));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let value = parsed.map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // serde_json's own classes count some values of the wrong type as syntax errors.
        if serde_json::from_slice::<IgnoredAny>(bytes).is_err() {
            malformed(format_args!("the body is not JSON: {inner}"))
        } else if path == "." {
            ApiError::new(StatusCode::BAD_REQUEST, "invalidBody", inner)
        } else {
            ApiError::new(StatusCode::BAD_REQUEST, "invalidBody", format_args!("{path}: {inner}"))
        }
    })?;
    deserializer
        .end()
        .map_err(|error| malformed(format_args!("after the JSON value: {error}")))?;
    Ok(value)
}

fn malformed(message: impl Display) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "malformedJson", message)
}

/// The query string. Names that `T` does not know are refused, when `T` refuses them.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalidQuery",
                innermost(&rejection),
            )),
        }
    }
}

/// The cause itself, without the layers that only say that something failed.
fn innermost(error: &dyn std::error::Error) -> &dyn std::error::Error {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// The id in the path.
pub(super) struct Id<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Id<T>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
        parse_id(&text).map(Self)
    }
}

/// Reads an id of a path.
fn parse_id<T: FromStr<Err: Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error| {
        let shown: String = text.chars().take(40).collect();
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalidId",
            format_args!("{shown:?} is not an id: {error}"),
        )
    })
}

/// The room and the name in the path.
pub(super) struct PeerPath {
    pub(super) room: RoomId,
    pub(super) name: String,
}

impl<S: Send + Sync> FromRequestParts<S> for PeerPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((room, name)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
        Ok(Self {
            room: parse_id(&room)?,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[expect(dead_code, reason = "only what is refused matters here")]
    struct Sample {
        room_name: String,
        #[serde(default)]
        sizes: Vec<Size>,
        #[serde(default)]
        app_data: serde_json::Value,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what is refused matters here")]
    struct Size {
        wide: u8,
    }

    #[test]
    fn refusals_say_where() {
        let check = |body: &str, code: &str, needles: &[&str]| {
            let error = parse::<Sample>(body.as_bytes()).unwrap_err();
            assert_eq!(
                (error.status, error.code),
                (StatusCode::BAD_REQUEST, code),
                "{body}: {error}"
            );
            for needle in needles {
                assert!(error.message.contains(needle), "{body}: {error}");
            }
        };
        check("{", "malformedJson", &["line 1 column 1"]);
        check("{\n  \"roomName\": nope}", "malformedJson", &["line 2 column 16"]);
        check(
            "{\"roomName\":\"a\"} x",
            "malformedJson",
            &["after the JSON value", "line 1 column 18"],
        );
        check("\u{1}", "malformedJson", &["line 1 column 1"]);
        check("{}", "invalidBody", &["missing field `roomName`"]);
        check("[\"a\"]", "invalidBody", &["JSON object"]);
        check("7", "invalidBody", &["line 1 column 1"]);
        check(
            "{\"roomName\":\"a\",\"colour\":1}",
            "invalidBody",
            &["unknown field `colour`", "`roomName`"],
        );
        check(
            "{\"roomName\":\"a\",\"sizes\":[{\"wide\":1},{\"wide\":300}]}",
            "invalidBody",
            &["sizes[1].wide", "300", "u8"],
        );
        check(
            "{\"roomName\":\"a\",\"roomName\":\"b\"}",
            "invalidBody",
            &["duplicate field `roomName`"],
        );
        let deep = format!("{{\"appData\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
        check(&deep, "invalidBody", &["recursion limit"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let body = axum::body::Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read(body, BODY_BYTES_MAX).await.unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::REQUEST_TIMEOUT, "bodyTimeout"));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
        let error = read(axum::body::Body::from_stream(broken), BODY_BYTES_MAX)
            .await
            .unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::BAD_REQUEST, "invalidRequest"));
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            let _ = parse::<Sample>(&bytes);
        });
    }
}
