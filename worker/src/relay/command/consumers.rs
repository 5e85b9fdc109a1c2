//! Commands about consumers.

use weir_channel::id::ConsumerId;
use weir_channel::message::{CreateConsumer, MediaKind, Reply, WorkerError};

use crate::page::layout::Table;
use crate::relay::consumer::Consumer;
use crate::relay::keys::{ConsumerKey, ProducerKey, TransportKey};
use crate::relay::media_totals::Counted;
use crate::relay::parameters::{check_consumer, invalid};
use crate::relay::producer::Producer;
use crate::relay::repair::Repair;
use crate::relay::rewrite::Rewriter;
use crate::relay::ring::Ring;
use crate::relay::succession::ConsumerIdentity;
use crate::relay::transport::TransportKind;
use crate::relay::{Action, Relay};
use crate::time::Time;

use super::{check_id, check_limit};

impl Relay {
    pub(super) fn create_consumer(&mut self, now: Time, request: &CreateConsumer) -> Result<Reply, WorkerError> {
        if self.consumer_of_id.contains_key(&request.consumer) {
            return Err(WorkerError::DuplicateConsumer(request.consumer));
        }
        let transport_key = self.find_transport_in(request.transport, request.room)?;
        let producer_key = match self.find_source(request) {
            // What it waits for is another one.
            Err(WorkerError::UnknownProducer(_)) if request.lasting_cname.is_some() => None,
            found => Some(found?),
        };
        check_id(request.consumer, request.consumer.0)?;
        check_limit("consumers", self.consumers.len(), self.limits.consumers)?;
        check_consumer(request)?;
        let ssrcs = [Some(request.ssrc), request.rtx.as_ref().map(|rtx| rtx.ssrc)];
        for ssrc in ssrcs.into_iter().flatten() {
            self.check_ssrc(ssrc, transport_key)?;
            self.transports[transport_key].check_unused_index(ssrc)?;
        }
        let legacy = self.consumer_legacy(now, ConsumerIdentity::of(request))?;

        let producer_key =
            producer_key.unwrap_or_else(|| self.producers.insert(Producer::vacant(request, transport_key)));
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
        let producer = &self.producers[producer_key];
        let source_paused = producer.paused;
        let key = self.consumers.insert_with_key(|key: ConsumerKey| {
            Consumer::new(request, key, producer_key, producer, transport_key, connected, rewriter)
        });
        let consumer = &mut self.consumers[key];
        if request.nack {
            consumer.repair = Some(Box::new(Repair::new(request, now, before_first_rtx)));
        }
        self.join_producer(key);

        let consumer = &mut self.consumers[key];
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
        self.begin_consumer(now, key, ConsumerIdentity::of(request), legacy);
        Ok(Reply::ConsumerCreated { source_paused })
    }

    /// The producer of a request for a consumer.
    fn find_source(&self, request: &CreateConsumer) -> Result<ProducerKey, WorkerError> {
        let key = self.find_producer(request.producer)?;
        if self.producers[key].room != request.room {
            return Err(WorkerError::OtherRoom {
                entity: request.producer.to_string(),
                room: request.room,
            });
        }
        Ok(key)
    }

    /// Enters a consumer into the lists of its producer.
    fn join_producer(&mut self, key: ConsumerKey) {
        let consumer = &mut self.consumers[key];
        let producer = &mut self.producers[consumer.producer];
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
        if consumer.repair.is_some() {
            producer.repairing += 1;
        }
        // What a start needs may come in another order.
        if consumer.repair.is_some() || producer.kind == MediaKind::Video {
            for stream in &mut producer.streams {
                stream.ring.get_or_insert_with(|| Box::new(Ring::default()));
            }
        }
    }

    /// Takes a consumer that follows none of its producer's streams out of the producer's lists. Who was the last to wait at a
    /// vacant producer takes that along.
    fn leave_producer(&mut self, key: ConsumerKey) {
        let consumer = &self.consumers[key];
        let (producer_key, place) = (consumer.producer, consumer.place_in_producer);
        let producer = &mut self.producers[producer_key];
        producer.filters.leave(consumer.rewriter.slot());
        if consumer.repair.is_some() {
            producer.repairing -= 1;
        }
        let is_last = producer.consumers.len() == 1;
        if is_last || producer.repairing == 0 && producer.kind == MediaKind::Audio {
            producer.streams.iter_mut().for_each(|stream| stream.ring = None);
        }
        let consumers = &mut producer.consumers;
        consumers.swap_remove(place as usize);
        if let Some(moved) = consumers.get(place as usize) {
            self.consumers[*moved].place_in_producer = place;
        }
        if is_last && producer.is_vacant() {
            self.producers.remove(producer_key);
        }
    }

