//! What came out, held against what went in.
//!
//! A consumer's output is cut into *segments*: runs that follow one input stream under one set of offsets. Within a
//! segment the numbers must be the input's, moved; a segment must begin right behind the one before, on a packet that a
//! decoder can start with; and every packet that came in while a segment lasted must be in it. So gaps are exactly
//! where the network lost something, and duplicates are impossible.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_channel::id::{ConsumerId, ProducerId};
use weir_channel::message::{CodecName, CreateConsumer, CreateProducer, ExtensionUri};
use weir_worker::time::Time;

use super::stream::Mark;
use super::wire::{Rtp, send_time, vp8_ids};
use super::{Received, Sim};

/// A packet that was given to the relay.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Which call into the relay.
    pub batch: usize,
    pub mark: Mark,
}

/// After this batch, a flow need not go on: something was paused, or a layer fell silent.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    Consumer(ConsumerId),
    Producer(ProducerId),
}

/// Everything that happened, in order.
#[derive(Debug, Default)]
pub struct Log {
    pub batch: usize,
    pub deliveries: Vec<Delivery>,
    pub breaks: Vec<(usize, Break)>,
    /// Streams that took another one's place under its MID or RID: new, old.
    pub replaced: BTreeMap<u32, u32>,
    /// The bytes of every marked packet, if they are to be compared.
    pub originals: Option<HashMap<(u32, u64), Vec<u8>>>,
}

/// A run of one stream's packets under one set of offsets.
#[derive(Clone, Debug)]
pub struct Segment {
    pub first: Mark,
    pub batch: usize,
    pub packets: usize,
    offset: i128,
    timestamp_offset: i128,
    /// None as long as no packet of it has a picture id.
    picture_id_offset: Option<i128>,
    tl0_offset: i128,
}

/// A number that wraps after `bits` bits, next to one that does not.
fn unwrap_near(near: i128, value: u64, bits: u32) -> i128 {
    let cycle = 1_i128 << bits;
    let low = near.rem_euclid(cycle);
    let mut distance = i128::from(value) - low;
    if distance > cycle / 2 {
        distance -= cycle;
    } else if distance < -cycle / 2 {
        distance += cycle;
    }
    near + distance
}

/// The newest of everything a consumer was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    seq: i128,
    timestamp: i128,
    /// None before the first one.
    picture_id: Option<i128>,
    tl0: i128,
}

impl Sim {
    /// Judges all that a consumer was sent since the last time, which must be from its beginning; returns its segments.
    #[track_caller]
    pub fn judge(&mut self, consumer: ConsumerId, codec: CodecName) -> Vec<Segment> {
        let received = self.received(consumer);
        let segments = judge_numbers(&received, codec);
        self.judge_completeness(consumer, &received, &segments);
        segments
    }

    /// Every packet that came in while a segment lasted is in it.
    #[track_caller]
    fn judge_completeness(&self, consumer: ConsumerId, received: &[Received], segments: &[Segment]) {
        let producer = self.consumers[&consumer].request.producer;
        let out: BTreeSet<_> = received
            .iter()
            .map(|packet| (packet.mark().stream, packet.mark().seq))
            .collect();
        let mut first_batches = BTreeMap::new();
        for delivery in &self.log.deliveries {
            first_batches.entry(delivery.mark.stream).or_insert(delivery.batch);
        }
        for (index, segment) in segments.iter().enumerate() {
            let next = segments.get(index + 1).map_or(usize::MAX, |next| next.batch);
            let broken = self.log.breaks.iter().filter_map(|(after, what)| {
                let ours = match what {
                    Break::Consumer(other) => *other == consumer,
                    Break::Producer(other) => *other == producer,
                };
                (ours && *after >= segment.batch).then_some(after + 1)
            });
            let replaced = self.log.replaced.iter().filter_map(|(new, old)| {
                let batch = *first_batches.get(new).filter(|_| *old == segment.first.stream)?;
                (batch > segment.batch).then_some(batch)
            });
            let end = broken.chain(replaced).min().unwrap_or(usize::MAX).min(next);
            // In this batch; or before it, if it was held until the next one of a new run had come.
            let end_of_batch = self
                .log
                .deliveries
                .partition_point(|delivery| delivery.batch <= segment.batch);
            let start = self.log.deliveries[..end_of_batch]
                .iter()
                .rposition(|delivery| delivery.mark == segment.first)
                .expect("a segment starts on a packet that was delivered");
            for delivery in &self.log.deliveries[start..] {
                if delivery.batch >= end {
                    break;
                }
                let mark = delivery.mark;
                if mark.stream == segment.first.stream && mark.seq >= segment.first.seq {
                    assert!(
                        out.contains(&(mark.stream, mark.seq)),
                        "{consumer}: {mark:?} came in batch {} and did not go out, in {segment:?} until {end}",
                        delivery.batch
                    );
                }
            }
        }
    }

