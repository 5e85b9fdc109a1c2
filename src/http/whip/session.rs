//! Sessions: who publishes or watches, from its offer until its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info};

use super::events::Subscriptions;
use super::play::Watching;
use super::problem::Problem;
use super::request::WhipRequest;
use super::rooms::Stay;
use super::viewers::Viewer;
use super::{Protocol, Whip};
use crate::http::error::ApiError;
use crate::http::peers::path_segment;
use crate::http::signalling::secret;
use crate::sdp::IceClient;
use crate::server::{lock, random};
use crate::{DtlsState, IceState, Peer, RoomId, WebRtcTransport};

/// How often a session is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// After so many looks, a player that waits looks for somebody to watch, even if nobody has told it anything.
const LOOKS_PER_ATTENDANCE: u32 = 5;

/// A session.
pub(super) struct Session {
    id: String,
    protocol: Protocol,
    /// The room as its client has named it.
    room: String,
    peer: Peer,
    pub(super) transport: WebRtcTransport,
    /// What a player watches.
    pub(super) watching: Option<Watching>,
    /// What a player has asked to be told.
    pub(super) subscriptions: Subscriptions,
    /// The client's credentials; held while ICE is restarted.
    pub(super) ice: tokio::sync::Mutex<IceClient>,
    /// The section that has the transport.
    pub(super) mid: Option<String>,
    ended: Notify,
    _stay: Stay,
}

impl Session {
    pub(super) fn new(
        id: String,
        protocol: Protocol,
        room: String,
        (peer, stay): (Peer, Stay),
        (ice, mid): (IceClient, Option<String>),
        (transport, watching): (WebRtcTransport, Option<Watching>),
    ) -> Self {
        Self {
            id,
            protocol,
            room,
            peer,
            transport,
            watching,
            subscriptions: Subscriptions::default(),
            ice: tokio::sync::Mutex::new(ice),
            mid,
            ended: Notify::new(),
            _stay: stay,
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> String {
        let Self { id, protocol, room, .. } = self;
        format!("/{}/{}/sessions/{id}", protocol.name(), path_segment(room))
    }

    /// What a player watches.
    pub(super) fn watching(&self) -> Result<&Watching, Problem> {
        let message = "this is a publisher's session; only players have layers and events";
        let problem = || Problem::new(StatusCode::NOT_FOUND, "notFound", message);
        self.watching.as_ref().ok_or_else(problem)
    }

    /// Whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.peer.closed()
    }

    /// What only its client knows.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// News of the room that a player watches.
    fn news(&self, whip: &Weak<Whip>) -> Option<watch::Receiver<()>> {
        let (whip, watching) = (whip.upgrade()?, self.watching.as_ref()?);
        Some(whip.news.of(&whip.server, watching.wish().room.id()))
    }

    /// Counts a player.
    fn enter_viewers(&self, whip: &Weak<Whip>) -> Option<Viewer> {
        let (whip, watching) = (whip.upgrade()?, self.watching.as_ref()?);
        Some(whip.viewers.enter(watching.wish()))
    }

    /// Gives a player what there is to watch.
    async fn attend(&self) {
        if let Some(watching) = self.watching.as_ref().filter(|watching| watching.waits()) {
            watching.attend().await;
        }
    }

    /// Closes what it has, as when its client leaves.
    pub(super) async fn end(&self) {
        self.ended.notify_one();
        // What the worker refuses now is tried again by who watches over it.
        if let Err(error) = self.peer.leave(Value::Null).await {
            debug!(%error, peer = self.peer.name(), "a session is still closing");
        }
    }

    /// Why it is over, as far as can be seen.
    fn over(&self) -> Option<&'static str> {
        match (self.transport.ice_state(), self.transport.dtls_state()) {
            _ if self.transport.closed() => Some("its transport is closed"),
            (IceState::Disconnected | IceState::Closed, _) => Some("its client is gone"),
            (_, DtlsState::Failed) => Some("DTLS failed"),
            (_, DtlsState::Closed) => Some("its client has closed DTLS"),
            _ if self.watching.as_ref().is_some_and(Watching::is_over) => Some("what it receives has ended"),
            _ => None,
        }
    }
}

/// Places that a session takes.
pub(super) struct Places {
    pub(super) _slot: OwnedSemaphorePermit,
    /// Until it has connected.
    pub(super) unconnected: Option<OwnedSemaphorePermit>,
}

