//! From the packets of a batch to trains on the consumers' transports.
//!
//! The packets of each stream are laid end to end as trains: runs of equal size, of which only the last may be shorter, so
//! that the kernel takes each as one message. A train that arrived as one (UDP_GRO) is used where it lies; packets that
//! arrived apart, or get longer, are copied together once, whatever the number of consumers. Packets of a picture that differ by
//! a few bytes get padding (RFC 3550 §5.1), so that they are one train; this is decided for the stream, before any consumer, so
//! whoever gets a packet, at first or again, gets it with the same padding. Then, consumer by consumer, the headers are
//! patched in place and the train is handed over. All patched fields are written absolutely, so no consumer needs the
//! bytes that the one before it found.

use weir_channel::message::MediaKind;

use crate::time::Time;

use super::Relay;
use super::consumer::Consumer;
use super::forward::{Totals, Train, forward};
use super::keys::{ConsumerKey, ProducerKey};
use super::packet::PacketMeta;
use super::sink::Sink;
use super::workspace::Workspace;

impl Relay {
    /// Sends everything that was queued since the last time.
    pub(super) fn fan_out(&mut self, now: Time, bytes: &mut [u8], sink: &mut impl Sink) {
        if self.workspace.batch.is_empty() {
            return;
        }
        let Some(empty) = self.no_workspace.take() else {
            return;
        };
        let mut workspace = std::mem::replace(&mut self.workspace, empty);
        for index in 0..workspace.touched.len() {
            let (producer, encoding, head) = workspace.touched[index];
            let stream = &mut self.producers[producer].streams[usize::from(encoding)];
            stream.batch_tail = None;
            stream.keep_folded(&self.page);
            // Sound leaves alone, and is received by more gear that has never seen padding.
            let equalized = self.equalizes_packets && self.producers[producer].kind == MediaKind::Video;
            let mut next = Some(head);
            while let Some(head) = next {
                next = workspace.collect_train(head, equalized);
                let range = workspace.train_range();
                let stream = &self.producers[producer].streams[usize::from(encoding)];
                if stream.attached.is_empty() && stream.gop.is_none() {
                    let count = workspace.train.len() as u64;
                    self.producers[producer].counters.dispatched[usize::from(encoding)] += count;
                    continue;
                }
                match range {
                    Some(range) => {
                        let base = range.start as u32;
                        workspace.train.iter_mut().for_each(|packet| packet.start -= base);
                        self.forward_train(now, producer, encoding, &mut bytes[range], &mut workspace, sink);
                    }
                    None => {
                        let mut joined = std::mem::take(&mut workspace.joined);
                        workspace.join_train(&mut joined, bytes);
                        self.forward_train(now, producer, encoding, &mut joined, &mut workspace, sink);
                        workspace.joined = joined;
                    }
                }
            }
        }
        workspace.batch.clear();
        workspace.touched.clear();
        self.no_workspace = Some(std::mem::replace(&mut self.workspace, workspace));
    }

    /// Hands a train to every consumer that follows its stream.
    fn forward_train(
        &mut self,
        now: Time,
        producer_key: ProducerKey,
        encoding: u8,
        bytes: &mut [u8],
        workspace: &mut Workspace,
        sink: &mut impl Sink,
    ) {
        let producer = &mut self.producers[producer_key];
        let ordinal = producer.counters.dispatched[usize::from(encoding)];
        let stream = &mut producer.streams[usize::from(encoding)];
        if let Some(ring) = stream
            .ring
            .as_mut()
            .filter(|_| producer.repairing > 0 || stream.is_awaited)
        {
            for (place, packet) in workspace.train.iter().enumerate() {
                ring.store(now, packet, bytes, ordinal + place as u64);
            }
        }
        if let Some(gop) = &mut stream.gop {
            for (place, packet) in workspace.train.iter().enumerate() {
                gop.store(now, packet, bytes, ordinal + place as u64);
            }
        }
        let totals = Totals::of(&workspace.train);
        let attached = std::mem::take(&mut stream.attached);
        let producer = &self.producers[producer_key];
        for (place, key) in attached.iter().enumerate() {
            // Who comes after the next one, and where the next one's packets leave: thousands of consumers are not in the caches
            // any more when the next packet comes, but the kernel takes microseconds for each, in which they can be fetched.
            if let Some(after) = attached.get(place + 2).and_then(|key| self.consumers.record(*key)) {
                sink.prefetch(after, Consumer::HOT_BYTES);
            }
            if let Some(next) = attached
                .get(place + 1)
                .and_then(|key| self.consumers.record(*key)?.as_ref())
            {
                sink.prepare(next.transport_index);
            }
            // Its own key says at once whether it is the one.
            let record = self.consumers.record_mut(*key).and_then(Option::as_mut);
            let Some(consumer) = record.filter(|consumer| consumer.key == *key) else {
                continue;
            };
            let passage = forward(
                consumer,
                producer,
                now,
                Train {
                    bytes,
                    packets: &workspace.train,
                    totals: &totals,
                    ordinal,
                },
                (&mut workspace.saved, &mut workspace.held),
                &self.page,
                sink,
            );
            if passage.started {
                workspace.started.push(*key);
            }
            if passage.waiting {
                workspace.waiting.push(*key);
            }
            if passage.woke {
                let transport = consumer.transport;
                self.reports.schedule(now, transport, &mut self.transports[transport]);
            }
        }
        let is_companion = |packet: &PacketMeta| {
            let codec = self.producers[producer_key].codec(packet.payload_type);
            codec.is_some_and(|codec| codec.name.is_companion())
        };
        let was_awaited = self.producers[producer_key].streams[usize::from(encoding)].is_awaited;
        let is_of_companions = was_awaited && workspace.train.iter().all(is_companion);
        let mut is_awaited = false;
        while let Some(key) = workspace.waiting.pop() {
            let (producer, consumer) = (&self.producers[producer_key], &mut self.consumers[key]);
            if self.catching_up.begin(now, consumer, producer, encoding, &self.page) {
                workspace.started.push(key);
            } else {
                is_awaited = true;
            }
        }
        let producer = &mut self.producers[producer_key];
        let stream = &mut producer.streams[usize::from(encoding)];
        stream.attached = attached;
        // What goes along with a codec says nothing about who waits for it.
        stream.is_awaited = is_awaited || is_of_companions;
        producer.counters.dispatched[usize::from(encoding)] += workspace.train.len() as u64;
        while let Some(key) = workspace.started.pop() {
            self.on_started(now, key);
        }
        // Requests get lost, and so do key frames: who still waits asks again.
        if is_awaited {
            let producer = &mut self.producers[producer_key];
            self.key_frame_requests
                .request(now, (producer_key, encoding), producer, false);
        }
    }

    /// A consumer has begun to get another encoding, or the same one again.
    fn on_started(&mut self, now: Time, key: ConsumerKey) {
        let consumer = &mut self.consumers[key];
        let transport = consumer.transport;
        self.reports.schedule(now, transport, &mut self.transports[transport]);
        if consumer.effective != consumer.flow.current {
            consumer.effective = consumer.flow.current;
            consumer.switches += 1;
            consumer.keep_flow(&self.page);
            self.profile_changes.on_change(now, key, &mut self.consumers);
        }
        self.attach(key);
    }
}
