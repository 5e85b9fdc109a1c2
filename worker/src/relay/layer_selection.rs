//! Who follows which stream: targets, attachments, availability, and the key frames that starts need.

use std::net::SocketAddr;

use weir_channel::message::{Remote, UnroutedReason};

use crate::time::Time;

use super::Relay;
use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::limits::ENCODINGS_MAX;
use super::sink::TransportIx;

impl Relay {
    /// Attaches a consumer to the streams it needs every packet of: the one that flows and the one that should, unless
    /// it is paused. What decides that must have been changed already. The counters are updated before the lists change.
    pub(super) fn attach(&mut self, key: ConsumerKey) {
        let consumer = &mut self.consumers[key];
        let producer_key = consumer.producer;
        let mut wanted = [false; ENCODINGS_MAX];
        if !consumer.paused {
            for encoding in [consumer.flow.current, consumer.flow.target].into_iter().flatten() {
                wanted[usize::from(encoding)] = true;
            }
        }
        if (0..ENCODINGS_MAX).all(|encoding| wanted[encoding] == consumer.places[encoding].is_some()) {
            return;
        }
        consumer.update_counters(&self.producers[producer_key].counters);
        for (encoding, wanted) in wanted.into_iter().enumerate() {
            let place = self.consumers[key].places[encoding];
            match (place, wanted) {
                (None, true) => {
                    let producer = &mut self.producers[producer_key];
                    let stream = &mut producer.streams[encoding];
                    stream.is_awaited = true;
                    let consumer = &mut self.consumers[key];
                    consumer.attached_from[encoding] = producer.counters.dispatched[encoding];
                    consumer.places[encoding] = Some(stream.attached.len() as u32);
                    stream.attached.push(key);
                }
                (Some(place), false) => {
                    let attached = &mut self.producers[producer_key].streams[encoding].attached;
                    attached.swap_remove(place as usize);
                    if let Some(moved) = attached.get(place as usize).copied() {
                        self.consumers[moved].places[encoding] = Some(place);
                    }
                    self.consumers[key].places[encoding] = None;
                }
                _ => {}
            }
        }
    }

    /// Chooses again what a consumer should be sent, and asks for the key frame it needs.
    pub(super) fn select_layer(&mut self, now: Time, key: ConsumerKey) {
        if let Some((producer, encoding)) = self.select_target(key) {
            self.request_key_frame(now, producer, encoding);
        }
    }

    /// Chooses again what a consumer should be sent; returns the stream it needs a key frame of now.
    fn select_target(&mut self, key: ConsumerKey) -> Option<(ProducerKey, u8)> {
        let consumer = &self.consumers[key];
        let producer = &self.producers[consumer.producer];
        let target = consumer.selected(producer, producer.available());
        if target == consumer.flow.target {
            return None;
        }
        self.consumers[key].flow.target = target;
        self.attach(key);
        let consumer = &self.consumers[key];
        target
            .filter(|target| Some(*target) != consumer.flow.current && consumer.can_be_sent())
            .map(|target| (consumer.producer, target))
    }

    /// All consumers of a producer choose again.
    pub(super) fn select_layers(&mut self, now: Time, producer: ProducerKey) {
        for index in 0..self.producers[producer].consumers.len() {
            let key = self.producers[producer].consumers[index];
            self.select_layer(now, key);
        }
    }

    /// The first packet of a stream, or the first after a silence. If it starts a key frame, that is the one that
    /// those who choose the stream now need.
    pub(super) fn on_stream_available(&mut self, now: Time, producer: ProducerKey, encoding: u8, key_frame: bool) {
        self.producers[producer].streams[usize::from(encoding)].available = true;
        self.keep_later(producer, encoding);
        let mut needed = false;
        for index in 0..self.producers[producer].consumers.len() {
            let key = self.producers[producer].consumers[index];
            needed |= self.select_target(key).is_some();
        }
        if needed && !key_frame {
            self.request_key_frame(now, producer, encoding);
        }
    }

    /// A stream has fallen silent while others of its producer still come.
    pub(super) fn on_stream_unavailable(&mut self, now: Time, producer: ProducerKey, encoding: u8) {
        self.producers[producer].streams[usize::from(encoding)].available = false;
        self.keep_later(producer, encoding);
        for index in 0..self.producers[producer].consumers.len() {
            let key = self.producers[producer].consumers[index];
            let consumer = &mut self.consumers[key];
            if consumer.flow.current == Some(encoding) {
                consumer.flow.current = None;
                consumer.flow.sync_required = true;
                if consumer.effective.take().is_some() {
                    self.profile_changes.on_change(now, key, &mut self.consumers);
                }
                self.consumers[key].keep_flow(&self.page);
                self.attach(key);
            }
            self.select_layer(now, key);
        }
    }

