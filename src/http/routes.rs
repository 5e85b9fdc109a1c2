//! The routes of the control interface.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::MethodFilter;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::error::ApiError;
use super::openapi::Api;
use super::state::{App, ControlOptions};
use super::{consumers, events, live, peers, producers, rooms, server, signalling, transports, webrtc, whip};
use crate::{Consumer, Producer, Server, Transport};

/// The control interface of a server. From this call on it keeps the server's last events; streams of them end after the
/// server is closed. Must be called within a tokio runtime.
pub fn app(server: Server, options: ControlOptions) -> Router {
    let (router, document) = api().finish();
    let metrics = options.metrics.clone();
    let app = Arc::new(App::new(server, options, document));
    metrics.begin(&app);
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .with_state(app)
}

/// The OpenAPI document of the interface: what `GET /openapi.json` answers.
pub fn openapi() -> Value {
    api().finish().1
}

/// Enters the routes of a table, one in each row: its method, its path, its handler, and what it does.
macro_rules! routes {
    ($($method:ident $path:expr => $handler:path, $summary:literal;)+) => {
        Api::new()$(.enter(MethodFilter::$method, stringify!($method), $path, $summary, $handler))+
    };
}

/// All routes.
fn api() -> Api {
    routes! {
        GET    "/"                              => index, "Show which program answers";
        GET    "/openapi.json"                  => document, "Get this document";
        GET    "/health"                        => server::health, "Get the server's health";
        GET    "/stats"                         => server::stats, "Get the counters of all workers, and their sum";
        GET    "/dump"                          => server::dump,
            "Dump everything that is known about workers and rooms";
        GET    "/settings"                      => server::settings, "Get the server's settings";
        PATCH  "/settings"                      => server::update_settings,
            "Change settings that can change while the server runs";
        GET    "/workers"                       => server::workers, "List the workers";
        GET    "/workers/{id}"                  => server::worker, "Show a worker";
        GET    "/workers/{id}/stats"            => server::worker_stats, "Get a worker's counters";
        GET    "/events"                        => events::follow, "Follow events, as server-sent events";
        GET    "/events/recent"                 => events::recent, "Get past events";
        GET    "/rooms"                         => rooms::list, "List the rooms";
        POST   "/rooms"                         => rooms::create, "Create a room";
        GET    "/rooms/{id}"                    => rooms::show, "Show a room";
        DELETE "/rooms/{id}"                    => rooms::close, "Close a room with everything in it";
        GET    "/rooms/{id}/rtp-capabilities"   => rooms::rtp_capabilities, "Get the RTP capabilities of a room";
        GET    "/rooms/{id}/stats"              => rooms::stats, "Get the counters of everything in a room";
        GET    "/rooms/{id}/dump"               => rooms::dump, "Dump everything that the worker knows about a room";
        GET    "/rooms/{id}/peers"              => peers::list, "List a room's peers";
        POST   "/rooms/{id}/peers"              => peers::join, "Create a peer";
        GET    signalling::ROUTE                => peers::show,
            "Show a peer; with a WebSocket upgrade, connect as the peer's client";
        DELETE "/rooms/{id}/peers/{name}"       => peers::close, "Close a peer with everything that belongs to it";
        PUT    "/rooms/{id}/peers/{name}/app-data" => peers::set_app_data, "Replace the app data of a peer";
        GET    "/rooms/{id}/peers/{name}/dump"  => peers::dump, "Dump everything that belongs to a peer";
        GET    "/rooms/{id}/peers/{name}/notifications" => live::notifications,
            "Receive the notifications for a peer's client, as server-sent events";
        POST   "/rooms/{id}/peers/{name}/transports" => peers::create_transport,
            "Create a plain RTP transport for a peer";
        POST   "/rooms/{id}/peers/{name}/webrtc-transports" => webrtc::create_of_peer,
            "Create a WebRTC transport for a peer";
        POST   "/rooms/{id}/rtp-streamers"      => transports::create_streamer, "Stream a producer to an address";
        GET    "/rooms/{id}/audio-levels"       => live::audio_levels,
            "Follow the audio levels in a room, as server-sent events";
        GET    "/rooms/{id}/active-speaker"     => live::active_speaker,
            "Follow who is speaking, as server-sent events";
        POST   "/rooms/{id}/transports"         => transports::create, "Create a plain RTP transport";
        POST   "/rooms/{id}/webrtc-transports"  => webrtc::create, "Create a WebRTC transport";
        GET    "/transports"                    => transports::list, "List the transports";
        GET    "/transports/{id}"               => transports::show, "Show a transport";
        DELETE "/transports/{id}"               => transports::close, "Close a transport with everything on it";
        PUT    "/transports/{id}/remote"        => transports::set_remote, "Set the remote address of a transport";
        PUT    "/transports/{id}/dtls"          => webrtc::set_dtls,
            "Set the DTLS parameters of a WebRTC transport's client";
        PUT    "/transports/{id}/ice"           => webrtc::set_ice,
            "Set the ICE credentials of a WebRTC transport's client";
        POST   "/transports/{id}/ice-restart"   => webrtc::restart_ice,
            "Restart ICE: create new ICE parameters for a WebRTC transport";
        GET    "/transports/{id}/stats"         => transports::stats, "Get a transport's counters";
        GET    "/transports/{id}/dump"          => transports::dump,
            "Dump everything that the worker knows about a transport";
        GET    "/transports/{id}/rtc-stats"     => live::rtc_stats::<Transport>,
            "Get a transport's statistics in the format of mediasoup's RTC statistics";
        GET    "/transports/{id}/rtc-stats/stream" => live::follow_rtc_stats::<Transport>,
            "Get these statistics repeatedly, as server-sent events";
        PUT    "/transports/{id}/max-bitrate"   => transports::set_max_bitrate,
            "Limit the bitrate of a transport's senders";
        PUT    "/transports/{id}/mirroring"     => transports::start_mirroring,
            "Send copies of a transport's packets to another address";
        DELETE "/transports/{id}/mirroring"     => transports::stop_mirroring,
            "Stop sending copies of a transport's packets";
        POST   "/transports/{id}/producers"     => producers::create, "Create a producer on a transport";
        POST   "/transports/{id}/consumers"     => consumers::create, "Create a consumer on a transport";
        GET    "/producers"                     => producers::list, "List the producers";
        GET    "/producers/{id}"                => producers::show, "Show a producer";
        DELETE "/producers/{id}"                => producers::close, "Close a producer and its consumers";
        POST   "/producers/{id}/pause"          => producers::pause, "Stop relaying a producer";
        POST   "/producers/{id}/resume"         => producers::resume, "Relay a producer again";
        PUT    "/producers/{id}/preferred-profile" => producers::set_preferred_profile,
            "Set the profile for consumers that have no preference of their own";
        GET    "/producers/{id}/stats"          => producers::stats, "Get a producer's counters";
        GET    "/producers/{id}/dump"           => producers::dump,
            "Dump everything that the worker knows about a producer";
        GET    "/producers/{id}/rtc-stats"      => live::rtc_stats::<Producer>,
            "Get a producer's statistics in the format of mediasoup's RTC statistics";
        GET    "/producers/{id}/rtc-stats/stream" => live::follow_rtc_stats::<Producer>,
            "Get these statistics repeatedly, as server-sent events";
        PUT    "/producers/{id}/app-data"       => producers::set_app_data, "Replace the app data of a producer";
        GET    "/consumers"                     => consumers::list, "List the consumers";
        GET    "/consumers/{id}"                => consumers::show, "Show a consumer";
        DELETE "/consumers/{id}"                => consumers::close, "Close a consumer";
        POST   "/consumers/{id}/pause"          => consumers::pause, "Stop sending to a consumer";
        POST   "/consumers/{id}/resume"         => consumers::resume, "Send to a consumer again";
        PUT    "/consumers/{id}/preferred-profile" => consumers::set_preferred_profile,
            "Set the highest profile that a consumer receives";
        POST   "/consumers/{id}/key-frame"      => consumers::request_key_frame,
            "Ask the consumer's producer for a key frame";
        GET    "/consumers/{id}/stats"          => consumers::stats, "Get a consumer's counters";
        GET    "/consumers/{id}/dump"           => consumers::dump,
            "Dump everything that the worker knows about a consumer";
        GET    "/consumers/{id}/rtc-stats"      => live::rtc_stats::<Consumer>,
            "Get a consumer's statistics in the format of mediasoup's RTC statistics";
        GET    "/consumers/{id}/rtc-stats/stream" => live::follow_rtc_stats::<Consumer>,
            "Get these statistics repeatedly, as server-sent events";
        POST   "/consumers/{id}/enable"         => consumers::enable,
            "Send a peer's consumer on one of the peer's transports";
        POST    "/whip/{room}"                         => whip::publish, "Publish in a room: WHIP (RFC 9725)";
        GET     "/whip/{room}"                         => whip::show_endpoint,
            "Show nothing, so that clients find what is served here";
        OPTIONS "/whip/{room}"                         => whip::options,
            "Show what may be asked here, and which ICE servers there are";
        POST    "/whip/{room}/{peer}"                  => whip::publish,
            "Publish in a room as a certain peer: WHIP (RFC 9725)";
        GET     "/whip/{room}/{peer}"                  => whip::show_endpoint,
            "Show nothing, so that clients find what is served here";
        OPTIONS "/whip/{room}/{peer}"                  => whip::options,
            "Show what may be asked here, and which ICE servers there are";
        GET     "/whip/{room}/sessions/{session}"      => whip::show_session,
            "Show nothing, as long as the session is there";
        PATCH   "/whip/{room}/sessions/{session}"      => whip::patch,
            "Send a publisher's candidates, or restart its ICE";
        DELETE  "/whip/{room}/sessions/{session}"      => whip::end, "End a publisher's session";
        OPTIONS "/whip/{room}/sessions/{session}"      => whip::options, "Show what may be asked of a session";
        POST    "/whep/{room}"                         => whip::play, "Watch the first who publishes in a room: WHEP";
        GET     "/whep/{room}"                         => whip::discover,
            "Show nothing, so that clients find what is served here";
        OPTIONS "/whep/{room}"                         => whip::options,
            "Show what may be asked here, and which ICE servers there are";
        POST    "/whep/{room}/{peer}"                  => whip::play, "Watch a certain peer of a room: WHEP";
        GET     "/whep/{room}/{peer}"                  => whip::discover,
            "Show nothing, so that clients find what is served here";
        OPTIONS "/whep/{room}/{peer}"                  => whip::options,
            "Show what may be asked here, and which ICE servers there are";
        GET     "/whep/{room}/sessions/{session}"      => whip::show_session,
            "Show nothing, as long as the session is there";
        PATCH   "/whep/{room}/sessions/{session}"      => whip::patch, "Send a player's candidates, or restart its ICE";
        DELETE  "/whep/{room}/sessions/{session}"      => whip::end, "End a player's session";
        OPTIONS "/whep/{room}/sessions/{session}"      => whip::options, "Show what may be asked of a session";
        POST    "/whep/{room}/sessions/{session}/layer" => whip::choose_layer,
            "Choose the simulcast layer that a player is sent at most";
        OPTIONS "/whep/{room}/sessions/{session}/layer" => whip::options, "Show what may be asked there";
        POST    "/whep/{room}/sessions/{session}/sse"  => whip::subscribe, "Make a stream of events for a player";
        OPTIONS "/whep/{room}/sessions/{session}/sse"  => whip::options, "Show what may be asked there";
        GET     "/whep/{room}/sessions/{session}/sse/{stream}" => whip::follow,
            "Follow what is published for a player, as server-sent events";
        DELETE  "/whep/{room}/sessions/{session}/sse/{stream}" => whip::unsubscribe, "End a stream of events";
        OPTIONS "/whep/{room}/sessions/{session}/sse/{stream}" => whip::options, "Show what may be asked there";
    }
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

async fn index() -> Json<Index> {
    Json(Index {
        name: "weir",
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
    })
}

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
