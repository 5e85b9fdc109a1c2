//! Secrets that open an interface.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use axum::http::{HeaderMap, header};
use zeroize::Zeroizing;

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

/// The token that a request has sent, once: `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
pub(super) fn sent(headers: &HeaderMap) -> Option<&[u8]> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return None;
    };
    let mut parts = value.as_bytes().splitn(2, |byte| *byte == b' ');
    let scheme = parts.next().unwrap_or_default();
    let token = parts.next().unwrap_or_default().trim_ascii();
    scheme.eq_ignore_ascii_case(b"bearer").then_some(token)
}

/// The tokens that a request for a WebSocket has offered as subprotocols, `bearer.TOKEN`.
pub(super) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offers = offers.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    offers.filter_map(|offer| offer.trim_ascii().strip_prefix(b"bearer."))
}

#[cfg(test)]
mod tests {
    use super::super::admission::Door;
    use super::*;

    const TOKEN: &str = "a-token-of-some-length";

    fn token() -> AccessToken {
        TOKEN.parse().unwrap()
    }

    #[test]
    fn only_the_token_itself_opens() {
        let own = token();
        let door = Door {
            token: Some(&own),
            keys: None,
        };
        let opens = |headers: &HeaderMap| door.admit(headers, "").is_ok();
        let opens_socket = |headers: &HeaderMap| door.admit_socket(headers, "").is_ok();
        let check = |values: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(opens(&headers), expected, "{values:?}");
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
        let offered = |values: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap());
            }
            assert_eq!(opens_socket(&headers), expected, "{values:?}");
            assert!(!opens(&headers), "only a WebSocket is opened so");
            headers.insert(header::AUTHORIZATION, bearer(TOKEN).parse().unwrap());
            assert!(opens_socket(&headers));
            headers.insert(header::AUTHORIZATION, bearer("wrong").parse().unwrap());
            assert!(!opens_socket(&headers), "one that is wrong is not made up for");
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
