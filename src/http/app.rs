//! The routes, and what their handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tracing::warn;

use super::error::ApiError;
use super::event_log::EventLog;
use super::signalling::{SignallingOptions, signalling};
use super::{consumers, events, producers, rooms, server, transports};
use crate::{LogSettings, Server};

/// What is told when the log settings change.
pub type LogHook = Arc<dyn Fn(&LogSettings) + Send + Sync>;

/// How the control interface behaves.
#[derive(Clone)]
pub struct ControlOptions {
    /// Streams of events at once. Fewer than [`Limits::connections`](super::Limits::connections), so that however many
    /// follow events, commands find a connection.
    pub followers: usize,
    /// How often a stream without events shows that it is alive.
    pub heartbeat: Duration,
    /// Is told when the log settings change, so that this process can log as much as its workers.
    pub on_log_settings: Option<LogHook>,
    /// How clients are served that speak the mediasoup protocol.
    pub signalling: SignallingOptions,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self {
            followers: 64,
            heartbeat: Duration::from_secs(15),
            on_log_settings: None,
            signalling: SignallingOptions::default(),
        }
    }
}

/// What the handlers share.
pub(super) struct App {
    pub(super) server: Server,
    pub(super) log: Arc<EventLog>,
    pub(super) followers: Arc<Semaphore>,
    pub(super) heartbeat: Duration,
    pub(super) on_log_settings: Option<LogHook>,
}

/// The control interface of a server. From this call on it keeps the server's last events; streams of them end after the
/// server is closed. Must be called within a tokio runtime.
pub fn app(server: Server, options: ControlOptions) -> Router {
    // The task has the stream and not the server: the server's end must not wait for the task that tells of it.
    let mut events = server.events();
    let log = Arc::new(EventLog::new(instance(), events.position()));
    tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            while let Some(event) = events.next().await {
                match serde_json::to_value(&*event) {
                    // A gap in the numbers says the same, and to each reader in its place.
                    Ok(value) if value["type"] == "lagged" => {}
                    Ok(value) => log.record(value),
                    Err(error) => warn!(%error, seq = event.seq, "an event cannot be shown as JSON"),
                }
            }
            log.close();
        }
    });
    let clients = signalling(server.clone(), options.signalling);
    let app = Arc::new(App {
        server,
        log,
        followers: Arc::new(Semaphore::new(options.followers)),
        heartbeat: options.heartbeat,
        on_log_settings: options.on_log_settings,
    });
    Router::new()
        .route("/", get(index))
        .route("/health", get(server::health))
        .route("/stats", get(server::stats))
        .route("/settings", get(server::settings).patch(server::update_settings))
        .route("/workers", get(server::workers))
        .route("/workers/{id}", get(server::worker))
        .route("/workers/{id}/stats", get(server::worker_stats))
        .route("/events", get(events::follow))
        .route("/events/recent", get(events::recent))
        .route("/rooms", get(rooms::list).post(rooms::create))
        .route("/rooms/{id}", get(rooms::show).delete(rooms::close))
        .route("/rooms/{id}/stats", get(rooms::stats))
        .route("/rooms/{id}/dump", get(rooms::dump))
        .route("/rooms/{id}/transports", post(transports::create))
        .route("/transports", get(transports::list))
        .route("/transports/{id}", get(transports::show).delete(transports::close))
        .route("/transports/{id}/remote", put(transports::set_remote))
        .route("/transports/{id}/stats", get(transports::stats))
        .route("/transports/{id}/producers", post(producers::create))
        .route("/transports/{id}/consumers", post(consumers::create))
        .route("/producers", get(producers::list))
        .route("/producers/{id}", get(producers::show).delete(producers::close))
        .route("/producers/{id}/pause", post(producers::pause))
        .route("/producers/{id}/resume", post(producers::resume))
        .route(
            "/producers/{id}/preferred-profile",
            put(producers::set_preferred_profile),
        )
        .route("/producers/{id}/stats", get(producers::stats))
        .route("/consumers", get(consumers::list))
        .route("/consumers/{id}", get(consumers::show).delete(consumers::close))
        .route("/consumers/{id}/pause", post(consumers::pause))
        .route("/consumers/{id}/resume", post(consumers::resume))
        .route(
            "/consumers/{id}/preferred-profile",
            put(consumers::set_preferred_profile),
        )
        .route("/consumers/{id}/key-frame", post(consumers::request_key_frame))
        .route("/consumers/{id}/stats", get(consumers::stats))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .with_state(app)
        .merge(clients)
}

/// A word for this run of the server, which no other run has: the moment it began, in milliseconds, as hexadecimal.
fn instance() -> String {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    format!("{:x}", now.as_millis())
}

async fn index() -> Json<Value> {
    Json(json!({
        "name": "weir",
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
    }))
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