    /// Every byte of what a consumer was sent is as it should be: the original's, but for the fields that are the
    /// consumer's own. Wants [`Log::originals`].
    #[track_caller]
    pub fn judge_bytes(&self, received: &[Received], producer: &CreateProducer, consumer: &CreateConsumer) {
        let originals = self.log.originals.as_ref().expect("originals were kept");
        for packet in received {
            let mark = packet.mark();
            let original = &originals[&(mark.stream, mark.seq)];
            assert_eq!(
                packet.bytes,
                expected_bytes(original, packet.at, &packet.rtp, producer, consumer),
                "{mark:?} as sent to {}; the original is {original:02x?}",
                consumer.consumer
            );
        }
    }
}

#[track_caller]
pub fn judge_numbers(received: &[Received], codec: CodecName) -> Vec<Segment> {
    judge_numbers_with(received, codec, 0)
}

/// As [`judge_numbers`], but before a start so many numbers may be free: what a relay that has died was about to send.
#[track_caller]
pub fn judge_numbers_with(received: &[Received], codec: CodecName, free_max: i128) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut newest: Option<Newest> = None;
    let mut seen = BTreeSet::new();
    let mut sent = BTreeSet::new();
    for packet in received {
        let mark = packet.mark();
        let (picture_id, tl0) = match codec {
            CodecName::Vp8 => vp8_ids(&packet.rtp.payload),
            _ => (None, None),
        };
        // Before the first packet, "near" is the packet itself.
        let near = newest.unwrap_or(Newest {
            seq: i128::from(packet.rtp.seq) - 1,
            timestamp: i128::from(packet.rtp.timestamp) - 1,
            picture_id: None,
            tl0: tl0.map_or(0, |tl0| i128::from(tl0) - 1),
        });
        let seq = unwrap_near(near.seq, packet.rtp.seq.into(), 16);
        let timestamp = unwrap_near(near.timestamp, packet.rtp.timestamp.into(), 32);
        let picture_id = picture_id.map(|(id, bits)| {
            assert_eq!(bits, 15, "consumers get wide picture ids: {mark:?}");
            near.picture_id
                .map_or(id.into(), |near| unwrap_near(near, id.into(), bits))
        });
        let tl0 = tl0.map(|tl0| unwrap_near(near.tl0, tl0.into(), 8));
        assert!(sent.insert(seq), "sequence number {seq} went out twice");

        let offset = seq - i128::from(mark.seq);
        let goes_on = segments
            .last()
            .is_some_and(|segment| segment.first.stream == mark.stream && segment.offset == offset);
        if !goes_on {
            assert!(mark.key, "a flow starts on {mark:?}, which no decoder can start with");
            assert!(
                (near.seq + 1..=near.seq + 1 + free_max).contains(&seq),
                "a flow starts right behind the one before: {mark:?}, {seq} after {}",
                near.seq
            );
            assert!(
                timestamp > near.timestamp,
                "a flow starts later than the one before: {mark:?}"
            );
            assert!(
                newest.is_none() || timestamp - near.timestamp < 1 << 30,
                "timestamp {timestamp} after {near:?} is no time that went by"
            );
            if let Some(tl0) = tl0 {
                assert!(
                    (near.tl0 + 1..=near.tl0 + 1 + free_max).contains(&tl0),
                    "TL0PICIDX goes on at a start: {mark:?}"
                );
            }
            if free_max > 0 {
                // Of a start that a relay has died with, a part may have left; all of it is sent again under other numbers.
                seen.clear();
            }
            segments.push(Segment {
                first: mark,
                batch: packet.batch,
                packets: 0,
                offset,
                timestamp_offset: timestamp - i128::from(mark.timestamp),
                picture_id_offset: None,
                tl0_offset: tl0.map_or(0, |tl0| tl0 - i128::from(mark.tl0)),
            });
        }
        assert!(seen.insert((mark.stream, mark.seq)), "{mark:?} went out twice");
        let segment = segments.last_mut().expect("there is one by now");
        segment.packets += 1;
        assert!(mark.seq >= segment.first.seq, "{mark:?} is from before {segment:?}");
        assert_eq!(
            timestamp,
            i128::from(mark.timestamp) + segment.timestamp_offset,
            "timestamp of {mark:?}"
        );
        if seq > near.seq {
            assert!(timestamp >= near.timestamp, "time goes back at {mark:?}");
        }
        if let Some(id) = picture_id {
            let offset = segment.picture_id_offset.get_or_insert_with(|| {
                let goes_on = near
                    .picture_id
                    .is_none_or(|near| (near + 1..=near + 1 + free_max).contains(&id));
                assert!(goes_on, "picture ids go on at a start: {id} after {near:?}, {mark:?}");
                id - i128::from(mark.frame)
            });
            assert_eq!(id, i128::from(mark.frame) + *offset, "picture id of {mark:?}");
        }
        if let Some(tl0) = tl0 {
            assert_eq!(tl0, i128::from(mark.tl0) + segment.tl0_offset, "TL0PICIDX of {mark:?}");
        }
        newest = Some(Newest {
            seq: near.seq.max(seq),
            timestamp: near.timestamp.max(timestamp),
            picture_id: near.picture_id.max(picture_id),
            tl0: near.tl0.max(tl0.unwrap_or(near.tl0)),
        });
    }
    segments
}

