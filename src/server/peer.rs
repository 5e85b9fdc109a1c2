//! A peer: somebody in a room, who sends and receives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::debug;
use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::Method;

use super::consumer::Consumer;
use super::error::Error;
use super::limits::{PEER_NAME_BYTES_MAX, PRODUCERS_PER_PEER_MAX, REPORTS_PER_PEER_MAX, TRANSPORTS_PER_PEER_MAX};
use super::peer_notification::{ConsumerInfo, Outbox, PeerNotification, PeerNotifications};
use super::producer::{Producer, made_up_cname};
use super::room::{PlainTransportOptions, Room, RoomNode};
use super::rtp_capabilities::RtpCapabilities;
use super::state::{Command, Note, State};
use super::steering::Side;
use super::transport::{Direction, Transport, TransportNode, WebRtcTransport, WebRtcTransportOptions};
use super::{Shared, lock};
use crate::protocol::ClientState;

/// Between the first two attempts to close a peer whose client is gone. A worker that refused was busy.
const LEAVE_AGAIN_MIN: Duration = Duration::from_millis(500);

/// Between later ones.
const LEAVE_AGAIN_MAX: Duration = Duration::from_secs(30);

/// The options of a new peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerOptions {
    /// Its name, 1 to 255 bytes, unique in the room.
    pub name: String,
    /// What it can receive, with the room's payload types and header extension ids; a part of the room's capabilities.
    pub rtp_capabilities: RtpCapabilities,
    /// Whether it is a spy: it receives, it may not send, and the other peers do not know of it.
    #[serde(default)]
    pub spy: bool,
    /// Any data of the application or the client, kept with the peer. The other peers' clients see it.
    #[serde(default)]
    pub app_data: Value,
}

impl PeerOptions {
    /// A peer that can receive this.
    pub fn new(name: impl Into<String>, rtp_capabilities: RtpCapabilities) -> Self {
        Self {
            name: name.into(),
            rtp_capabilities,
            spy: false,
            app_data: Value::Null,
        }
    }
}

/// The result of joining: the peer, and the other peers at that moment. The peer's notifications tell each later change
/// exactly once.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The new peer.
    pub peer: Peer,
    /// The other peers, spies left out, in the order in which they joined.
    pub others: Vec<PeerInfo>,
}

/// Another peer, as a joining client is told of it.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its app data.
    pub app_data: Arc<Value>,
    /// The joining peer's consumers of its producers.
    pub consumers: Vec<ConsumerInfo>,
}

/// A handle on a peer. Cheap to clone; dropping it closes nothing.
#[derive(Clone)]
pub struct Peer {
    shared: Arc<Shared>,
    node: Arc<PeerNode>,
}

/// Counts a room's peers in the order in which they joined.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PeerKey(u64);

#[derive(Debug)]
pub(crate) struct PeerNode {
    pub(crate) key: PeerKey,
    pub(crate) name: Arc<str>,
    pub(crate) room: Arc<RoomNode>,
    pub(crate) rtp_capabilities: RtpCapabilities,
    pub(crate) spy: bool,
    /// For producers that come without one: receivers keep in sync what has the same (RFC 3550 §6.5.1).
    pub(crate) cname: String,
    pub(crate) outbox: Outbox,
    /// What the protocol keeps with it.
    client: ClientState,
    /// A seat for each thing whose statistics its client is told.
    pub(crate) report_seats: Arc<Semaphore>,
    pub(crate) state: Mutex<PeerState>,
}

#[derive(Debug)]
pub(crate) struct PeerState {
    pub(crate) closed: bool,
    pub(crate) app_data: Arc<Value>,
    /// While its transports are being closed. It takes no more calls.
    pub(crate) closing: Option<Closing>,
    /// Asked for, and not answered.
    pub(crate) transports_on_their_way: BTreeSet<TransportId>,
    pub(crate) producers_on_their_way: usize,
}

/// A peer is closed when the worker has closed its transports, all of which were asked for at once.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) side: Side,
    pub(crate) app_data: Value,
    pub(crate) unanswered: usize,
    /// Those that are closed.
    pub(crate) closed: Vec<TransportId>,
    /// What the worker said, if it did not close one of them.
    pub(crate) refused: bool,
}

