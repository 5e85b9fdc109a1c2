//! Key frame requests to senders: when they are due, and how they are sent.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use weir_channel::message::MediaKind;

use crate::rtp::rtcp::{write_fir, write_pli};
use crate::time::Time;

use super::gop::GopBudget;
use super::keys::ProducerKey;
use super::producer::{Producer, Producers};
use super::sink::Sink;
use super::transport::Transports;

/// A stream, by its producer and encoding.
type StreamId = (ProducerKey, u8);

/// The requests of all streams.
#[derive(Debug, Default)]
pub(super) struct KeyFrameRequests {
    timers: BinaryHeap<Reverse<(Time, ProducerKey, u8)>>,
    /// Streams to be asked as soon as there is a sink.
    pub(super) due: Vec<StreamId>,
    /// Of senders that answer no requests.
    pub(super) gops: GopBudget,
}

impl KeyFrameRequests {
    /// Reserves memory for so many streams: a timer each, beside those of streams that are gone, and a request.
    pub(super) fn reserve(&mut self, streams: usize) {
        self.timers.reserve(streams);
        self.due.reserve(streams);
    }

    /// When there is something to do next; a time that has passed means now.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        if !self.due.is_empty() {
            return Some(Time::default());
        }
        self.timers.peek().map(|Reverse((due, ..))| *due)
    }

    /// Somebody needs a key frame: asks if it is time. `is_new`: nobody did before.
    pub(super) fn request(&mut self, now: Time, id: StreamId, producer: &mut Producer, is_new: bool) {
        // A paused producer is asked when it is resumed; a stream that never came, when it comes.
        if producer.kind == MediaKind::Audio || producer.paused {
            return;
        }
        let pacer = &mut producer.streams[usize::from(id.1)].key_frames;
        let is_asked = if is_new { pacer.request(now) } else { pacer.repeat(now) };
        self.queue(now, id, producer, (true, is_asked));
    }

    /// The stream whose timer is due.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<StreamId> {
        self.timers.peek().filter(|Reverse((due, ..))| *due <= now)?;
        let Reverse((_, key, encoding)) = self.timers.pop()?;
        Some((key, encoding))
    }

    /// Asks for what was remembered, or again, and comes back in a second as long as there is a reason to: the sender may send
    /// nothing in which somebody could be seen to wait.
    pub(super) fn on_timer(&mut self, now: Time, id: StreamId, producer: &mut Producer, is_awaited: bool) {
        let stream = &mut producer.streams[usize::from(id.1)];
        stream.timer_queued = false;
        if producer.paused {
            return;
        }
        let is_asked = stream.key_frames.on_timer(now, is_awaited);
        let comes_back = is_awaited || stream.key_frames.is_wanted();
        self.queue(now, id, producer, (comes_back, is_asked));
    }

    /// Queues a stream's timer and a request, if there is to be one.
    fn queue(
        &mut self,
        now: Time,
        (key, encoding): StreamId,
        producer: &mut Producer,
        (has_timer, is_asked): (bool, bool),
    ) {
        let is_lone = producer.streams.len() == 1;
        let stream = &mut producer.streams[usize::from(encoding)];
        if has_timer && !std::mem::replace(&mut stream.timer_queued, true) {
            let due = stream.key_frames.next_timer(now);
            self.timers.push(Reverse((due, key, encoding)));
        }
        if is_asked {
            self.due.push((key, encoding));
            stream.responsiveness.on_ask(now);
            stream.refresh_gop(is_lone, &mut self.gops);
        }
    }

    /// Sends the requests that are due, from this SSRC, by the means that the sender understands (RFC 4585 §6.3.1, RFC 5104
    /// §4.3.1).
    pub(super) fn send(
        &mut self,
        ssrc: u32,
        producers: &mut Producers,
        transports: &mut Transports,
        sink: &mut impl Sink,
    ) {
        while let Some((key, encoding)) = self.due.pop() {
            let Some(producer) = producers.get_mut(key) else {
                continue;
            };
            let codec = *producer.first_codec();
            let stream = &mut producer.streams[usize::from(encoding)];
            let Some(media_ssrc) = stream.ssrc else { continue };
            let mut packet = [0; 128];
            let len = if codec.pli {
                stream.counters.pli += 1;
                write_pli(&mut packet, ssrc, media_ssrc)
            } else if codec.fir {
                stream.counters.fir += 1;
                stream.fir_seq = stream.fir_seq.wrapping_add(1);
                write_fir(&mut packet, ssrc, media_ssrc, stream.fir_seq)
            } else {
                continue;
            };
            transports[producer.transport].send_rtcp(&packet[..len], producer.reduced_size, sink);
        }
    }
}
