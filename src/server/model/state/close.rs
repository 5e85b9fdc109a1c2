//! What ends, what ends with it, and who is told, in which order (differences §1.6): a parent before its children.

use std::sync::Arc;

use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::Method;

use super::{RoomEntry, State};
use crate::server::model::desired::{ClosedObject, ConsumerParent, Object};
use crate::server::model::event::{CloseCause, EventKind, Originator};
use crate::server::model::lock;
use crate::server::model::peer::PeerNode;
use crate::server::model::peer_notification::PeerNotification;
use crate::server::model::room::RoomNode;
use crate::server::model::side::Side;

/// What the events of a closing say, of the first object or of its children.
#[derive(Clone)]
struct CloseDetails {
    originator: Originator,
    app_data: Value,
    cause: CloseCause,
}

impl CloseDetails {
    /// Of what a side closes.
    fn by(side: Side, app_data: Value) -> Self {
        Self {
            originator: side.into(),
            app_data,
            cause: CloseCause::Closed,
        }
    }

    /// Of what goes with something else.
    fn by_parent(cause: CloseCause) -> Self {
        Self {
            originator: Originator::Local,
            app_data: Value::Null,
            cause,
        }
    }

    /// App data is for the object that was closed, not for what goes with it.
    fn to_children(&self, cause: CloseCause) -> Self {
        Self {
            originator: self.originator,
            app_data: Value::Null,
            cause,
        }
    }
}

impl State {
    /// Closes all rooms of a worker that died.
    pub(crate) fn close_rooms_of(&mut self, worker: WorkerId, cause: &CloseCause) {
        self.close_rooms(|room| room.worker == worker, cause);
    }

