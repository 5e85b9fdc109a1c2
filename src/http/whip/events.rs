//! What players are told: that what they watch begins or ends, its layers, and how many watch it. As server-sent events, at the URL that
//! the answer to a player's offer links to (an extension of draft-ietf-wish-whep, in a document of its own). The URL is below the
//! session's, which is a secret, so no token is needed; an `EventSource` could not send one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::answer::{Emptiness, EventsCreated, EventsFollowed};
use super::problem::Problem;
use super::request::WhipRequest;
use super::session::{Session, new_id};
use crate::MediaKind;
use crate::http::state::App;
use crate::server::lock;

/// The events that there are, in the order in which they are told.
const EVENTS: [&str; 4] = ["active", "inactive", "layers", "viewercount"];

/// Streams of events of one session at the same time.
const STREAMS_MAX: usize = 2;

/// How often what is told is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Announces what a player may ask for beside its media, whose path is `location`.
pub(super) fn announce(headers: &mut HeaderMap, location: &str) {
    let events = EVENTS.join(",");
    for link in [
        format!("<{location}/layer>; rel=\"urn:ietf:params:whep:ext:core:layer\""),
        format!("<{location}/sse>; rel=\"urn:ietf:params:whep:ext:core:server-sent-events\"; events=\"{events}\""),
    ] {
        if let Ok(link) = HeaderValue::try_from(link) {
            headers.append(header::LINK, link);
        }
    }
}

/// A player's stream of events, before and while somebody reads it.
#[derive(Debug)]
pub(super) struct Subscription {
    events: Vec<&'static str>,
    /// Changes when another one begins to read, or when it is over.
    readers: watch::Sender<u64>,
    _place: OwnedSemaphorePermit,
}

/// All of a session.
#[derive(Debug)]
pub(super) struct Subscriptions {
    open: Mutex<HashMap<String, Subscription>>,
    places: Arc<Semaphore>,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

/// Makes a stream of events: 201, and where it is.
pub(in crate::http) async fn subscribe(State(app): State<Arc<App>>, request: WhipRequest) -> EventsCreated {
    let subscribed = subscribed(&app, &request);
    EventsCreated(request.finish(&app, subscribed))
}

fn subscribed(app: &App, request: &WhipRequest) -> Result<Response, Problem> {
    app.check_origin(request)?;
    let session = app.whip.sessions.of(request)?;
    session.watching()?;
    // The body may be left out.
    let wanted: Vec<String> = match request.has_body() {
        true => request.json()?,
        false => EVENTS.map(str::to_owned).to_vec(),
    };
    let unknown = wanted.iter().find(|name| !EVENTS.contains(&name.as_str()));
    if let Some(unknown) = unknown {
        let message = format!("there is no event {unknown:.32}; there are {}", EVENTS.join(", "));
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalidEvents", message));
    }
    let place = Arc::clone(&session.subscriptions.places).try_acquire_owned();
    let place = place.map_err(|_| {
        let message = format!("a session has at most {STREAMS_MAX} streams of events; end one with DELETE");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "tooMany", message)
    })?;
    let id = new_id()?;
    let subscription = Subscription {
        events: EVENTS
            .into_iter()
            .filter(|name| wanted.iter().any(|own| own == name))
            .collect(),
        readers: watch::Sender::new(0),
        _place: place,
    };
    lock(&session.subscriptions.open).insert(id.clone(), subscription);
    let mut response = StatusCode::CREATED.into_response();
    let location = format!("{}/sse/{id}", session.path());
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Ends a stream of events.
pub(in crate::http) async fn unsubscribe(State(app): State<Arc<App>>, request: WhipRequest) -> Emptiness {
    let ended = || {
        app.check_origin(&request)?;
        let session = app.whip.sessions.of(&request)?;
        let removed = lock(&session.subscriptions.open).remove(request.named("stream")?);
        removed.map(|_| StatusCode::OK.into_response()).ok_or_else(no_stream)
    };
    let ended = ended();
    Emptiness(request.finish(&app, ended))
}

/// Follows a stream of events. One reads at a time: who comes later takes it over.
pub(in crate::http) async fn follow(State(app): State<Arc<App>>, request: WhipRequest) -> EventsFollowed {
    let followed = followed(&app, &request);
    EventsFollowed(request.finish(&app, followed))
}

fn followed(app: &Arc<App>, request: &WhipRequest) -> Result<Response, Problem> {
    app.check_origin(request)?;
    let session = app.whip.sessions.of(request)?;
    let open = lock(&session.subscriptions.open);
    let subscription = open.get(request.named("stream")?).ok_or_else(no_stream)?;
    subscription.readers.send_modify(|readers| *readers += 1);
    let mut readers = subscription.readers.subscribe();
    readers.mark_unchanged();
    let reader = Reader {
        news: app.whip.news.of(&app.whip.server, session.watching()?.wish().room.id()),
        events: subscription.events.clone(),
        told: BTreeMap::new(),
        pending: Vec::new(),
        app: Arc::clone(app),
        readers,
        session: Arc::clone(&session),
    };
    drop(open);
    let opening = SseEvent::default().comment("following");
    Ok(app.stream_of(opening, reader, Reader::next).into_response())
}

/// Who reads a stream of events.
struct Reader {
    app: Arc<App>,
    session: Arc<Session>,
    events: Vec<&'static str>,
    news: watch::Receiver<()>,
    readers: watch::Receiver<u64>,
    /// What was told last, by the name of what it is about.
    told: BTreeMap<&'static str, Value>,
    /// What is told next, the last one first.
    pending: Vec<(&'static str, Value)>,
}

impl Reader {
    async fn next(mut self) -> Option<(SseEvent, Self)> {
        loop {
            if let Some((name, data)) = self.pending.pop() {
                let data = serde_json::to_string(&data).ok()?;
                return Some((SseEvent::default().event(name).data(data), self));
            }
            if self.session.is_closed() {
                return None;
            }
            self.look().await;
            if self.pending.is_empty() {
                tokio::select! {
                    // Another one reads now, or it is over.
                    _ = self.readers.changed() => return None,
                    Ok(()) = self.news.changed() => {}
                    () = sleep(LOOK) => {}
                }
            }
        }
    }