impl PeerNode {
    /// Only [`State`](super::state::State) does this, under its lock.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.closing = None;
        drop(state);
        self.outbox.end();
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// Whether it takes calls.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        let state = lock(&self.state);
        match state.closed || state.closing.is_some() {
            true => Err(Error::closed(self.describe())),
            false => Ok(()),
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!("peer {:?}", self.name)
    }

    pub(crate) fn too_many(&self, noun: &'static str, limit: usize) -> Error {
        Error::TooMany {
            owner: self.describe(),
            noun,
            limit,
        }
    }
}

/// A room's peers, in the order in which they joined.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    entries: BTreeMap<PeerKey, PeerEntry>,
    names: HashMap<Arc<str>, PeerKey>,
    last_key: u64,
}

/// A peer, and what is its own.
#[derive(Debug)]
pub(crate) struct PeerEntry {
    pub(crate) node: Arc<PeerNode>,
    pub(crate) transports: BTreeSet<TransportId>,
    pub(crate) producers: BTreeSet<ProducerId>,
    pub(crate) consumers: BTreeSet<ConsumerId>,
}

impl Peers {
    /// Takes up a new peer, if its name is good and free.
    pub(crate) fn add(&mut self, room: &Arc<RoomNode>, options: PeerOptions) -> Result<Arc<PeerNode>, Error> {
        if options.name.is_empty() || options.name.len() > PEER_NAME_BYTES_MAX {
            return Err(Error::InvalidParameters(format!(
                "a peer's name has 1 to {PEER_NAME_BYTES_MAX} bytes, not {}",
                options.name.len()
            )));
        }
        if self.names.contains_key(options.name.as_str()) {
            return Err(Error::DuplicatePeer {
                name: options.name,
                room: room.id,
            });
        }
        self.last_key += 1;
        let node = Arc::new(PeerNode {
            key: PeerKey(self.last_key),
            name: options.name.into(),
            room: Arc::clone(room),
            rtp_capabilities: options.rtp_capabilities,
            spy: options.spy,
            cname: made_up_cname(),
            outbox: Outbox::default(),
            client: ClientState::default(),
            report_seats: Arc::new(Semaphore::new(REPORTS_PER_PEER_MAX)),
            state: Mutex::new(PeerState {
                closed: false,
                app_data: Arc::new(options.app_data),
                closing: None,
                transports_on_their_way: BTreeSet::new(),
                producers_on_their_way: 0,
            }),
        });
        self.names.insert(Arc::clone(&node.name), node.key);
        let entry = PeerEntry {
            node: Arc::clone(&node),
            transports: BTreeSet::new(),
            producers: BTreeSet::new(),
            consumers: BTreeSet::new(),
        };
        self.entries.insert(node.key, entry);
        Ok(node)
    }

    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<PeerEntry> {
        let entry = self.entries.remove(&key)?;
        self.names.remove(&entry.node.name);
        Some(entry)
    }

