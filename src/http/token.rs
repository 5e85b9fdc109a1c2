//! The token that whoever calls over TCP must know.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// A shorter token could be guessed. 16 letters and digits drawn at random are 95 bits.
const LEN_MIN: usize = 16;

/// Longer than anybody needs, and short enough for a request head.
const LEN_MAX: usize = 1_024;

/// A secret that opens the interface: 16 to 1,024 visible ASCII characters. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

impl AccessToken {
    /// Whether somebody knows it. How long the answer takes tells nothing about where the two differ, only whether their
    /// lengths do.
    pub fn is(&self, presented: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differences = own.iter().zip(presented);
        let differences = differences.fold(0, |all, (own, other)| black_box(all | (own ^ other)));
        own.len() == presented.len() && black_box(differences) == 0
    }

    /// Whether a request carries it, once: `Authorization: Bearer TOKEN` (RFC 6750 §2.1), or, because browsers can send no
    /// such header with a WebSocket, the subprotocol `bearer.TOKEN`.
    pub fn opens(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        match (given.next(), given.next()) {
            (Some(value), None) => {
                let mut parts = value.as_bytes().splitn(2, |byte| *byte == b' ');
                let scheme = parts.next().unwrap_or_default();
                let token = parts.next().unwrap_or_default().trim_ascii();
                scheme.eq_ignore_ascii_case(b"bearer") && self.is(token)
            }
            (None, _) => {
                let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
                let mut offers = offers.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
                offers.any(|offer| {
                    offer
                        .trim_ascii()
                        .strip_prefix(b"bearer.")
                        .is_some_and(|token| self.is(token))
                })
            }
            _ => false,
        }
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
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

/// `app`, for those only who know the token; everybody else gets 401, whatever they ask for.
pub fn guarded(app: Router, token: AccessToken) -> Router {
    app.layer(middleware::from_fn(move |request: Request, next: Next| {
        let open = token.opens(request.headers());
        async move {
            match open {
                true => next.run(request).await,
                false => unauthorized(),
            }
        }
    }))
}

fn unauthorized() -> Response {
    let message = "send the server's token as `authorization: Bearer TOKEN`";
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
            assert_eq!(token().opens(&headers), opens, "{values:?}");
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
