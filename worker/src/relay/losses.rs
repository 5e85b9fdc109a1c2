//! The streams that miss packets, and the negative acknowledgements to their senders (RFC 4585 §6.2.1).

use crate::rtp::nack::NackWriter;
use crate::time::Time;

use super::keys::ProducerKey;
use super::nack::LossChange;
use super::packet::PacketMeta;
use super::producer::{Producer, Producers};
use super::sink::Sink;
use super::transport::{Transport, Transports};

/// The streams that miss something, and when to ask for it next.
#[derive(Debug, Default)]
pub(super) struct Losses {
    streams: Vec<(ProducerKey, u8)>,
    next: Option<Time>,
}

/// What a packet is, as far as losses are concerned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Noted {
    /// It came because it was asked for.
    pub is_repair: bool,
    /// So much is missing before it that a key frame is needed.
    pub needs_key_frame: bool,
}

impl Losses {
    /// Reserves memory for so many streams.
    pub(super) fn reserve(&mut self, streams: usize) {
        // Those that are gone leave with the next turn.
        self.streams.reserve(streams);
    }

    /// When [`Losses::send_nacks`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.next
    }

    /// Notes a packet, as it came or in a retransmission, in the list of what its stream misses. Without a stream of their
    /// own, retransmissions look like late packets.
    #[inline]
    pub(super) fn on_packet(
        &mut self,
        now: Time,
        key: ProducerKey,
        producer: &mut Producer,
        packet: &PacketMeta,
        is_rtx: bool,
    ) -> Noted {
        // Most streams' senders send nothing again.
        if !is_rtx && producer.streams[usize::from(packet.encoding)].missing.is_none() {
            return Noted::default();
        }
        let codec = producer.packet_codec(packet.payload_type).map(|(codec, _)| codec);
        let is_key_frame = packet.key_frame && codec.is_some_and(|codec| !codec.name.starts_anywhere());
        let has_rtx = codec.is_some_and(|codec| codec.rtx.is_some());
        let sends_again = codec.is_some_and(|codec| codec.nack);
        let stream = &mut producer.streams[usize::from(packet.encoding)];
        let mut noted = Noted {
            is_repair: is_rtx,
            needs_key_frame: false,
        };
        if let Some(missing) = &mut stream.missing {
            let newest = missing.newest();
            match missing.on_packet(now, packet, is_key_frame, stream.restarts) {
                LossChange::Nothing => {}
                // What was lost before a packet is taken for packets of its codec; of some codecs senders send nothing again.
                LossChange::Gap | LossChange::Overflow if !sends_again => {
                    missing.forget_after(newest.unwrap_or_default());
                }
                LossChange::Recovered { asks, asked } => {
                    noted.is_repair |= asks > 0 && !has_rtx;
                    // After several requests nobody knows which was answered. A packet that was only late answers none: without
                    // a stream of retransmissions it counts as late if it comes in less than half of a round trip.
                    let answered_in = now.since(asked);
                    let is_answer = is_rtx || noted.is_repair && answered_in * 2 >= stream.round_trip.estimate();
                    if asks == 1 && is_answer {
                        stream.round_trip.measured(answered_in);
                    }
                }
                LossChange::Gap => {
                    let due = missing.due;
                    if !std::mem::replace(&mut missing.listed, true) {
                        self.streams.push((key, packet.encoding));
                    }
                    self.next = Some(self.next.map_or(due, |next| next.min(due)));
                }
                LossChange::Overflow => noted.needs_key_frame = true,
            }
        }
        if noted.is_repair {
            stream.counters.repaired += 1;
        }
        noted
    }

    /// Asks senders for what is missing and due. `ssrc` is the one that requests come from.
    pub(super) fn send_nacks(
        &mut self,
        now: Time,
        ssrc: u32,
        producers: &mut Producers,
        transports: &mut Transports,
        sink: &mut impl Sink,
    ) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let mut next: Option<Time> = None;
        self.streams.retain(|(key, encoding)| {
            let due = producers.get_mut(*key).and_then(|producer| {
                let transport = &mut transports[producer.transport];
                send_nack(now, ssrc, producer, *encoding, transport, sink)
            });
            next = [next, due].into_iter().flatten().min();
            due.is_some()
        });
        self.next = next;
    }
}

/// Asks one sender; returns when to ask again, or `None` if nothing is missing (any more).
fn send_nack(
    now: Time,
    ssrc: u32,
    producer: &mut Producer,
    encoding: u8,
    transport: &mut Transport,
    sink: &mut impl Sink,
) -> Option<Time> {
    let stream = &mut producer.streams[usize::from(encoding)];
    let missing = stream.missing.as_mut()?;
    let mut writer = NackWriter::new(ssrc, stream.ssrc.unwrap_or(0));
    let mut send = |writer: &mut NackWriter| {
        stream.counters.nacks += 1;
        transport.send_rtcp(writer.packet(), producer.reduced_size, sink);
        writer.clear();
    };
    let next = missing.ask(now, stream.round_trip.estimate(), |seq| {
        stream.counters.nacked += 1;
        let wire = stream.seq.wire(seq);
        if !writer.push(seq, wire) {
            send(&mut writer);
            writer.push(seq, wire);
        }
    });
    if !writer.is_empty() {
        send(&mut writer);
    }
    missing.listed = next.is_some();
    next
}
