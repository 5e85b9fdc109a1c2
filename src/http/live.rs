//! Streams of what changes all the time: audio levels, the active speaker, statistics. As server-sent events.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event as SseEvent, KeepAlive};
use axum::response::{IntoResponse, Sse};
use futures::{StreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::Reply;
use super::error::ApiError;
use super::extract::Params;
use super::named::{Named, Of};
use super::openapi::Events;
use super::state::App;
use crate::server::{StatsStream, Subject};
use crate::{Peer, PeerNotifications, Room, RtcStats};

/// Statistics are not told more often than this.
const INTERVAL_MS_MIN: u64 = 1_000;

/// Nor does anybody need to hear them more seldom.
const INTERVAL_MS_MAX: u64 = 3_600_000;

impl App {
    /// Answers with a stream that goes on until `next` has nothing more.
    fn stream<S, F>(&self, permit: OwnedSemaphorePermit, source: S, next: fn(S) -> F) -> Events
    where
        S: Send + 'static,
        F: Future<Output = Option<(SseEvent, S)>> + Send + 'static,
    {
        self.stream_from(SseEvent::default().comment("following"), permit, source, next)
    }

    /// The same, with another beginning.
    pub(super) fn stream_from<S, F>(
        &self,
        opening: SseEvent,
        permit: OwnedSemaphorePermit,
        source: S,
        next: fn(S) -> F,
    ) -> Events
    where
        S: Send + 'static,
        F: Future<Output = Option<(SseEvent, S)>> + Send + 'static,
    {
        self.stream_of(opening, (source, permit), move |(source, permit)| async move {
            let (event, source) = next(source).await?;
            Some((event, (source, permit)))
        })
    }

    /// The same, for those whose number is limited otherwise.
    pub(super) fn stream_of<S, F>(&self, opening: SseEvent, source: S, next: impl Fn(S) -> F + Send + 'static) -> Events
    where
        S: Send + 'static,
        F: Future<Output = Option<(SseEvent, S)>> + Send + 'static,
    {
        let rest = stream::unfold(source, next);
        let events = stream::iter([opening]).chain(rest).map(Ok::<_, Infallible>);
        let heartbeat = KeepAlive::new().interval(self.heartbeat).text("heartbeat");
        Events(Sse::new(events).keep_alive(heartbeat).into_response())
    }
}

fn event(name: &str, data: &impl Serialize) -> Option<SseEvent> {
    let data = serde_json::to_string(data).ok()?;
    Some(SseEvent::default().event(name).data(data))
}

pub(super) async fn audio_levels(State(app): State<Arc<App>>, Of(room): Of<Room>) -> Result<Events, ApiError> {
    let permit = app.follower_permit()?;
    let levels = room.audio_levels().await?;
    Ok(app.stream(permit, levels, |mut levels| async move {
        let shown = levels.next().await?;
        let shown: Vec<_> = shown
            .iter()
            .map(|level| json!({"producer": level.producer.id(), "levelDbov": level.level_dbov}))
            .collect();
        Some((event("audioLevels", &shown)?, levels))
    }))
}

pub(super) async fn active_speaker(State(app): State<Arc<App>>, Of(room): Of<Room>) -> Result<Events, ApiError> {
    let permit = app.follower_permit()?;
    let detector = room.create_active_speaker_detector().await?;
    Ok(app.stream(permit, detector, |mut detector| async move {
        let active = detector.changed().await?;
        let shown = match &active {
            Some(speaker) => json!({
                "producer": speaker.producer.id(),
                "peer": speaker.peer.as_ref().map(|peer| peer.name()),
            }),
            None => json!({"producer": null, "peer": null}),
        };
        Some((event("activeSpeakerChange", &shown)?, detector))
    }))
}

/// A notification leaves the peer's queue when the next one is asked for, that is, when the connection has taken it; the
/// numbers show a client that comes back whether one was lost with the connection.
pub(super) async fn notifications(State(app): State<Arc<App>>, Of(peer): Of<Peer>) -> Result<Events, ApiError> {
    let permit = app.follower_permit()?;
    if app.signalling.speaks_for(&peer) {
        let message = "the peer's own client has a connection to this server, and is told there";
        return Err(ApiError::new(StatusCode::CONFLICT, "conflict", message));
    }
    let reader = Some(Reader {
        notifications: peer.notifications(),
        peer,
        last_notified: None,
    });
    Ok(app.stream(permit, reader, |reader| async move {
        let mut reader = reader?;
        if let Some(number) = reader.last_notified.take() {
            reader.notifications.advance(number);
        }
        let Some((number, notification)) = reader.notifications.peek().await else {
            let reason = match (reader.peer.overflowed(), reader.peer.closed()) {
                (true, _) => "tooSlow",
                (false, true) => "closed",
                (false, false) => "takenOver",
            };
            return Some((event("end", &json!({"reason": reason}))?, None));
        };
        reader.last_notified = Some(number);
        let shown = event("notification", &notification)?.id(number.to_string());
        Some((shown, Some(reader)))
    }))
}

/// Who reads what a peer's client is to be told.
struct Reader {
    peer: Peer,
    notifications: PeerNotifications,
    /// The number of what the connection was given last.
    last_notified: Option<u64>,
}

/// `?intervalMs=2000`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Every {
    /// The interval in milliseconds, 1,000 to 3,600,000; the default is 1,000.
    interval_ms: Option<u64>,
}

impl Every {
    fn interval(&self) -> Duration {
        let ms = self.interval_ms.unwrap_or(INTERVAL_MS_MIN);
        Duration::from_millis(ms.clamp(INTERVAL_MS_MIN, INTERVAL_MS_MAX))
    }
}

pub(super) async fn rtc_stats<S: Named + Subject>(Of(subject): Of<S>) -> Reply<Vec<RtcStats>> {
    Ok(Json(subject.rtc_stats().await?))
}

pub(super) async fn follow_rtc_stats<S: Named + Subject>(
    State(app): State<Arc<App>>,
    Of(subject): Of<S>,
    Params(every): Params<Every>,
) -> Result<Events, ApiError> {
    let permit = app.follower_permit()?;
    let stats = StatsStream::new(subject, every.interval());
    Ok(app.stream(permit, stats, |mut stats| async move {
        let shown = stats.next().await?;
        Some((event("stats", &shown)?, stats))
    }))
}
