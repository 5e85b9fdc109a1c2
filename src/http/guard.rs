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

/// Whether a request is answered by [`signalling::connect`], which looks after itself, whatever it answers.
fn is_for_clients(request: &Request) -> bool {
    // What the router has found, not what the path looks like to somebody else.
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
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
