//! A WHIP endpoint (RFC 9725): an offer is posted, and answered with where media goes.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::control::soon;

type Offers = mpsc::Sender<(String, oneshot::Sender<String>)>;

/// An endpoint for one publisher.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    offers: mpsc::Receiver<(String, oneshot::Sender<String>)>,
    serving: JoinHandle<()>,
}

impl Endpoint {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let (sender, offers) = mpsc::channel(1);
        let session = post(take).delete(async || StatusCode::OK);
        let app = Router::new().route("/whip", session).with_state(sender);
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self {
            url: format!("http://{address}/whip"),
            offers,
            serving,
        }
    }

    /// The offer, and who waits for the answer.
    pub(crate) async fn offer(&mut self) -> (String, oneshot::Sender<String>) {
        soon("an offer", self.offers.recv()).await.expect("it serves")
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(offers): State<Offers>, offer: String) -> Response {
    let (sender, answer) = oneshot::channel();
    let answered = async {
        offers.send((offer, sender)).await.ok()?;
        answer.await.ok()
    };
    match answered.await {
        Some(answer) => {
            let headers = [(header::LOCATION, "/whip"), (header::CONTENT_TYPE, "application/sdp")];
            (StatusCode::CREATED, headers, answer).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
