//! What a worker's answer changes.

use std::sync::Arc;

use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{Method, Remote, Reply, WorkerError};

use super::{Command, Note, State};
use crate::server::model::error::Error;
use crate::server::model::event::{CloseCause, EventKind};
use crate::server::model::lock;
use crate::server::model::pause_state::Change;
use crate::server::model::peer::PeerNode;

/// What a request steers that the worker knows already. Whatever is settled by an answer may need to be corrected after it.
#[derive(Clone, Copy)]
enum Steered {
    Producer(ProducerId),
    Consumer(ConsumerId),
}

impl Steered {
    fn by(method: &Method) -> Option<Self> {
        match method {
            Method::SetProducerPaused { producer, .. } | Method::SetProducerPreferredProfile { producer, .. } => {
                Some(Self::Producer(*producer))
            }
            Method::SetConsumerPaused { consumer, .. } | Method::SetConsumerPreferredProfile { consumer, .. } => {
                Some(Self::Consumer(*consumer))
            }
            _ => None,
        }
    }
}

impl State {
    /// Applies a worker's answer. What it returns is what the caller gets.
    pub(crate) fn apply_answer(
        &mut self,
        command: Command,
        result: Result<Reply, WorkerError>,
    ) -> Result<Reply, Error> {
        let Command { method, note } = command;
        let change = self.settle(&method, &note);
        // A worker that refuses for another reason than that it is busy would refuse again.
        let busy = matches!(result, Ok(_) | Err(WorkerError::DeadlinePassed));
        let refused_again = change == Some(Change::Correct) && !busy;
        let outcome = self.take_up(&method, note, change, result);
        if !refused_again {
            self.correct(&method);
        }
        outcome
    }

    /// The request is no longer under way.
    fn settle(&mut self, method: &Method, note: &Note) -> Option<Change> {
        match Steered::by(method) {
            Some(Steered::Producer(producer)) => {
                return lock(&self.producers.get(&producer)?.state).pause_state.settle();
            }
            Some(Steered::Consumer(consumer)) => {
                return lock(&self.consumers.get(&consumer)?.state).pause_state.settle();
            }
            None => {}
        }
        match (method, note) {
            (Method::CreateConsumer(request), Note::Enabling) => {
                let mut state = lock(&self.consumers.get(&request.consumer)?.state);
                state.enabling = false;
                state.pause_state.settle()
            }
            (_, Note::Transport(node)) => {
                let (peer, _) = node.owner.as_ref()?;
                lock(&peer.state).transports_on_their_way.remove(&node.id);
                None
            }
            (_, Note::Producer(node)) => {
                lock(&node.peer()?.state).producers_on_their_way -= 1;
                self.rooms.get_mut(&node.transport.room.id)?.producers_on_their_way -= 1;
                None
            }
            (_, Note::Consumer(node) | Note::Streamer(node)) => {
                self.rooms.get_mut(&node.room.id)?.consumers_on_their_way -= 1;
                None
            }
            _ => None,
        }
    }

    fn take_up(
        &mut self,
        method: &Method,
        note: Note,
        change: Option<Change>,
        result: Result<Reply, WorkerError>,
    ) -> Result<Reply, Error> {
        if let (Note::OfClosingPeer(peer), Method::CloseTransport { transport }) = (&note, method) {
            return self.close_of_closing_peer(peer, *transport, result);
        }
        let (reply, by_worker) = match result {
            Ok(reply) => (reply, true),
            // The worker has nothing to do with it (any more), so the wish alone decides.
            Err(WorkerError::UnknownConsumer(consumer)) if self.is_waiting(consumer) => match method {
                Method::SetConsumerPaused { .. }
                | Method::SetConsumerPreferredProfile { .. }
                | Method::CloseConsumer { .. } => (Reply::Done, false),
                _ => return Err(Error::NotEnabled { consumer }),
            },
            Err(WorkerError::DeadlinePassed) if matches!(note, Note::FollowUp) && change.is_none() => {
                self.follow_up(method.clone());
                return Err(WorkerError::DeadlinePassed.into());
            }
            Err(error) => return self.explain(method, error),
        };
        match note {
            Note::Room(node, _placed) => self.open_room(node)?,
            Note::Transport(node) => {
                if let (Some(webrtc), Reply::WebRtcTransportCreated { fingerprints }) = (node.webrtc(), &reply) {
                    webrtc.opened(fingerprints.clone());
                }
                self.open_transport(method, node)?;
            }
            Note::Producer(node) => self.open_producer(method, node)?,
            Note::Consumer(node) => self.open_consumer(method, node, &reply)?,
            Note::Streamer(node) => self.open_streamer(method, node, &reply)?,
            Note::Enabling => self.enable_consumer(method, change, &reply)?,
            Note::Mirror(outlet) => self.change_outlet(method, Some(outlet)),
            note => {
                self.change(method, change, note, by_worker);
                self.change_webrtc(method, &reply);
            }
        }
        Ok(reply)
    }

    /// Whether no worker knows the consumer: it is not enabled.
    fn is_waiting(&self, consumer: ConsumerId) -> bool {
        let node = self.consumers.get(&consumer);
        node.is_some_and(|node| lock(&node.state).transport.is_none())
    }

