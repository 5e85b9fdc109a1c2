//! A room that was rehearsed continues what its last worker has left: all of it is there already, as if it had just been made.

use std::collections::BTreeSet;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{NotTakenUp, WorkerError};

use crate::page::layout::SocketCounts;
use crate::relay::Relay;
use crate::relay::keys::{ConsumerKey, ProducerKey};
use crate::relay::sink::TransportIx;
use crate::time::Time;

use super::ConsumerIdentity;

/// What was left of a transport beside what is the relay's.
#[derive(Clone, Copy, Debug)]
pub struct LeftOfSockets {
    /// What was counted at its sockets.
    pub counts: SocketCounts,
    /// Its remote was said, not learned, and is the one that was said last: nobody has connected its sockets to another one.
    pub is_where_said: bool,
}

impl Relay {
    /// The transports of a room.
    pub fn transports_of(&self, room: RoomId) -> impl Iterator<Item = TransportId> + '_ {
        self.rooms
            .get(&room)
            .into_iter()
            .flat_map(|room| room.transports.iter().copied())
    }

    /// Whether anything is to come to a transport but what receivers say.
    pub fn has_producers(&self, transport: TransportIx) -> bool {
        let key = self.transport_key(transport);
        key.is_some_and(|key| !self.transports[key].producers.is_empty())
    }

    /// A transport is to go on as its last worker has left it. It is closed if what that has left cannot be true. `None`: that has left
    /// nothing.
    ///
    /// # Errors
    /// As for a request that makes it.
    pub fn take_up_transport(
        &mut self,
        now: Time,
        room: RoomId,
        id: TransportId,
    ) -> Result<Option<LeftOfSockets>, WorkerError> {
        let key = self.find_transport_in(id, room)?;
        match self.transport_legacy(now, room, id) {
            Ok(legacy) => {
                let left = legacy.as_ref().map(|legacy| LeftOfSockets {
                    counts: legacy.sockets,
                    is_where_said: legacy.is_where_said(&self.transports[key]),
                });
                self.keep_new_transport(key, legacy);
                self.reports.schedule(now, key, &mut self.transports[key]);
                Ok(left)
            }
            Err(error) => {
                self.close_transport(now, key);
                Err(error)
            }
        }
    }

    /// What is on a room's transports is to go on as its last worker has left it; what is not among these is closed. Returns those
    /// that are not there, or cannot go on and are closed.
    ///
    /// # Errors
    /// There is no such room.
    pub fn take_up(
        &mut self,
        now: Time,
        room: RoomId,
        producers: &[ProducerId],
        consumers: &[ConsumerId],
    ) -> Result<NotTakenUp, WorkerError> {
        self.close_others(now, room, producers, consumers)?;
        let mut not_taken_up = NotTakenUp::default();
        for id in producers {
            if let Err(error) = self.take_up_producer(now, room, *id) {
                not_taken_up.producers.push((*id, error));
            }
        }
        for id in consumers {
            if let Err(error) = self.take_up_consumer(now, room, *id) {
                not_taken_up.consumers.push((*id, error));
            }
        }
        Ok(not_taken_up)
    }

    fn close_others(
        &mut self,
        now: Time,
        room: RoomId,
        producers: &[ProducerId],
        consumers: &[ConsumerId],
    ) -> Result<(), WorkerError> {
        let members = self.rooms.get(&room).ok_or(WorkerError::UnknownRoom(room))?;
        let wanted: (BTreeSet<_>, BTreeSet<_>) = (producers.iter().collect(), consumers.iter().collect());
        let is_other = |id: &&ProducerId| !wanted.0.contains(id);
        let other_producers: Vec<_> = members.producers.iter().filter(is_other).copied().collect();
        let is_other = |id: &&ConsumerId| !wanted.1.contains(id);
        let other_consumers: Vec<_> = members.consumers.iter().filter(is_other).copied().collect();
        for id in other_consumers {
            if let Ok(key) = self.find_consumer(id) {
                self.close_consumer(key);
            }
        }
        for id in other_producers {
            if let Ok(key) = self.find_producer(id) {
                self.close_producer(now, key);
            }
        }
        Ok(())
    }

    fn take_up_producer(&mut self, now: Time, room: RoomId, id: ProducerId) -> Result<(), WorkerError> {
        let in_room = |key: &ProducerKey| self.producers[*key].room == room;
        let key = self.find_producer(id).ok().filter(in_room);
        let key = key.ok_or(WorkerError::UnknownProducer(id))?;
        let legacies = self.stream_legacies(now, room, id, self.producers[key].streams.len());
        let legacies = legacies.inspect_err(|_| self.close_producer(now, key))?;
        self.keep_new_producer(now, key, legacies);
        let transport = self.producers[key].transport;
        self.reports.schedule(now, transport, &mut self.transports[transport]);
        self.feedback.refresh(&mut self.transports[transport], &self.producers);
        Ok(())
    }

    fn take_up_consumer(&mut self, now: Time, room: RoomId, id: ConsumerId) -> Result<(), WorkerError> {
        let in_room = |key: &ConsumerKey| self.consumers[*key].room == room;
        let key = self.find_consumer(id).ok().filter(in_room);
        let key = key.ok_or(WorkerError::UnknownConsumer(id))?;
        let consumer = &self.consumers[key];
        let transport = consumer.transport;
        let identity = ConsumerIdentity {
            consumer: id,
            room,
            producer: self.producers[consumer.producer].id,
            ssrc: consumer.ssrc,
            rtx_ssrc: consumer.rtx_ssrc,
            is_lasting: consumer.is_lasting,
        };
        let legacy = self.consumer_legacy(now, identity);
        let legacy = legacy.inspect_err(|_| self.close_consumer(key))?;
        // What it should be sent is chosen anew below, as of one that was just made.
        let flow = &mut self.consumers[key].flow;
        flow.target = None;
        // Where the other end is may have been learned since it was rehearsed.
        flow.connected = self.transports[transport].remote.is_some();
        self.attach(key);
        self.begin_consumer(now, key, identity, legacy);
        Ok(())
    }
}
