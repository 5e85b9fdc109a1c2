//! One client's session: what is said on its connection, on the next one if it loses that, and the peer it is.
//!
//! One task does all of it, so that messages leave in the order in which things happened: an answer before the notifications
//! after it. Requests run side by side and begin in the order in which they came.

mod coming_back;
mod succession;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::{debug, info};
use weir_channel::own_time::OwnTime;

use super::claim::{Claim, NameGuard, NameTaken, Resumption, SessionMessage};
use super::closing::{CloseReason, answer_close, close};
use super::envelope::{Incoming, Outgoing};
use super::evidence::{BrowserSecret, Evidence};
use super::held::Held;
use super::pace::Pace;
use super::replay::Replay;
use super::sessions::SessionEntry;
use super::text::Text;
use super::websocket::WebSocket;
use super::{Client, Signalling, secret};
use crate::http::crowd::Standing;
use crate::protocol::{Grants, PlainRemotes, ProtocolError, RoomAnswer};
use crate::{Error, Peer, PeerNotification, PeerNotifications, Room};

/// Requests and notifications of one client that may be under way; while there are as many, no more are read.
const UNDER_WAY_MAX: usize = 128;

/// RFC 6455 §7.4.1: what the connection was for is done.
const NORMAL: u16 = 1000;

/// RFC 6455 §7.4.1: the browser leaves the page.
const GOING_AWAY: u16 = 1001;

/// How often a client that is not there, or does not read, is held to its share of what waits for all clients.
const HOLD_INTERVAL: Duration = Duration::from_secs(1);

/// How a conversation on one connection ends.
enum End {
    /// The peer, if there is one, is to go.
    Over(CloseReason),
    /// The client has said that this is the end, and the peer is to go.
    Closed,
    /// The connection is gone; the client may come back.
    Lost(&'static str),
    /// The client has another connection.
    Resumed(Box<Resumption>),
    /// The connection belongs to a session that there was before.
    HandOver { id: u64, token: String, seq: Option<u64> },
}

/// What a message of the client's came to.
enum Answer {
    /// And the name that was kept for it, until it is seen to have a session.
    FromRoom(u64, Result<RoomAnswer, ProtocolError>, Option<NameGuard>),
    FromPeer(u64, Result<Value, ProtocolError>),
    ToNotification(Result<(), ProtocolError>),
}

struct Session {
    signalling: Arc<Signalling>,
    room: Room,
    name: String,
    grants: Grants,
    joined: Option<Joined>,
    /// As long as it has not joined.
    unjoined: Option<Standing>,
    /// Of the connection there is, or was.
    plain_remotes: PlainRemotes,
    /// The client has said that it leaves.
    leaving: bool,
    under_way: FuturesUnordered<BoxFuture<'static, Answer>>,
    pace: Pace,
    sent: Replay,
    held: Held,
    browser: Option<BrowserSecret>,
    inbox: mpsc::Receiver<SessionMessage>,
    /// For those who look for this session, by its token or by its name.
    address: mpsc::Sender<SessionMessage>,
    /// Those who wait for the end of this session. The ones who have a right to its name get it first.
    claims: Vec<Claim>,
    /// Before this no claim without a right is looked into.
    next_unproven_claim: Option<Instant>,
    /// In which this connection was served: time in which the server was stopped is no silence of the client's.
    own: OwnTime,
    /// When, in that time, something last came.
    last_heard: Duration,
}

struct Joined {
    peer: Peer,
    notifications: PeerNotifications,
    token: String,
}

/// Serves a client from its first connection to its end.
pub(super) async fn serve(
    mut socket: WebSocket,
    mut slot: OwnedSemaphorePermit,
    signalling: Arc<Signalling>,
    client: Client,
) {
    let mut session = Session::new(signalling, client);
    loop {
        let resumption = match session.converse(&mut socket).await {
            End::Over(reason) => {
                if reason == CloseReason::Crowded {
                    session.signalling.log_crowd();
                }
                session.end(reason).await;
                return close(socket, reason).await;
            }
            End::Closed => {
                session.end(CloseReason::Left).await;
                return answer_close(socket).await;
            }
            End::HandOver { id, token, seq } => return session.hand_over(socket, slot, id, &token, seq).await,
            End::Lost(reason) => {
                info!(room = %session.room.id(), peer = session.name, reason, "lost a client's connection");
                drop(slot);
                // Not awaited: the client may be back at once.
                tokio::spawn(answer_close(socket));
                match session.wait().await {
                    Ok(resumption) => resumption,
                    Err(reason) => return session.end(reason).await,
                }
            }
            End::Resumed(resumption) => {
                // Not awaited: the old connection may be one of those that never answer.
                tokio::spawn(close(socket, CloseReason::TakenOver));
                drop(slot);
                resumption
            }
        };
        match session.resume(*resumption).await {
            Some(next) => (socket, slot) = next,
            None => return session.end(CloseReason::MissedTooMuch).await,
        }
    }
}

impl Session {
    fn new(signalling: Arc<Signalling>, client: Client) -> Self {
        let (address, inbox) = mpsc::channel(1);
        let options = &signalling.options;
        let pace = Pace::new(options.messages_per_second, options.messages_at_once, Instant::now());
        let own = OwnTime::in_steps(Instant::now(), options.ping);
        let held = Held::new(&signalling);
        Self {
            signalling,
            room: client.room,
            name: client.name,
            grants: client.grants,
            joined: None,
            unjoined: client.unjoined,
            plain_remotes: client.plain_remotes,
            leaving: false,
            under_way: FuturesUnordered::new(),
            pace,
            sent: Replay::default(),
            held,
            browser: client.browser,
            inbox,
            address,
            claims: Vec::new(),
            next_unproven_claim: None,
            own,
            last_heard: Duration::ZERO,
        }
    }

