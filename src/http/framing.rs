//! Requests whose end is not clear (RFC 9112 §6). Two servers in a row that disagree about it let a client smuggle a request
//! past the first one.
//!
//! hyper refuses lengths that contradict each other, lengths that are no numbers, and bodies whose last coding is not
//! `chunked`. It does not refuse a `Content-Length` beside `Transfer-Encoding`, and hides it from the service. So the lines
//! that begin with `content-length:` are counted as they come, and compared with those that requests show.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// What every such line begins with. Blanks before the colon, or the line, are refused by hyper.
const LINE: &[u8] = b"\ncontent-length:";

/// Counts the lines in a connection's bytes that begin with `content-length:`.
#[derive(Debug, Default)]
pub(super) struct LengthLines {
    seen: Arc<AtomicU64>,
    /// How much of [`LINE`] the last bytes are.
    matched: usize,
}

impl LengthLines {
    /// For whom the requests are shown.
    pub(super) fn checker(&self) -> Framing {
        Framing {
            seen: Arc::clone(&self.seen),
            shown: AtomicU64::new(0),
        }
    }

    /// The next bytes.
    pub(super) fn look(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.matched = match byte.to_ascii_lowercase() {
                byte if byte == LINE[self.matched] => self.matched + 1,
                // No other beginning of the line is inside it.
                b'\n' => 1,
                _ => 0,
            };
            if self.matched == LINE.len() {
                self.matched = 0;
                self.seen.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Compares a connection's requests with what was counted.
#[derive(Debug)]
pub(super) struct Framing {
    seen: Arc<AtomicU64>,
    shown: AtomicU64,
}

impl Framing {
    /// Looks at the next request; `Some`: why its end is not clear.
    ///
    /// A line counts wherever it is: in the body or the trailer of this request or of any earlier one of the connection, too, and in
    /// a request that has come before this one is looked at. From then on requests with `chunked` are refused without need. That
    /// closes the connection, and the client has to send it again on another one. What must be refused always is, because each
    /// line that a request shows has been counted.
    pub(super) fn refuses(&self, headers: &HeaderMap) -> Option<Response> {
        let mut refusal = self.fault(headers)?.into_response();
        // What follows on the connection may be a part of this one.
        let close = HeaderValue::from_static("close");
        refusal.headers_mut().insert(header::CONNECTION, close);
        Some(refusal)
    }

    fn fault(&self, headers: &HeaderMap) -> Option<ApiError> {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let Some(coding) = codings.next() else {
            let shown = headers.get_all(header::CONTENT_LENGTH).iter().count() as u64;
            self.shown.fetch_add(shown, Ordering::Relaxed);
            return None;
        };
        if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            let message = "the only transfer coding that is understood is `chunked`, once (RFC 9112 §6.1)";
            return Some(ApiError::new(StatusCode::NOT_IMPLEMENTED, "unknownCoding", message));
        }
        if self.seen.load(Ordering::Relaxed) > self.shown.load(Ordering::Relaxed) {
            let message = "a request has either Content-Length or Transfer-Encoding (RFC 9112 §6.3)";
            return Some(ApiError::new(StatusCode::BAD_REQUEST, "ambiguousLength", message));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_however_they_come() {
        let count = |parts: &[&[u8]]| {
            let mut lines = LengthLines::default();
            parts.iter().for_each(|part| lines.look(part));
            lines.seen.load(Ordering::Relaxed)
        };
        assert_eq!(
            count(&[b"POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length:5\r\n"]),
            2
        );
        assert_eq!(count(&[b"\r\n\ncont", b"ent-len", b"gth: 5\n\n\nCONTENT-LENGTH:"]), 2);
        assert_eq!(
            count(&[b"content-length: 5\r\nx-content-length: 5\r\ncontent-lengths: 5\r\n"]),
            0
        );
    }

    #[test]
    fn a_length_beside_chunked_is_found_wherever_it_stands_in_a_row() {
        let mut lines = LengthLines::default();
        let framing = lines.checker();
        let headers = |name: header::HeaderName, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
        let chunked = headers(header::TRANSFER_ENCODING, "chunked");
        let length = headers(header::CONTENT_LENGTH, "5");
        let refused = |headers: &HeaderMap| framing.fault(headers).map(|error| error.code);
        assert_eq!(refused(&chunked), None);
        lines.look(b"GET\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(refused(&length), None);
        assert_eq!(refused(&chunked), None);
        assert_eq!(
            refused(&headers(header::TRANSFER_ENCODING, "gzip, chunked")),
            Some("unknownCoding")
        );
        lines.look(b"GET\r\nContent-Length: 5\r\n\r\nPOST\r\ncontent-length: 3\r\n\r\n");
        assert_eq!(refused(&length), None);
        assert_eq!(refused(&chunked), Some("ambiguousLength"));
    }
}