    /// A refusal because of an object that has been closed in the meantime is not the worker's fault: closing it again
    /// is fine, everything else finds it closed.
    fn explain(&self, method: &Method, error: WorkerError) -> Result<Reply, Error> {
        let (object, known) = match &error {
            WorkerError::UnknownRoom(id) => (id.to_string(), self.rooms.contains_key(id)),
            WorkerError::UnknownTransport(id) => (id.to_string(), self.transports.contains_key(id)),
            WorkerError::UnknownProducer(id) => (id.to_string(), self.producers.contains_key(id)),
            WorkerError::UnknownConsumer(id) => (id.to_string(), self.consumers.contains_key(id)),
            _ => return Err(error.into()),
        };
        if known {
            return Err(error.into());
        }
        match method {
            Method::CloseRouter { .. }
            | Method::CloseTransport { .. }
            | Method::CloseProducer { .. }
            | Method::CloseConsumer { .. } => Ok(Reply::Done),
            _ => Err(Error::closed(object)),
        }
    }

    /// One of the transports of a peer that is being closed has been answered. The last answer closes the peer.
    fn close_of_closing_peer(
        &mut self,
        peer: &Arc<PeerNode>,
        transport: TransportId,
        result: Result<Reply, WorkerError>,
    ) -> Result<Reply, Error> {
        let outcome = match result {
            // It was refused when it was made, or closed by somebody else.
            Err(WorkerError::UnknownTransport(_)) => Ok(Reply::Done),
            other => other.map_err(Error::from),
        };
        let finished = {
            let mut state = lock(&peer.state);
            let Some(closing) = &mut state.closing else {
                return outcome;
            };
            closing.unanswered -= 1;
            match &outcome {
                Ok(_) => closing.closed.push(transport),
                Err(_) => closing.refused = true,
            }
            match closing.unanswered {
                0 => state.closing.take(),
                _ => None,
            }
        };
        let Some(closing) = finished else {
            return outcome;
        };
        if !closing.refused {
            self.close_peer(peer, closing.side, closing.app_data);
            return outcome;
        }
        for transport in closing.closed {
            let method = Method::CloseTransport { transport };
            self.close_in(peer.room.id, &method, closing.side, Value::Null);
        }
        // Whichever was refused, the caller hears of it.
        outcome.and(Err(WorkerError::DeadlinePassed.into()))
    }

    fn change(&mut self, method: &Method, change: Option<Change>, note: Note, by_worker: bool) {
        let (side, app_data) = note.into_side();
        match method {
            Method::CloseRouter { room } => self.close_room(*room, app_data, CloseCause::Closed),
            Method::CloseTransport { transport } => {
                if let Some(room) = self.transports.get(transport).map(|node| node.room.id) {
                    self.close_in(room, method, side, app_data);
                }
            }
            Method::CloseProducer { producer } => {
                if let Some(room) = self.producers.get(producer).map(|node| node.transport.room.id) {
                    self.close_in(room, method, side, app_data);
                }
            }
            Method::CloseConsumer { consumer } => {
                if let Some(room) = self.consumers.get(consumer).map(|node| node.room.id) {
                    self.close_in(room, method, side, app_data);
                }
            }
            Method::SetRemote { transport, remote } => self.set_remote(*transport, *remote, method),
            Method::SetMaxBitrate { .. } | Method::StopMirroring { .. } => self.change_outlet(method, None),
            Method::SetAudioLevels { room, .. } => self.accept(*room, method),
            Method::SetProducerPaused { producer, paused } => {
                self.steer_producer(*producer, method, change, Some(*paused), app_data);
            }
            Method::SetProducerPreferredProfile { producer, .. } => {
                self.steer_producer(*producer, method, change, None, app_data);
            }
            Method::SetConsumerPaused { consumer, paused } => {
                self.steer_consumer(*consumer, method, change, by_worker.then_some(*paused), side, app_data);
            }
            Method::SetConsumerPreferredProfile { consumer, .. } => {
                self.steer_consumer(*consumer, method, change, None, side, app_data);
            }
            // Creations come with their node, and the rest changes nothing that is known here.
            _ => {}
        }
    }

    /// Keeps a request for a successor of the worker.
    pub(super) fn accept(&mut self, room: RoomId, method: &Method) {
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.desired.accept(method);
        }
    }

    fn set_remote(&mut self, transport: TransportId, remote: Remote, method: &Method) {
        let Some(node) = self.transports.get(&transport) else {
            return;
        };
        let room = node.room.id;
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.desired.accept(method);
        }
        if lock(&node.state).remote.replace(remote) != Some(remote) {
            self.events.emit(EventKind::RemoteSet {
                transport,
                room,
                remote,
            });
        }
    }

    /// Tells the worker once more what a producer or consumer should do, when all answers about it are in and it does not.
    fn correct(&mut self, method: &Method) {
        let follow_up = match (Steered::by(method), method) {
            (Some(Steered::Producer(producer)), _) => {
                let Some(node) = self.producers.get(&producer) else {
                    return;
                };
                lock(&node.state)
                    .pause_state
                    .correction()
                    .map(|paused| Method::SetProducerPaused { producer, paused })
            }
            (Some(Steered::Consumer(consumer)), _) => self.correction_of(consumer),
            (None, Method::CreateConsumer(request)) => self.correction_of(request.consumer),
            (None, _) => None,
        };
        if let Some(method) = follow_up {
            self.follow_up(method);
        }
    }

    fn correction_of(&self, consumer: ConsumerId) -> Option<Method> {
        let mut state = lock(&self.consumers.get(&consumer)?.state);
        state.transport.as_ref()?;
        state
            .pause_state
            .correction()
            .map(|paused| Method::SetConsumerPaused { consumer, paused })
    }
}
