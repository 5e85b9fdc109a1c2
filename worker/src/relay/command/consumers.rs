//! Commands about consumers.

use weir_channel::id::ConsumerId;
use weir_channel::message::{CreateConsumer, MediaKind, Reply, WorkerError};

use crate::page::layout::Table;
use crate::relay::consumer::Consumer;
use crate::relay::keys::{ConsumerKey, TransportKey};
use crate::relay::parameters::check_consumer;
use crate::relay::repair::Repair;
use crate::relay::rewrite::Rewriter;
use crate::relay::ring::Ring;
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

    pub(super) fn close_consumer(&mut self, key: ConsumerKey) {
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
}
