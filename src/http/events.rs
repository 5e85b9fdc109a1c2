//! `GET /events`: what happens, as server-sent events; `GET /events/recent`: what has happened, as JSON.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::Event as SseEvent;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_channel::id::RoomId;

use super::answer::Reply;
use super::error::ApiError;
use super::event_log::{EventId, EventLog, LoggedEvent};
use super::extract::Params;
use super::openapi::Events;
use super::state::App;
use crate::{Event, EventKind};

/// Events a reader takes from the log at once.
const BATCH: usize = 256;

/// The most events one answer of `GET /events/recent` has.
const RECENT_MAX: usize = 1_000;

/// The types an event can have, for refusing a filter that would never let anything through. `lagged` is not among them:
/// each reader has its own.
static KINDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let schema = schemars::schema_for!(EventKind).to_value();
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    let names = variants.filter_map(|variant| variant["properties"]["type"]["const"].as_str());
    names.filter(|name| *name != "lagged").map(str::to_owned).collect()
});

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventQuery {
    /// Only events of this room.
    room: Option<RoomId>,
    /// Only events of these types, separated by commas.
    kind: Option<String>,
    /// Begin after the event with this id; `0` begins with the oldest event.
    after: Option<String>,
    limit: Option<usize>,
}

/// Which events a reader wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Filter {
    room: Option<RoomId>,
    /// Empty: all.
    kinds: Vec<String>,
}

impl Filter {
    fn new(query: &EventQuery) -> Result<Self, ApiError> {
        let kinds = query.kind.iter().flat_map(|kinds| kinds.split(','));
        let kinds = kinds.map(|kind| kind.trim().to_owned()).collect();
        Ok(Self {
            room: query.room,
            ..Self::of_kinds(kinds)?
        })
    }

    /// Events of these types; empty: of all.
    pub(super) fn of_kinds(kinds: Vec<String>) -> Result<Self, ApiError> {
        if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(kind)) {
            let known = KINDS.join(", ");
            return Err(ApiError::query(format_args!(
                "kind: {unknown:?} is no type of event; there are {known}"
            )));
        }
        Ok(Self { room: None, kinds })
    }

    /// The end of the server is let through always.
    pub(super) fn admits(&self, event: &LoggedEvent) -> bool {
        let (kind, room) = (&event.shown().kind, event.room());
        let wanted_kind = self.kinds.is_empty() || self.kinds.contains(kind);
        let wanted_room = self.room.is_none() || self.room == room;
        wanted_kind && wanted_room || kind == "serverClosed"
    }
}

/// Where a reader begins, and whether it comes from another server's log.
struct Start {
    after: u64,
    restarted: bool,
}

impl Start {
    /// Where `text` (an id, or `0`) points to, `now` being the number of the newest event.
    fn new(log: &EventLog, text: &str, now: u64) -> Result<Self, ApiError> {
        if text == "0" {
            return Ok(Self::at(0));
        }
        let id: EventId = text.parse().map_err(|error| {
            let shown: String = text.chars().take(60).collect();
            ApiError::query(format_args!("after: {shown:?}: {error}"))
        })?;
        Ok(match log.resume(&id, now) {
            Some(after) => Self::at(after),
            // What another server told, nobody knows any more; its client gets everything there is.
            None => Self {
                after: 0,
                restarted: true,
            },
        })
    }

    fn at(after: u64) -> Self {
        Self {
            after,
            restarted: false,
        }
    }
}

/// An event, as it is also in the `data` of each server-sent event of `GET /events`.
#[derive(Serialize, schemars::JsonSchema)]
struct ToldEvent {
    /// The event's id; a client that connects again passes the last one that it has seen.
    id: String,
    #[serde(flatten)]
    event: Event,
}

/// The answer of `GET /events/recent`.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct Recent {
    /// The events, oldest first.
    #[schemars(with = "Vec<ToldEvent>")]
    items: Vec<Value>,
    /// The number of events before or between these that are no longer kept; they may be of any room and type.
    missed: u64,
    /// The id to pass as `after` in the next request.
    position: String,
    /// Whether there are more events after these.
    more: bool,
}

pub(super) async fn recent(State(app): State<Arc<App>>, Params(query): Params<EventQuery>) -> Reply<Recent> {
    let filter = Filter::new(&query)?;
    let limit = query.limit.unwrap_or(RECENT_MAX).clamp(1, RECENT_MAX);
    let now = app.log.end().newest;
    let mut after = match &query.after {
        Some(text) => Start::new(&app.log, text, now)?.after,
        None => 0,
    };
    let (mut items, mut missed) = (Vec::new(), 0);
    // What was forgotten before a reader that begins at the beginning came, it has not missed.
    let mut begins = query.after.is_none();
    while items.len() < limit {
        let read = app.log.read(after, limit - items.len());
        let Some(last) = read.events.last() else {
            break;
        };
        after = last.seq();
        missed += if begins { 0 } else { read.missed };
        begins = false;
        for event in read.events.iter().filter(|event| filter.admits(event)) {
            items.push(serde_json::from_str(&event.shown().json).map_err(ApiError::internal)?);
        }
    }
    Ok(Json(Recent {
        items,
        missed,
        position: app.log.id(after).to_string(),
        more: app.log.end().newest > after,
    }))
}