/// All sessions, by what only their clients know.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    /// The session at a request's path.
    pub(super) fn of(&self, request: &WhipRequest) -> Result<Arc<Session>, Problem> {
        let (room, id) = (request.named("room")?, request.named("session")?);
        let found = lock(&self.open).get(id).filter(|session| session.room == room).cloned();
        found.ok_or_else(|| {
            let message = "there is no such session, or it has ended; begin another one with POST";
            Problem::new(StatusCode::NOT_FOUND, "notFound", message)
        })
    }

    /// The session of a publisher.
    pub(super) fn publisher(&self, room: RoomId, name: &str) -> Option<Arc<Session>> {
        let open = lock(&self.open);
        let mut publishers = open.values().filter(|session| session.protocol == Protocol::Whip);
        publishers
            .find(|session| session.peer.room().id() == room && session.peer.name() == name)
            .cloned()
    }

    pub(super) fn remove(&self, id: &str) {
        lock(&self.open).remove(id);
    }
}

/// Keeps a session until it is over.
pub(super) fn begin(whip: &Arc<Whip>, session: Session, places: Places) {
    let session = Arc::new(session);
    lock(&whip.sessions.open).insert(session.id.clone(), Arc::clone(&session));
    let connect = whip.options.connect;
    tokio::spawn(watch_over(Arc::downgrade(whip), session, places, connect));
}

/// Waits for news of a room; for ever, if there are none.
async fn changed(news: &mut Option<watch::Receiver<()>>) {
    let is_gone = match news {
        Some(news) => news.changed().await.is_err(),
        None => return std::future::pending().await,
    };
    if is_gone {
        *news = None;
    }
}

async fn watch_over(whip: Weak<Whip>, session: Arc<Session>, mut places: Places, connect: Duration) {
    let begin = Instant::now();
    let mut news = session.news(&whip);
    let mut looks = 0_u32;
    let mut viewer = None;
    let mut notifications = session.peer.notifications();
    let mut reads = true;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Who has come since its offer was answered.
    session.attend().await;
    let why = loop {
        tokio::select! {
            // Nobody is told of the room, but what waits for somebody must go. None: the peer is closed, or an operator reads.
            told = notifications.next(), if reads => match told {
                Some(_) => {}
                None if session.peer.closed() => break "its peer is closed",
                None => reads = false,
            },
            () = session.ended.notified() => break "its client has ended it",
            () = changed(&mut news) => session.attend().await,
            _ = look.tick() => {
                looks = looks.wrapping_add(1);
                if looks.is_multiple_of(LOOKS_PER_ATTENDANCE) {
                    session.attend().await;
                }
                if session.transport.dtls_state() == DtlsState::Connected && places.unconnected.take().is_some() {
                    let Session { protocol, room, peer, .. } = &*session;
                    info!(protocol = protocol.name(), room, peer = peer.name(), "a session has connected");
                    viewer = session.enter_viewers(&whip);
                }
                let connected = places.unconnected.is_none();
                if let Some(why) = session.over() {
                    break why;
                }
                if !connected && begin.elapsed() >= connect {
                    break "its client has not connected";
                }
            }
        }
    };
    if let Some(whip) = whip.upgrade() {
        whip.sessions.remove(&session.id);
    }
    drop(viewer);
    let Session {
        protocol, room, peer, ..
    } = &*session;
    // Who never connects, and comes again and again, is not worth a line each time.
    match places.unconnected {
        None => info!(
            protocol = protocol.name(),
            room,
            peer = peer.name(),
            why,
            "a session has ended"
        ),
        Some(_) => debug!(
            protocol = protocol.name(),
            room,
            peer = peer.name(),
            why,
            "a session has ended"
        ),
    }
    session.peer.leave_in_the_end().await;
    drop(places);
}

/// A peer that leaves again unless what it was made for is done. Its stay ends after it.
pub(super) struct Begun(Option<(Peer, Stay)>);

impl Begun {
    pub(super) fn new(peer: Peer, stay: Stay) -> Self {
        Self(Some((peer, stay)))
    }

    pub(super) fn done(mut self) -> Option<(Peer, Stay)> {
        self.0.take()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // Without a runtime the server is gone, too.
        if let (Some((peer, stay)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                peer.leave_in_the_end().await;
                drop(stay);
            });
        }
    }
}

/// What nobody can guess.
pub(super) fn new_id() -> Result<String, Problem> {
    Ok(secret().map_err(|error| ApiError::internal(format_args!("no randomness: {error}")))?)
}

/// A name for a peer that has given none.
pub(super) fn made_up_name(protocol: Protocol) -> String {
    format!("{}-{:016x}", protocol.name(), random())
}
