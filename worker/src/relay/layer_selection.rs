//! Who follows which stream: targets, attachments, availability, and the key frames that starts need.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use weir_channel::message::{MediaKind, Notification, Remote, UnroutedReason};

use crate::rtp::rtcp::{reduced_size, write_fir, write_pli};
use crate::time::Time;

use super::Relay;
use super::keyframe::KeyFramePacer;
use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::limits::ENCODINGS_MAX;
use super::sink::{Sink, TransportIx};

/// How often silent streams are looked for (differences §2.8).
pub(super) const ACTIVITY_INTERVAL: Duration = Duration::from_millis(250);

impl Relay {
    /// Attaches a consumer to the streams it needs every packet of: the one that flows and the one that should, unless
    /// it is paused. Whatever decides that must have been changed already; the ledger is settled before the lists are.
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
        for index in 0..self.producers[producer].consumers.len() {
            let key = self.producers[producer].consumers[index];
            let consumer = &mut self.consumers[key];
            if consumer.flow.current == Some(encoding) {
                consumer.flow.current = None;
                consumer.flow.sync_required = true;
                if consumer.effective.take().is_some() {
                    self.on_profile_changed(key);
                }
                self.attach(key);
            }
            self.select_layer(now, key);
        }
    }

    /// A consumer is sent another profile than before, or none: its owner is to be told.
    pub(super) fn on_profile_changed(&mut self, key: ConsumerKey) {
        let consumer = &mut self.consumers[key];
        if !std::mem::replace(&mut consumer.is_notification_queued, true) {
            self.changed.push_back(key);
        }
    }

    /// The next change of an effective profile to tell. What has changed back since is no change.
    pub(super) fn poll_profile_change(&mut self) -> Option<Notification> {
        while let Some(key) = self.changed.pop_front() {
            let Some(consumer) = self.consumers.get_mut(key) else {
                continue;
            };
            consumer.is_notification_queued = false;
            if consumer.last_notified != consumer.effective {
                consumer.last_notified = consumer.effective;
                let streams = &self.producers[consumer.producer].streams;
                return Some(Notification::EffectiveProfileChanged {
                    consumer: consumer.id,
                    profile: consumer
                        .effective
                        .map(|encoding| streams[usize::from(encoding)].profile),
                });
            }
        }
        None
    }

    /// Looks for streams that are silent while others of their producer are not. Looked at anew each time, so that it
    /// does not matter in which order streams fall silent (v2 looked at the edges only, differences §2.8). And for
    /// producers all of whose streams are silent: nothing better is on offer then, so their consumers stay as they are,
    /// but it is told.
    pub(super) fn check_activity(&mut self, now: Time) {
        let mut silent = std::mem::take(&mut self.silent);
        for (key, producer) in &mut self.producers {
            let streams = &producer.streams;
            for (encoding, stream) in streams.iter().enumerate() {
                let others = streams.iter().enumerate().filter(|(other, _)| *other != encoding);
                let others = others.filter_map(|(_, stream)| stream.last_media).max();
                if stream.available && stream.has_fallen_behind(others) {
                    silent.push((key, encoding as u8));
                }
            }
            if producer.is_active && producer.is_silent(now) {
                producer.is_active = false;
                if !std::mem::replace(&mut producer.is_notification_queued, true) {
                    self.stirred.push_back(key);
                }
            }
        }
        for (producer, encoding) in silent.drain(..) {
            self.on_stream_unavailable(now, producer, encoding);
        }
        self.silent = silent;
        self.next_activity_check = (!self.producers.is_empty()).then(|| now + ACTIVITY_INTERVAL);
    }

    /// A producer has begun to send, or has not sent for a while: its owner is to be told, if it is still so then.
    #[cold]
    pub(super) fn on_producer_active(&mut self, key: ProducerKey) {
        let producer = &mut self.producers[key];
        producer.is_active = true;
        if !std::mem::replace(&mut producer.is_notification_queued, true) {
            self.stirred.push_back(key);
        }
    }

    /// The next producer to tell of that has begun or ceased to send. That it sends for the first time is no news.
    pub(super) fn poll_activity_change(&mut self) -> Option<Notification> {
        while let Some(key) = self.stirred.pop_front() {
            let Some(producer) = self.producers.get_mut(key) else {
                continue;
            };
            producer.is_notification_queued = false;
            if producer
                .last_notified_active
                .replace(producer.is_active)
                .unwrap_or(true)
                != producer.is_active
            {
                return Some(Notification::ProducerActivityChanged {
                    producer: producer.id,
                    active: producer.is_active,
                });
            }
        }
        None
    }

    /// A transport knows now where to send, or has been told another place: whoever is there has seen nothing yet.
    pub(super) fn on_remote_known(&mut self, now: Time, transport: TransportKey) {
        for index in 0..self.transports[transport].consumers.len() {
            let key = self.transports[transport].consumers[index];
            let consumer = &mut self.consumers[key];
            consumer.flow.connected = true;
            consumer.flow.sync_required = true;
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
        self.pace_key_frame(now, key, encoding, KeyFramePacer::request);
    }

    /// Somebody still waits for a key frame of a stream: asks again if it is time.
    pub(super) fn repeat_key_frame_request(&mut self, now: Time, key: ProducerKey, encoding: u8) {
        self.pace_key_frame(now, key, encoding, KeyFramePacer::repeat);
    }

    fn pace_key_frame(
        &mut self,
        now: Time,
        key: ProducerKey,
        encoding: u8,
        pace: impl Fn(&mut KeyFramePacer, Time) -> bool,
    ) {
        let producer = &mut self.producers[key];
        // A paused producer is asked when it is resumed; a stream that never came, when it comes.
        if producer.kind == MediaKind::Audio || producer.paused {
            return;
        }
        let stream = &mut producer.streams[usize::from(encoding)];
        let asks = pace(&mut stream.key_frames, now);
        if !std::mem::replace(&mut stream.timer_queued, true) {
            self.timers
                .push(Reverse((stream.key_frames.next_timer(now), key, encoding)));
        }
        if asks {
            self.ask(now, key, encoding);
        }
    }

    /// Asks for a key frame as soon as there is a sink.
    fn ask(&mut self, now: Time, key: ProducerKey, encoding: u8) {
        self.asks.push((key, encoding));
        let stream = &mut self.producers[key].streams[usize::from(encoding)];
        stream.responsiveness.on_ask(now);
        self.refresh_gop(key, encoding);
    }

    /// Asks for what was remembered, or again, and comes back in a second as long as there is a reason to: the sender may send
    /// nothing in which somebody could be seen to wait.
    pub(super) fn on_key_frame_timer(&mut self, now: Time, key: ProducerKey, encoding: u8) {
        let Some(producer) = self.producers.get_mut(key) else {
            return;
        };
        let stream = &mut producer.streams[usize::from(encoding)];
        stream.timer_queued = false;
        if producer.paused {
            return;
        }
        let is_awaited = self.is_start_awaited(key, encoding);
        let stream = &mut self.producers[key].streams[usize::from(encoding)];
        let asks = stream.key_frames.on_timer(now, is_awaited);
        if is_awaited || stream.key_frames.is_wanted() {
            stream.timer_queued = true;
            self.timers
                .push(Reverse((stream.key_frames.next_timer(now), key, encoding)));
        }
        if asks {
            self.ask(now, key, encoding);
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
                codecs.any(|codec| consumer.payload_type(codec.payload_type).is_some())
            };
            flow.gated && !flows && is_for_it && consumer.can_be_sent() && knows_codec()
        })
    }

    /// Sends the key frame requests that are due, by the means the sender understands (RFC 4585 §6.3.1, RFC 5104 §4.3.1).
    pub(super) fn send_key_frame_requests(&mut self, sink: &mut impl Sink) {
        while let Some((key, encoding)) = self.asks.pop() {
            let Some(producer) = self.producers.get_mut(key) else {
                continue;
            };
            let codec = *producer.first_codec();
            let stream = &mut producer.streams[usize::from(encoding)];
            let Some(media_ssrc) = stream.ssrc else { continue };
            let mut packet = [0; 128];
            let len = if codec.pli {
                stream.counters.pli += 1;
                write_pli(&mut packet, self.ssrc, media_ssrc)
            } else if codec.fir {
                stream.counters.fir += 1;
                stream.fir_seq = stream.fir_seq.wrapping_add(1);
                write_fir(&mut packet, self.ssrc, media_ssrc, stream.fir_seq)
            } else {
                continue;
            };
            let packet = if producer.reduced_size {
                reduced_size(&packet[..len])
            } else {
                &packet[..len]
            };
            let transport = &mut self.transports[producer.transport];
            transport.counters.rtcp_sent += 1;
            sink.send_rtcp(transport.index, packet);
        }
    }
}
