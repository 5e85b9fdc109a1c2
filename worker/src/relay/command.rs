//! Commands: what the supervisor asks for is checked wholly before anything changes, so a refused command changed nothing.

use std::fmt;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{CreateConsumer, CreateProducer, MediaKind, Method, Remote, Reply, WorkerError};

use crate::page::layout::Table;
use crate::time::Time;

use super::consumer::Consumer;
use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::limits::ID_MAX;
use super::parameters::{check_consumer, check_producer, check_remote, invalid};
use super::producer::Producer;
use super::repair::Repair;
use super::rewrite::Rewriter;
use super::ring::Ring;
use super::transport::{Transport, TransportKind};
use super::{Action, Relay, Room};

impl Relay {
    /// See [`Relay::handle_command`].
    pub(super) fn do_command(&mut self, now: Time, method: &Method) -> Result<Reply, WorkerError> {
        match method {
            Method::CreateRouter { room } => self.create_room(*room)?,
            Method::CloseRouter { room } => self.close_room(*room)?,
            Method::CreatePlainTransport(request) => {
                if let Some(remote) = request.remote {
                    check_remote(remote, request.rtcp_mux)?;
                }
                self.create_transport(now, request.room, request.transport, TransportKind::of_plain(request))?;
            }
            Method::CreateWebRtcTransport(request) => {
                self.create_transport(now, request.room, request.transport, TransportKind::WebRtc)?;
            }
            Method::SetRemote { transport, remote } => self.set_remote(now, *transport, *remote)?,
            Method::CloseTransport { transport } => {
                let key = self.find_transport(*transport)?;
                self.close_transport(key);
            }
            Method::CreateProducer(request) => self.create_producer(now, request)?,
            Method::SetProducerPaused { producer, paused: true } => self.pause_producer(*producer)?,
            Method::SetProducerPaused {
                producer,
                paused: false,
            } => self.resume_producer(now, *producer)?,
            Method::SetProducerPreferredProfile { producer, profile } => {
                let key = self.find_producer(*producer)?;
                self.producers[key].preferred_profile = *profile;
                self.select_layers(now, key);
            }
            Method::CloseProducer { producer } => {
                let key = self.find_producer(*producer)?;
                self.close_producer(key);
            }
            Method::CreateConsumer(request) => return self.create_consumer(now, request),
            Method::SetConsumerPaused { consumer, paused: true } => self.pause_consumer(*consumer)?,
            Method::SetConsumerPaused {
                consumer,
                paused: false,
            } => self.resume_consumer(now, *consumer)?,
            Method::SetConsumerPreferredProfile { consumer, profile } => {
                let key = self.find_consumer(*consumer)?;
                self.consumers[key].preferred_profile = *profile;
                self.select_layer(now, key);
            }
            Method::RequestKeyFrame { consumer } => {
                let key = self.find_consumer(*consumer)?;
                self.request_key_frame_for(now, key);
            }
            Method::CloseConsumer { consumer } => {
                let key = self.find_consumer(*consumer)?;
                self.close_consumer(key);
            }
            Method::Stats(scope) => return self.stats(now, *scope).map(Reply::Stats),
            Method::Dump(scope) => return self.dump(*scope).map(Reply::Dump),
            Method::SetMaxBitrate { transport, bitrate_bps } => {
                let key = self.find_transport(*transport)?;
                self.reports
                    .set_max_bitrate(now, key, &mut self.transports[key], *bitrate_bps);
            }
            Method::SetAudioLevels { room, enabled } => self.set_audio_levels(now, *room, *enabled)?,
            Method::Ping
            | Method::UseDtlsCertificate(_)
            | Method::RestartIce { .. }
            | Method::SetRemoteIce { .. }
            | Method::SetDtlsParameters { .. }
            | Method::StartMirroring { .. }
            | Method::StopMirroring { .. }
            | Method::SetLogFilter(_)
            | Method::SetCoalescing(_)
            | Method::WorkerStats
            | Method::OpenSharedPorts(_)
            | Method::UseConnectedSocket { .. }
            | Method::Adopt { .. }
            | Method::AdoptionEnded { .. }
            | Method::SetQuarantine(_)
            | Method::DropWaiting { .. }
            | Method::Shutdown => return Err(invalid("this method is not about a room")),
        }
        Ok(Reply::Done)
    }

