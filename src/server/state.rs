//! The server's objects and what is known of them. One lock guards all of it.
//!
//! Invariant: what is here changes only when a worker has accepted a request, has told something unasked, or has died;
//! never in the hope that it will. The link to a worker applies its answers in the order they arrive, before it
//! resolves the caller, so a caller that gives up (or is dropped) changes nothing about what is known.

mod outlet;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{Method, Profile, Remote, Reply, WorkerError};

use super::consumer::ConsumerNode;
use super::desired::{Closed, ClosedObject, ConsumerParent, DesiredRoom};
use super::error::Error;
use super::event::{CloseCause, EventBus, EventKind, Originator};
use super::lock;
use super::producer::ProducerNode;
use super::room::RoomNode;
use super::supervision::Placed;
use super::transport::{MirrorOutlet, TransportNode};

/// Everything that is known of rooms and what is in them.
#[derive(Debug)]
pub(crate) struct State {
    rooms: HashMap<RoomId, RoomEntry>,
    transports: HashMap<TransportId, Arc<TransportNode>>,
    producers: HashMap<ProducerId, Arc<ProducerNode>>,
    consumers: HashMap<ConsumerId, Arc<ConsumerNode>>,
    room_counts: HashMap<WorkerId, usize>,
    pub(crate) events: EventBus,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct RoomEntry {
    pub(crate) node: Arc<RoomNode>,
    pub(crate) desired: DesiredRoom,
}

/// A request on its way to a worker, with what the supervisor needs to apply the answer.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) method: Method,
    pub(crate) note: Note,
}

/// What belongs to a request but is not the worker's business.
#[derive(Debug)]
pub(crate) enum Note {
    None,
    /// For the event that tells of it.
    AppData(Value),
    /// What will exist when the worker accepts.
    /// A room counts as on its way to its worker until this is dropped.
    Room(Arc<RoomNode>, Placed),
    Transport(Arc<TransportNode>),
    Producer(Arc<ProducerNode>),
    Consumer(Arc<ConsumerNode>),
    /// The mirror a transport will have.
    Mirror(MirrorOutlet),
}

impl Note {
    fn into_app_data(self) -> Value {
        match self {
            Self::AppData(app_data) => app_data,
            _ => Value::Null,
        }
    }
}

impl Command {
    pub(crate) fn new(method: Method) -> Self {
        Self {
            method,
            note: Note::None,
        }
    }

    pub(crate) fn with_app_data(method: Method, app_data: Value) -> Self {
        Self {
            method,
            note: Note::AppData(app_data),
        }
    }
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            rooms: HashMap::new(),
            transports: HashMap::new(),
            producers: HashMap::new(),
            consumers: HashMap::new(),
            room_counts: HashMap::new(),
            events: EventBus::new(),
            closed: false,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn room(&self, id: RoomId) -> Option<&RoomEntry> {
        self.rooms.get(&id)
    }

    pub(crate) fn rooms(&self) -> impl Iterator<Item = &RoomEntry> {
        self.rooms.values()
    }

    /// How many open rooms a worker serves.
    pub(crate) fn rooms_of(&self, worker: WorkerId) -> usize {
        self.room_counts.get(&worker).copied().unwrap_or(0)
    }

    pub(crate) fn transport(&self, id: TransportId) -> Option<&Arc<TransportNode>> {
        self.transports.get(&id)
    }

    pub(crate) fn producer(&self, id: ProducerId) -> Option<&Arc<ProducerNode>> {
        self.producers.get(&id)
    }

    pub(crate) fn consumer(&self, id: ConsumerId) -> Option<&Arc<ConsumerNode>> {
        self.consumers.get(&id)
    }

