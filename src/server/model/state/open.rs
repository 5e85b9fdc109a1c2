//! What begins to exist, and who is told.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId};
use weir_channel::message::{CreateConsumer, CreateProducer, Method, Profile, Reply};

use super::pausing::Pausable;
use super::{Command, OnAccept, RoomEntry, State};
use crate::server::model::client_memory::bytes_of;
use crate::server::model::consumer::ConsumerNode;
use crate::server::model::desired::DesiredRoom;
use crate::server::model::error::Error;
use crate::server::model::event::EventKind;
use crate::server::model::ids::random;
use crate::server::model::limits::{APP_DATA_BYTES_PER_ROOM_MAX, CONSUMERS_PER_ROOM_MAX, PEERS_MAX};
use crate::server::model::lock;
use crate::server::model::pause_state::Change;
use crate::server::model::peer::{PeerInfo, PeerNode, PeerOptions, Peers, admit_producer, admit_transport};
use crate::server::model::peer_notification::PeerNotification;
use crate::server::model::producer::ProducerNode;
use crate::server::model::room::RoomNode;
use crate::server::model::rtp_capabilities::consumer_parameters;
use crate::server::model::rtp_parameters::ConsumerSsrcs;
use crate::server::model::side::Side;
use crate::server::model::transport::TransportNode;

impl State {
    pub(super) fn open_room(&mut self, node: Arc<RoomNode>) -> Result<(), Error> {
        if self.closed {
            node.close();
            return Err(Error::closed("the server"));
        }
        self.events.emit(EventKind::RoomOpened {
            room: node.id,
            worker: node.worker,
            app_data: node.app_data.clone(),
        });
        self.served_mut(node.worker).rooms += 1;
        let entry = RoomEntry {
            desired: DesiredRoom::default(),
            peers: Peers::default(),
            listeners: Default::default(),
            streamers: Default::default(),
            ssrcs: Default::default(),
            producers_on_their_way: 0,
            consumers_on_their_way: 0,
            node,
        };
        self.rooms.insert(entry.node.id, entry);
        Ok(())
    }

    /// A peer joins: it gets a consumer of everything that the others produce if it subscribes, and, unless it is a spy, the others' clients
    /// hear of it (differences §1.3). No worker knows of peers, so nobody is asked.
    pub(crate) fn join(
        &mut self,
        room: &RoomNode,
        options: PeerOptions,
    ) -> Result<(Arc<PeerNode>, Vec<PeerInfo>), Error> {
        let entry = self.rooms.get_mut(&room.id).ok_or_else(|| Error::closed(room.id))?;
        let too_many = |noun, limit| Error::TooMany {
            owner: room.id.to_string(),
            noun,
            limit,
        };
        if entry.peers.len() >= PEERS_MAX {
            return Err(too_many("peers", PEERS_MAX));
        }
        let capabilities = &options.rtp_capabilities;
        capabilities
            .check_subset_of(&entry.node.rtp_capabilities)
            .map_err(Error::InvalidParameters)?;
        let producers: Vec<_> = entry
            .peers
            .iter()
            .filter(|_| options.subscribe)
            .flat_map(|other| other.producers.iter().copied())
            .collect();
        entry.check_capacity_for(producers.len() + entry.producers_on_their_way)?;
        let room_node = Arc::clone(&entry.node);
        entry.check_app_data(&self.producers, &options.app_data)?;
        let peer = entry.peers.add(&room_node, options, &self.client_memory)?;
        let app_data = Arc::clone(&lock(&peer.state).app_data);
        self.events.emit(EventKind::PeerJoined {
            peer: Arc::clone(&peer.name),
            room: room.id,
            spy: peer.spy,
            app_data: app_data.clone(),
        });
        for producer in producers {
            if let Some(producer) = self.producers.get(&producer).cloned() {
                self.add_consumer(&producer, &peer);
            }
        }
        let entry = self.rooms.get(&room.id).ok_or_else(|| Error::closed(room.id))?;
        let others = entry.peers.iter().filter(|other| other.node.key != peer.key);
        if !peer.spy {
            for other in others.clone() {
                other.node.outbox.push(PeerNotification::NewPeer {
                    name: Arc::clone(&peer.name),
                    app_data: app_data.clone(),
                    consumers: Vec::new(),
                });
            }
        }
        let consumers: Vec<&Arc<ConsumerNode>> = entry
            .peers
            .get(peer.key)
            .into_iter()
            .flat_map(|own| &own.consumers)
            .filter_map(|id| self.consumers.get(id))
            .collect();
        let others = others.filter(|other| !other.node.spy).map(|other| PeerInfo {
            name: Arc::clone(&other.node.name),
            app_data: lock(&other.node.state).app_data.clone(),
            consumers: consumers
                .iter()
                .filter(|consumer| other.producers.contains(&consumer.producer().id))
                .map(|consumer| consumer.info())
                .collect(),
        });
        let others = others.collect();
        Ok((peer, others))
    }

