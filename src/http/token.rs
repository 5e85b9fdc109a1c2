//! Secrets that open an interface.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use zeroize::Zeroizing;

use super::error::ApiError;

/// A shorter token could be guessed. 16 letters and digits drawn at random are 95 bits.
const LEN_MIN: usize = 16;

/// Longer than anybody needs, and short enough for a request head.
const LEN_MAX: usize = 1_024;

/// A secret that opens the interface: 16 to 1,024 visible ASCII characters. Its `Debug` does not show it, and its memory is wiped
/// when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// Whether somebody knows it. How long the answer takes tells nothing about where the two differ, only whether their
    /// lengths do.
    pub fn is(&self, presented: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differences = own.iter().zip(presented);
        let differences = differences.fold(0, |all, (own, other)| black_box(all | (own ^ other)));
        own.len() == presented.len() && black_box(differences) == 0
    }

    /// Whether a request carries it, once: `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
    pub fn opens(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return false;
        };
        let mut parts = value.as_bytes().splitn(2, |byte| *byte == b' ');
        let scheme = parts.next().unwrap_or_default();
        let token = parts.next().unwrap_or_default().trim_ascii();
        scheme.eq_ignore_ascii_case(b"bearer") && self.is(token)
    }

    /// Whether a request for a WebSocket carries it: as [`AccessToken::opens`] says or, because browsers can send no such
    /// header with one, as the subprotocol `bearer.TOKEN`.
    pub fn opens_socket(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(header::AUTHORIZATION) {
            return self.opens(headers);
        }
        let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let mut offers = offers.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        offers.any(|offer| {
            let token = offer.trim_ascii().strip_prefix(b"bearer.");
            token.is_some_and(|token| self.is(token))
        })
    }
}

impl FromStr for AccessToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token has visible ASCII characters only, no blanks".to_owned());
        }
        if !(LEN_MIN..=LEN_MAX).contains(&text.len()) {
            return Err(format!(
                "a token has {LEN_MIN} to {LEN_MAX} characters, not {}",
                text.len()
            ));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

/// Whether a request carries a token at all, the right one or another.
pub(super) fn has_token(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offers = offers.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    headers.contains_key(header::AUTHORIZATION) || offers.any(|offer| offer.trim_ascii().starts_with(b"bearer."))
}

/// 401, with what to send.
pub(super) fn unauthorized(message: &str) -> Response {
    let mut response = ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response();
    let headers = response.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a-token-of-some-length";

    fn token() -> AccessToken {
        TOKEN.parse().unwrap()
    }

    #[test]
    fn only_the_token_itself_opens() {
        let check = |values: &[&str], opens: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(token().opens(&headers), opens, "{values:?}");
        };
        let bearer = |token: &str| format!("Bearer {token}");
        check(&[&bearer(TOKEN)], true);
        check(&[&format!("bearer  {TOKEN}")], true);
        check(&[], false);
        check(&[TOKEN], false);
        check(&["Bearer"], false);
        check(&["Bearer "], false);
        check(&[&format!("Basic {TOKEN}")], false);
        check(&[&bearer(&TOKEN[1..])], false);
        check(&[&bearer(&format!("{TOKEN}x"))], false);
        check(&[&bearer(&TOKEN.to_uppercase())], false);
        check(&[&bearer(TOKEN), &bearer(TOKEN)], false);
        let offered = |values: &[&str], opens: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap());
            }
            assert_eq!(token().opens_socket(&headers), opens, "{values:?}");
            assert!(!token().opens(&headers), "only a WebSocket is opened so");
            headers.insert(header::AUTHORIZATION, bearer(TOKEN).parse().unwrap());
            assert!(token().opens_socket(&headers));
            headers.insert(header::AUTHORIZATION, bearer("wrong").parse().unwrap());
            assert!(!token().opens_socket(&headers), "one that is wrong is not made up for");
        };
        offered(&["protoo", &format!("more, bearer.{TOKEN}")], true);
        offered(&[TOKEN], false);
        offered(&["bearer."], false);
        offered(&[&format!("bearer.{TOKEN}x")], false);
        for index in 0..TOKEN.len() {
            let mut wrong = TOKEN.as_bytes().to_vec();
            wrong[index] ^= 1;
            assert!(!token().is(&wrong));
        }
    }

    #[test]
    fn a_token_that_could_be_guessed_or_sent_wrongly_is_refused() {
        for text in [
            "",
            "short",
            "with a blank in it, long",
            "späte Änderung hier",
            &"x".repeat(1_025),
        ] {
            assert!(text.parse::<AccessToken>().is_err(), "{text}");
        }
        assert!("x".repeat(16).parse::<AccessToken>().is_ok());
        assert!(!format!("{:?}", token()).contains(TOKEN));
    }
}