    /// Begins or ends to send how loud a room's producers are.
    fn set_audio_levels(&mut self, now: Time, id: RoomId, enabled: bool) -> Result<(), WorkerError> {
        let room = self.rooms.get_mut(&id).ok_or(WorkerError::UnknownRoom(id))?;
        if self.audio_levels.set(now, id, room, enabled) {
            for key in room.producers.iter().filter_map(|id| self.producer_of_id.get(id)) {
                self.producers[*key].measure_level(enabled);
            }
        }
        Ok(())
    }

    fn create_room(&mut self, room: RoomId) -> Result<(), WorkerError> {
        if self.rooms.contains_key(&room) {
            return Err(WorkerError::DuplicateRoom(room));
        }
        check_limit("rooms", self.rooms.len(), self.limits.rooms)?;
        self.rooms.insert(room, Room::default());
        Ok(())
    }

    /// Closes a room: its transports with everything on them.
    fn close_room(&mut self, room: RoomId) -> Result<(), WorkerError> {
        let members = self.rooms.get(&room).ok_or(WorkerError::UnknownRoom(room))?;
        for transport in members.transports.clone() {
            if let Ok(key) = self.find_transport(transport) {
                self.close_transport(key);
            }
        }
        self.rooms.remove(&room);
        Ok(())
    }

    fn create_transport(
        &mut self,
        now: Time,
        room: RoomId,
        id: TransportId,
        kind: TransportKind,
    ) -> Result<(), WorkerError> {
        if !self.rooms.contains_key(&room) {
            return Err(WorkerError::UnknownRoom(room));
        }
        if self.transport_of_id.contains_key(&id) {
            return Err(WorkerError::DuplicateTransport(id));
        }
        check_id(id, id.0)?;
        check_limit("transports", self.transports.len(), self.limits.transports)?;
        let legacy = self.transport_legacy(now, room, id)?;
        let key = self
            .transports
            .insert_with_key(|key| Transport::new(id, room, key.index(), kind, now, &self.hash));
        let index = key.index().0 as usize;
        if self.transport_of_index.len() <= index {
            self.transport_of_index.resize(index + 1, None);
        }
        self.transport_of_index[index] = Some(key);
        self.reports.reserve(key, self.transports.len());
        self.transport_of_id.insert(id, key);
        self.room_mut(room).transports.insert(id);
        self.keep_new_transport(key, legacy);
        Ok(())
    }

    fn set_remote(&mut self, now: Time, transport: TransportId, remote: Remote) -> Result<(), WorkerError> {
        let key = self.find_transport(transport)?;
        let TransportKind::Plain { rtcp_mux, .. } = self.transports[key].kind else {
            return Err(WorkerError::NotPlain(transport));
        };
        check_remote(remote, rtcp_mux)?;
        let before = self.transports[key].set_remote_address(now, remote);
        self.transports[key].keep_remote(&self.page);
        if before.map(|before| before.rtp) != Some(remote.rtp) {
            self.on_remote_known(now, key);
        } else {
            self.reports.schedule(now, key, &mut self.transports[key]);
        }
        Ok(())
    }

    fn close_transport(&mut self, key: TransportKey) {
        while let Some(producer) = self.transports[key].producers.last().copied() {
            self.close_producer(producer);
        }
        while let Some(consumer) = self.transports[key].consumers.last().copied() {
            self.close_consumer(consumer);
        }
        let Some(transport) = self.transports.remove(key) else {
            return;
        };
        self.transport_of_id.remove(&transport.id);
        self.transport_of_index[transport.index.0 as usize] = None;
        self.room_mut(transport.room).transports.remove(&transport.id);
        self.actions.push_back(Action::Close {
            transport: transport.index,
        });
        self.page.leave(Table::Transports, transport.page);
        self.feedback.on_transport_left(&transport);
        self.reports
            .on_transport_left(key, transport, self.transports.is_empty());
    }

