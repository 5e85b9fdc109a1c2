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
        .get("/", "Show which program answers", index)
        .get("/openapi.json", "Get this document", document)
        .get("/health", "Get the server's health", server::health)
        .get(
            "/stats",
            "Get the counters of all workers, and their sum",
            server::stats,
        )
        .get(
            "/dump",
            "Dump everything that is known about workers and rooms",
            server::dump,
        )
        .get("/settings", "Get the server's settings", server::settings)
        .patch(
            "/settings",
            "Change settings that can change while the server runs",
            server::update_settings,
        )
        .get("/workers", "List the workers", server::workers)
        .get("/workers/{id}", "Show a worker", server::worker)
        .get("/workers/{id}/stats", "Get a worker's counters", server::worker_stats)
        .get("/events", "Follow events, as server-sent events", events::follow)
        .get("/events/recent", "Get past events", events::recent)
        .get("/rooms", "List the rooms", rooms::list)
        .post("/rooms", "Create a room", rooms::create)
        .get("/rooms/{id}", "Show a room", rooms::show)
        .delete("/rooms/{id}", "Close a room with everything in it", rooms::close)
        .get(
            "/rooms/{id}/rtp-capabilities",
            "Get the RTP capabilities of a room",
            rooms::rtp_capabilities,
        )
        .get(
            "/rooms/{id}/stats",
            "Get the counters of everything in a room",
            rooms::stats,
        )
        .get(
            "/rooms/{id}/dump",
            "Dump everything that the worker knows about a room",
            rooms::dump,
        )
        .get("/rooms/{id}/peers", "List a room's peers", peers::list)
        .post("/rooms/{id}/peers", "Create a peer", peers::join)
        .get(
            signalling::ROUTE,
            "Show a peer; with a WebSocket upgrade, connect as the peer's client",
            peers::show,
        )
        .delete(
            "/rooms/{id}/peers/{name}",
            "Close a peer with everything that belongs to it",
            peers::close,
        )
        .put(
            "/rooms/{id}/peers/{name}/app-data",
            "Replace the app data of a peer",
            peers::set_app_data,
        )
        .get(
            "/rooms/{id}/peers/{name}/dump",
            "Dump everything that belongs to a peer",
            peers::dump,
        )
        .get(
            "/rooms/{id}/peers/{name}/notifications",
            "Receive the notifications for a peer's client, as server-sent events",
            live::notifications,
        )
        .post(
            "/rooms/{id}/peers/{name}/transports",
            "Create a plain RTP transport for a peer",
            peers::create_transport,
        )
        .post(
            "/rooms/{id}/peers/{name}/webrtc-transports",
            "Create a WebRTC transport for a peer",
            webrtc::create_of_peer,
        )
        .post(
            "/rooms/{id}/rtp-streamers",
            "Stream a producer to an address",
            transports::create_streamer,
        )
        .get(
            "/rooms/{id}/audio-levels",
            "Follow the audio levels in a room, as server-sent events",
            live::audio_levels,
        )
        .get(
            "/rooms/{id}/active-speaker",
            "Follow who is speaking, as server-sent events",
            live::active_speaker,
        )
        .post(
            "/rooms/{id}/transports",
            "Create a plain RTP transport",
            transports::create,
        )
        .post(
            "/rooms/{id}/webrtc-transports",
            "Create a WebRTC transport",
            webrtc::create,
        )
        .get("/transports", "List the transports", transports::list)
        .get("/transports/{id}", "Show a transport", transports::show)
        .delete(
            "/transports/{id}",
            "Close a transport with everything on it",
            transports::close,
        )
        .put(
            "/transports/{id}/remote",
            "Set the remote address of a transport",
            transports::set_remote,
        )
        .put(
            "/transports/{id}/dtls",
            "Set the DTLS parameters of a WebRTC transport's client",
            webrtc::set_dtls,
        )
        .post(
            "/transports/{id}/ice-restart",
            "Restart ICE: create new ICE parameters for a WebRTC transport",
            webrtc::restart_ice,
        )
        .get(
            "/transports/{id}/stats",
            "Get a transport's counters",
            transports::stats,
        )
        .get(
            "/transports/{id}/dump",
            "Dump everything that the worker knows about a transport",
            transports::dump,
        )
        .get(
            "/transports/{id}/rtc-stats",
            "Get a transport's statistics in the format of mediasoup's RTC statistics",
            live::of_transport,
        )
        .get(
            "/transports/{id}/rtc-stats/stream",
            "Get these statistics repeatedly, as server-sent events",
            live::follow_transport,
        )
        .put(
            "/transports/{id}/max-bitrate",
            "Limit the bitrate of a transport's senders",
            transports::set_max_bitrate,
        )
        .put(
            "/transports/{id}/mirroring",
            "Send copies of a transport's packets to another address",
            transports::start_mirroring,
        )
        .delete(
            "/transports/{id}/mirroring",
            "Stop sending copies of a transport's packets",
            transports::stop_mirroring,
        )
        .post(
            "/transports/{id}/producers",
            "Create a producer on a transport",
            producers::create,
        )
        .post(
            "/transports/{id}/consumers",
            "Create a consumer on a transport",
            consumers::create,
        )
        .get("/producers", "List the producers", producers::list)
        .get("/producers/{id}", "Show a producer", producers::show)
        .delete(
            "/producers/{id}",
            "Close a producer and its consumers",
            producers::close,
        )
        .post("/producers/{id}/pause", "Stop relaying a producer", producers::pause)
        .post("/producers/{id}/resume", "Relay a producer again", producers::resume)
        .put(
            "/producers/{id}/preferred-profile",
            "Set the profile for consumers that have no preference of their own",
            producers::set_preferred_profile,
        )
        .get("/producers/{id}/stats", "Get a producer's counters", producers::stats)
        .get(
            "/producers/{id}/dump",
            "Dump everything that the worker knows about a producer",
            producers::dump,
        )
        .get(
            "/producers/{id}/rtc-stats",
            "Get a producer's statistics in the format of mediasoup's RTC statistics",
            live::of_producer,
        )
        .get(
            "/producers/{id}/rtc-stats/stream",
            "Get these statistics repeatedly, as server-sent events",
            live::follow_producer,
        )
        .put(
            "/producers/{id}/app-data",
            "Replace the app data of a producer",
            producers::set_app_data,
        )
        .get("/consumers", "List the consumers", consumers::list)
        .get("/consumers/{id}", "Show a consumer", consumers::show)
        .delete("/consumers/{id}", "Close a consumer", consumers::close)
        .post("/consumers/{id}/pause", "Stop sending to a consumer", consumers::pause)
        .post("/consumers/{id}/resume", "Send to a consumer again", consumers::resume)
        .put(
            "/consumers/{id}/preferred-profile",
            "Set the highest profile that a consumer receives",
            consumers::set_preferred_profile,
        )
        .post(
            "/consumers/{id}/key-frame",
            "Ask the consumer's producer for a key frame",
            consumers::request_key_frame,
        )
        .get("/consumers/{id}/stats", "Get a consumer's counters", consumers::stats)
        .get(
            "/consumers/{id}/dump",
            "Dump everything that the worker knows about a consumer",
            consumers::dump,
        )
        .get(
            "/consumers/{id}/rtc-stats",
            "Get a consumer's statistics in the format of mediasoup's RTC statistics",
            live::of_consumer,
        )
        .get(
            "/consumers/{id}/rtc-stats/stream",
            "Get these statistics repeatedly, as server-sent events",
            live::follow_consumer,
        )
        .post(
            "/consumers/{id}/enable",
            "Send a peer's consumer on one of the peer's transports",
            consumers::enable,
        )
}

/// The program that answers.
#[derive(Debug, Serialize, JsonSchema)]
struct Index {
    /// Always `weir`.
    name: &'static str,
    /// Its version.
    version: &'static str,
    /// Its process id.
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
    let message = format!("there is no route {}", shown(request.uri().path()));
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