    pub(super) fn open_transport(&mut self, method: &Method, node: Arc<TransportNode>) -> Result<(), Error> {
        let room = node.room.id;
        let entry = self.rooms.get_mut(&room).ok_or_else(|| Error::closed(room))?;
        let peer = node.owner.as_ref().map(|(peer, _)| Arc::clone(&peer.name));
        if let Some((peer, _)) = &node.owner {
            // Closing a peer closes what is on its way, too, so it is still there.
            let owner = entry.peers.get_mut(peer.key);
            let owner = owner.ok_or_else(|| Error::closed(peer.describe()))?;
            owner.transports.insert(node.id);
        }
        entry.desired.add_transport(method, &node);
        self.events.emit(EventKind::TransportOpened {
            transport: node.id,
            room,
            peer,
            kind: node.transport_kind(),
            tuple: node.tuple(),
            app_data: node.app_data.clone(),
        });
        self.served_mut(node.room.worker).transports += 1;
        self.transports.insert(node.id, node);
        Ok(())
    }

    /// Whether a transport may be made; a peer's is counted as on its way.
    pub(crate) fn admit_transport(&self, transport: &TransportNode) -> Result<(), Error> {
        transport.room.check_open()?;
        match &transport.owner {
            Some((peer, _)) => admit_transport(peer, self.peer(peer), transport.id),
            None => Ok(()),
        }
    }

    /// Whether a producer may be made on a transport; a peer's is counted as on its way.
    pub(crate) fn admit_producer(&mut self, transport: &TransportNode, app_data: &Value) -> Result<(), Error> {
        transport.check_open()?;
        let Some((peer, _)) = &transport.owner else {
            return Ok(());
        };
        let room = peer.room.id;
        let entry = self.rooms.get_mut(&room).ok_or_else(|| Error::closed(room))?;
        entry.check_capacity_for(entry.peers.len().saturating_sub(1))?;
        entry.check_app_data(&self.producers, app_data)?;
        admit_producer(peer, entry.peers.get(peer.key))?;
        entry.producers_on_their_way += 1;
        Ok(())
    }

    /// Whether a consumer of nobody's may be made on a transport; it is counted as on its way.
    pub(crate) fn admit_consumer(&mut self, transport: &TransportNode) -> Result<(), Error> {
        transport.check_open()?;
        let room = transport.room.id;
        let entry = self.rooms.get_mut(&room).ok_or_else(|| Error::closed(room))?;
        entry.check_capacity_for(1)?;
        entry.consumers_on_their_way += 1;
        Ok(())
    }

    /// The other peers' consumers of a producer, and what their clients are told, come before the producer's own event
    /// (differences §1.5).
    pub(super) fn open_producer(&mut self, request: &CreateProducer, node: Arc<ProducerNode>) -> Result<(), Error> {
        let (room, transport) = (node.transport.room.id, node.transport.id);
        let entry = self.rooms.get_mut(&room).ok_or_else(|| Error::closed(room))?;
        if !self.transports.contains_key(&transport) {
            return Err(Error::closed(transport));
        }
        entry.desired.add_producer(request, &node);
        let mut others = Vec::new();
        if let Some(peer) = node.peer() {
            let receives = |other: &PeerNode| other.key != peer.key && other.subscribe;
            let others_of = entry.peers.iter().filter(|other| receives(&other.node));
            others.extend(others_of.map(|other| Arc::clone(&other.node)));
            if let Some(owner) = entry.peers.get_mut(peer.key) {
                owner.producers.insert(node.id);
            }
        }
        self.served_mut(node.transport.room.worker).streams += 1;
        self.producers.insert(node.id, Arc::clone(&node));
        for other in others {
            if let Some(consumer) = self.add_consumer(&node, &other) {
                other.outbox.push(PeerNotification::NewConsumer(consumer.info()));
            }
        }
        let (paused, app_data) = {
            let state = lock(&node.state);
            (state.pause_state.paused(), state.app_data.clone())
        };
        self.events.emit(EventKind::ProducerOpened {
            producer: node.id,
            room,
            peer: node.peer().map(|peer| Arc::clone(&peer.name)),
            transport,
            media: node.kind,
            paused,
            app_data,
        });
        Ok(())
    }