    /// Takes streams off the offer that are silent while others of their producer are not.
    pub(super) fn check_activity(&mut self, now: Time) {
        self.activity.check(now, &mut self.producers);
        for index in 0..self.activity.silent.len() {
            let (producer, encoding) = self.activity.silent[index];
            self.on_stream_unavailable(now, producer, encoding);
        }
    }

    /// A transport knows now where to send, or was given another remote. Who is there has seen nothing yet.
    pub(super) fn on_remote_known(&mut self, now: Time, transport: TransportKey) {
        self.reports.schedule(now, transport, &mut self.transports[transport]);
        for index in 0..self.transports[transport].consumers.len() {
            let key = self.transports[transport].consumers[index];
            let consumer = &mut self.consumers[key];
            consumer.flow.connected = true;
            consumer.flow.sync_required = true;
            consumer.keep_flow(&self.page);
            let streams = &mut self.producers[consumer.producer].streams;
            streams.iter_mut().for_each(|stream| stream.is_awaited = true);
            self.request_key_frame_for(now, key);
        }
    }

    /// A WebRTC transport's peer has proven who it is and is reached there from now on; `None`: nowhere any more. A peer that
    /// moves has seen what was sent before; one that comes has not.
    pub fn set_peer(&mut self, now: Time, transport: TransportIx, peer: Option<SocketAddr>) {
        let Some(key) = self.transport_key(transport) else {
            return;
        };
        let before = std::mem::replace(
            &mut self.transports[key].remote,
            peer.map(|rtp| Remote { rtp, rtcp: None }),
        );
        match (before, peer) {
            (None, Some(_)) => self.on_remote_known(now, key),
            (Some(_), None) => {
                for consumer in &self.transports[key].consumers {
                    self.consumers[*consumer].flow.connected = false;
                }
            }
            _ => {}
        }
    }

    /// Packets that the shell dropped before they got here.
    pub fn count_unrouted(&mut self, transport: TransportIx, reason: UnroutedReason, packets: u64) {
        if let Some(key) = self.transport_key(transport) {
            self.transports[key].count_unrouted(reason, packets);
        }
    }

    /// A consumer needs a key frame of what it gets, and of what it should get.
    pub(super) fn request_key_frame_for(&mut self, now: Time, key: ConsumerKey) {
        let consumer = &self.consumers[key];
        if !consumer.can_be_sent() {
            return;
        }
        let (producer, current, target) = (consumer.producer, consumer.flow.current, consumer.flow.target);
        if let Some(target) = target {
            self.request_key_frame(now, producer, target);
        }
        if let Some(current) = current.filter(|current| Some(*current) != target) {
            self.request_key_frame(now, producer, current);
        }
    }

    /// Asks a stream's sender for a key frame: at once, or when the last request is a second old; and again and again as
    /// long as somebody waits for one.
    pub(super) fn request_key_frame(&mut self, now: Time, key: ProducerKey, encoding: u8) {
        let producer = &mut self.producers[key];
        self.key_frame_requests.request(now, (key, encoding), producer, true);
    }

    /// Repeats the key frame requests that are due: those that were remembered, and those for which somebody still waits.
    pub(super) fn repeat_key_frame_requests(&mut self, now: Time) {
        while let Some((key, encoding)) = self.key_frame_requests.pop_due(now) {
            if self.producers.contains_key(key) {
                let is_awaited = self.is_start_awaited(key, encoding);
                let producer = &mut self.producers[key];
                self.key_frame_requests
                    .on_timer(now, (key, encoding), producer, is_awaited);
            }
        }
    }

    /// Whether somebody can be sent a stream but for the key frame that it is to start on.
    fn is_start_awaited(&self, key: ProducerKey, encoding: u8) -> bool {
        let producer = &self.producers[key];
        let stream = &producer.streams[usize::from(encoding)];
        stream.attached.iter().any(|key| {
            let consumer = &self.consumers[*key];
            let flow = &consumer.flow;
            let flows = flow.current == Some(encoding) && !flow.sync_required && flow.epoch == stream.epoch;
            let is_for_it = flow.target == Some(encoding) || flow.current == Some(encoding);
            let knows_codec = || {
                let mut codecs = producer.codecs.iter();
                codecs.any(|codec| consumer.payload_types.own(codec.payload_type).is_some())
            };
            flow.needs_key_frame && !flows && is_for_it && consumer.can_be_sent() && knows_codec()
        })
    }
}
