//! The routes of the control interface.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::error::ApiError;
use super::openapi::Api;
use super::state::{App, ControlOptions};
use super::{consumers, events, live, peers, producers, rooms, server, signalling, transports, webrtc};
use crate::Server;

/// The control interface of a server. From this call on it keeps the server's last events; streams of them end after the
/// server is closed. Must be called within a tokio runtime.
pub fn app(server: Server, options: ControlOptions) -> Router {
    let (router, document) = api().finish();
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .with_state(Arc::new(App::new(server, options, document)))
}

/// The OpenAPI document of the interface: what `GET /openapi.json` answers.
pub fn openapi() -> Value {
    api().finish().1
}

/// All routes.
fn api() -> Api {
    Api::new()
        .get("/", "Which program answers", index)
        .get("/openapi.json", "This document", document)
        .get("/health", "Whether the server is well", server::health)
        .get("/stats", "The counters of all workers, and their sum", server::stats)
        .get(
            "/dump",
            "All that is known of workers and rooms, for people",
            server::dump,
        )
        .get("/settings", "What the server is set to", server::settings)
        .patch(
            "/settings",
            "Change what can be changed while it runs",
            server::update_settings,
        )
        .get("/workers", "The workers", server::workers)
        .get("/workers/{id}", "A worker", server::worker)
        .get("/workers/{id}/stats", "A worker's counters", server::worker_stats)
        .get(
            "/events",
            "What happens from now on, as server-sent events",
            events::follow,
        )
        .get("/events/recent", "What has happened", events::recent)
        .get("/rooms", "The rooms", rooms::list)
        .post("/rooms", "Make a room", rooms::create)
        .get("/rooms/{id}", "A room", rooms::show)
        .delete("/rooms/{id}", "Close a room with everything in it", rooms::close)
        .get(
            "/rooms/{id}/rtp-capabilities",
            "What a room's peers may send and receive",
            rooms::rtp_capabilities,
        )
        .get(
            "/rooms/{id}/stats",
            "The counters of everything in a room",
            rooms::stats,
        )
        .get(
            "/rooms/{id}/dump",
            "All that the worker knows of a room, for people",
            rooms::dump,
        )
        .get("/rooms/{id}/peers", "A room's peers", peers::list)
        .post("/rooms/{id}/peers", "Let a peer in", peers::join)
        .get(
            signalling::ROUTE,
            "A peer; as a WebSocket: the protocol that the peer's client speaks",
            peers::show,
        )
        .delete(
            "/rooms/{id}/peers/{name}",
            "Close a peer with what is its own",
            peers::close,
        )
        .put(
            "/rooms/{id}/peers/{name}/app-data",
            "Keep something else with a peer",
            peers::set_app_data,
        )
        .get("/rooms/{id}/peers/{name}/dump", "What is a peer's own", peers::dump)
        .get(
            "/rooms/{id}/peers/{name}/notifications",
            "What a peer's client is to be told, as server-sent events",
            live::notifications,
        )
        .post(
            "/rooms/{id}/peers/{name}/transports",
            "Make a transport of a peer's for plain RTP",
            peers::create_transport,
        )
        .post(
            "/rooms/{id}/peers/{name}/webrtc-transports",
            "Make a transport of a peer's for WebRTC",
            webrtc::create_of_peer,
        )
        .post(
            "/rooms/{id}/rtp-streamers",
            "Stream a producer to an address",
            transports::create_streamer,
        )
        .get(
            "/rooms/{id}/audio-levels",
            "How loud a room is, as server-sent events",
            live::audio_levels,
        )
        .get(
            "/rooms/{id}/active-speaker",
            "Who is speaking, as server-sent events",
            live::active_speaker,
        )
        .post(
            "/rooms/{id}/transports",
            "Make a transport for plain RTP",
            transports::create,
        )
        .post(
            "/rooms/{id}/webrtc-transports",
            "Make a transport for WebRTC",
            webrtc::create,
        )
        .get("/transports", "The transports", transports::list)
        .get("/transports/{id}", "A transport", transports::show)
        .delete(
            "/transports/{id}",
            "Close a transport with what is on it",
            transports::close,
        )
        .put(
            "/transports/{id}/remote",
            "Tell where the transport sends",
            transports::set_remote,
        )
        .put(
            "/transports/{id}/dtls",
            "Tell a WebRTC transport who its client is",
            webrtc::set_dtls,
        )
        .post(
            "/transports/{id}/ice-restart",
            "Make new ICE parameters for a WebRTC transport",
            webrtc::restart_ice,
        )
        .get("/transports/{id}/stats", "A transport's counters", transports::stats)
        .get(
            "/transports/{id}/dump",
            "All that the worker knows of a transport, for people",
            transports::dump,
        )
        .get(
            "/transports/{id}/rtc-stats",
            "A transport's statistics in the RTC shape",
            live::of_transport,
        )
        .get(
            "/transports/{id}/rtc-stats/stream",
            "The same, again and again",
            live::follow_transport,
        )
        .put(
            "/transports/{id}/max-bitrate",
            "Limit what the transport's senders send",
            transports::set_max_bitrate,
        )
        .put(
            "/transports/{id}/mirroring",
            "Copy the transport's packets elsewhere",
            transports::start_mirroring,
        )
        .delete(
            "/transports/{id}/mirroring",
            "Copy them no more",
            transports::stop_mirroring,
        )
        .post(
            "/transports/{id}/producers",
            "Make a producer on a transport",
            producers::create,
        )
        .post(
            "/transports/{id}/consumers",
            "Make a consumer on a transport",
            consumers::create,
        )
        .get("/producers", "The producers", producers::list)
        .get("/producers/{id}", "A producer", producers::show)
        .delete(
            "/producers/{id}",
            "Close a producer and its consumers",
            producers::close,
        )
        .post("/producers/{id}/pause", "Stop relaying a producer", producers::pause)
        .post("/producers/{id}/resume", "Relay a producer again", producers::resume)
        .put(
            "/producers/{id}/preferred-profile",
            "Set what consumers without a preference of their own follow",
            producers::set_preferred_profile,
        )
        .get("/producers/{id}/stats", "A producer's counters", producers::stats)
        .get(
            "/producers/{id}/dump",
            "All that the worker knows of a producer, for people",
            producers::dump,
        )
        .get(
            "/producers/{id}/rtc-stats",
            "A producer's statistics in the RTC shape",
            live::of_producer,
        )
        .get(
            "/producers/{id}/rtc-stats/stream",
            "The same, again and again",
            live::follow_producer,
        )
        .put(
            "/producers/{id}/app-data",
            "Keep something else with a producer",
            producers::set_app_data,
        )
        .get("/consumers", "The consumers", consumers::list)
        .get("/consumers/{id}", "A consumer", consumers::show)
        .delete("/consumers/{id}", "Close a consumer", consumers::close)
        .post("/consumers/{id}/pause", "Stop sending to a consumer", consumers::pause)
        .post("/consumers/{id}/resume", "Send to a consumer again", consumers::resume)
        .put(
            "/consumers/{id}/preferred-profile",
            "Cap the profile a consumer is sent",
            consumers::set_preferred_profile,
        )
        .post(
            "/consumers/{id}/key-frame",
            "Ask the consumer's producer for a key frame",
            consumers::request_key_frame,
        )
        .get("/consumers/{id}/stats", "A consumer's counters", consumers::stats)
        .get(
            "/consumers/{id}/dump",
            "All that the worker knows of a consumer, for people",
            consumers::dump,
        )
        .get(
            "/consumers/{id}/rtc-stats",
            "A consumer's statistics in the RTC shape",
            live::of_consumer,
        )
        .get(
            "/consumers/{id}/rtc-stats/stream",
            "The same, again and again",
            live::follow_consumer,
        )
        .post(
            "/consumers/{id}/enable",
            "Send a peer's consumer on one of the peer's transports",
            consumers::enable,
        )
}

/// Which program answers.
#[derive(Debug, Serialize, JsonSchema)]
struct Index {
    /// Always `weir`.
    name: &'static str,
    /// Its version.
    version: &'static str,
    /// Its process.
    pid: u32,
}

/// `GET /`
async fn index() -> Json<Index> {
    Json(Index {
        name: "weir",
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
    })
}

/// `GET /openapi.json`
async fn document(State(app): State<Arc<App>>) -> Json<Value> {
    Json(app.document.clone())
}

async fn unknown_route(request: Request) -> ApiError {
    let message = format!("there is nothing at {}", shown(request.uri().path()));
    ApiError::new(StatusCode::NOT_FOUND, "unknownRoute", message)
}

async fn unknown_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", shown(request.uri().path()), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "methodNotAllowed", message)
}

/// The beginning of a path, as long as it needs to be recognised.
fn shown(path: &str) -> String {
    path.chars().take(100).collect()
}