/// What a packet should look like to a consumer, given the numbers it has.
pub fn expected_bytes(
    original: &[u8],
    at_time: Time,
    sent: &Rtp,
    producer: &CreateProducer,
    consumer: &CreateConsumer,
) -> Vec<u8> {
    let mut out = original.to_vec();
    let own = |source: u8| {
        let found = consumer.payload_types.iter().find(|(from, _)| *from == source);
        found.expect("only payload types of the consumer are relayed").1
    };
    out[1] = out[1] & 0x80 | own(out[1] & 0x7f);
    out[2..4].copy_from_slice(&sent.seq.to_be_bytes());
    out[4..8].copy_from_slice(&sent.timestamp.to_be_bytes());
    out[8..12].copy_from_slice(&consumer.ssrc.to_be_bytes());
    let mut at = 12 + 4 * usize::from(out[0] & 15);
    if out[0] & 0x10 != 0 {
        let two_byte = out[at] != 0xbe;
        let end = at + 4 + 4 * usize::from(u16::from_be_bytes([out[at + 2], out[at + 3]]));
        at += 4;
        while at < end {
            if out[at] == 0 {
                at += 1;
                continue;
            }
            let (id, head, len) = if two_byte {
                (out[at], 2, usize::from(out[at + 1]))
            } else {
                (out[at] >> 4, 1, usize::from(out[at] & 15) + 1)
            };
            let uri = producer
                .header_extensions
                .iter()
                .find(|known| known.id == id)
                .map(|known| known.uri);
            let hop_by_hop = |uri: &ExtensionUri| {
                matches!(
                    uri,
                    ExtensionUri::Mid
                        | ExtensionUri::RtpStreamId
                        | ExtensionUri::RepairedRtpStreamId
                        | ExtensionUri::TransportWideCc
                )
            };
            let own = uri
                .filter(|uri| !hop_by_hop(uri))
                .and_then(|uri| consumer.header_extensions.iter().find(|known| known.uri == uri));
            if uri == Some(ExtensionUri::AbsSendTime) && len == 3 {
                out[at + head..at + head + 3].copy_from_slice(&send_time(at_time));
            }
            match own {
                Some(own) if two_byte => out[at] = own.id,
                Some(own) => out[at] = own.id << 4 | out[at] & 15,
                None => out[at..at + head + len].fill(0),
            }
            at += head + len;
        }
    }
    let codec = producer
        .codecs
        .iter()
        .find(|codec| codec.payload_type == original[1] & 0x7f);
    if codec.is_some_and(|codec| codec.name == CodecName::Vp8) && out[at] & 0x80 != 0 {
        let (picture_id, tl0) = vp8_ids(&sent.payload);
        let mut field = at + 2;
        if let (Some((id, _)), true) = (picture_id, out[at + 1] & 0x80 != 0) {
            // Whatever width the sender wrote it in.
            if out[field] & 0x80 == 0 {
                out.insert(field, 0x80);
            }
            out[field..field + 2].copy_from_slice(&(0x8000 | id).to_be_bytes());
            field += 2;
        }
        if let Some(tl0) = tl0 {
            out[field] = tl0;
        }
    }
    // Padding that makes it as long as others of its train.
    let padding = Rtp::read(original).padding;
    if sent.padding > padding {
        assert!(
            sent.padding - padding <= 16,
            "{padding} bytes of padding become {}",
            sent.padding
        );
        out[0] |= 0x20;
        out.resize(out.len() - usize::from(padding) + usize::from(sent.padding), 0);
        let last = out.len() - 1;
        out[last - usize::from(sent.padding) + 1..].fill(0);
        out[last] = sent.padding;
    }
    out
}
