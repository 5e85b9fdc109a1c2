//! What receivers miss: negative acknowledgements answered from the ring of the stream that the packet was of.
//!
//! A consumer keeps no packets. It keeps its last *segments*: from each start to the next one, which stream flowed and what
//! was added to its numbers. A number that a receiver names falls into one segment, which says which packet of which
//! stream it was, and how it looked; the packet is in the stream's [ring](super::ring), with the time of sending that it
//! left with. So what is sent again is byte for byte what was sent, or would have been, as it must be where it is protected
//! under the same index again (RFC 3711 §9.1). A retransmission in a stream of its own (RFC 4588) is another packet, and
//! says when it itself was sent.

use std::time::Duration;

use weir_channel::message::{ConsumerRtx, Counts, CreateConsumer, NotRepaired};

use crate::rtp::packet::FIXED_LEN;
use crate::time::Time;

use super::packet::PacketMeta;
use super::rewrite::Offsets;

/// Starts and switches that are remembered. More of them within the age of a ring are not worth repairing.
const SEGMENTS: usize = 8;

/// Packets of which is remembered when they were sent again.
const RECENT: usize = 512;

/// The least that a receiver may be sent again, in bytes per second, however little it is sent.
pub(super) const REPAIR_RATE_MIN: u64 = 16_000;

/// The least that it may be sent again at once, in bytes.
pub(super) const REPAIR_BURST_MIN: u64 = 64_000;

/// Packets that a receiver may name in its requests, per second. Each is looked for, also if there is nothing to send; a
/// receiver that lost 2 Mbit/s wholly, and asks five times for each packet, names a thousand.
pub(super) const NACKED_RATE: u64 = 5_000;

/// As many may be named at once.
pub(super) const NACKED_BURST: u64 = 2_000;

/// What a consumer needs to be sent packets again.
#[derive(Debug)]
pub(super) struct Repair {
    /// By their count modulo their number.
    segments: [Segment; SEGMENTS],
    /// Starts made.
    starts: u64,
    /// By sequence number modulo their number; another packet with the same place is forgotten.
    recent: Box<[Recent]>,
    /// Packets that may be named.
    pub(super) names: Bucket,
    /// Bytes that may be sent again: as many as are sent for the first time, with bursts of half a second. A receiver that
    /// lacks more needs another profile, not more packets; and who asks for everything twice gets no more than twice as much.
    pub(super) budget: Bucket,
    pub(super) rtx: Option<Rtx>,
    /// Packets sent again.
    pub packets: u64,
    /// Bytes sent again.
    pub bytes: u64,
    refused: [u64; NotRepaired::ALL.len()],
}

/// What flowed from one start to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    /// The first sequence number sent, extended.
    first: u64,
    pub(super) offsets: Offsets,
    pub(super) encoding: u8,
    pub(super) epoch: u32,
}

/// What fills the place of a packet that was taken for one to be sent until it came, and was one to be withheld: nothing but
/// padding, so that the receiver need not take the number for a loss.
pub(super) struct PaddingPacket {
    pub(super) packet: PacketMeta,
    pub(super) bytes: [u8; Self::LEN],
}

impl PaddingPacket {
    const LEN: usize = FIXED_LEN + 4;

    /// The packet that a consumer's number and newest timestamp make of this one.
    pub(super) fn under(payload_type: u8, timestamp: u64, segment: Segment, seq: u64) -> Self {
        let mut bytes = [0; Self::LEN];
        // Version 2, with padding; its last byte counts it (RFC 3550 §5.1).
        bytes[0] = 0xa0;
        bytes[Self::LEN - 1] = 4;
        let packet = PacketMeta {
            len: Self::LEN as u32,
            seq: seq.wrapping_sub(segment.offsets.seq),
            timestamp: segment.offsets.source_timestamp(timestamp),
            encoding: segment.encoding,
            payload_type,
            epoch: segment.epoch,
            payload_start: FIXED_LEN as u16,
            ..PacketMeta::default()
        };
        Self { packet, bytes }
    }
}

/// When a packet was sent again. The clock of 32 bits wraps after 49 days, and the number must be the same too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    pub(super) seq: u32,
    pub(super) at_ms: u32,
}

/// How packets are sent again as a stream of their own (RFC 4588).
#[derive(Debug)]
pub(super) struct Rtx {
    pub(super) ssrc: u32,
    /// A packet was sent.
    pub(super) is_begun: bool,
    /// The number before the first one, extended.
    before_first: u64,
    /// Of the last one, extended.
    pub(super) seq: u64,
    /// By the consumer's payload type.
    pub(super) payload_types: [Option<u8>; 128],
}

impl Repair {
    /// `before_first_rtx`: RFC 4588 §4 wants the sequence to begin at random.
    pub(super) fn new(request: &CreateConsumer, now: Time, before_first_rtx: u64) -> Self {
        let rtx = |rtx: &ConsumerRtx| Rtx {
            ssrc: rtx.ssrc,
            is_begun: false,
            before_first: before_first_rtx,
            seq: before_first_rtx,
            payload_types: by_own_payload_type(rtx),
        };
        Self {
            segments: [Segment::default(); SEGMENTS],
            starts: 0,
            recent: vec![Recent { seq: 0, at_ms: 1 << 31 }; RECENT].into_boxed_slice(),
            names: Bucket {
                level: NACKED_BURST,
                at: now,
            },
            budget: Bucket {
                level: REPAIR_BURST_MIN,
                at: now,
            },
            rtx: request.rtx.as_ref().map(rtx),
            packets: 0,
            bytes: 0,
            refused: [0; NotRepaired::ALL.len()],
        }
    }

