//! Commands: what the supervisor asks for is checked wholly before anything changes, so a refused command changed nothing.

mod consumers;
mod producers;

use std::fmt;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{Method, Remote, Reply, WorkerError};

use crate::page::layout::Table;
use crate::time::Time;

use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::limits::ID_MAX;
use super::media_totals::Counted;
use super::parameters::{check_remote, invalid};
use super::transport::{Transport, TransportKind};
use super::{Action, Relay, Room};

impl Relay {
    /// See [`Relay::handle_command`].
    pub(super) fn do_command(&mut self, now: Time, method: &Method) -> Result<Reply, WorkerError> {
        match method {
            Method::CreateRouter { room } => self.create_room(*room)?,
            Method::CloseRouter { room } => self.close_room(now, *room)?,
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
                self.close_transport(now, key);
            }
            Method::CreateProducer(request) => self.create_producer(now, request)?,
            Method::SetProducerPaused { producer, paused } => match paused {
                true => self.pause_producer(*producer)?,
                false => self.resume_producer(now, *producer)?,
            },
            Method::SetProducerPreferredProfile { producer, profile } => {
                let key = self.find_producer(*producer)?;
                self.producers[key].preferred_profile = *profile;
                self.select_layers(now, key);
            }
            Method::CloseProducer { producer } => {
                let key = self.find_producer(*producer)?;
                self.close_producer(now, key);
            }
            Method::CreateConsumer(request) => return self.create_consumer(now, request),
            Method::SetConsumerSource(request) => return self.set_consumer_source(now, request),
            Method::SetConsumerPaused { consumer, paused } => match paused {
                true => self.pause_consumer(*consumer)?,
                false => self.resume_consumer(now, *consumer)?,
            },
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
            | Method::UsePollers
            | Method::Adopt { .. }
            | Method::AdoptionEnded { .. }
            | Method::SetQuarantine(_)
            | Method::DropWaiting { .. }
            | Method::Rehearse
            | Method::RehearsalEnded
            | Method::TakeUp { .. }
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
    fn close_room(&mut self, now: Time, room: RoomId) -> Result<(), WorkerError> {
        let members = self.rooms.get(&room).ok_or(WorkerError::UnknownRoom(room))?;
        for transport in members.transports.clone() {
            if let Ok(key) = self.find_transport(transport) {
                self.close_transport(now, key);
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

    pub(super) fn close_transport(&mut self, now: Time, key: TransportKey) {
        while let Some(producer) = self.transports[key].producers.last().copied() {
            self.close_producer(now, producer);
        }
        while let Some(consumer) = self.transports[key].consumers.last().copied() {
            self.close_consumer(consumer);
        }
        let Some(transport) = self.transports.remove(key) else {
            return;
        };
        self.media_totals.on_gone(key, Counted::by_transport(&transport));
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

    pub(super) fn find_transport_in(&self, id: TransportId, room: RoomId) -> Result<TransportKey, WorkerError> {
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
