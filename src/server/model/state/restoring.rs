//! What a worker's successor must make again, and what becomes of what it cannot.

use weir_channel::id::{RoomId, TransportId, WorkerId};
use weir_channel::message::{Method, Reply, WorkerError};

use super::State;
use super::open::source_paused_of;
use super::pausing::Pausable;
use crate::server::model::desired::{Object, Replayed};
use crate::server::model::error::Error;
use crate::server::model::event::CloseCause;
use crate::server::model::transport::TransportNode;

impl State {
    /// The rooms of a worker, those first in which most is sent.
    pub(crate) fn rooms_to_restore(&self, worker: WorkerId) -> Vec<RoomId> {
        let rooms = self.rooms.values().filter(|entry| entry.node.worker == worker);
        let mut rooms: Vec<_> = rooms
            .map(|entry| (std::cmp::Reverse(entry.desired.enabled_count()), entry.node.id))
            .collect();
        rooms.sort_unstable();
        rooms.into_iter().map(|(_, room)| room).collect()
    }

    /// The requests that make a room again in a fresh worker.
    pub(crate) fn replay(&self, room: RoomId) -> impl Iterator<Item = Replayed> + '_ {
        self.rooms.get(&room).into_iter().flat_map(move |entry| {
            let created = [Method::CreateRouter { room }].into_iter();
            let levels = entry
                .listeners
                .any()
                .then_some(Method::SetAudioLevels { room, enabled: true });
            let created = created.map(Replayed::from);
            created.chain(entry.desired.replay()).chain(levels.map(Replayed::from))
        })
    }

    /// The requests that make a room of its worker again in a process that has rehearsed it.
    pub(crate) fn replay_rehearsed(
        &self,
        room: RoomId,
        has_connected: impl Fn(&TransportNode) -> bool,
    ) -> Vec<Replayed> {
        let entry = self.rooms.get(&room);
        entry
            .map(|entry| entry.desired.replay_rehearsed(room, has_connected))
            .unwrap_or_default()
    }

    /// The room in which a request closes something, or changes what is sent to whom, if that is open.
    pub(crate) fn room_served_by(&self, method: &Method) -> Option<RoomId> {
        match method {
            Method::CloseRouter { room } => Some(*room),
            Method::SetConsumerSource(request) => Some(request.room),
            Method::CloseTransport { transport } => Some(self.transports.get(transport)?.room.id),
            Method::SetProducerPaused { producer, .. }
            | Method::SetProducerPreferredProfile { producer, .. }
            | Method::CloseProducer { producer } => Some(self.producers.get(producer)?.transport.room.id),
            Method::SetConsumerPaused { consumer, .. }
            | Method::SetConsumerPreferredProfile { consumer, .. }
            | Method::CloseConsumer { consumer } => Some(self.consumers.get(consumer)?.room.id),
            _ => None,
        }
    }

    /// The room that the packets of a worker's transport are for.
    pub(crate) fn room_of(&self, worker: WorkerId, transport: TransportId) -> Option<RoomId> {
        let node = self.transports.get(&transport)?;
        (node.room.worker == worker).then_some(node.room.id)
    }

    /// Closes a room that a worker's successor is not to continue. Returns whether there was one.
    pub(crate) fn leave_out(&mut self, worker: WorkerId, room: RoomId, reason: String) -> bool {
        let is_there = self.rooms.contains_key(&room);
        self.close_because(Object::Room(room), CloseCause::NotRestored { worker, reason });
        is_there
    }

    /// A worker has made something again, or refuses to. What it refuses is closed.
    pub(super) fn apply_restored(
        &mut self,
        method: &Method,
        result: Result<Reply, WorkerError>,
    ) -> Result<Reply, Error> {
        match result {
            Ok(reply) => {
                self.note_restored(method, &reply);
                if let Reply::TakenUp(not_taken_up) = &reply {
                    for (transport, error) in &not_taken_up.transports {
                        self.close_not_restored(Object::Transport(*transport), error);
                    }
                    for (producer, error) in &not_taken_up.producers {
                        self.close_not_restored(Object::Producer(*producer), error);
                    }
                    for (consumer, error) in &not_taken_up.consumers {
                        self.close_not_restored(Object::Consumer(*consumer), error);
                    }
                }
                Ok(reply)
            }
            Err(error) => {
                self.give_up(method, &error);
                Err(error.into())
            }
        }
    }

    fn note_restored(&mut self, method: &Method, reply: &Reply) {
        match method {
            Method::CreateProducer(request) => {
                self.set_worker_paused(Pausable::Producer(request.producer), request.paused);
            }
            Method::CreateConsumer(request) => {
                self.set_worker_paused(Pausable::Consumer(request.consumer), request.paused);
                if let Some(node) = self.consumers.get(&request.consumer) {
                    let source_paused = source_paused_of(reply, &node.producer());
                    self.consumer_source_paused(request.consumer, source_paused);
                }
            }
            Method::CreateWebRtcTransport(request) => {
                let webrtc = self.transports.get(&request.transport).and_then(|node| node.webrtc());
                if let (Some(webrtc), Reply::WebRtcTransportCreated { fingerprints }) = (webrtc, reply) {
                    webrtc.opened(fingerprints.clone());
                }
            }
            _ => {}
        }
    }

    /// Closes what a worker has refused to make again.
    fn give_up(&mut self, method: &Method, error: &WorkerError) {
        let object = match method {
            Method::CreateRouter { room } => Object::Room(*room),
            Method::CreatePlainTransport(request) => Object::Transport(request.transport),
            Method::CreateWebRtcTransport(request) => Object::Transport(request.transport),
            Method::SetDtlsParameters { transport, .. } | Method::SetRemoteIce { transport, .. } => {
                Object::Transport(*transport)
            }
            Method::CreateProducer(request) => Object::Producer(request.producer),
            Method::CreateConsumer(request) => Object::Consumer(request.consumer),
            Method::TakeUp { room, .. } => Object::Room(*room),
            Method::StartMirroring { transport, .. } => {
                if let Some(node) = self.transports.get(transport) {
                    tracing::warn!(transport = transport.0, %error, "a mirror cannot be continued, and ends");
                    node.set_mirror(None);
                }
                return;
            }
            method => {
                tracing::warn!(?method, %error, "a worker refuses a part of what its predecessor has left");
                return;
            }
        };
        let is_open = self.close_not_restored(object, error);
        match method {
            Method::SetDtlsParameters { transport, .. } | Method::SetRemoteIce { transport, .. } if is_open => {
                self.follow_up(Method::CloseTransport { transport: *transport });
            }
            Method::TakeUp { room, .. } if is_open => self.follow_up(Method::CloseRouter { room: *room }),
            _ => {}
        }
    }

    /// Closes what a worker has not made again. Returns whether it was open.
    fn close_not_restored(&mut self, object: Object, error: &WorkerError) -> bool {
        let owner = match object {
            Object::Room(room) => self.rooms.get(&room).map(|entry| &entry.node),
            Object::Transport(transport) => self.transports.get(&transport).map(|node| &node.room),
            Object::Producer(producer) => self.producers.get(&producer).map(|node| &node.transport.room),
            Object::Consumer(consumer) => self.consumers.get(&consumer).map(|node| &node.room),
        };
        // What is closed already went with something else.
        let Some(worker) = owner.map(|room| room.worker) else {
            return false;
        };
        let reason = error.to_string();
        tracing::warn!(
            ?object,
            reason,
            "it cannot be continued by its worker's successor, and is closed"
        );
        self.close_because(object, CloseCause::NotRestored { worker, reason });
        true
    }
}
