//! Commands about producers.

use weir_channel::id::ProducerId;
use weir_channel::message::{CreateProducer, WorkerError};

use crate::relay::keys::{ProducerKey, TransportKey};
use crate::relay::media_totals::Counted;
use crate::relay::parameters::check_producer;
use crate::relay::producer::Producer;
use crate::relay::transport::TransportKind;
use crate::relay::{Action, Relay};
use crate::time::Time;

use super::{check_id, check_limit};

impl Relay {
    pub(super) fn create_producer(&mut self, now: Time, request: &CreateProducer) -> Result<(), WorkerError> {
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

        let legacies = self.stream_legacies(now, request.room, request.producer, request.encodings.len())?;

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

    pub(super) fn pause_producer(&mut self, producer: ProducerId) -> Result<(), WorkerError> {
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
    pub(super) fn resume_producer(&mut self, now: Time, producer: ProducerId) -> Result<(), WorkerError> {
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

    pub(in crate::relay) fn close_producer(&mut self, now: Time, key: ProducerKey) {
        self.let_lasting_consumers_wait(now, key);
        while let Some(consumer) = self.producers[key].consumers.last().copied() {
            self.close_consumer(consumer);
        }
        let Some(producer) = self.producers.remove(key) else {
            return;
        };
        for stream in &producer.streams {
            self.media_totals.on_gone(key, Counted::by_stream(stream));
        }
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
}