pub(super) async fn follow(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Params(query): Params<EventQuery>,
) -> Result<Events, ApiError> {
    if query.limit.is_some() {
        let message = "limit: a stream has none; see /events/recent";
        return Err(ApiError::query(message));
    }
    let filter = Filter::new(&query)?;
    let last_event_id = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    // What a client has seen counts for more than where it wanted to begin.
    let now = app.log.end().newest;
    let start = match last_event_id.or(query.after.as_deref()) {
        Some(text) => Start::new(&app.log, text, now)?,
        None => Start::at(now),
    };
    let permit = app.follower_permit()?;
    let opening = if start.restarted {
        note("restarted", &json!({"type": "restarted"}))
    } else {
        // Lets a client know at once that it hears whatever happens from now on, and from where to go on should the stream
        // break off before anything happens.
        let position = app.log.id(start.after).to_string();
        SseEvent::default().id(position).comment("following")
    };
    let reader = Reader {
        end: app.log.watch(),
        after: start.after,
        ready: Vec::new(),
        log: Arc::clone(&app.log),
        filter,
    };
    Ok(app.stream_from(opening, permit, reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((event, reader))
    }))
}

/// An event that is not the server's but this reader's own; it has no id, so that the client's position stays.
fn note(name: &str, data: &Value) -> SseEvent {
    SseEvent::default().event(name).data(data.to_string())
}

struct Reader {
    log: Arc<EventLog>,
    filter: Filter,
    end: tokio::sync::watch::Receiver<super::event_log::End>,
    after: u64,
    /// What comes next, the last first.
    ready: Vec<SseEvent>,
}

impl Reader {
    async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Some(event);
            }
            let end = *self.end.borrow_and_update();
            let read = self.log.read(self.after, BATCH);
            if let Some(last) = read.events.last() {
                self.after = last.seq();
                let admitted = read.events.iter().rev().filter(|event| self.filter.admits(event));
                self.ready.extend(admitted.map(|event| {
                    let (id, shown) = (self.log.id(event.seq()).to_string(), event.shown());
                    SseEvent::default().id(id).event(&shown.kind).data(&shown.json)
                }));
                if read.missed > 0 {
                    self.ready
                        .push(note("lagged", &json!({"type": "lagged", "count": read.missed})));
                }
                continue;
            }
            if end.closed {
                return None;
            }
            // An error means that the log is gone, and with it the server.
            self.end.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_channel::id::WorkerId;

    use super::*;
    use crate::server::Record as _;

    #[test]
    fn types_are_named_as_in_json() {
        let schema = schemars::schema_for!(EventKind).to_value();
        let all = schema["oneOf"].as_array().unwrap().len();
        assert_eq!(KINDS.len() + 1, all, "each has a name, and `lagged` is left out");
        let json = serde_json::to_value(EventKind::ServerClosed).unwrap();
        assert!(KINDS.iter().any(|name| json["type"] == **name), "{json}");
    }

    #[test]
    fn the_page_lists_all_types() {
        let page = include_str!("../../docs/api.md");
        assert!(!KINDS.is_empty());
        for kind in &*KINDS {
            assert!(page.contains(&format!("`{kind}`")), "{kind}");
        }
    }

    #[test]
    fn the_end_passes_all_filters() {
        let filter = Filter {
            room: Some(RoomId(1)),
            kinds: vec!["roomClosed".to_owned()],
        };
        let admits = |filter: &Filter, kind| {
            let log = EventLog::new("a".to_owned(), 0);
            log.record(&Arc::new(Event::now(1, kind)), None);
            filter.admits(&log.read(0, 1).events[0])
        };
        let closed = |room| EventKind::RoomClosed {
            room: RoomId(room),
            originator: crate::Originator::Local,
            app_data: Value::Null,
            cause: crate::CloseCause::Closed,
        };
        let opened = EventKind::RoomOpened {
            room: RoomId(1),
            worker: WorkerId(1),
            app_data: Value::Null,
        };
        let started = EventKind::WorkerStarted {
            worker: WorkerId(1),
            pid: 1,
        };
        assert!(admits(&filter, closed(1)));
        assert!(!admits(&filter, closed(2)));
        assert!(!admits(&filter, started.clone()));
        assert!(!admits(&filter, opened));
        assert!(admits(&filter, EventKind::ServerClosed));
        assert!(admits(&Filter::default(), started));
    }
}