    /// Nothing of its producer flows to a consumer any more, and it is in none of the producer's lists. Its numbers stay.
    fn part_from_producer(&mut self, now: Time, key: ConsumerKey) {
        let consumer = &mut self.consumers[key];
        let was_sent = consumer.effective.is_some();
        consumer.stop_flow(&self.producers[consumer.producer].counters);
        if was_sent {
            self.profile_changes.on_change(now, key, &mut self.consumers);
        }
        self.attach(key);
        // This is true of whatever source it has, so whose it is may be changed now.
        self.consumers[key].keep_flow(&self.page);
        self.leave_producer(key);
    }

    /// A producer is about to be closed: those of its consumers that outlive it wait for another one.
    pub(super) fn let_lasting_consumers_wait(&mut self, now: Time, producer: ProducerKey) {
        let mut vacant = None;
        self.discard_held(producer);
        for key in self.producers[producer].consumers.clone() {
            if !self.consumers[key].is_lasting {
                continue;
            }
            self.part_from_producer(now, key);
            let place = *vacant.get_or_insert_with(|| {
                let place = self.producers[producer].vacated();
                self.producers.insert(place)
            });
            let slot = self.producers[place].join_nothing();
            self.consumers[key].follow(place, &self.producers[place], slot);
            self.join_producer(key);
        }
    }

    /// Gives a consumer that outlives its producers another one.
    pub(super) fn set_consumer_source(&mut self, now: Time, request: &CreateConsumer) -> Result<Reply, WorkerError> {
        let key = self.find_consumer(request.consumer)?;
        let producer_key = self.find_source(request)?;
        check_consumer(request)?;
        let consumer = &self.consumers[key];
        let transport_key = consumer.transport;
        let is_same = consumer.room == request.room
            && self.transports[transport_key].id == request.transport
            && consumer.ssrc == request.ssrc
            && consumer.rtx_ssrc == request.rtx.as_ref().map(|rtx| rtx.ssrc);
        if !consumer.is_lasting || !is_same {
            return Err(invalid(format!(
                "{} closes with its producer, or has other SSRCs or another transport than the request",
                request.consumer
            )));
        }

        self.discard_held(self.consumers[key].producer);
        self.discard_held(producer_key);
        self.part_from_producer(now, key);
        let random = self.random.next();
        let slot = self.producers[producer_key].join_slot(request);
        let producer = &self.producers[producer_key];
        let source_paused = producer.paused;
        let consumer = &mut self.consumers[key];
        consumer.follow(producer_key, producer, slot);
        consumer.rename(request, producer);
        if let Some(repair) = &mut consumer.repair {
            repair.change_source(request);
        } else if request.nack {
            let before_first_rtx = match &request.rtx {
                Some(rtx) => self.transports[transport_key].before_first(rtx.ssrc, random),
                None => 0,
            };
            consumer.repair = Some(Box::new(Repair::new(request, now, before_first_rtx)));
        }
        self.join_producer(key);
        self.producers[producer_key].join_clock(&mut self.reports.clocks, &request.cname, request.cname_is_made_up);
        self.reports
            .schedule(now, transport_key, &mut self.transports[transport_key]);
        self.keep_source(key, request);
        self.select_layer(now, key);
        Ok(Reply::ConsumerCreated { source_paused })
    }

    pub(super) fn pause_consumer(&mut self, consumer: ConsumerId) -> Result<(), WorkerError> {
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
    pub(super) fn resume_consumer(&mut self, now: Time, consumer: ConsumerId) -> Result<(), WorkerError> {
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

    pub(in crate::relay) fn close_consumer(&mut self, key: ConsumerKey) {
        let consumer = &mut self.consumers[key];
        consumer.update_counters(&self.producers[consumer.producer].counters);
        consumer.paused = true;
        self.attach(key); // leaves every stream's list
        self.leave_producer(key);
        let Some(consumer) = self.consumers.remove(key) else {
            return;
        };
        self.media_totals.on_gone(key, Counted::by_consumer(&consumer));
        self.page.leave_at(Table::Consumers, consumer.key.index().slot);
        self.reports
            .on_consumer_left(&consumer, &mut self.transports[consumer.transport]);
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
}
