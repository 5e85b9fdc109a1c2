//! A peer: somebody in a room, who sends and receives.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tracing::debug;
use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::Method;

use crate::server::api::consumer::Consumer;
use crate::server::api::handle::handle;
use crate::server::api::peer_notifications::PeerNotifications;
use crate::server::api::producer::Producer;
use crate::server::api::room::{PlainTransportOptions, Room};
use crate::server::api::transport::{Transport, WebRtcTransport, WebRtcTransportOptions};
use crate::server::model::error::Error;
use crate::server::model::limits::REPORTS_PER_PEER_MAX;
use crate::server::model::lock;
use crate::server::model::peer::{Closing, PeerInfo, PeerNode};
use crate::server::model::peer_notification::PeerNotification;
use crate::server::model::rtp_capabilities::RtpCapabilities;
use crate::server::model::side::Side;
use crate::server::model::state::{Command, OnAccept, State};
use crate::server::model::transport::Direction;

/// Between the first two attempts to close a peer whose client is gone. A worker that refused was busy.
const LEAVE_AGAIN_MIN: Duration = Duration::from_millis(500);

/// Between later ones.
const LEAVE_AGAIN_MAX: Duration = Duration::from_secs(30);

/// The result of joining: the peer, and the other peers at that moment. The peer's notifications tell each later change
/// exactly once.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The new peer.
    pub peer: Peer,
    /// The other peers, spies left out, in the order in which they joined.
    pub others: Vec<PeerInfo>,
}

handle! {
    /// A handle on a peer. Cheap to clone; dropping it closes nothing.
    pub struct Peer(PeerNode);
}

impl Peer {
    /// What a floor above keeps with it.
    pub(crate) fn kept<T: Any + Default + Send + Sync>(&self) -> &T {
        self.node.kept()
    }

    /// Its name, unique in its room.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// The room it is in.
    pub fn room(&self) -> Room {
        Room::new(&self.shared, &self.node.room)
    }

    /// Whether it is closed: by itself, with its room, or because its worker died.
    pub fn closed(&self) -> bool {
        self.node.is_closed()
    }

    /// Whether it is a spy: it only receives, and the other peers do not know of it.
    pub fn spy(&self) -> bool {
        self.node.spy
    }

    /// Whether its client may make producers.
    pub(crate) fn may_publish(&self) -> bool {
        self.node.publish
    }

    /// The app data that is kept with it.
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
        let own = state.peer(&self.node).into_iter().flat_map(|entry| &entry.transports);
        let nodes = own.filter_map(|id| state.transport(*id));
        nodes.map(|node| Transport::new(&self.shared, node)).collect()
    }

    /// Its open producers, by id.
    pub fn producers(&self) -> Vec<Producer> {
        let state = lock(&self.shared.state);
        let own = state.peer(&self.node).into_iter().flat_map(|entry| &entry.producers);
        let nodes = own.filter_map(|id| state.producer(*id));
        nodes.map(|node| Producer::new(&self.shared, node)).collect()
    }

    /// Its open consumers, by id, enabled or not.
    pub fn consumers(&self) -> Vec<Consumer> {
        let state = lock(&self.shared.state);
        let own = state.peer(&self.node).into_iter().flat_map(|entry| &entry.consumers);
        let nodes = own.filter_map(|id| state.consumer(*id));
        nodes.map(|node| Consumer::new(&self.shared, node)).collect()
    }

    /// Its open transport with this id.
    pub fn transport(&self, id: TransportId) -> Option<Transport> {
        let state = lock(&self.shared.state);
        let known = state.peer(&self.node)?.transports.contains(&id);
        Some(Transport::new(&self.shared, state.transport(id).filter(|_| known)?))
    }

    /// Its open producer with this id.
    pub fn producer(&self, id: ProducerId) -> Option<Producer> {
        let state = lock(&self.shared.state);
        let known = state.peer(&self.node)?.producers.contains(&id);
        Some(Producer::new(&self.shared, state.producer(id).filter(|_| known)?))
    }

    /// Its open consumer with this id.
    pub fn consumer(&self, id: ConsumerId) -> Option<Consumer> {
        let state = lock(&self.shared.state);
        let known = state.peer(&self.node)?.consumers.contains(&id);
        Some(Consumer::new(&self.shared, state.consumer(id).filter(|_| known)?))
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

    /// Whether more than 4,096 notifications, or too many bytes of them, waited for its client. Then no more are kept, the client no longer knows
    /// the state of the room, and whoever serves it lets it [leave](Peer::leave).
    pub fn overflowed(&self) -> bool {
        self.node.outbox.overflowed()
    }

    /// The number of notifications that wait for its client.
    pub fn notifications_waiting(&self) -> usize {
        self.node.outbox.len()
    }

    /// Puts a notification for its client into the queue.
    pub fn notify(&self, notification: PeerNotification) {
        self.push_notification(&mut lock(&self.shared.state), notification);
    }

    /// A permit for one thing whose statistics its client is told; it is free again when it is dropped.
    pub(crate) fn report_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(&self.node.report_permits).try_acquire_owned();
        permit.map_err(|_| self.node.too_many("reports of statistics", REPORTS_PER_PEER_MAX))
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
        let plan = |state: &mut State| {
            let mut peer = lock(&node.state);
            let entry = state.peer(node);
            let open = entry.into_iter().flat_map(|entry| &entry.transports).copied();
            let transports: Vec<TransportId> = open.chain(peer.transports_on_their_way.iter().copied()).collect();
            let close = |transport| Method::CloseTransport { transport };
            if peer.closing.is_some() {
                // Its answer comes behind those that will have closed the peer.
                let last = transports.last().copied();
                return last.map(|last| Command::new(close(last))).into_iter().collect();
            }
            if transports.is_empty() {
                drop(peer);
                state.close_peer(node, side, app_data);
                return Vec::new();
            }
            peer.closing = Some(Closing {
                side,
                app_data,
                unanswered: transports.len(),
                closed: Vec::new(),
                refused: false,
            });
            let command = |transport| Command {
                method: close(transport),
                on_accept: OnAccept::ClosePeer(Arc::clone(node)),
            };
            transports.into_iter().map(command).collect()
        };
        self.shared.close(node.room.worker, || self.closed(), plan).await
    }
}
