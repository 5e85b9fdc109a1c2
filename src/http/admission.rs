//! Who is let in, and for what: what a request has shown, and what that permits.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::claims::Claims;
use super::error::ApiError;
use super::guesses::AnswerAfter;
use super::token::{AccessToken, offered, sent};
use super::token_keys::{TokenError, TokenKeys};
use crate::protocol::Grants;
use crate::server::wall_clock_ms;

/// A request's tokens that are looked at. Who sends more of them is guessing.
const TOKENS_MAX: usize = 4;

/// What opens a door: a token that is always the same, or one that is signed with a key. Without either it is open.
#[derive(Clone, Copy, Default)]
pub(super) struct Door<'a> {
    pub(super) token: Option<&'a AccessToken>,
    pub(super) keys: Option<&'a TokenKeys>,
}

/// What somebody may do who has been let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// Everything that is behind the door.
    All,
    /// What an access token says.
    Within(Box<Claims>),
}

/// Why somebody is not let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) error: ApiError,
    /// What to send, and what was wrong with what was sent (RFC 6750 §3).
    pub(super) challenge: Challenge,
}

/// The `WWW-Authenticate` of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Challenge {
    /// Nothing was sent.
    Nothing,
    /// Something wrong was sent; it may be a guess, or a token that is not accepted for this reason.
    Invalid(Option<TokenError>),
    /// The token does not permit this.
    Beyond,
}

impl Challenge {
    /// Whether somebody may be guessing.
    pub(super) fn is_guess(self) -> bool {
        match self {
            Self::Invalid(error) => error.is_none_or(TokenError::is_guess),
            Self::Nothing | Self::Beyond => false,
        }
    }

    pub(super) fn header(self) -> HeaderValue {
        match self {
            Self::Nothing => HeaderValue::from_static("Bearer"),
            Self::Invalid(None) => HeaderValue::from_static("Bearer error=\"invalid_token\""),
            Self::Invalid(Some(error)) => {
                // Its sentences have no quotes.
                let text = format!("Bearer error=\"invalid_token\", error_description=\"{error}\"");
                HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer error=\"invalid_token\""))
            }
            Self::Beyond => HeaderValue::from_static("Bearer error=\"insufficient_scope\""),
        }
    }
}

impl Door<'_> {
    /// Whether everybody may come in.
    pub(super) fn is_open(&self) -> bool {
        self.token.is_none() && self.keys.is_none()
    }

    /// What a request may do that has sent one token as `Authorization: Bearer TOKEN` (RFC 6750 §2.1). `hint`: what to send.
    pub(super) fn admit(&self, headers: &HeaderMap, hint: &str) -> Result<Admission, Refusal> {
        let tokens = sent(headers).into_iter();
        self.admit_one_of(tokens, headers.contains_key(header::AUTHORIZATION), hint)
    }

    /// The same for a WebSocket. Browsers can send no such header with one; they send the subprotocol `bearer.TOKEN`.
    pub(super) fn admit_socket(&self, headers: &HeaderMap, hint: &str) -> Result<Admission, Refusal> {
        if headers.contains_key(header::AUTHORIZATION) {
            return self.admit(headers, hint);
        }
        let mut tokens = offered(headers).peekable();
        let is_sent = tokens.peek().is_some();
        self.admit_one_of(tokens, is_sent, hint)
    }

    fn admit_one_of<'h>(
        &self,
        tokens: impl Iterator<Item = &'h [u8]>,
        is_sent: bool,
        hint: &str,
    ) -> Result<Admission, Refusal> {
        if self.is_open() {
            return Ok(Admission::All);
        }
        let mut wrong = None;
        for token in tokens.take(TOKENS_MAX) {
            if self.token.is_some_and(|own| own.is(token)) {
                return Ok(Admission::All);
            }
            match self.keys.map(|keys| keys.verify(token, wall_clock_ms() / 1_000)) {
                Some(Ok(claims)) => return Ok(Admission::Within(Box::new(claims))),
                Some(Err(error)) => wrong = wrong.or(Some(error)),
                None => {}
            }
        }
        // Beside a static token it may have been meant as that; then it is not known what is wrong with it.
        let wrong = wrong.filter(|error| self.token.is_none() || !error.is_guess());
        let challenge = match is_sent {
            false => Challenge::Nothing,
            true => Challenge::Invalid(wrong),
        };
        let message = match wrong {
            Some(error) => error.to_string(),
            None => hint.to_owned(),
        };
        Err(Refusal {
            error: ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message),
            challenge,
        })
    }
}

impl Admission {
    /// Whether the bearer may command the server.
    pub(super) fn check_admin(&self) -> Result<(), Refusal> {
        match self {
            Self::All => Ok(()),
            Self::Within(claims) if !claims.admin => Err(beyond("the access token is not for operators (admin)")),
            // Commands are not confined to rooms.
            Self::Within(claims) if !claims.room.is_empty() && !claims.room.is_all() => Err(beyond(
                "the access token is for some rooms only (room), and operators command the whole server",
            )),
            Self::Within(_) => Ok(()),
        }
    }

