//! What clients are answered: the SDP, the headers, and how the OpenAPI document describes both.

use std::str::FromStr;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::problem::ProblemBody;
use super::request::{FRAGMENT, SDP};
use crate::WebRtcTransport;
use crate::http::openapi::{Answer as Described, Operation, Schemas};
use crate::sdp::{Answer, AnsweredMedia, Offer};
use crate::server::random;

/// Methods of the two kinds of URLs together. A client trickles only if it finds PATCH here.
const METHODS: HeaderValue = HeaderValue::from_static("OPTIONS, GET, HEAD, POST, PATCH, DELETE");

/// What pages may send. One client sends a tag as `etag`.
const SENT_HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, if-match, etag");

/// What pages may read.
const SHOWN_HEADERS: HeaderValue =
    HeaderValue::from_static("location, etag, link, accept-post, access-control-allow-methods, retry-after");

/// A STUN or TURN server that clients are told of (RFC 9725 §4.6): its URL and, for TURN, a user name and a credential. As text these
/// stand one after the other with blanks between: `turn:turn.example.org?transport=udp alice secret`.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    url: String,
    user: Option<(String, String)>,
}

impl std::fmt::Debug for IceServer {
    /// Keeps the credential to itself.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.url.fmt(f)
    }
}

impl FromStr for IceServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const TEXT_BYTES_MAX: usize = 512;
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        // Clients take the header apart at these, wherever they stand.
        let is_safe = |byte: u8| byte.is_ascii_graphic() && !b"<>\",;\\".contains(&byte);
        if text.len() > TEXT_BYTES_MAX || !words.iter().all(|word| word.bytes().all(is_safe)) {
            return Err(format!(
                "an ICE server has at most {TEXT_BYTES_MAX} visible ASCII characters, and none of < > \" , ; \\"
            ));
        }
        let has_scheme = |schemes: [&str; 2]| {
            let scheme = words
                .first()
                .and_then(|url| url.split_once(':'))
                .filter(|(_, rest)| !rest.is_empty());
            scheme.is_some_and(|(scheme, _)| schemes.contains(&scheme))
        };
        match words.as_slice() {
            [url] if has_scheme(["stun", "stuns"]) => Ok(Self {
                url: (*url).to_owned(),
                user: None,
            }),
            [url, name, credential] if has_scheme(["turn", "turns"]) => Ok(Self {
                url: (*url).to_owned(),
                user: Some(((*name).to_owned(), (*credential).to_owned())),
            }),
            _ => Err(format!(
                "{:?} is not an ICE server; write stun:HOST:PORT, or turn:HOST:PORT?transport=udp NAME CREDENTIAL",
                words.first().copied().unwrap_or_default()
            )),
        }
    }
}

impl IceServer {
    fn link(&self) -> String {
        let Self { url, user } = self;
        match user {
            None => format!("<{url}>; rel=\"ice-server\""),
            Some((name, credential)) => format!(
                "<{url}>; rel=\"ice-server\"; username=\"{name}\"; credential=\"{credential}\"; credential-type=\"password\""
            ),
        }
    }
}

/// One header for each server: a client takes them apart at commas.
pub(super) fn add_links(headers: &mut HeaderMap, servers: &[IceServer]) {
    for server in servers {
        if let Ok(mut link) = HeaderValue::try_from(server.link()) {
            link.set_sensitive(server.user.is_some());
            headers.append(header::LINK, link);
        }
    }
}

/// What OPTIONS tells.
pub(super) fn add_capabilities(headers: &mut HeaderMap) {
    headers.insert("accept-post", HeaderValue::from_static(SDP));
    headers.insert(header::ALLOW, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, SENT_HEADERS);
    // Browsers keep what they have been told for two hours at most.
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
}

/// Lets the page that has asked read the answer, if it comes from where it may.
pub(super) fn let_read(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, SHOWN_HEADERS);
}

/// A strong tag of the ICE session (RFC 9725 §4.3.1): the server's user name in it, which each restart changes.
pub(super) fn entity_tag(transport: &WebRtcTransport) -> HeaderValue {
    // It has letters and digits only.
    let text = format!("\"{}\"", transport.ice_parameters().username_fragment);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"-\""))
}

/// The answer to an offer.
pub(super) fn write(offer: &Offer, transport: &WebRtcTransport, media: Vec<Option<AnsweredMedia>>) -> String {
    let answer = Answer {
        // RFC 9429 §5.2.1: 63 bits.
        session: random() >> 1,
        ice: transport.ice_parameters(),
        candidates: transport.ice_candidates(),
        dtls: transport.dtls_local_parameters(),
        media,
    };
    answer.write(offer)
}

/// Declares what a handler answers: a response, and what the document says of it.
macro_rules! answers {
    ($($(#[$doc:meta])+ $name:ident: $($status:ident $type:expr),+;)+) => {$(
        $(#[$doc])+
        pub(in crate::http) struct $name(pub(super) Response);

        impl IntoResponse for $name {
            fn into_response(self) -> Response {
                self.0
            }
        }

        impl Described for $name {
            fn describe(operation: &mut Operation, schemas: &mut Schemas) {
                $(operation.answer_as(StatusCode::$status, $type, json!({"type": "string"}));)+
                operation.fails_with::<ProblemBody>("application/problem+json", schemas);
            }
        }
    )+};
}

answers! {
    /// The answer to an offer.
    SdpCreated: CREATED Some(SDP);
    /// Nothing, or new ICE parameters.
    Patched: NO_CONTENT None, OK Some(FRAGMENT);
    /// No content.
    Emptiness: OK None;
    /// No content, but a type.
    Discovery: OK Some(SDP);
    /// Where a stream of events is.
    EventsCreated: CREATED None;
    /// Events.
    EventsFollowed: OK Some("text/event-stream");
}
