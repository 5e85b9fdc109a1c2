//! A client's WebSocket: how a request becomes one, and how messages leave on it.
//!
//! A long message leaves in frames of bounded size (RFC 6455 §5.4), so that a connection never needs, nor keeps, a buffer of a
//! message's size, and so that what many clients are told need not be copied for each of them.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, Utf8Bytes};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::warn;

use super::SUBPROTOCOL;
use super::text::Text;
use crate::http::error::ApiError;

/// How much of what a client sends is read at once; tungstenite's own default is 128 KiB, which each connection would keep. A
/// larger message has a buffer of its size, for as long as it arrives.
const READ_BYTES: usize = 4 * 1024;

/// The longest frame that is sent. tungstenite keeps a buffer for the longest one that a connection has had.
const FRAME_BYTES: usize = 8 * 1024;

/// A request to go on as a WebSocket.
pub(in crate::http) struct Upgrade {
    key: HeaderValue,
    offers_subprotocol: bool,
    on_upgrade: OnUpgrade,
}

/// What a request has of a WebSocket's, or why it is none.
pub(in crate::http) type MaybeUpgrade = Result<Upgrade, ApiError>;

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    /// What a client's handshake must have (RFC 6455 §4.2.1).
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let headers = &parts.headers;
        if parts.method != Method::GET {
            return Err(ApiError::invalid("a WebSocket begins with GET"));
        }
        if !names(headers, header::CONNECTION, "upgrade") || !names(headers, header::UPGRADE, "websocket") {
            let message = "a WebSocket needs `connection: upgrade` and `upgrade: websocket`";
            return Err(ApiError::invalid(message));
        }
        if headers
            .get(header::SEC_WEBSOCKET_VERSION)
            .is_none_or(|version| version != "13")
        {
            return Err(ApiError::invalid("a WebSocket needs `sec-websocket-version: 13`"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
        let key = key.ok_or_else(|| ApiError::invalid("a WebSocket needs `sec-websocket-key`"))?;
        let offers_subprotocol = names(headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        let on_upgrade = parts.extensions.remove();
        let on_upgrade = on_upgrade.ok_or_else(|| {
            let message = "this connection cannot become a WebSocket: it is not HTTP/1.1";
            ApiError::new(StatusCode::UPGRADE_REQUIRED, "invalidRequest", message)
        })?;
        Ok(Self {
            key,
            offers_subprotocol,
            on_upgrade,
        })
    }
}

/// Whether a header, which is a list (RFC 9110 §5.6.1), has this word.
fn names(headers: &HeaderMap, header: HeaderName, word: &str) -> bool {
    let lines = headers.get_all(header).into_iter();
    let mut words = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.any(|each| each.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

impl Upgrade {
    /// The answer, after which the WebSocket is served.
    pub(super) fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        message_bytes_max: usize,
        serve: impl FnOnce(WebSocket) -> F + Send + 'static,
    ) -> Response {
        let accept = derive_accept_key(self.key.as_bytes());
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        // Base64, which is always a header's value.
        if let Ok(accept) = accept.try_into() {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if self.offers_subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        tokio::spawn(async move {
            match self.on_upgrade.await {
                Ok(upgraded) => serve(WebSocket::new(upgraded, message_bytes_max).await).await,
                Err(error) => warn!(%error, "a client's connection did not become a WebSocket"),
            }
        });
        response
    }
}

/// A WebSocket. When a future of one of its methods is dropped before its end, a message may be broken off; then nothing can be
/// sent any more but its end.
pub(super) struct WebSocket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    /// Between the first and the last frame of a message.
    is_in_message: bool,
}

impl WebSocket {
    async fn new(upgraded: Upgraded, message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            // Frames are sent one by one.
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        Self {
            stream,
            is_in_message: false,
        }
    }

    /// The next message; `None` at the end.
    pub(super) async fn receive(&mut self) -> Option<Result<Message, Error>> {
        self.stream.next().await
    }

    pub(super) async fn send(&mut self, text: Text) -> Result<(), Error> {
        if self.is_in_message {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
        }
        self.is_in_message = true;
        let mut opcode = OpCode::Data(Data::Text);
        let mut frames = text.pieces(FRAME_BYTES).peekable();
        while let Some(piece) = frames.next() {
            let frame = Frame::message(piece, opcode, frames.peek().is_none());
            self.stream.send(Message::Frame(frame)).await?;
            opcode = OpCode::Data(Data::Continue);
        }
        self.is_in_message = false;
        Ok(())
    }

    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        self.stream.send(Message::Ping(Vec::new().into())).await
    }

    /// Says that this is the end.
    pub(super) async fn say_end(&mut self, code: u16, reason: &'static str) -> Result<(), Error> {
        let frame = CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::from_static(reason),
        };
        self.stream.send(Message::Close(Some(frame))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_their_words_whatever_their_case_and_nothing_else() {
        let headers = |lines: &[&str]| {
            let lines = lines.iter().map(|line| (header::CONNECTION, line.parse().unwrap()));
            lines.collect::<HeaderMap>()
        };
        for (lines, expected) in [
            (&["upgrade"][..], true),
            (&["keep-alive, Upgrade"], true),
            (&["keep-alive", "UPGRADE ,x"], true),
            (&["upgraded"], false),
            (&["not upgrade"], false),
            (&[], false),
        ] {
            assert_eq!(
                names(&headers(lines), header::CONNECTION, "upgrade"),
                expected,
                "{lines:?}"
            );
        }
    }
}
