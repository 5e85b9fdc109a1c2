//! One client's session: what is said on its connection, on the next one if it loses that, and the peer it is.
//!
//! One task does all of it, so that messages leave in the order in which things happened: an answer before what was told
//! after it. Requests run side by side and begin in the order in which they came.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tracing::{debug, info};

use super::envelope::{Incoming, Outgoing};
use super::pace::Pace;
use super::replay::Replay;
use super::{Seat, Signalling, secret};
use crate::protocol::{ErrorClass, PlainRemotes, ProtocolError, RoomResponse};
use crate::{Peer, PeerNotification, PeerNotifications, Room};

/// Requests and notifications of one client that may be under way; while there are as many, no more are read.
const UNDER_WAY_MAX: usize = 128;

/// For which a client may take to answer that a connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// A client is back on a new connection.
pub(in crate::http) struct ComeBack {
    socket: WebSocket,
    slot: OwnedSemaphorePermit,
    /// Of the request to come back.
    id: u64,
    /// The last message that the client has.
    seq: Option<u64>,
    plain_remotes: PlainRemotes,
}

/// Why a connection is closed, as the client is told (RFC 6455 §7.4: from 4000 on a server's own).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goodbye {
    Malformed,
    NotText,
    Left,
    TakenOver,
    Closed,
    NotJoined,
    TooSlow,
    MissedTooMuch,
}

impl Goodbye {
    fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Self::Malformed => (1007, "that was no message; see docs/protocol.md"),
            Self::NotText => (1003, "messages are text"),
            Self::Left => (4000, "you have left"),
            Self::TakenOver => (4001, "another connection speaks for this peer now"),
            Self::Closed => (4002, "the peer was closed"),
            Self::NotJoined => (4003, "join, or come back, in time"),
            Self::TooSlow => (
                4004,
                "you read too slowly and do not know what the room looks like any more",
            ),
            Self::MissedTooMuch => (4005, "you missed more than is kept; join anew"),
        };
        CloseFrame {
            code,
            reason: reason.into(),
        }
    }
}