    /// Speaks with the client until the connection or the peer ends.
    async fn converse(&mut self, socket: &mut WebSocket) -> End {
        match self.converse_on(socket).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn converse_on(&mut self, socket: &mut WebSocket) -> Result<std::convert::Infallible, End> {
        let options = self.signalling.options.clone();
        let mut pings = interval_at(Instant::now() + options.ping, options.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.own = OwnTime::in_steps(Instant::now(), options.ping);
        self.last_heard = Duration::ZERO;
        loop {
            let may_read = self.under_way.len() < UNDER_WAY_MAX;
            if !may_read {
                // Its pongs are not read, either.
                self.last_heard = self.own.look(Instant::now());
            }
            tokio::select! {
                biased;
                Some(message) = self.inbox.recv() => match message {
                    SessionMessage::Resume(resumption) => return Err(End::Resumed(resumption)),
                    SessionMessage::Claim(claim) => self.on_claim(claim, socket)?,
                },
                _ = pings.tick() => {
                    let now = Instant::now();
                    let served = self.own.look(now);
                    if served.saturating_sub(self.last_heard) > options.idle && self.pace.is_due(now) {
                        // It may have come while the server did not run.
                        let Some(message) = socket.receive().now_or_never() else {
                            return Err(End::Lost("it was silent"));
                        };
                        self.last_heard = served;
                        self.on_message(message)?;
                    }
                    if self.joined.is_none() && served > options.join {
                        return Err(End::Over(CloseReason::NotJoined));
                    }
                    self.send_held(socket.ping(), 0).await?;
                }
                Some(answer) = self.under_way.next(), if !self.under_way.is_empty() => {
                    for text in self.take_answer(answer) {
                        self.send(socket, text).await?;
                    }
                }
                () = evicted(&self.unjoined) => return Err(End::Over(CloseReason::Crowded)),
                message = receive(socket, self.pace.next()), if may_read => {
                    self.last_heard = self.own.look(Instant::now());
                    self.on_message(message)?;
                }
                next = next_notification(&mut self.joined) => {
                    let text = self.take_notification(next)?;
                    self.send(socket, text).await?;
                }
            }
        }
    }

    /// Takes up a message of the client's.
    fn on_message(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Result<(), End> {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            Some(Ok(Message::Binary(_))) => return Err(End::Over(CloseReason::NotText)),
            Some(Ok(Message::Close(frame))) => {
                return Err(match frame.map(|frame| frame.code.into()) {
                    // Done, or the page is being left (RFC 6455 §7.4.1); without a code, what `close()` of a page says.
                    None | Some(NORMAL | GOING_AWAY) => End::Closed,
                    Some(_) => End::Lost("the client closed it"),
                });
            }
            Some(Err(error)) => {
                debug!(peer = self.name, %error, "a client's connection broke");
                return Err(End::Lost("it broke"));
            }
            None => return Err(End::Lost("it ended")),
        };
        self.pace.read(Instant::now());
        let incoming = Incoming::parse(&text).map_err(|error| {
            debug!(peer = self.name, error, "a client sent what is no message");
            End::Over(CloseReason::Malformed)
        })?;
        match incoming {
            Incoming::Request { id, request } => self.begin_request(id, request),
            Incoming::Notification(notification) => self.begin_notification(notification),
            Incoming::Resume { id, token, seq } => match self.joined {
                None if self.under_way.is_empty() => return Err(End::HandOver { id, token, seq }),
                _ => self.refuse(
                    id,
                    ProtocolError::invalid_state("this connection speaks for a peer already"),
                ),
            },
            Incoming::Unknown { id, method } => {
                let shown: String = method.chars().take(64).collect();
                self.refuse(id, ProtocolError::error(format!("unknown method \"{shown}\"")));
            }
        }
        Ok(())
    }

    fn begin_request(&mut self, id: u64, request: Value) {
        let method = request.get("method").and_then(Value::as_str);
        let of_room = match request.get("target").and_then(Value::as_str) {
            Some(target) => target == "room",
            None => matches!(method, Some("queryRoom" | "join")),
        };
        if of_room {
            // While its peer is there, the room refuses. Afterwards this session ends, with the token of that peer.
            let gone = |joined: &Joined| self.leaving || joined.peer.closed();
            if method == Some("join") && self.joined.as_ref().is_some_and(gone) {
                let message = "the peer of this connection is gone; join anew on another";
                return self.refuse(id, ProtocolError::invalid_state(message));
            }
            if method == Some("join") && request.get("peerName").and_then(Value::as_str) != Some(&self.name) {
                let message = format!("peerName must be {:?}, the name in the connection's address", self.name);
                return self.refuse(id, ProtocolError::type_error(message));
            }
            let claim = match method {
                Some("join") => self.claim(request.get("resumeToken").and_then(Value::as_str)),
                _ => None,
            };
            let room = self.room.clone();
            let (name, grants) = (self.name.clone(), self.grants);
            let answer = async move {
                let claimed = match claim {
                    Some(claim) => claim.await,
                    None => Ok(None),
                };
                match claimed {
                    Ok(kept) => Answer::FromRoom(id, room.answer_request(request, grants).await, kept),
                    Err(NameTaken) => {
                        Answer::FromRoom(id, Err(Error::DuplicatePeer { room: room.id(), name }.into()), None)
                    }
                }
            };
            return self.under_way.push(Box::pin(answer));
        }
        match &self.joined {
            Some(joined) => {
                let peer = joined.peer.clone();
                let answer = async move { Answer::FromPeer(id, peer.receive_request(request).await) };
                self.under_way.push(Box::pin(answer));
            }
            None => self.refuse(id, ProtocolError::invalid_state("join first")),
        }
    }

    fn begin_notification(&mut self, notification: Value) {
        let Some(joined) = &self.joined else {
            return debug!(peer = self.name, "a client that has not joined sent a notification");
        };
        self.leaving |= notification.get("method").and_then(Value::as_str) == Some("leave");
        let peer = joined.peer.clone();
        let answer = async move { Answer::ToNotification(peer.receive_notification(notification).await) };
        self.under_way.push(Box::pin(answer));
    }

    fn refuse(&mut self, id: u64, error: ProtocolError) {
        let answer = async move { Answer::FromPeer(id, Err(error)) };
        self.under_way.push(Box::pin(answer));
    }

    /// What to send now that a message of the client's has been dealt with.
    fn take_answer(&mut self, answer: Answer) -> Vec<Text> {
        let mut messages = Vec::new();
        match answer {
            Answer::FromRoom(id, Ok(RoomAnswer::Told(body)), _) => messages.push(Outgoing::response(id, Ok(body))),
            Answer::FromRoom(id, Ok(RoomAnswer::Joined(peer, others)), _kept) => {
                messages.extend(self.joined(peer));
                messages.push(Outgoing::joined(id, others));
            }
            Answer::FromRoom(id, Err(error), _) => messages.push(Outgoing::response(id, Err(error))),
            Answer::FromPeer(id, result) => messages.push(Outgoing::response(id, result)),
            Answer::ToNotification(Ok(())) => {}
            Answer::ToNotification(Err(error)) => {
                debug!(peer = self.name, %error, "a client's notification came to nothing");
            }
        }
        messages.into_iter().map(|message| self.number(message)).collect()
    }

    /// The client has become a peer.
    fn joined(&mut self, peer: Peer) -> Option<Outgoing> {
        self.unjoined = None;
        let grace = self.signalling.options.grace;
        let token = secret().ok();
        let notifications = peer.notifications();
        if let Some(token) = &token {
            let session = SessionEntry {
                room: self.room.id(),
                name: self.name.clone(),
                address: self.address.clone(),
                evidence: Evidence {
                    browser: self.browser.clone(),
                    token: Some(token.clone()),
                },
                is_leaving: false,
            };
            self.signalling.sessions().insert(token.clone(), session);
        }
        peer.set_plain_remotes(self.plain_remotes);
        let before = self.joined.replace(Joined {
            peer,
            notifications,
            token: token.clone().unwrap_or_default(),
        });
        // When it asked twice at once, and the first was closed before the second was answered.
        if let Some(before) = before {
            self.signalling.sessions().remove(&before.token);
        }
        // Without a source of randomness there is no coming back.
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        token.map(|token| Outgoing::session(&token, grace_ms))
    }

    /// Gives a message its number and keeps it.
    fn number(&mut self, message: Outgoing) -> Text {
        let text = message.numbered(self.sent.next(), &self.signalling.shared);
        self.sent.push(text.clone());
        self.hold(0);
        text
    }

    /// Counts what this session holds, and whether what is being sent is within its share.
    fn hold(&mut self, sending: usize) -> bool {
        self.held.count(&mut self.sent, sending)
    }

    fn take_notification(&mut self, next: Option<(u64, PeerNotification)>) -> Result<Text, End> {
        let Some(joined) = &mut self.joined else {
            return Err(End::Over(CloseReason::NotJoined));
        };
        let Some((number, notification)) = next else {
            return Err(End::Over(match (joined.peer.overflowed(), joined.peer.closed()) {
                (true, _) => CloseReason::TooSlow,
                (false, true) if self.leaving => CloseReason::Left,
                (false, true) => CloseReason::Closed,
                (false, false) => CloseReason::TakenOver,
            }));
        };
        let message = Outgoing::notification(&joined.peer, notification);
        // From here on the session keeps it.
        joined.notifications.advance(number);
        Ok(self.number(message))
    }

    /// Sends, unless the client does not take it, or is back on another connection meanwhile.
    async fn send(&mut self, socket: &mut WebSocket, text: Text) -> Result<(), End> {
        let bytes = text.own_bytes();
        self.hold(bytes);
        let sent = self.send_held(socket.send(text), bytes).await;
        self.hold(0);
        sent
    }

    /// Waits for something that sends and holds so many bytes.
    async fn send_held(
        &mut self,
        sending: impl Future<Output = Result<(), tungstenite::Error>>,
        bytes: usize,
    ) -> Result<(), End> {
        let mut sending = pin!(timeout(self.signalling.options.stall, sending));
        let mut room_was_closed = false;
        let mut tick = pin!(sleep(HOLD_INTERVAL));
        loop {
            tokio::select! {
                biased;
                Some(message) = self.inbox.recv() => match message {
                    SessionMessage::Resume(resumption) => return Err(End::Resumed(resumption)),
                    SessionMessage::Claim(claim) if claim.is_proven => {
                        self.claims.push(claim);
                        return Err(End::Over(CloseReason::Replaced));
                    }
                    SessionMessage::Claim(claim) => self.refuse_claim(claim),
                },
                sent = &mut sending => return match sent {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(End::Lost("it broke")),
                    Err(_) => Err(End::Lost("it took nothing for too long")),
                },
                () = evicted(&self.unjoined) => return Err(End::Over(CloseReason::Crowded)),
                () = &mut tick => {
                    if !self.hold(bytes) {
                        return Err(End::Over(CloseReason::TooSlow));
                    }
                    // It has had time to read that.
                    if std::mem::replace(&mut room_was_closed, self.room.closed()) {
                        return Err(End::Over(CloseReason::Closed));
                    }
                    tick.as_mut().reset(Instant::now() + HOLD_INTERVAL);
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // When the task is ended from outside. The peer ends with its room then.
        if let Some(joined) = &self.joined {
            self.signalling.sessions().remove(&joined.token);
        }
    }
}

/// Ends when a client that has not joined has to give way to others.
async fn evicted(unjoined: &Option<Standing>) {
    match unjoined {
        Some(standing) => standing.evicted().await,
        None => std::future::pending().await,
    }
}

/// The next message, not before `from`.
async fn receive(socket: &mut WebSocket, from: Instant) -> Option<Result<Message, tungstenite::Error>> {
    sleep_until(from).await;
    socket.receive().await
}

/// The next notification; never, before there is a peer.
async fn next_notification(joined: &mut Option<Joined>) -> Option<(u64, PeerNotification)> {
    match joined {
        Some(joined) => joined.notifications.peek().await,
        None => std::future::pending().await,
    }
}