    /// Closes all rooms and lets no other be made.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.close_rooms(|_| true, &CloseCause::ServerClosed);
    }

    fn close_rooms(&mut self, of: impl Fn(&RoomNode) -> bool, cause: &CloseCause) {
        let rooms = self.rooms.values().map(|entry| &entry.node);
        let mut rooms: Vec<RoomId> = rooms.filter(|room| of(room)).map(|room| room.id).collect();
        rooms.sort_unstable();
        for room in rooms {
            self.close_room(room, Value::Null, cause.clone());
        }
        // They were for workers that are dead, or about to be.
        self.follow_ups.clear();
    }

    fn close_room(&mut self, room: RoomId, app_data: Value, cause: CloseCause) {
        let Some(mut entry) = self.rooms.remove(&room) else {
            return;
        };
        entry.node.close();
        self.served_mut(entry.node.worker).rooms -= 1;
        let details = CloseDetails::by_parent(match &cause {
            CloseCause::Closed => CloseCause::RoomClosed,
            inherited => inherited.clone(),
        });
        self.events.emit(EventKind::RoomClosed {
            room,
            originator: Originator::Local,
            app_data,
            cause,
        });
        let peers: Vec<Arc<PeerNode>> = entry.peers.iter().map(|peer| Arc::clone(&peer.node)).collect();
        for peer in peers {
            self.close_peer_in(&mut entry, &peer, details.clone(), details.cause.clone());
        }
        for object in entry.desired.close(Object::Room(room)) {
            self.remove(&mut entry, object, details.clone());
        }
        // The transports of streamers have gone with the room.
        let transports = &self.transports;
        self.follow_ups.retain(|command| match &command.method {
            Method::CloseTransport { transport } => transports.contains_key(transport),
            _ => true,
        });
    }

    /// Closes a peer whose transports the worker has closed, or that had none.
    pub(crate) fn close_peer(&mut self, peer: &Arc<PeerNode>, side: Side, app_data: Value) {
        let Some(mut entry) = self.rooms.remove(&peer.room.id) else {
            return;
        };
        let details = CloseDetails::by(side, app_data);
        self.close_peer_in(&mut entry, peer, details, CloseCause::PeerClosed);
        self.rooms.insert(entry.node.id, entry);
    }

    /// Its client hears of it first, then the others' clients, then everybody; then its producers go, each with its
    /// consumers, then its consumers, then its transports.
    fn close_peer_in(&mut self, entry: &mut RoomEntry, peer: &PeerNode, details: CloseDetails, cause: CloseCause) {
        let Some(own) = entry.peers.remove(peer.key) else {
            return;
        };
        if details.originator == Originator::Local {
            peer.outbox.push(PeerNotification::Closed {
                app_data: details.app_data.clone(),
            });
        }
        peer.close();
        if !peer.spy {
            let app_data = Arc::new(details.app_data.clone());
            for other in entry.peers.iter() {
                other.node.outbox.push(PeerNotification::PeerClosed {
                    name: Arc::clone(&peer.name),
                    app_data: Arc::clone(&app_data),
                });
            }
        }
        let to_children = details.to_children(cause);
        self.events.emit(EventKind::PeerClosed {
            peer: Arc::clone(&peer.name),
            room: peer.room.id,
            originator: details.originator,
            app_data: details.app_data,
            cause: details.cause,
        });
        let producers = own.producers.into_iter();
        let consumers = own.consumers.into_iter();
        let transports = own.transports.into_iter();
        let closes = producers
            .map(Object::Producer)
            .chain(consumers.map(Object::Consumer))
            .chain(transports.map(Object::Transport));
        for close in closes {
            for object in entry.desired.close(close) {
                let details = match object {
                    // Somebody else's, of a producer of the peer's.
                    ClosedObject::Consumer(_, ConsumerParent::Producer)
                        if to_children.cause == CloseCause::PeerClosed =>
                    {
                        CloseDetails::by_parent(CloseCause::ProducerClosed)
                    }
                    _ => to_children.clone(),
                };
                self.remove(entry, object, details);
            }
        }
    }

    /// Closes something with its children.
    pub(crate) fn close_object(&mut self, object: Object, side: Side, app_data: Value) {
        self.close_with(object, CloseDetails::by(side, app_data));
    }

    /// As above, when nobody wants it.
    pub(super) fn close_because(&mut self, object: Object, cause: CloseCause) {
        self.close_with(object, CloseDetails::by_parent(cause));
    }

    fn close_with(&mut self, object: Object, first: CloseDetails) {
        let room = match object {
            Object::Room(room) => return self.close_room(room, first.app_data, first.cause),
            Object::Transport(transport) => self.transports.get(&transport).map(|node| node.room.id),
            Object::Producer(producer) => self.producers.get(&producer).map(|node| node.transport.room.id),
            Object::Consumer(consumer) => self.consumers.get(&consumer).map(|node| node.room.id),
        };
        let Some(mut entry) = room.and_then(|room| self.rooms.remove(&room)) else {
            return;
        };
        let closed = entry.desired.close(object);
        for (index, object) in closed.into_iter().enumerate() {
            let details = match (index, object) {
                (0, _) => first.clone(),
                (_, ClosedObject::Consumer(_, ConsumerParent::Producer)) => {
                    CloseDetails::by_parent(CloseCause::ProducerClosed)
                }
                _ => CloseDetails::by_parent(CloseCause::TransportClosed),
            };
            self.remove(&mut entry, object, details);
        }
        self.rooms.insert(entry.node.id, entry);
    }

    fn remove(&mut self, entry: &mut RoomEntry, object: ClosedObject, details: CloseDetails) {
        match object {
            ClosedObject::Transport(transport) => self.close_transport(entry, transport, details),
            ClosedObject::Producer(producer) => self.close_producer(entry, producer, details),
            ClosedObject::Consumer(consumer, _) => self.close_consumer(entry, consumer, details),
            ClosedObject::Unhandled(consumer) => self.unhandle_consumer(entry, consumer),
            ClosedObject::Sourceless(consumer) => self.leave_without_source(entry, consumer),
        }
    }

    fn close_transport(&mut self, entry: &mut RoomEntry, transport: TransportId, details: CloseDetails) {
        let Some(node) = self.transports.remove(&transport) else {
            return;
        };
        self.served_mut(entry.node.worker).transports -= 1;
        node.close();
        if let Some((peer, _)) = &node.owner {
            if details.originator == Originator::Local {
                peer.outbox.push(PeerNotification::TransportClosed {
                    transport,
                    app_data: details.app_data.clone(),
                });
            }
            if let Some(owner) = entry.peers.get_mut(peer.key) {
                owner.transports.remove(&transport);
            }
        }
        self.events.emit(EventKind::TransportClosed {
            transport,
            room: entry.node.id,
            originator: details.originator,
            app_data: details.app_data,
            cause: details.cause,
        });
        if let Some(consumer) = entry.streamers.remove(&transport) {
            self.streamer_closed(entry, transport, consumer);
        }
    }

    fn close_producer(&mut self, entry: &mut RoomEntry, producer: ProducerId, details: CloseDetails) {
        let Some(node) = self.producers.remove(&producer) else {
            return;
        };
        self.served_mut(entry.node.worker).streams -= 1;
        {
            let mut state = lock(&node.state);
            state.closed = true;
            state.reports = None;
        }
        if let Some(peer) = node.peer() {
            // With its transport gone, the client knows already.
            if details.originator == Originator::Local && !node.transport.is_closed() {
                peer.outbox.push(PeerNotification::ProducerClosed {
                    producer,
                    peer_name: Arc::clone(&peer.name),
                    app_data: details.app_data.clone(),
                });
            }
            if let Some(owner) = entry.peers.get_mut(peer.key) {
                owner.producers.remove(&producer);
            }
        }
        self.events.emit(EventKind::ProducerClosed {
            producer,
            room: entry.node.id,
            originator: details.originator,
            app_data: details.app_data,
            cause: details.cause,
        });
    }

    fn close_consumer(&mut self, entry: &mut RoomEntry, consumer: ConsumerId, details: CloseDetails) {
        let Some(node) = self.consumers.remove(&consumer) else {
            return;
        };
        self.served_mut(entry.node.worker).streams -= 1;
        let transport = {
            let mut state = lock(&node.state);
            state.closed = true;
            state.reports = None;
            state.transport.as_ref().map(|transport| transport.id)
        };
        for ssrc in node.ssrcs.iter().flat_map(|ssrcs| [ssrcs.media, ssrcs.rtx]) {
            entry.ssrcs.remove(&ssrc);
        }
        if let Some((receiver, peer_name)) = node.client() {
            // A source that is closed takes its consumers along, which its peer's client has been told.
            if !node.producer().peer().is_some_and(|source| source.is_closed()) {
                receiver
                    .outbox
                    .push(PeerNotification::ConsumerClosed { consumer, peer_name });
            }
            if let Some(receiver) = entry.peers.get_mut(receiver.key) {
                receiver.consumers.remove(&consumer);
            }
        }
        self.events.emit(EventKind::ConsumerClosed {
            consumer,
            room: entry.node.id,
            originator: details.originator,
            app_data: details.app_data,
            cause: details.cause,
        });
        if let Some(transport) = transport
            && entry.streamers.get(&transport) == Some(&consumer)
        {
            entry.streamers.remove(&transport);
            self.streamer_closed(entry, transport, consumer);
            self.follow_up(Method::CloseTransport { transport });
        }
    }

    fn streamer_closed(&mut self, entry: &RoomEntry, transport: TransportId, consumer: ConsumerId) {
        self.events.emit(EventKind::RtpStreamerClosed {
            transport,
            consumer,
            room: entry.node.id,
        });
    }

    fn leave_without_source(&mut self, entry: &RoomEntry, consumer: ConsumerId) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        {
            let mut state = lock(&node.state);
            state.source_paused = false;
            state.effective_profile = None;
        }
        self.events.emit(EventKind::ConsumerSourceChanged {
            consumer,
            room: entry.node.id,
            producer: None,
        });
    }

    fn unhandle_consumer(&mut self, entry: &RoomEntry, consumer: ConsumerId) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        {
            let mut state = lock(&node.state);
            state.transport = None;
            state.effective_profile = None;
        }
        self.events.emit(EventKind::ConsumerUnhandled {
            consumer,
            room: entry.node.id,
        });
    }
}