/// How a conversation on one connection ends.
enum End {
    /// The peer, if there is one, is to go.
    Over(Goodbye),
    /// The connection is gone; the client may come back.
    Lost(&'static str),
    /// The client has another connection.
    ComeBack(Box<ComeBack>),
    /// The connection belongs to a session that there was before.
    Hand { id: u64, token: String, seq: Option<u64> },
}

/// What a message of the client's came to.
enum Answer {
    FromRoom(u64, Result<RoomResponse, ProtocolError>),
    FromPeer(u64, Result<Value, ProtocolError>),
    Told(Result<(), ProtocolError>),
}

struct Session {
    signalling: Arc<Signalling>,
    room: Room,
    name: String,
    joined: Option<Joined>,
    /// Of the connection there is, or was.
    plain_remotes: PlainRemotes,
    /// The client has said that it leaves.
    leaving: bool,
    under_way: FuturesUnordered<BoxFuture<'static, Answer>>,
    pace: Pace,
    sent: Replay,
    mailbox: mpsc::Receiver<ComeBack>,
    /// For those who look for this session by its token.
    address: mpsc::Sender<ComeBack>,
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
    room: Room,
    name: String,
    plain_remotes: PlainRemotes,
) {
    let mut session = Session::new(signalling, room, name, plain_remotes);
    loop {
        match session.converse(&mut socket).await {
            End::Over(goodbye) => {
                session.end(goodbye).await;
                return close(socket, goodbye).await;
            }
            End::Hand { id, token, seq } => return session.hand_over(socket, slot, id, &token, seq).await,
            End::Lost(reason) => {
                info!(room = %session.room.id(), peer = session.name, reason, "lost a client's connection");
                drop(socket);
                drop(slot);
                let Some(come_back) = session.wait().await else {
                    return session.end(Goodbye::Left).await;
                };
                match session.take_up(come_back).await {
                    Some(next) => (socket, slot) = next,
                    None => return session.end(Goodbye::MissedTooMuch).await,
                }
            }
            End::ComeBack(come_back) => {
                // Not awaited: the old connection may be one of those that never answer.
                tokio::spawn(close(socket, Goodbye::TakenOver));
                drop(slot);
                match session.take_up(*come_back).await {
                    Some(next) => (socket, slot) = next,
                    None => return session.end(Goodbye::MissedTooMuch).await,
                }
            }
        }
    }
}

impl Session {
    fn new(signalling: Arc<Signalling>, room: Room, name: String, plain_remotes: PlainRemotes) -> Self {
        let (address, mailbox) = mpsc::channel(1);
        let options = &signalling.options;
        let pace = Pace::new(options.messages_per_second, options.messages_at_once, Instant::now());
        Self {
            signalling,
            room,
            name,
            joined: None,
            plain_remotes,
            leaving: false,
            under_way: FuturesUnordered::new(),
            pace,
            sent: Replay::default(),
            mailbox,
            address,
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
        let begun = Instant::now();
        let mut heard = begun;
        loop {
            let may_read = self.under_way.len() < UNDER_WAY_MAX;
            if !may_read {
                // Its pongs are not read, either.
                heard = Instant::now();
            }
            tokio::select! {
                biased;
                Some(come_back) = self.mailbox.recv() => return Err(End::ComeBack(Box::new(come_back))),
                _ = pings.tick() => {
                    if heard.elapsed() > options.idle {
                        return Err(End::Lost("it was silent"));
                    }
                    if self.joined.is_none() && begun.elapsed() > options.join {
                        return Err(End::Over(Goodbye::NotJoined));
                    }
                    self.send(socket, Message::Ping(Vec::new().into())).await?;
                }
                Some(answer) = self.under_way.next(), if !self.under_way.is_empty() => {
                    for text in self.take_answer(answer) {
                        self.send(socket, Message::text(text)).await?;
                    }
                }
                message = receive(socket, self.pace.next()), if may_read => {
                    heard = Instant::now();
                    self.hear(message)?;
                }
                told = told(&mut self.joined) => {
                    let text = self.take_notification(told)?;
                    self.send(socket, Message::text(text)).await?;
                }
            }
        }
    }

    /// Takes up a message of the client's.
    fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(()),
            Some(Ok(Message::Binary(_))) => return Err(End::Over(Goodbye::NotText)),
            // A page that is being left closes its connections in good order, and may be back.
            Some(Ok(Message::Close(_))) => return Err(End::Lost("the client closed it")),
            Some(Err(error)) => {
                debug!(peer = self.name, %error, "a client's connection broke");
                return Err(End::Lost("it broke"));
            }
            None => return Err(End::Lost("it ended")),
        };
        self.pace.read(Instant::now());
        let incoming = Incoming::parse(&text).map_err(|error| {
            debug!(peer = self.name, error, "a client sent what is no message");
            End::Over(Goodbye::Malformed)
        })?;
        match incoming {
            Incoming::Request { id, request } => self.begin_request(id, request),
            Incoming::Notification(notification) => self.begin_notification(notification),
            Incoming::Resume { id, token, seq } => match self.joined {
                None if self.under_way.is_empty() => return Err(End::Hand { id, token, seq }),
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
            let room = self.room.clone();
            let answer = async move { Answer::FromRoom(id, room.receive_request(request).await) };
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
        let answer = async move { Answer::Told(peer.receive_notification(notification).await) };
        self.under_way.push(Box::pin(answer));
    }

    fn refuse(&mut self, id: u64, error: ProtocolError) {
        let answer = async move { Answer::FromPeer(id, Err(error)) };
        self.under_way.push(Box::pin(answer));
    }

    /// What to send now that a message of the client's has been dealt with.
    fn take_answer(&mut self, answer: Answer) -> Vec<String> {
        let mut messages = Vec::new();
        match answer {
            Answer::FromRoom(id, Ok(RoomResponse { body, joined })) => {
                messages.extend(joined.and_then(|peer| self.joined(peer)));
                messages.push(Outgoing::response(id, Ok(body)));
            }
            Answer::FromRoom(id, Err(error)) => messages.push(Outgoing::response(id, Err(error))),
            Answer::FromPeer(id, result) => messages.push(Outgoing::response(id, result)),
            Answer::Told(Ok(())) => {}
            Answer::Told(Err(error)) => {
                debug!(peer = self.name, %error, "a client's notification came to nothing");
            }
        }
        messages.into_iter().map(|message| self.number(message)).collect()
    }

    /// The client has become a peer.
    fn joined(&mut self, peer: Peer) -> Option<Outgoing> {
        let grace = self.signalling.options.grace;
        let token = secret().ok();
        let notifications = peer.notifications();
        if let Some(token) = &token {
            let seat = Seat {
                room: self.room.id(),
                name: self.name.clone(),
                address: self.address.clone(),
            };
            self.signalling.sessions().insert(token.clone(), seat);
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
    fn number(&mut self, message: Outgoing) -> String {
        let text = message.numbered(self.sent.next());
        self.sent.push(text.clone());
        text
    }

    fn take_notification(&mut self, told: Option<(u64, PeerNotification)>) -> Result<String, End> {
        let Some(joined) = &mut self.joined else {
            return Err(End::Over(Goodbye::NotJoined));
        };
        let Some((number, notification)) = told else {
            return Err(End::Over(match (joined.peer.overflowed(), joined.peer.closed()) {
                (true, _) => Goodbye::TooSlow,
                (false, true) if self.leaving => Goodbye::Left,
                (false, true) => Goodbye::Closed,
                (false, false) => Goodbye::TakenOver,
            }));
        };
        let message = Outgoing::notification(joined.peer.client_message(&notification));
        // From here on the session keeps it.
        joined.notifications.advance(number);
        Ok(self.number(message))
    }

    /// Sends, unless the client does not take it, or is back on another connection meanwhile.
    async fn send(&mut self, socket: &mut WebSocket, message: Message) -> Result<(), End> {
        tokio::select! {
            biased;
            Some(come_back) = self.mailbox.recv() => Err(End::ComeBack(Box::new(come_back))),
            sent = timeout(self.signalling.options.stall, socket.send(message)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(End::Lost("it broke")),
                Err(_) => Err(End::Lost("it took nothing for too long")),
            }
        }
    }

    /// Waits for the client to come back, as long as it may take. What it asked for goes on meanwhile.
    async fn wait(&mut self) -> Option<ComeBack> {
        self.joined.as_ref()?;
        let last = Instant::now() + self.signalling.options.grace;
        loop {
            tokio::select! {
                biased;
                Some(come_back) = self.mailbox.recv() => return Some(come_back),
                () = sleep_until(last) => return None,
                Some(answer) = self.under_way.next(), if !self.under_way.is_empty() => {
                    // Kept, to be sent when it is back.
                    drop(self.take_answer(answer));
                    if self.joined.as_ref().is_some_and(|joined| joined.peer.closed()) {
                        return None;
                    }
                }
            }
        }
    }

    /// Goes on with a client that is back: tells it that it is, and what it missed.
    async fn take_up(&mut self, come_back: ComeBack) -> Option<(WebSocket, OwnedSemaphorePermit)> {
        let ComeBack {
            mut socket,
            slot,
            id,
            seq,
            plain_remotes,
        } = come_back;
        self.plain_remotes = plain_remotes;
        if let Some(joined) = &self.joined {
            joined.peer.set_plain_remotes(plain_remotes);
        }
        let missed = match seq {
            Some(seq) => self.sent.after(seq),
            None => Some(Vec::new()),
        };
        let Some(missed) = missed else {
            tokio::spawn(close(socket, Goodbye::MissedTooMuch));
            return None;
        };
        info!(room = %self.room.id(), peer = self.name, missed = missed.len(), "a client is back");
        let welcome = Outgoing::response(id, Ok(Value::Null)).unnumbered();
        let stall = self.signalling.options.stall;
        for text in std::iter::once(welcome).chain(missed) {
            // If this fails, so will the next use of the connection, which then counts as lost again.
            if !matches!(timeout(stall, socket.send(Message::text(text))).await, Ok(Ok(()))) {
                break;
            }
        }
        Some((socket, slot))
    }

    /// Gives the connection to the session with this token.
    async fn hand_over(
        self,
        mut socket: WebSocket,
        slot: OwnedSemaphorePermit,
        id: u64,
        token: &str,
        seq: Option<u64>,
    ) {
        let found = self.signalling.sessions().get(token).map(|seat| seat.address.clone());
        let refused = match found {
            Some(session) => {
                let come_back = ComeBack {
                    socket,
                    slot,
                    id,
                    seq,
                    plain_remotes: self.plain_remotes,
                };
                match session.send(come_back).await {
                    Ok(()) => return,
                    // It has ended this moment.
                    Err(unsent) => unsent.0.socket,
                }
            }
            None => {
                let refusal = ProtocolError {
                    class: ErrorClass::InvalidStateError,
                    message: "there is no such session; join anew".to_owned(),
                };
                let text = Outgoing::response(id, Err(refusal)).unnumbered();
                // It is closed next, whether it took this or not.
                let _ = timeout(FAREWELL, socket.send(Message::text(text))).await;
                socket
            }
        };
        close(refused, Goodbye::NotJoined).await;
    }

    /// Lets the peer go.
    async fn end(&mut self, why: Goodbye) {
        let Some(joined) = self.joined.take() else {
            return;
        };
        self.signalling.sessions().remove(&joined.token);
        if joined.peer.closed() {
            return;
        }
        info!(room = %self.room.id(), peer = self.name, ?why, "a client is gone");
        if let Err(error) = joined.peer.leave(Value::Null).await {
            debug!(peer = self.name, %error, "a peer could not be let go");
        }
        // Nobody else will: without its client it would stay for as long as its room.
        if !joined.peer.closed() {
            tokio::spawn(async move { joined.peer.leave_in_the_end().await });
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

/// The next message, not before `from`.
async fn receive(socket: &mut WebSocket, from: Instant) -> Option<Result<Message, axum::Error>> {
    sleep_until(from).await;
    socket.recv().await
}

/// The next notification; never, before there is a peer.
async fn told(joined: &mut Option<Joined>) -> Option<(u64, PeerNotification)> {
    match joined {
        Some(joined) => joined.notifications.peek().await,
        None => std::future::pending().await,
    }
}

async fn close(mut socket: WebSocket, goodbye: Goodbye) {
    // The client may be gone, or not listen; neither is worth waiting for.
    let _ = timeout(FAREWELL, async {
        socket.send(Message::Close(Some(goodbye.frame()))).await?;
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
        Ok::<(), axum::Error>(())
    })
    .await;
}