    /// Whether the bearer may be in a room that is called so in the URL.
    pub(super) fn check_room(&self, room: &str) -> Result<(), Refusal> {
        match self {
            Self::Within(claims) if !claims.room.has(room) => Err(beyond(&format!(
                "the access token is not for the room {room:.64} (room)"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the bearer may be the room's peer of this name.
    pub(super) fn check_peer(&self, name: &str) -> Result<(), Refusal> {
        match self.peer() {
            Some(own) if own != name => Err(beyond("the access token is for a peer of another name (peer)")),
            _ => Ok(()),
        }
    }

    /// The name that the bearer must have.
    pub(super) fn peer(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Within(claims) => claims.peer.as_deref(),
        }
    }

    /// What the bearer may do in the room.
    pub(super) fn grants(&self) -> Grants {
        match self {
            Self::All => Grants::ALL,
            Self::Within(claims) => Grants {
                publish: claims.publish,
                subscribe: claims.subscribe,
            },
        }
    }

    pub(super) fn check_publish(&self) -> Result<(), Refusal> {
        match self.grants().publish {
            true => Ok(()),
            false => Err(beyond("the access token does not permit sending (publish)")),
        }
    }

    pub(super) fn check_subscribe(&self) -> Result<(), Refusal> {
        match self.grants().subscribe {
            true => Ok(()),
            false => Err(beyond("the access token does not permit receiving (subscribe)")),
        }
    }
}

/// 403: the token is good, and not for this.
fn beyond(message: &str) -> Refusal {
    Refusal {
        error: ApiError::new(StatusCode::FORBIDDEN, "insufficientScope", message),
        challenge: Challenge::Beyond,
    }
}

impl Refusal {
    /// The answer; `delay`: how long it is held back if it may be one to a guess.
    pub(super) fn into_response(self, delay: impl FnOnce() -> AnswerAfter) -> Response {
        let Self { error, challenge } = self;
        let mut response = error.into_response();
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge.header());
        if challenge.is_guess() {
            response.extensions_mut().insert(delay());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::claims::RoomClaim;

    fn within(claims: Claims) -> Admission {
        Admission::Within(Box::new(claims))
    }

    #[test]
    fn a_token_permits_what_it_says_and_nothing_else() {
        let nothing = within(Claims::default());
        let refused = [
            nothing.check_admin(),
            nothing.check_room("stage"),
            nothing.check_publish(),
            nothing.check_subscribe(),
        ];
        for refusal in refused {
            let refusal = refusal.unwrap_err();
            assert_eq!(refusal.error.status, StatusCode::FORBIDDEN);
            assert!(!refusal.challenge.is_guess());
            assert_eq!(refusal.challenge.header(), "Bearer error=\"insufficient_scope\"");
        }
        assert_eq!(nothing.check_peer("alice"), Ok(()), "any name");
        let alice = within(Claims {
            room: RoomClaim::One("stage".to_owned()),
            peer: Some("alice".to_owned()),
            publish: true,
            ..Claims::default()
        });
        assert!(
            alice.check_room("stage").is_ok() && alice.check_peer("alice").is_ok() && alice.check_publish().is_ok()
        );
        assert!(
            alice.check_room("7").is_err() && alice.check_peer("Alice").is_err() && alice.check_subscribe().is_err()
        );
        assert!(alice.check_admin().is_err());
        let everything = Admission::All;
        assert!(everything.check_admin().is_ok() && everything.check_peer("anybody").is_ok());
        assert_eq!(everything.grants(), Grants::ALL);
    }

    #[test]
    fn who_commands_the_server_commands_all_rooms() {
        let admin = |room: RoomClaim| {
            let claims = Claims {
                room,
                admin: true,
                ..Claims::default()
            };
            within(claims).check_admin().is_ok()
        };
        assert!(admin(RoomClaim::default()));
        assert!(admin(RoomClaim::One("*".to_owned())));
        assert!(!admin(RoomClaim::One("stage".to_owned())));
    }

    #[test]
    fn all_sentences_fit_into_a_header() {
        for error in [
            TokenError::TooLong,
            TokenError::Malformed,
            TokenError::Signature,
            TokenError::Claims,
            TokenError::NoExpiry,
            TokenError::LivesTooLong,
            TokenError::Expired,
            TokenError::NotYetValid,
        ] {
            let header = Challenge::Invalid(Some(error)).header();
            let text = header.to_str().unwrap();
            assert!(text.contains("error_description"), "{text}");
            // RFC 6750 §3.
            let description = text.split_once("description=\"").unwrap().1.trim_end_matches('"');
            assert!(
                description
                    .bytes()
                    .all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\')
            );
        }
    }
}
