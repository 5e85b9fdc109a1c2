//! What the handlers share: the server, its last events, and who may do how much at once.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::event_log::EventLog;
use super::metrics::Metrics;
use super::signalling::{Signalling, SignallingOptions};
use super::webhooks::Webhooks;
use super::whip::{Whip, WhipOptions};
use crate::server::wall_clock_ms;
use crate::{Error, LogSettings, Server};

/// Called when the log settings change.
pub type LogHook = Arc<dyn Fn(&LogSettings) + Send + Sync>;

/// How the control interface behaves.
#[derive(Clone)]
pub struct ControlOptions {
    /// Streams of events at once. Fewer than [`Limits::connections`](super::Limits::connections), so that however many
    /// follow events, commands find a connection.
    pub followers: usize,
    /// How often a stream without events shows that it is alive.
    pub heartbeat: Duration,
    /// Called when the log settings change, so that this process can log as much as its workers.
    pub on_log_settings: Option<LogHook>,
    /// How clients are served that speak the mediasoup protocol.
    pub signalling: SignallingOptions,
    /// How publishers and players are served that speak WHIP and WHEP.
    pub whip: WhipOptions,
    /// Where events are sent.
    pub webhooks: Webhooks,
    /// Where it is told to monitoring systems.
    pub metrics: Metrics,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self {
            followers: 64,
            heartbeat: Duration::from_secs(15),
            on_log_settings: None,
            signalling: SignallingOptions::default(),
            whip: WhipOptions::default(),
            webhooks: Webhooks::default(),
            metrics: Metrics::default(),
        }
    }
}

/// What the handlers share.
pub(super) struct App {
    pub(super) signalling: Arc<Signalling>,
    pub(super) whip: Arc<Whip>,
    /// The OpenAPI document.
    pub(super) document: Value,
    pub(super) server: Server,
    pub(super) log: Arc<EventLog>,
    pub(super) webhooks: Webhooks,
    pub(super) followers: Arc<Semaphore>,
    pub(super) heartbeat: Duration,
    pub(super) on_log_settings: Option<LogHook>,
}

impl App {
    /// From this call on it keeps the server's last events.
    pub(super) fn new(server: Server, options: ControlOptions, document: Value) -> Self {
        let log = server.record_events(|position| Arc::new(EventLog::new(instance(), position)));
        options.webhooks.begin(&log);
        Self {
            signalling: Arc::new(Signalling::new(server.clone(), options.signalling)),
            whip: Whip::new(server.clone(), options.whip),
            document,
            log,
            webhooks: options.webhooks,
            server,
            followers: Arc::new(Semaphore::new(options.followers)),
            heartbeat: options.heartbeat,
            on_log_settings: options.on_log_settings,
        }
    }

    /// The right to follow events, of which there are so many.
    pub(super) fn follower_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.followers).try_acquire_owned().map_err(|_| {
            let message = "too many clients follow events already";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "tooManyStreams", message)
        })
    }
}

/// 404.
pub(super) fn unknown(object: impl ToString) -> ApiError {
    let object = object.to_string();
    Error::NotFound { object }.into()
}

/// A word for this run of the server, which no other run has: the moment it began, in milliseconds, as hexadecimal.
fn instance() -> String {
    format!("{:x}", wall_clock_ms())
}