    /// Looks what is new.
    async fn look(&mut self) {
        let session = Arc::clone(&self.session);
        let Some(watching) = &session.watching else {
            return;
        };
        let seen = watching.seen();
        let mut new = Vec::new();
        let is_active = seen.iter().any(|seen| seen.producer().is_some());
        let was_active = self.told.insert("active", Value::from(is_active));
        // That nobody publishes is no news in the beginning.
        let was_active = was_active == Some(Value::Bool(true));
        if was_active != is_active {
            new.push((if is_active { "active" } else { "inactive" }, json!({})));
        }
        if self.events.contains(&"layers") {
            let mut sections = serde_json::Map::new();
            for seen in seen.iter().filter(|seen| seen.kind == MediaKind::Video) {
                if let Some(producer) = seen.producer() {
                    let layers = self.app.whip.layers.of(&producer).await;
                    let shown = layers.iter().enumerate().map(
                        |(index, layer)| json!({"rid": layer.rid, "spatialLayerId": index, "bitrate": layer.bitrate}),
                    );
                    sections.insert(seen.section.to_string(), shown.collect());
                }
            }
            self.tell(&mut new, "layers", Value::Object(sections));
        }
        let viewers = self.app.whip.viewers.count(watching.wish());
        self.tell(&mut new, "viewercount", json!({"viewercount": viewers}));
        new.retain(|(name, _)| self.events.contains(name));
        new.reverse();
        self.pending = new;
    }

    fn tell(&mut self, new: &mut Vec<(&'static str, Value)>, name: &'static str, data: Value) {
        if self.told.get(name) != Some(&data) {
            self.told.insert(name, data.clone());
            new.push((name, data));
        }
    }
}

fn no_stream() -> Problem {
    let message = "there is no such stream of events, or it has ended; begin another one with POST";
    Problem::new(StatusCode::NOT_FOUND, "notFound", message)
}
