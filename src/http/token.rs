//! Tokens, and the guard of an interface that strangers can reach.

use std::fmt;
use std::hint::black_box;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::signalling;

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
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

/// Whom an interface that strangers can reach serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// What operators must know; `None`: there are none here.
    pub operators: Option<AccessToken>,
    /// Where clients of rooms may come from.
    pub clients: ClientsFrom,
}

/// Where clients of rooms may come from. What they must know besides is [`SignallingOptions::token`].
///
/// [`SignallingOptions::token`]: super::SignallingOptions::token
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientsFrom {
    /// From this machine and not through a proxy. For an address that only this machine reaches: a request must also be
    /// meant for such an address, and have no header by which proxies say for whom they ask.
    ThisMachine,
    /// From anywhere.
    Anywhere,
}

/// `app`, for those only whom the guard lets in. Clients of rooms need nothing that operators need, and the other way
/// round; everything that is not for clients is for operators, what does not exist included.
pub fn guarded(app: Router, guard: Guard) -> Router {
    let guard = Arc::new(guard);
    app.layer(middleware::from_fn(move |request: Request, next: Next| {
        let refusal = match is_for_clients(&request) {
            true => guard.refuses_client(request.headers()),
            false => guard.refuses_operator(request.headers()),
        };
        async move {
            match refusal {
                None => next.run(request).await,
                Some(refusal) => refusal,
            }
        }
    }))
}

/// Whether a request is answered by [`signalling::connect`], which looks after itself, whatever it answers.
fn is_for_clients(request: &Request) -> bool {
    // What the router has found, not what the path looks like to somebody else.
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    request.method() == Method::GET && route == Some(signalling::ROUTE) && signalling::is_wanted(request.headers())
}

impl Guard {
    fn refuses_operator(&self, headers: &HeaderMap) -> Option<Response> {
        match &self.operators {
            Some(token) if token.opens(headers) => None,
            Some(_) => Some(unauthorized("send the server's token as `authorization: Bearer TOKEN`")),
            None => {
                let message =
                    "operators are not served at this address; use the control socket, or set http_token_file";
                Some(ApiError::new(StatusCode::FORBIDDEN, "noOperators", message).into_response())
            }
        }
    }

    fn refuses_client(&self, headers: &HeaderMap) -> Option<Response> {
        let may = match self.clients {
            ClientsFrom::Anywhere => true,
            ClientsFrom::ThisMachine => is_of_this_machine(headers),
        };
        (!may).then(|| {
            let message = "without a client token in the server's settings, clients are served only if they call this \
                           machine by `localhost` or its loopback address, without a proxy";
            ApiError::new(StatusCode::FORBIDDEN, "noStrangers", message).into_response()
        })
    }
}

/// The headers by which proxies say for whom they ask (RFC 7239, and those from before it).
const OF_PROXIES: [&str; 6] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Whether a request names this machine as only itself can, and was not passed on by a proxy. A page that has its own name
/// resolve to a loopback address (DNS rebinding) says its own name.
pub(super) fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let local = match host(headers) {
        Some(Host::Localhost) => true,
        Some(Host::Address(address)) => address.to_canonical().is_loopback(),
        None => false,
    };
    local && !OF_PROXIES.iter().any(|name| headers.contains_key(*name))
}

/// A host that nobody else can have point here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Host {
    Localhost,
    Address(IpAddr),
}

/// For which host a request is meant, unless that is a name in the DNS.
pub(super) fn host(headers: &HeaderMap) -> Option<Host> {
    let mut given = headers.get_all(header::HOST).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return None;
    };
    let authority: Authority = value.to_str().ok()?.parse().ok()?;
    let host = authority.host();
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Host::Localhost);
    }
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    address.unwrap_or(host).parse().ok().map(Host::Address)
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

    #[test]
    fn this_machine_is_known_by_what_only_it_can_be_called() {
        let check = |host: Option<&str>, other: Option<&'static str>, expected: bool| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            if let Some(other) = other {
                headers.insert(other, "anything".parse().unwrap());
            }
            assert_eq!(is_of_this_machine(&headers), expected, "{host:?} {other:?}");
        };
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.8.8.8",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
        ] {
            check(Some(host), None, true);
            check(Some(host), Some("accept"), true);
            for proxy in OF_PROXIES {
                check(Some(host), Some(proxy), false);
            }
        }
        for host in [
            "",
            "evil.example:8080",
            "localhost.evil.example",
            "192.0.2.1",
            "[::]",
            "127.0.0.1.example",
            "::1",
        ] {
            check(Some(host), None, false);
        }
        check(None, None, false);
        let mut twice = HeaderMap::new();
        twice.append(header::HOST, "localhost".parse().unwrap());
        twice.append(header::HOST, "evil.example".parse().unwrap());
        assert!(!is_of_this_machine(&twice));
    }
}