    /// Applies a worker's answer. What it returns is what the caller gets.
    pub(crate) fn apply_answer(
        &mut self,
        command: Command,
        result: Result<Reply, WorkerError>,
    ) -> Result<Reply, Error> {
        let Command { method, note } = command;
        self.settle(&method);
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => return self.explain(&method, error),
        };
        match note {
            Note::Room(node, _placed) => self.open_room(node)?,
            Note::Transport(node) => self.open_transport(&method, node)?,
            Note::Producer(node) => self.open_producer(&method, node)?,
            Note::Consumer(node) => self.open_consumer(&method, node, &reply)?,
            Note::Mirror(outlet) => self.change_outlet(&method, Some(outlet)),
            note => self.change(&method, note.into_app_data()),
        }
        Ok(reply)
    }

    /// The call that made this request is no longer under way.
    fn settle(&self, method: &Method) {
        match method {
            Method::PauseProducer { producer }
            | Method::ResumeProducer { producer }
            | Method::SetProducerPreferredProfile { producer, .. } => {
                if let Some(node) = self.producers.get(producer) {
                    lock(&node.state).calls_under_way -= 1;
                }
            }
            Method::PauseConsumer { consumer }
            | Method::ResumeConsumer { consumer }
            | Method::SetConsumerPreferredProfile { consumer, .. } => {
                if let Some(node) = self.consumers.get(consumer) {
                    lock(&node.state).calls_under_way -= 1;
                }
            }
            _ => {}
        }
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

    fn open_room(&mut self, node: Arc<RoomNode>) -> Result<(), Error> {
        if self.closed {
            node.close();
            return Err(Error::closed("the server"));
        }
        self.events.emit(EventKind::RoomOpened {
            room: node.id,
            worker: node.worker,
            app_data: node.app_data.clone(),
        });
        let desired = DesiredRoom::new(node.id);
        *self.room_counts.entry(node.worker).or_default() += 1;
        self.rooms.insert(node.id, RoomEntry { node, desired });
        Ok(())
    }

    fn open_transport(&mut self, method: &Method, node: Arc<TransportNode>) -> Result<(), Error> {
        let room = node.room.id;
        let entry = self.rooms.get_mut(&room).ok_or_else(|| Error::closed(room))?;
        entry.desired.accept(method);
        self.events.emit(EventKind::TransportOpened {
            transport: node.id,
            room,
            tuple: node.tuple(),
            app_data: node.app_data.clone(),
        });
        self.transports.insert(node.id, node);
        Ok(())
    }

    fn open_producer(&mut self, method: &Method, node: Arc<ProducerNode>) -> Result<(), Error> {
        let (room, transport) = (node.transport.room.id, node.transport.id);
        let entry = self.rooms.get_mut(&room).ok_or_else(|| Error::closed(room))?;
        if !self.transports.contains_key(&transport) {
            return Err(Error::closed(transport));
        }
        entry.desired.accept(method);
        self.events.emit(EventKind::ProducerOpened {
            producer: node.id,
            room,
            transport,
            media: node.kind,
            paused: lock(&node.state).paused,
            app_data: node.app_data.clone(),
        });
        self.producers.insert(node.id, node);
        Ok(())
    }

    fn open_consumer(&mut self, method: &Method, node: Arc<ConsumerNode>, reply: &Reply) -> Result<(), Error> {
        let (room, transport, producer) = (node.transport.room.id, node.transport.id, node.producer.id);
        let entry = self.rooms.get_mut(&room).ok_or_else(|| Error::closed(room))?;
        if !self.transports.contains_key(&transport) {
            return Err(Error::closed(transport));
        }
        if !self.producers.contains_key(&producer) {
            return Err(Error::closed(producer));
        }
        entry.desired.accept(method);
        let paused = {
            let mut state = lock(&node.state);
            // Answers come in order, so the worker's word and our own knowledge of the producer agree; its word counts.
            state.source_paused = match reply {
                Reply::ConsumerCreated { source_paused } => *source_paused,
                _ => lock(&node.producer.state).paused,
            };
            (state.paused, state.source_paused)
        };
        self.events.emit(EventKind::ConsumerOpened {
            consumer: node.id,
            room,
            transport,
            producer,
            media: node.producer.kind,
            paused: paused.0,
            source_paused: paused.1,
            app_data: node.app_data.clone(),
        });
        self.consumers.insert(node.id, node);
        Ok(())
    }

    fn change(&mut self, method: &Method, app_data: Value) {
        match method {
            Method::CloseRouter { room } => self.close_room(*room, app_data, CloseCause::Closed),
            Method::CloseTransport { transport } => {
                if let Some(room) = self.transports.get(transport).map(|node| node.room.id) {
                    self.close_in(room, method, app_data);
                }
            }
            Method::CloseProducer { producer } => {
                if let Some(room) = self.producers.get(producer).map(|node| node.transport.room.id) {
                    self.close_in(room, method, app_data);
                }
            }
            Method::CloseConsumer { consumer } => {
                if let Some(room) = self.consumers.get(consumer).map(|node| node.transport.room.id) {
                    self.close_in(room, method, app_data);
                }
            }
            Method::SetRemote { transport, remote } => self.set_remote(*transport, *remote, method),
            Method::PauseProducer { producer } => self.pause_producer(*producer, true, method, app_data),
            Method::ResumeProducer { producer } => self.pause_producer(*producer, false, method, app_data),
            Method::SetProducerPreferredProfile { producer, profile } => {
                self.prefer_of_producer(*producer, *profile, method);
            }
            Method::PauseConsumer { consumer } => self.pause_consumer(*consumer, true, method, app_data),
            Method::ResumeConsumer { consumer } => self.pause_consumer(*consumer, false, method, app_data),
            Method::SetConsumerPreferredProfile { consumer, profile } => {
                self.prefer_of_consumer(*consumer, *profile, method);
            }
            Method::SetMaxBitrate { .. } | Method::StopMirroring { .. } => self.change_outlet(method, None),
            // Creations come with their node, and the rest changes nothing that is known here.
            _ => {}
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

    fn pause_producer(&mut self, producer: ProducerId, paused: bool, method: &Method, app_data: Value) {
        let Some(node) = self.producers.get(&producer) else {
            return;
        };
        let room = node.transport.room.id;
        let Some(entry) = self.rooms.get_mut(&room) else {
            return;
        };
        entry.desired.accept(method);
        if std::mem::replace(&mut lock(&node.state).paused, paused) == paused {
            return;
        }
        let originator = Originator::Local;
        self.events.emit(match paused {
            true => EventKind::ProducerPaused {
                producer,
                room,
                originator,
                app_data,
            },
            false => EventKind::ProducerResumed {
                producer,
                room,
                originator,
                app_data,
            },
        });
        for consumer in entry.desired.consumers_of(producer) {
            let Some(node) = self.consumers.get(&consumer) else {
                continue;
            };
            if std::mem::replace(&mut lock(&node.state).source_paused, paused) != paused {
                self.events
                    .emit(consumer_paused(consumer, room, paused, Originator::Source, Value::Null));
            }
        }
    }

    fn pause_consumer(&mut self, consumer: ConsumerId, paused: bool, method: &Method, app_data: Value) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        let room = node.transport.room.id;
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.desired.accept(method);
        }
        if std::mem::replace(&mut lock(&node.state).paused, paused) != paused {
            self.events
                .emit(consumer_paused(consumer, room, paused, Originator::Local, app_data));
        }
    }

    fn prefer_of_producer(&mut self, producer: ProducerId, profile: Profile, method: &Method) {
        let Some(node) = self.producers.get(&producer) else {
            return;
        };
        let room = node.transport.room.id;
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.desired.accept(method);
        }
        if std::mem::replace(&mut lock(&node.state).preferred_profile, profile) != profile {
            self.events.emit(EventKind::ProducerPreferredProfileSet {
                producer,
                room,
                profile,
            });
        }
    }

    fn prefer_of_consumer(&mut self, consumer: ConsumerId, profile: Profile, method: &Method) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        let room = node.transport.room.id;
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.desired.accept(method);
        }
        if std::mem::replace(&mut lock(&node.state).preferred_profile, profile) != profile {
            self.events.emit(EventKind::ConsumerPreferredProfileSet {
                consumer,
                room,
                profile,
            });
        }
    }

    /// A worker says that a transport has learned its remote. Ignored when the transport is not the worker's, or gone.
    pub(crate) fn learn_remote(&mut self, worker: WorkerId, transport: TransportId, remote: Remote) {
        let Some(node) = self.transports.get(&transport) else {
            return;
        };
        if node.room.worker != worker {
            return;
        }
        let room = node.room.id;
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.desired.learn_remote(transport, remote);
        }
        lock(&node.state).remote = Some(remote);
        self.events.emit(EventKind::RemoteLearned {
            transport,
            room,
            remote,
        });
    }

    /// A worker says what it sends a consumer now. Ignored when the consumer is not the worker's, or gone.
    pub(crate) fn change_effective_profile(
        &mut self,
        worker: WorkerId,
        consumer: ConsumerId,
        profile: Option<Profile>,
    ) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        if node.transport.room.worker != worker {
            return;
        }
        let room = node.transport.room.id;
        if std::mem::replace(&mut lock(&node.state).effective_profile, profile) != profile {
            self.events.emit(EventKind::ConsumerEffectiveProfileChanged {
                consumer,
                room,
                profile,
            });
        }
    }

    /// Closes all rooms of a worker that died.
    pub(crate) fn close_rooms_of(&mut self, worker: WorkerId, cause: &CloseCause) {
        let mut rooms: Vec<RoomId> = self
            .rooms
            .values()
            .filter(|entry| entry.node.worker == worker)
            .map(|entry| entry.node.id)
            .collect();
        rooms.sort_unstable();
        for room in rooms {
            self.close_room(room, Value::Null, cause.clone());
        }
    }

    /// Closes all rooms and lets no other be made.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        let mut rooms: Vec<RoomId> = self.rooms.keys().copied().collect();
        rooms.sort_unstable();
        for room in rooms {
            self.close_room(room, Value::Null, CloseCause::ServerClosed);
        }
    }

    fn close_room(&mut self, room: RoomId, app_data: Value, cause: CloseCause) {
        let Some(mut entry) = self.rooms.remove(&room) else {
            return;
        };
        entry.node.close();
        if let Some(count) = self.room_counts.get_mut(&entry.node.worker) {
            *count -= 1;
        }
        let cause_of_children = match &cause {
            CloseCause::Closed => CloseCause::RoomClosed,
            inherited => inherited.clone(),
        };
        self.events.emit(EventKind::RoomClosed {
            room,
            originator: Originator::Local,
            app_data,
            cause,
        });
        let Closed(closed) = entry.desired.close_all();
        for object in closed {
            self.close_object(object, room, Value::Null, cause_of_children.clone());
        }
    }

    /// Closes what `method` closes, with its children. The app data belongs to the first; children get none.
    fn close_in(&mut self, room: RoomId, method: &Method, mut app_data: Value) {
        let Some(entry) = self.rooms.get_mut(&room) else {
            return;
        };
        let Closed(closed) = entry.desired.accept(method);
        for (index, object) in closed.into_iter().enumerate() {
            let cause = match (index, object) {
                (0, _) => CloseCause::Closed,
                (_, ClosedObject::Consumer(_, ConsumerParent::Producer)) => CloseCause::ProducerClosed,
                _ => CloseCause::TransportClosed,
            };
            self.close_object(object, room, app_data.take(), cause);
        }
    }

    fn close_object(&mut self, object: ClosedObject, room: RoomId, app_data: Value, cause: CloseCause) {
        let originator = Originator::Local;
        match object {
            ClosedObject::Transport(transport) => {
                let Some(node) = self.transports.remove(&transport) else {
                    return;
                };
                node.close();
                self.events.emit(EventKind::TransportClosed {
                    transport,
                    room,
                    originator,
                    app_data,
                    cause,
                });
            }
            ClosedObject::Producer(producer) => {
                let Some(node) = self.producers.remove(&producer) else {
                    return;
                };
                lock(&node.state).closed = true;
                self.events.emit(EventKind::ProducerClosed {
                    producer,
                    room,
                    originator,
                    app_data,
                    cause,
                });
            }
            ClosedObject::Consumer(consumer, _) => {
                let Some(node) = self.consumers.remove(&consumer) else {
                    return;
                };
                lock(&node.state).closed = true;
                self.events.emit(EventKind::ConsumerClosed {
                    consumer,
                    room,
                    originator,
                    app_data,
                    cause,
                });
            }
        }
    }
}

fn consumer_paused(
    consumer: ConsumerId,
    room: RoomId,
    paused: bool,
    originator: Originator,
    app_data: Value,
) -> EventKind {
    match paused {
        true => EventKind::ConsumerPaused {
            consumer,
            room,
            originator,
            app_data,
        },
        false => EventKind::ConsumerResumed {
            consumer,
            room,
            originator,
            app_data,
        },
    }
}