    fn create_producer(&mut self, now: Time, request: &CreateProducer) -> Result<(), WorkerError> {
        if self.producer_of_id.contains_key(&request.producer) {
            return Err(WorkerError::DuplicateProducer(request.producer));
        }
        let transport_key = self.find_transport_in(request.transport, request.room)?;
        check_id(request.producer, request.producer.0)?;
        check_limit("producers", self.producers.len(), self.limits.producers)?;
        let transport = &self.transports[transport_key];
        check_limit(
            "producers on a transport",
            transport.producers.len(),
            self.limits.producers_per_transport,
        )?;
        check_producer(request, transport.kind != TransportKind::WebRtc)?;
        transport.check_latch(&self.producers, request)?;
        let declared: Vec<u32> = request
            .encodings
            .iter()
            .flat_map(|encoding| [encoding.ssrc, encoding.rtx_ssrc])
            .flatten()
            .collect();
        for ssrc in &declared {
            if !transport.is_latched(&self.producers, *ssrc) {
                self.check_ssrc(*ssrc, transport_key)?;
            }
        }
        if let Some(mid) = &request.mid {
            let owner = transport
                .producers
                .iter()
                .find(|key| self.producers[**key].mid.as_ref() == Some(mid));
            if let Some(owner) = owner {
                let owner = self.producers[*owner].id;
                return Err(WorkerError::MidInUse {
                    mid: mid.clone(),
                    owner,
                    transport: request.transport,
                });
            }
        }

        let legacies = self.stream_legacies(now, request)?;

        self.release_latches(now, transport_key, &declared);
        let key = self.producers.insert(Producer::new(request, transport_key));
        let transport = &mut self.transports[transport_key];
        transport.producers.push(key);
        let streams = &self.producers[key].streams;
        for (encoding, stream) in streams.iter().enumerate() {
            if let Some(ssrc) = stream.ssrc {
                transport.ssrcs.insert(ssrc, (key, encoding as u8));
            }
            if let Some(ssrc) = stream.rtx_ssrc {
                transport.rtx_ssrcs.insert(ssrc, (key, encoding as u8));
            }
        }
        self.streams += streams.len();
        self.activity
            .on_producer(now, key, (self.producers.len(), self.streams));
        self.reserve_for_streams(transport_key);
        self.producer_of_id.insert(request.producer, key);
        self.room_mut(request.room).producers.insert(request.producer);
        self.keep_new_producer(now, key, legacies);
        self.reports
            .schedule(now, transport_key, &mut self.transports[transport_key]);
        self.feedback
            .refresh(&mut self.transports[transport_key], &self.producers);
        let is_wanted = self.room_mut(request.room).levels_due.is_some();
        self.producers[key].measure_level(is_wanted);
        Ok(())
    }

    /// Reserves memory for what the streams can cause, so that nothing has to grow while packets are relayed.
    fn reserve_for_streams(&mut self, transport: TransportKey) {
        self.key_frame_requests.reserve(self.streams);
        self.losses.reserve(self.streams);
        self.unkept.reserve(self.streams.saturating_sub(self.unkept.len()));
        // Each is known by one SSRC. A table that is at most half full takes a new one without growing.
        let transport = &mut self.transports[transport];
        let streams: usize = transport
            .producers
            .iter()
            .map(|key| self.producers[*key].streams.len())
            .sum();
        let missing = |known: usize| (2 * streams).saturating_sub(known);
        transport.ssrcs.reserve(missing(transport.ssrcs.len()));
        transport.rtx_ssrcs.reserve(missing(transport.rtx_ssrcs.len()));
    }

    fn pause_producer(&mut self, producer: ProducerId) -> Result<(), WorkerError> {
        let key = self.find_producer(producer)?;
        self.discard_held(key);
        let producer = &mut self.producers[key];
        producer.paused = true;
        producer
            .streams
            .iter_mut()
            .for_each(|stream| stream.key_frames.forget());
        Ok(())
    }