    /// A flow starts on this packet, with these offsets, and with so many numbers before it for what it has overtaken.
    pub(super) fn on_start(&mut self, packet: &PacketMeta, offsets: Offsets, reserve: u64) {
        self.segments[self.starts as usize % SEGMENTS] = Segment {
            first: offsets.seq_of(packet) - reserve,
            offsets,
            encoding: packet.encoding,
            epoch: packet.epoch,
        };
        self.starts += 1;
    }

    /// A flow goes on with this number, which another worker has begun.
    pub(super) fn on_resume(&mut self, first: u64, offsets: Offsets, (encoding, epoch): (u8, u32)) {
        self.segments[self.starts as usize % SEGMENTS] = Segment {
            first,
            offsets,
            encoding,
            epoch,
        };
        self.starts += 1;
    }

    /// Goes on where another worker was: packets, bytes and refusals; the number of the last packet of a stream of their own, and
    /// whether any was sent.
    pub(super) fn resume(
        &mut self,
        (packets, bytes, refused): (u64, u64, [u64; NotRepaired::ALL.len()]),
        again: Option<(u64, bool)>,
    ) {
        self.packets = packets;
        self.bytes = bytes;
        self.refused = refused;
        if let (Some(rtx), Some((seq, is_begun))) = (&mut self.rtx, again) {
            rtx.seq = seq;
            rtx.is_begun = is_begun;
            // It may have been used.
            rtx.before_first = u64::MAX;
        }
    }

    /// What was not sent again, by reason.
    pub(super) fn refused(&self) -> [u64; NotRepaired::ALL.len()] {
        self.refused
    }

    /// From now on packets are sent again under these payload types, and the numbers go on.
    pub(super) fn change_source(&mut self, request: &CreateConsumer) {
        if let (Some(own), Some(rtx)) = (&mut self.rtx, &request.rtx) {
            own.payload_types = by_own_payload_type(rtx);
        }
    }

    /// What was sent cannot be sent again: its source is gone.
    pub(super) fn forget_starts(&mut self) {
        if self.starts > 0 {
            self.segments.iter_mut().for_each(|segment| segment.first = u64::MAX);
            self.starts += SEGMENTS as u64;
        }
    }

    /// The offsets of what flows are others from some timestamp on.
    pub(super) fn on_offsets(&mut self, offsets: Offsets) {
        if let Some(last) = self.starts.checked_sub(1) {
            self.segments[last as usize % SEGMENTS].offsets = offsets;
        }
    }

    /// The segment that a sequence number was sent in; `newest` is the newest one sent.
    pub(super) fn segment_of(&self, seq: u64, newest: u64) -> Result<Segment, NotRepaired> {
        if seq > newest {
            return Err(NotRepaired::NeverSent);
        }
        let remembered = self.starts.saturating_sub(SEGMENTS as u64)..self.starts;
        let is_whole_life = remembered.start == 0;
        let found = remembered
            .rev()
            .map(|start| self.segments[start as usize % SEGMENTS])
            .find(|segment| segment.first <= seq);
        found.ok_or(if is_whole_life {
            NotRepaired::NeverSent
        } else {
            NotRepaired::TooOld
        })
    }

    pub(super) fn recent(&mut self, seq: u64) -> &mut Recent {
        &mut self.recent[seq as usize % RECENT]
    }

    pub(super) fn was_sent_within(&mut self, seq: u64, now: Time, interval: Duration) -> bool {
        let recent = *self.recent(seq);
        recent.seq == seq as u32 && u128::from(millis(now).wrapping_sub(recent.at_ms)) < interval.as_millis()
    }

    pub(super) fn refuse(&mut self, reason: NotRepaired, packets: u32) {
        self.refused[reason as usize] += u64::from(packets);
    }

    /// The SSRC that packets were sent again under, if any were.
    pub(super) fn begun_rtx_ssrc(&self) -> Option<u32> {
        self.rtx.as_ref().filter(|rtx| rtx.is_begun).map(|rtx| rtx.ssrc)
    }

    /// That SSRC, and the last number used under it, extended. One that could not be sent may have been protected, too.
    pub(super) fn last_rtx(&self) -> Option<(u32, u64)> {
        let rtx = self.rtx.as_ref()?;
        (rtx.seq != rtx.before_first).then_some((rtx.ssrc, rtx.seq))
    }

    /// What was not sent again, and why.
    pub(super) fn refusals(&self) -> Counts<NotRepaired> {
        NotRepaired::ALL.into_iter().zip(self.refused).collect()
    }
}

fn by_own_payload_type(rtx: &ConsumerRtx) -> [Option<u8>; 128] {
    let mut payload_types = [None; 128];
    for (own, again) in &rtx.payload_types {
        payload_types[usize::from(own & 0x7f)] = Some(*again);
    }
    payload_types
}

pub(super) fn millis(now: Time) -> u32 {
    (now.0 / 1_000_000) as u32
}

/// What may be taken at some rate per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    level: u64,
    /// When it was that high.
    at: Time,
}

impl Bucket {
    /// Takes `amount` if there is so much. It fills at `rate`, up to `burst`.
    pub(super) fn take(&mut self, now: Time, amount: u64, rate: u64, burst: u64) -> bool {
        // A long time fills it in any case, and must not overflow.
        let elapsed_us = now.since(self.at).as_micros().min(10_000_000) as u64;
        let earned = rate.saturating_mul(elapsed_us) / 1_000_000;
        if earned > 0 {
            self.at = now;
        }
        self.level = self.level.saturating_add(earned).min(burst);
        let is_enough = self.level >= amount;
        if is_enough {
            self.level -= amount;
        }
        is_enough
    }
}
