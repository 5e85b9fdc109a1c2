//! Who is served at an address that others than the server's owner can reach: operators with a token, and clients of rooms.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::admission::Door;
use super::error::ApiError;
use super::guesses::Guesses;
use super::listen::Caller;
use super::origin::{is_from, is_of_this_machine};
use super::signalling;
use super::strangers::Place;
use super::token::AccessToken;
use super::token_keys::TokenKeys;
use super::whip;

/// Whom an interface serves that others than the server's owner can reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// What operators must know; `None`, and no keys either: there are none here.
    pub operators: Option<AccessToken>,
    /// The keys of access tokens, one of which operators may send instead.
    pub token_keys: Option<TokenKeys>,
    /// The origins whose pages may send what operators may send, with their token; as in
    /// [`SignallingOptions::origins`](super::SignallingOptions::origins).
    pub origins: Vec<String>,
    /// Where clients of rooms may come from.
    pub clients: ClientsFrom,
}

impl Default for Guard {
    /// Serves no operators, and clients from this machine only.
    fn default() -> Self {
        Self {
            operators: None,
            token_keys: None,
            origins: Vec::new(),
            clients: ClientsFrom::ThisMachine,
        }
    }
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
    let guard = Arc::new((guard, Guesses::default()));
    app.layer(middleware::from_fn(move |request: Request, next: Next| {
        let (guard, guesses) = &*guard;
        let is_for_clients = is_for_clients(&request);
        // Clients' routes look after pages of other origins themselves.
        let origin = match is_for_clients {
            true => None,
            false => guard.origin_of(request.headers()),
        };
        let answer = match is_for_clients {
            true => guard.refuses_client(request.headers()),
            false if is_preflight(&request) => Some(preflight(origin.is_some())),
            false => guard.refuses_operator(&request, guesses),
        };
        async move {
            let mut response = match answer {
                None => next.run(request).await,
                Some(answer) => answer,
            };
            if let Some(origin) = origin {
                let headers = response.headers_mut();
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, SHOWN_HEADERS);
                headers.append(header::VARY, HeaderValue::from_static("origin"));
            }
            response
        }
    }))
}

/// Whether a request is answered by [`signalling::connect`] or the routes for publishers and players, which look after themselves,
/// whatever they answer.
fn is_for_clients(request: &Request) -> bool {
    // What the router has found, not what the path looks like to somebody else.
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if route.is_some_and(|route| whip::PREFIXES.iter().any(|prefix| route.starts_with(prefix))) {
        return true;
    }
    request.method() == Method::GET && route == Some(signalling::ROUTE) && signalling::wants_upgrade(request.headers())
}

/// What pages may read of an answer.
const SHOWN_HEADERS: HeaderValue = HeaderValue::from_static("www-authenticate");

/// Whether a browser asks for a page of another origin whether that may ask (Fetch §3.2.2). It sends no token with this.
fn is_preflight(request: &Request) -> bool {
    let has = |name| request.headers().contains_key(name);
    request.method() == Method::OPTIONS && has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What a browser is told. Whether there is anything at the path, it is told when it asks with a token.
fn preflight(may: bool) -> Response {
    if !may {
        let message = "pages of this origin may not connect; name it in the setting http_origins if they may";
        return ApiError::new(StatusCode::FORBIDDEN, "foreignOrigin", message).into_response();
    }
    let answer = [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, HEAD, POST, PUT, PATCH, DELETE",
        ),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, last-event-id",
        ),
        // Browsers keep what they have been told for two hours at most.
        (header::ACCESS_CONTROL_MAX_AGE, "7200"),
    ];
    (StatusCode::NO_CONTENT, answer).into_response()
}

impl Guard {
    /// The origin of the page that a request comes from, if it may read the answer.
    fn origin_of(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        is_from(headers, &self.origins).then(|| origin.clone())
    }

    fn refuses_operator(&self, request: &Request, guesses: &Guesses) -> Option<Response> {
        let door = Door {
            token: self.operators.as_ref(),
            keys: self.token_keys.as_ref(),
        };
        if door.is_open() {
            let message = "operators are not served at this address; use the control socket, or set http_token_file \
                           or token_keys";
            return Some(ApiError::new(StatusCode::FORBIDDEN, "noOperators", message).into_response());
        }
        let hint = "send the server's token as `authorization: Bearer TOKEN`";
        let admitted = door.admit(request.headers(), hint);
        match admitted.and_then(|admission| admission.check_admin()) {
            Ok(()) => {
                if let Some(place) = request.extensions().get::<Arc<Place>>() {
                    place.prove();
                }
                None
            }
            Err(refusal) => {
                let caller = request.extensions().get::<Caller>().copied();
                Some(refusal.into_response(|| guesses.count(caller, "operators")))
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

#[cfg(test)]
mod tests {
    use super::super::guesses::AnswerAfter;
    use super::*;
    use axum::body::Body;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use std::time::Duration;

    const TOKEN: &str = "a-token-of-some-length";

    #[tokio::test]
    async fn wrong_tokens_are_refused_ever_more_slowly_and_right_ones_are_not() {
        let guard = Guard {
            operators: Some(TOKEN.parse().unwrap()),
            ..Guard::default()
        };
        let app = TowerToHyperService::new(guarded(Router::new(), guard));
        let answer = async |address: &str, token: Option<&str>| {
            let mut request = Request::new(Body::empty());
            request
                .extensions_mut()
                .insert(Caller::Remote(address.parse().unwrap()));
            if let Some(token) = token {
                let value = format!("Bearer {token}").parse().unwrap();
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
            let mut response = app.call(request).await.unwrap();
            let delay = response.extensions_mut().remove().map(|AnswerAfter(delay)| delay);
            (response.status().as_u16(), delay)
        };
        let mut last = Duration::ZERO;
        for number in 0..20 {
            let (status, delay) = answer("192.0.2.1:5", Some("a-token-that-is-wrong")).await;
            let delay = delay.unwrap();
            assert!(
                status == 401 && delay >= last && delay <= Duration::from_secs(5),
                "{number}: {delay:?}"
            );
            last = delay;
        }
        assert_eq!(last, Duration::from_secs(5));
        // 404: there is nothing here, but it was let in.
        assert_eq!(answer("192.0.2.1:6", Some(TOKEN)).await, (404, None));
        assert_eq!(answer("192.0.2.1:6", None).await, (401, None), "no token is no guess");
        assert_eq!(
            answer("192.0.2.2:5", Some("a-token-that-is-wrong")).await,
            (401, Some(Duration::ZERO))
        );
    }
}