    /// Relays again: video from a key frame on, which is asked for.
    fn resume_producer(&mut self, now: Time, producer: ProducerId) -> Result<(), WorkerError> {
        let key = self.find_producer(producer)?;
        self.discard_held(key);
        let producer = &mut self.producers[key];
        if !std::mem::replace(&mut producer.paused, false) {
            return Ok(());
        }
        let streams = producer.streams.len();
        for encoding in 0..streams {
            let stream = &mut self.producers[key].streams[encoding];
            stream.on_resume();
            self.keep_later(key, encoding as u8);
            let stream = &self.producers[key].streams[encoding];
            if stream.available && !stream.attached.is_empty() {
                self.request_key_frame(now, key, encoding as u8);
            }
        }
        Ok(())
    }

    fn close_producer(&mut self, key: ProducerKey) {
        while let Some(consumer) = self.producers[key].consumers.last().copied() {
            self.close_consumer(consumer);
        }
        let Some(producer) = self.producers.remove(key) else {
            return;
        };
        self.forget_kept_streams(&producer);
        self.activity.on_producer_left(key);
        producer.leave_clock(&mut self.reports.clocks);
        self.streams -= producer.streams.len();
        let gops = producer.streams.iter().filter(|stream| stream.gop.is_some());
        self.key_frame_requests.gops.kept -= gops.count() as u32;
        let transport = &mut self.transports[producer.transport];
        transport.producers.retain(|other| *other != key);
        transport.remember_closed(&producer);
        transport.ssrcs.remove_producer(key);
        transport.rtx_ssrcs.retain(|_, (owner, _)| *owner != key);
        if transport.kind == TransportKind::WebRtc {
            let transport = transport.index;
            let ssrcs = producer
                .streams
                .iter()
                .flat_map(|stream| [stream.ssrc, stream.rtx_ssrc]);
            self.actions
                .extend(ssrcs.flatten().map(|ssrc| Action::Forget { transport, ssrc }));
        }
        self.feedback
            .refresh(&mut self.transports[producer.transport], &self.producers);
        self.producer_of_id.remove(&producer.id);
        self.room_mut(producer.room).producers.remove(&producer.id);
    }

    fn create_consumer(&mut self, now: Time, request: &CreateConsumer) -> Result<Reply, WorkerError> {
        if self.consumer_of_id.contains_key(&request.consumer) {
            return Err(WorkerError::DuplicateConsumer(request.consumer));
        }
        let transport_key = self.find_transport_in(request.transport, request.room)?;
        let producer_key = self.find_producer(request.producer)?;
        if self.producers[producer_key].room != request.room {
            return Err(WorkerError::OtherRoom {
                entity: request.producer.to_string(),
                room: request.room,
            });
        }
        check_id(request.consumer, request.consumer.0)?;
        check_limit("consumers", self.consumers.len(), self.limits.consumers)?;
        check_consumer(request)?;
        let ssrcs = [Some(request.ssrc), request.rtx.as_ref().map(|rtx| rtx.ssrc)];
        for ssrc in ssrcs.into_iter().flatten() {
            self.check_ssrc(ssrc, transport_key)?;
            self.transports[transport_key].check_unused_index(ssrc)?;
        }
        let legacy = self.consumer_legacy(now, request)?;

        let random = self.random.next();
        let before_first = self.transports[transport_key].before_first(request.ssrc, random);
        let rewriter = Rewriter::new(
            before_first,
            self.random.next() as u32,
            self.producers[producer_key].join_slot(request),
        );
        let before_first_rtx = match &request.rtx {
            Some(rtx) => {
                let random = self.random.next();
                self.transports[transport_key].before_first(rtx.ssrc, random)
            }
            None => 0,
        };
        let connected = self.transports[transport_key].remote.is_some();
        self.discard_held(producer_key);
        let producer = &mut self.producers[producer_key];
        let key = self.consumers.insert_with_key(|key: ConsumerKey| {
            Consumer::new(request, key, producer_key, producer, transport_key, connected, rewriter)
        });
        let consumer = &mut self.consumers[key];
        consumer.place_in_producer = producer.consumers.len() as u32;
        producer.consumers.push(key);
        // Any of its consumers may follow any of its streams, and all may start on one train: no list may have to grow
        // while packets are relayed.
        let consumers = producer.consumers.capacity();
        for stream in &mut producer.streams {
            let missing = consumers.saturating_sub(stream.attached.len());
            stream.attached.reserve_exact(missing);
        }
        self.workspace.reserve(consumers);
        if request.nack {
            consumer.repair = Some(Box::new(Repair::new(request, now, before_first_rtx)));
            producer.repairing += 1;
        }
        // What a start needs may come in another order.
        if request.nack || producer.kind == MediaKind::Video {
            for stream in &mut producer.streams {
                stream.ring.get_or_insert_with(|| Box::new(Ring::default()));
            }
        }
        let source_paused = producer.paused;

        let transport = &mut self.transports[transport_key];
        consumer.place_in_transport = transport.consumers.len() as u32;
        transport.consumers.push(key);
        transport.consumer_ssrcs.insert(request.ssrc, key);
        if let Some(rtx) = &request.rtx {
            transport.consumer_rtx_ssrcs.insert(rtx.ssrc, key);
        }
        self.update_gathering(transport_key);
        self.consumer_of_id.insert(request.consumer, key);
        self.room_mut(request.room).consumers.insert(request.consumer);
        self.profile_changes.reserve(self.consumers.len());
        self.producers[producer_key].join_clock(&mut self.reports.clocks, &request.cname, request.cname_is_made_up);
        self.reports
            .schedule(now, transport_key, &mut self.transports[transport_key]);
        self.begin_consumer(now, key, request, legacy);
        Ok(Reply::ConsumerCreated { source_paused })
    }