    /// A peer gets a consumer of another peer's producer. It waits to be enabled; no worker knows it.
    fn add_consumer(&mut self, producer: &Arc<ProducerNode>, receiver: &Arc<PeerNode>) -> Option<Arc<ConsumerNode>> {
        let entry = self.rooms.get_mut(&receiver.room.id)?;
        let consumable = producer.consumable.as_ref()?;
        let own = entry.peers.get(receiver.key).map(|own| own.transports.clone());
        let own: Vec<_> = own.iter().flatten().filter_map(|id| self.transports.get(id)).collect();
        let is_used = |ssrc| own.iter().any(|transport| transport.has_used(ssrc));
        let ssrcs = ConsumerSsrcs {
            media: entry.draw_ssrc(is_used),
            rtx: entry.draw_ssrc(is_used),
        };
        let parameters = consumer_parameters(&consumable.parameters, &receiver.rtp_capabilities).with_ssrcs(ssrcs);
        let (source_paused, app_data) = {
            let state = lock(&producer.state);
            (state.pause_state.worker_paused(), state.app_data.clone())
        };
        let id = self.ids.consumer();
        let node = ConsumerNode::waiting(
            id,
            Arc::clone(producer),
            Arc::clone(receiver),
            (parameters, ssrcs),
            source_paused,
            app_data.clone(),
        );
        entry.desired.add_waiting_consumer(&node);
        if let Some(receiver) = entry.peers.get_mut(receiver.key) {
            receiver.consumers.insert(id);
        }
        self.served_mut(receiver.room.worker).streams += 1;
        self.consumers.insert(id, Arc::clone(&node));
        self.events.emit(EventKind::ConsumerOpened {
            consumer: id,
            room: receiver.room.id,
            peer: Some(Arc::clone(&receiver.name)),
            transport: None,
            producer: producer.id,
            media: producer.kind,
            paused: false,
            source_paused,
            app_data,
        });
        Some(node)
    }

    pub(super) fn open_consumer(
        &mut self,
        request: &CreateConsumer,
        node: Arc<ConsumerNode>,
        reply: &Reply,
    ) -> Result<(), Error> {
        let source = node.producer();
        let (room, producer) = (node.room.id, source.id);
        let transport = request.transport;
        let entry = self.rooms.get_mut(&room).ok_or_else(|| Error::closed(room))?;
        if !self.transports.contains_key(&transport) {
            return Err(Error::closed(transport));
        }
        if !self.producers.contains_key(&producer) {
            return Err(Error::closed(producer));
        }
        entry.desired.add_consumer(request, &node);
        if let Some(transport) = self.transports.get(&transport) {
            transport.sends(request);
        }
        let (paused, source_paused) = {
            let mut state = lock(&node.state);
            // Answers come in order, so the worker's word and our own knowledge of the producer agree; its word counts.
            state.source_paused = source_paused_of(reply, &source);
            (state.pause_state.paused(), state.source_paused)
        };
        self.events.emit(EventKind::ConsumerOpened {
            consumer: node.id,
            room,
            peer: None,
            transport: Some(transport),
            producer,
            media: node.kind,
            paused,
            source_paused,
            app_data: node.app_data.clone(),
        });
        self.served_mut(node.room.worker).streams += 1;
        self.consumers.insert(node.id, node);
        Ok(())
    }