    pub(crate) fn get(&self, key: PeerKey) -> Option<&PeerEntry> {
        self.entries.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: PeerKey) -> Option<&mut PeerEntry> {
        self.entries.get_mut(&key)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&PeerEntry> {
        self.entries.get(self.names.get(name)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PeerEntry> + Clone {
        self.entries.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Peer {
    pub(crate) fn new(shared: Arc<Shared>, node: Arc<PeerNode>) -> Self {
        Self { shared, node }
    }

    /// What the protocol keeps with it.
    pub(crate) fn client(&self) -> &ClientState {
        &self.node.client
    }

    /// Its name, unique in its room.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// The room it is in.
    pub fn room(&self) -> Room {
        Room::new(Arc::clone(&self.shared), Arc::clone(&self.node.room))
    }

    /// Whether it is closed: by itself, with its room, or because its worker died.
    pub fn closed(&self) -> bool {
        self.node.is_closed()
    }

    /// Whether it is a spy: it only receives, and the other peers do not know of it.
    pub fn spy(&self) -> bool {
        self.node.spy
    }

    /// What the application keeps with it.
    pub fn app_data(&self) -> Value {
        Value::clone(&lock(&self.node.state).app_data)
    }

    /// Replaces its app data. Peers that join later see the new data.
    pub fn set_app_data(&self, app_data: Value) {
        lock(&self.node.state).app_data = Arc::new(app_data);
    }

    /// What it can receive, as given when it joined.
    pub fn rtp_capabilities(&self) -> &RtpCapabilities {
        &self.node.rtp_capabilities
    }

    /// Its open transports, by id.
    pub fn transports(&self) -> Vec<Transport> {
        let state = lock(&self.shared.state);
        let entry = state.peer(&self.node);
        let nodes = entry
            .into_iter()
            .flat_map(|entry| &entry.transports)
            .filter_map(|id| state.transport(*id));
        nodes
            .map(|node| Transport::new(Arc::clone(&self.shared), Arc::clone(node)))
            .collect()
    }

    /// Its open producers, by id.
    pub fn producers(&self) -> Vec<Producer> {
        let state = lock(&self.shared.state);
        let entry = state.peer(&self.node);
        let nodes = entry
            .into_iter()
            .flat_map(|entry| &entry.producers)
            .filter_map(|id| state.producer(*id));
        nodes
            .map(|node| Producer::new(Arc::clone(&self.shared), Arc::clone(node)))
            .collect()
    }

    /// Its open consumers, by id, enabled or not.
    pub fn consumers(&self) -> Vec<Consumer> {
        let state = lock(&self.shared.state);
        let entry = state.peer(&self.node);
        let nodes = entry
            .into_iter()
            .flat_map(|entry| &entry.consumers)
            .filter_map(|id| state.consumer(*id));
        nodes
            .map(|node| Consumer::new(Arc::clone(&self.shared), Arc::clone(node)))
            .collect()
    }

    /// Its open transport with this id.
    pub fn transport(&self, id: TransportId) -> Option<Transport> {
        let state = lock(&self.shared.state);
        let known = state.peer(&self.node)?.transports.contains(&id);
        let node = Arc::clone(state.transport(id).filter(|_| known)?);
        Some(Transport::new(Arc::clone(&self.shared), node))
    }

    /// Its open producer with this id.
    pub fn producer(&self, id: ProducerId) -> Option<Producer> {
        let state = lock(&self.shared.state);
        let known = state.peer(&self.node)?.producers.contains(&id);
        let node = Arc::clone(state.producer(id).filter(|_| known)?);
        Some(Producer::new(Arc::clone(&self.shared), node))
    }

    /// Its open consumer with this id.
    pub fn consumer(&self, id: ConsumerId) -> Option<Consumer> {
        let state = lock(&self.shared.state);
        let known = state.peer(&self.node)?.consumers.contains(&id);
        let node = Arc::clone(state.consumer(id).filter(|_| known)?);
        Some(Consumer::new(Arc::clone(&self.shared), node))
    }

    /// Creates a transport that belongs to the peer, for plain RTP and RTCP over UDP. `direction` says how its client
    /// uses it; it is only kept, and restricts nothing.
    ///
    /// # Errors
    /// As [`Room::create_plain_transport`], and [`Error::TooMany`].
    pub async fn create_plain_transport(
        &self,
        options: PlainTransportOptions,
        direction: Option<Direction>,
    ) -> Result<Transport, Error> {
        let owner = Some((Arc::clone(&self.node), direction));
        self.room().make_plain_transport(options, owner).await
    }

    /// Creates a WebRTC transport that belongs to the peer. `direction` says how its client uses it; it is only kept,
    /// and restricts nothing.
    ///
    /// # Errors
    /// As [`Room::create_webrtc_transport`], and [`Error::TooMany`].
    pub async fn create_webrtc_transport(
        &self,
        options: WebRtcTransportOptions,
        direction: Option<Direction>,
    ) -> Result<WebRtcTransport, Error> {
        let owner = Some((Arc::clone(&self.node), direction));
        WebRtcTransport::create(&self.shared, &self.node.room, options, owner).await
    }

    /// The notifications for its client, from the first one that no earlier reader has taken out of the queue. An
    /// earlier reader ends, so a client that comes back continues where its lost connection stopped.
    pub fn notifications(&self) -> PeerNotifications {
        PeerNotifications::new(Arc::clone(&self.node))
    }

    /// Whether more than 4,096 notifications waited for its client. Then no more are kept, the client no longer knows
    /// the state of the room, and whoever serves it lets it [leave](Peer::leave).
    pub fn overflowed(&self) -> bool {
        self.node.outbox.overflowed()
    }

    /// How many notifications wait for its client.
    pub fn notifications_waiting(&self) -> usize {
        self.node.outbox.len()
    }

    /// Puts a notification for its client into the queue.
    pub fn notify(&self, notification: PeerNotification) {
        self.push_notification(&mut lock(&self.shared.state), notification);
    }

    /// A seat for one thing whose statistics its client is told; it is free again when it is dropped.
    pub(crate) fn report_seat(&self) -> Result<OwnedSemaphorePermit, Error> {
        let seat = Arc::clone(&self.node.report_seats).try_acquire_owned();
        seat.map_err(|_| self.node.too_many("reports of statistics", REPORTS_PER_PEER_MAX))
    }

    /// As [`Peer::notify`], by who holds the lock that orders all notifications.
    pub(crate) fn push_notification(&self, _state: &mut State, notification: PeerNotification) {
        self.node.outbox.push(notification);
    }

    /// Closes it with everything that belongs to it, for the application. Has no effect if it is closed already.
    pub async fn close(&self, app_data: Value) -> Result<(), Error> {
        self.close_by(Side::Local, app_data).await
    }

    /// Closes it with everything that belongs to it, because its client has left.
    pub async fn leave(&self, app_data: Value) -> Result<(), Error> {
        self.close_by(Side::Remote, app_data).await
    }

    /// Repeats [`Peer::leave`], with growing pauses, until the peer is closed. This is for a client that is gone and
    /// cannot try again itself.
    pub async fn leave_in_the_end(&self) {
        let mut pause = LEAVE_AGAIN_MIN;
        loop {
            let left = self.leave(Value::Null).await;
            if self.closed() {
                return;
            }
            // Without an error somebody else was about to close it, and was refused.
            let error = left.err().map(|error| error.to_string());
            debug!(peer = self.name(), error, "a peer is still there");
            sleep(pause).await;
            pause = (2 * pause).min(LEAVE_AGAIN_MAX);
        }
    }

    /// [`Peer::close`] or [`Peer::leave`].
    ///
    /// # Errors
    /// What the worker answers; then it is still there, without those of its transports that are closed.
    pub async fn close_by(&self, side: Side, app_data: Value) -> Result<(), Error> {
        let node = &self.node;
        let closed = self.shared.call_all(node.room.worker, |state| {
            let mut peer = lock(&node.state);
            if peer.closed {
                return Ok(Vec::new());
            }
            let entry = state.peer(node);
            let open = entry.into_iter().flat_map(|entry| &entry.transports).copied();
            let transports: Vec<TransportId> = open.chain(peer.transports_on_their_way.iter().copied()).collect();
            let close = |transport| Method::CloseTransport { transport };
            if peer.closing.is_some() {
                // Its answer comes behind those that will have closed the peer.
                let last = transports.last().copied();
                return Ok(last.map(|last| Command::new(close(last))).into_iter().collect());
            }
            if transports.is_empty() {
                drop(peer);
                state.close_peer(node, side, app_data);
                return Ok(Vec::new());
            }
            peer.closing = Some(Closing {
                side,
                app_data,
                unanswered: transports.len(),
                closed: Vec::new(),
                refused: false,
            });
            Ok(transports
                .into_iter()
                .map(|transport| Command {
                    method: close(transport),
                    note: Note::OfClosingPeer(Arc::clone(node)),
                })
                .collect())
        });
        match closed.await {
            Err(Error::WorkerDied { .. }) if self.closed() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Counts a transport that is asked for as on its way to its peer, if the peer may have it.
pub(crate) fn admit_transport(
    peer: &PeerNode,
    entry: Option<&PeerEntry>,
    transport: &TransportNode,
) -> Result<(), Error> {
    peer.check_open()?;
    let open = entry.map_or(0, |entry| entry.transports.len());
    let mut state = lock(&peer.state);
    if open + state.transports_on_their_way.len() >= TRANSPORTS_PER_PEER_MAX {
        return Err(peer.too_many("transports", TRANSPORTS_PER_PEER_MAX));
    }
    state.transports_on_their_way.insert(transport.id);
    Ok(())
}

/// Counts a producer that is asked for as on its way to its peer, if the peer may have it.
pub(crate) fn admit_producer(peer: &PeerNode, entry: Option<&PeerEntry>) -> Result<(), Error> {
    peer.check_open()?;
    let open = entry.map_or(0, |entry| entry.producers.len());
    let mut state = lock(&peer.state);
    if open + state.producers_on_their_way >= PRODUCERS_PER_PEER_MAX {
        return Err(peer.too_many("producers", PRODUCERS_PER_PEER_MAX));
    }
    state.producers_on_their_way += 1;
    Ok(())
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.node.name)
            .field("room", &self.node.room.id)
            .finish_non_exhaustive()
    }
}