    fn pause_consumer(&mut self, consumer: ConsumerId) -> Result<(), WorkerError> {
        let key = self.find_consumer(consumer)?;
        self.discard_held(self.consumers[key].producer);
        let consumer = &mut self.consumers[key];
        if !consumer.paused {
            consumer.update_counters(&self.producers[consumer.producer].counters);
            consumer.paused = true;
            consumer.keep_flow(&self.page);
            self.attach(key);
        }
        Ok(())
    }

    /// Sends again: video from a key frame on, which is asked for.
    fn resume_consumer(&mut self, now: Time, consumer: ConsumerId) -> Result<(), WorkerError> {
        let key = self.find_consumer(consumer)?;
        self.discard_held(self.consumers[key].producer);
        let consumer = &mut self.consumers[key];
        if consumer.paused {
            consumer.update_counters(&self.producers[consumer.producer].counters);
            consumer.paused = false;
            consumer.flow.sync_required = true;
            consumer.keep_flow(&self.page);
            self.attach(key);
            self.request_key_frame_for(now, key);
        }
        Ok(())
    }

    fn close_consumer(&mut self, key: ConsumerKey) {
        self.consumers[key].paused = true;
        self.attach(key); // leaves every stream's list
        let Some(consumer) = self.consumers.remove(key) else {
            return;
        };
        self.page.leave_at(Table::Consumers, consumer.key.index().slot);
        self.reports
            .on_consumer_left(&consumer, &mut self.transports[consumer.transport]);
        let producer = &mut self.producers[consumer.producer];
        producer.filters.leave(consumer.rewriter.offsets().slot);
        if consumer.repair.is_some() {
            producer.repairing -= 1;
        }
        let is_last = producer.consumers.len() == 1;
        if is_last || producer.repairing == 0 && producer.kind == MediaKind::Audio {
            producer.streams.iter_mut().for_each(|stream| stream.ring = None);
        }
        let consumers = &mut producer.consumers;
        consumers.swap_remove(consumer.place_in_producer as usize);
        if let Some(moved) = consumers.get(consumer.place_in_producer as usize) {
            self.consumers[*moved].place_in_producer = consumer.place_in_producer;
        }
        let transport = &mut self.transports[consumer.transport];
        transport.consumer_ssrcs.remove(&consumer.ssrc);
        if let Some(ssrc) = consumer.rtx_ssrc {
            transport.consumer_rtx_ssrcs.remove(&ssrc);
        }
        if transport.kind == TransportKind::WebRtc {
            for (ssrc, last) in consumer.used_indices() {
                transport.used_indices.leave(ssrc, last);
                let transport = transport.index;
                self.actions.push_back(Action::Retire { transport, ssrc });
            }
        }
        transport.consumers.swap_remove(consumer.place_in_transport as usize);
        if let Some(moved) = transport.consumers.get(consumer.place_in_transport as usize) {
            self.consumers[*moved].place_in_transport = consumer.place_in_transport;
        }
        self.update_gathering(consumer.transport);
        self.consumer_of_id.remove(&consumer.id);
        self.room_mut(consumer.room).consumers.remove(&consumer.id);
    }