    pub(super) fn open_streamer(
        &mut self,
        request: &CreateConsumer,
        node: Arc<ConsumerNode>,
        reply: &Reply,
    ) -> Result<(), Error> {
        let (room, transport, consumer, producer) = (node.room.id, request.transport, node.id, node.producer().id);
        self.open_consumer(request, node, reply)?;
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.streamers.insert(transport, consumer);
        }
        self.events.emit(EventKind::RtpStreamerOpened {
            transport,
            consumer,
            producer,
            room,
        });
        Ok(())
    }

    /// The worker knows a peer's consumer now.
    pub(super) fn enable_consumer(
        &mut self,
        request: &CreateConsumer,
        node: &Arc<ConsumerNode>,
        change: Option<Change>,
        reply: &Reply,
    ) -> Result<(), Error> {
        let consumer = request.consumer;
        if !self.consumers.contains_key(&consumer) {
            // Closed while it was on its way; the worker is to forget it.
            self.follow_up(Method::CloseConsumer { consumer });
            return Err(Error::closed(consumer));
        }
        let transport = self.transports.get(&request.transport).cloned();
        let transport = transport.ok_or_else(|| Error::closed(request.transport))?;
        transport.sends(request);
        if let Some(entry) = self.rooms.get_mut(&node.room.id) {
            entry.desired.add_consumer(request, node);
        }
        if let Some(Change::Enable {
            paused,
            preferred_profile,
        }) = change
        {
            if paused {
                self.set_paused(Pausable::Consumer(consumer), Side::Remote, true, Value::Null);
            }
            if let Some(profile) = preferred_profile {
                self.set_preferred_profile(Pausable::Consumer(consumer), Side::Remote, profile);
            }
        }
        {
            let mut state = lock(&node.state);
            state.transport = Some(Arc::clone(&transport));
            state.pause_state.set_worker_paused(request.paused);
        }
        self.events.emit(EventKind::ConsumerHandled {
            consumer,
            room: node.room.id,
            transport: transport.id,
        });
        self.consumer_source_paused(consumer, source_paused_of(reply, &node.producer()));
        Ok(())
    }

    /// The worker has given a consumer another producer.
    pub(super) fn change_source(
        &mut self,
        request: &CreateConsumer,
        (node, producer): (&Arc<ConsumerNode>, &Arc<ProducerNode>),
        reply: &Reply,
    ) -> Result<(), Error> {
        let (consumer, room) = (node.id, node.room.id);
        let entry = self.rooms.get_mut(&room).ok_or_else(|| Error::closed(room))?;
        if !self.consumers.contains_key(&consumer) {
            return Err(Error::closed(consumer));
        }
        entry.desired.set_source(request, node, producer);
        lock(&node.state).effective_profile = None;
        self.events.emit(EventKind::ConsumerSourceChanged {
            consumer,
            room,
            producer: Some(producer.id),
        });
        self.consumer_source_paused(consumer, source_paused_of(reply, producer));
        Ok(())
    }

    /// The worker's request that enables a peer's consumer on a transport of the peer's.
    pub(crate) fn plan_enabling(
        &mut self,
        consumer: ConsumerId,
        transport: &TransportNode,
        paused: bool,
        preferred_profile: Option<Profile>,
    ) -> Result<Option<Command>, Error> {
        let node = self.consumers.get(&consumer).ok_or_else(|| Error::closed(consumer))?;
        transport.check_open()?;
        let own = node.receiver.as_ref().map(|receiver| (receiver.key, receiver.room.id));
        let theirs = transport.owner.as_ref().map(|(peer, _)| (peer.key, peer.room.id));
        if own.is_none() || own != theirs {
            return Err(Error::InvalidParameters(format!(
                "{consumer} can be enabled on a transport of the peer it belongs to, and {} is none",
                transport.id
            )));
        }
        let mut state = lock(&node.state);
        if state.is_known_to_worker() {
            return Err(Error::AlreadyEnabled { consumer });
        }
        // Checks that there is a codec in common, so before anything counts as under way.
        let mut request = node.request(transport.id)?;
        (request.paused, request.preferred_profile) = state.pause_state.plan_enabling(paused, preferred_profile);
        state.enabling = true;
        Ok(Some(Command {
            method: Method::CreateConsumer(request),
            on_accept: OnAccept::Enable(Arc::clone(node)),
        }))
    }
}

impl RoomEntry {
    /// Whether so many consumers more may come, besides those that there are and those that will be when all that is under
    /// way is accepted: a producer brings one for each of the other peers.
    fn check_capacity_for(&self, more: usize) -> Result<(), Error> {
        let others = self.peers.len().saturating_sub(1);
        let on_their_way = self.consumers_on_their_way + self.producers_on_their_way * others;
        if self.desired.consumer_count() + on_their_way + more > CONSUMERS_PER_ROOM_MAX {
            return Err(Error::TooMany {
                owner: self.node.id.to_string(),
                noun: "consumers",
                limit: CONSUMERS_PER_ROOM_MAX,
            });
        }
        Ok(())
    }

    /// Whether so much more app data may come, which everybody who joins is sent.
    fn check_app_data(&self, producers: &HashMap<ProducerId, Arc<ProducerNode>>, more: &Value) -> Result<(), Error> {
        let of_peers = self.peers.iter().map(|peer| bytes_of(&lock(&peer.node.state).app_data));
        let of_producers = self.peers.iter().flat_map(|peer| &peer.producers);
        let of_producers = of_producers.filter_map(|id| producers.get(id));
        let of_producers = of_producers.map(|producer| bytes_of(&lock(&producer.state).app_data));
        if of_peers.sum::<usize>() + of_producers.sum::<usize>() + bytes_of(more) > APP_DATA_BYTES_PER_ROOM_MAX {
            return Err(Error::TooMany {
                owner: self.node.id.to_string(),
                noun: "bytes of app data",
                limit: APP_DATA_BYTES_PER_ROOM_MAX,
            });
        }
        Ok(())
    }

    /// An SSRC that no peer's consumer of the room has, and that is not used otherwise. They are told to clients before it is
    /// known on which transport they will be used.
    fn draw_ssrc(&mut self, is_used: impl Fn(u32) -> bool) -> u32 {
        loop {
            let ssrc = random() as u32;
            if ssrc != 0 && !is_used(ssrc) && self.ssrcs.insert(ssrc) {
                return ssrc;
            }
        }
    }
}

pub(super) fn source_paused_of(reply: &Reply, producer: &ProducerNode) -> bool {
    match reply {
        Reply::ConsumerCreated { source_paused } => *source_paused,
        _ => lock(&producer.state).pause_state.worker_paused(),
    }
}
