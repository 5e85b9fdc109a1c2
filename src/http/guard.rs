//! Who is served at an address that others than the server's owner can reach: operators with a token, and clients of rooms.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::guesses::Guesses;
use super::listen::Caller;
use super::origin::is_of_this_machine;
use super::signalling;
use super::strangers::Place;
use super::token::{AccessToken, unauthorized};
use super::whip;

/// Whom an interface serves that others than the server's owner can reach.
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
    let guard = Arc::new((guard, Guesses::default()));
    app.layer(middleware::from_fn(move |request: Request, next: Next| {
        let (guard, guesses) = &*guard;
        let refusal = match is_for_clients(&request) {
            true => guard.refuses_client(request.headers()),
            false => guard.refuses_operator(&request, guesses),
        };
        async move {
            match refusal {
                None => next.run(request).await,
                Some(refusal) => refusal,
            }
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

impl Guard {
    fn refuses_operator(&self, request: &Request, guesses: &Guesses) -> Option<Response> {
        match &self.operators {
            Some(token) if token.opens(request.headers()) => {
                if let Some(place) = request.extensions().get::<Arc<Place>>() {
                    place.prove();
                }
                None
            }
            Some(_) => {
                let mut refusal = unauthorized("send the server's token as `authorization: Bearer TOKEN`");
                if request.headers().contains_key(header::AUTHORIZATION) {
                    let caller = request.extensions().get::<Caller>().copied();
                    refusal.extensions_mut().insert(guesses.count(caller, "operators"));
                }
                Some(refusal)
            }
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
            clients: ClientsFrom::Anywhere,
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