    /// A transport's packets are gathered as soon as several consumers leave on it. Only the steps from one to two and
    /// back change anything.
    fn update_gathering(&mut self, transport: TransportKey) {
        let consumers = &self.transports[transport].consumers;
        if consumers.len() == 1 {
            self.consumers[consumers[0]].gathered = false;
        } else {
            for key in consumers.iter().rev().take(1).chain(consumers.iter().take(1)) {
                self.consumers[*key].gathered = true;
            }
        }
    }

    fn check_ssrc(&self, ssrc: u32, transport: TransportKey) -> Result<(), WorkerError> {
        let transport = &self.transports[transport];
        let stream = transport.ssrcs.get(&ssrc).or_else(|| transport.rtx_ssrcs.get(&ssrc));
        let consumer = transport
            .consumer_ssrcs
            .get(&ssrc)
            .or_else(|| transport.consumer_rtx_ssrcs.get(&ssrc));
        let owner = match (stream, consumer) {
            _ if ssrc == self.ssrc => "the worker's reports".to_owned(),
            (Some((producer, _)), _) => self.producers[*producer].id.to_string(),
            (None, Some(consumer)) => self.consumers[*consumer].id.to_string(),
            (None, None) => return Ok(()),
        };
        Err(WorkerError::SsrcInUse {
            ssrc,
            owner,
            transport: transport.id,
        })
    }

    pub(super) fn find_transport(&self, id: TransportId) -> Result<TransportKey, WorkerError> {
        let key = self.transport_of_id.get(&id).copied();
        key.ok_or(WorkerError::UnknownTransport(id))
    }

    fn find_transport_in(&self, id: TransportId, room: RoomId) -> Result<TransportKey, WorkerError> {
        if !self.rooms.contains_key(&room) {
            return Err(WorkerError::UnknownRoom(room));
        }
        let key = self.find_transport(id)?;
        if self.transports[key].room != room {
            return Err(WorkerError::OtherRoom {
                entity: id.to_string(),
                room,
            });
        }
        Ok(key)
    }

    pub(super) fn find_producer(&self, id: ProducerId) -> Result<ProducerKey, WorkerError> {
        let key = self.producer_of_id.get(&id).copied();
        key.ok_or(WorkerError::UnknownProducer(id))
    }

    pub(super) fn find_consumer(&self, id: ConsumerId) -> Result<ConsumerKey, WorkerError> {
        let key = self.consumer_of_id.get(&id).copied();
        key.ok_or(WorkerError::UnknownConsumer(id))
    }

    /// The room of something that exists.
    fn room_mut(&mut self, room: RoomId) -> &mut Room {
        self.rooms.entry(room).or_default()
    }
}

fn check_id(shown: impl fmt::Display, id: u64) -> Result<(), WorkerError> {
    if id > ID_MAX {
        return Err(invalid(format!("{shown}: ids go up to {ID_MAX}")));
    }
    Ok(())
}

fn check_limit(noun: &str, count: usize, limit: u32) -> Result<(), WorkerError> {
    if count >= limit as usize {
        return Err(WorkerError::TooMany {
            noun: noun.into(),
            limit,
        });
    }
    Ok(())
}
