//! Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): which packets of a transport have
//! come, and when.
//!
//! ```text
//!  V=2 P=0 FMT=15 | PT=205 | length in words
//!  SSRC of the reporter
//!  SSRC of a media stream
//!  first transport sequence number | count of packets
//!  reference time, 24 bits         | count of feedback packets, 8 bits
//!  chunks of 16 bits: a status for each packet
//!  deltas: one byte or two for each packet that has come, in units of 250 µs
//!  zeros, up to a whole word
//! ```
//!
//! A status has two bits: 0 has not come, 1 has come, and the delta has one byte; 2 has come, and the delta has two bytes
//! and a sign. A chunk is a run of up to 8,191 equal statuses, or a vector of 14 statuses of one bit (0 and 1), or of 7 of
//! two bits. The first delta counts from the reference time, which is in units of 64 ms; each other one from the packet
//! before it that has come. As all are differences of times in the same unit, nothing is rounded twice.

use rtcp_types::TransportFeedback;
use rtcp_types::prelude::*;

use super::{PREFIX_LEN, write_prefix};

const FORMAT: u8 = 15;

/// Bytes of a feedback packet without the compound's prefix: with it, and protected, it stays below any path's MTU.
const BYTES_MAX: usize = 1_120;

/// What stands before the chunks.
const HEAD_LEN: usize = 20;

/// Ticks of 250 µs in one unit of the reference time.
const REFERENCE_TICKS: u32 = 256;

const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;

const RUN_MAX: u16 = 0x1fff;
const ONE_BIT_STATUSES: usize = 14;
const TWO_BIT_STATUSES: usize = 7;

/// A feedback packet in the making: a compound packet in a fixed buffer.
#[derive(Debug)]
pub struct FeedbackWriter {
    /// Up to `chunks` the prefix, the header and the chunks; the deltas join them in the end.
    bytes: [u8; PREFIX_LEN + BYTES_MAX],
    chunks: usize,
    deltas: [u8; BYTES_MAX],
    deltas_len: usize,
    pending: Pending,
    base: u16,
    count: u16,
    /// The first arrival's tick, and the last one's.
    arrivals: Option<(u32, u32)>,
}

impl FeedbackWriter {
    /// A packet that says nothing yet.
    pub fn new(sender_ssrc: u32) -> Self {
        let mut bytes = [0; PREFIX_LEN + BYTES_MAX];
        let (prefix, feedback) = bytes.split_at_mut(PREFIX_LEN);
        write_prefix(prefix, sender_ssrc);
        feedback[..2].copy_from_slice(&[0x80 | FORMAT, TransportFeedback::PACKET_TYPE]);
        feedback[4..8].copy_from_slice(&sender_ssrc.to_be_bytes());
        Self {
            bytes,
            chunks: PREFIX_LEN + HEAD_LEN,
            deltas: [0; BYTES_MAX],
            deltas_len: 0,
            pending: Pending::default(),
            base: 0,
            count: 0,
            arrivals: None,
        }
    }

    /// Begins a packet. The first status pushed is that of the packet with this transport sequence number.
    pub fn begin(&mut self, base: u16) {
        self.chunks = PREFIX_LEN + HEAD_LEN;
        self.deltas_len = 0;
        self.pending = Pending::default();
        self.base = base;
        self.count = 0;
        self.arrivals = None;
    }

    /// Says of the next packet that it came at this tick, of 250 µs and modulo 2³², or that it has not come. `false`: this
    /// can only be said in another feedback packet, because this one is full, or the packet came more than 8 s before or
    /// after the one before it.
    pub fn push(&mut self, arrival: Option<u32>) -> bool {
        // The pending statuses may become two chunks when they are joined by this one.
        let used = self.chunks - PREFIX_LEN + self.deltas_len;
        if self.count == u16::MAX || used + 2 * 2 + 2 > BYTES_MAX {
            return false;
        }
        let status = match arrival {
            None => NOT_RECEIVED,
            Some(tick) => {
                let (first, before) = self.arrivals.unwrap_or((tick, tick - tick % REFERENCE_TICKS));
                let delta = tick.wrapping_sub(before).cast_signed();
                let status = if let Ok(delta) = u8::try_from(delta) {
                    self.deltas[self.deltas_len] = delta;
                    self.deltas_len += 1;
                    SMALL_DELTA
                } else if let Ok(delta) = i16::try_from(delta) {
                    self.deltas[self.deltas_len..self.deltas_len + 2].copy_from_slice(&delta.to_be_bytes());
                    self.deltas_len += 2;
                    LARGE_DELTA
                } else {
                    return false;
                };
                self.arrivals = Some((first, tick));
                status
            }
        };
        if !self.pending.can_take(status) {
            self.write_chunk(false);
        }
        self.pending.push(status);
        self.count += 1;
        true
    }

    /// Whether it says of any packet that it has come. Only then does it mean something.
    pub fn has_arrivals(&self) -> bool {
        self.arrivals.is_some()
    }

    /// The whole compound packet. `feedback_count` grows by one with each, and wraps. To be followed by
    /// [`FeedbackWriter::begin`].
    pub fn finish(&mut self, media_ssrc: u32, feedback_count: u8) -> &[u8] {
        if self.pending.len > 0 {
            self.write_chunk(true);
        }
        let deltas = self.chunks..self.chunks + self.deltas_len;
        let end = deltas.end.next_multiple_of(4); // both parts of the buffer are whole words
        self.bytes[deltas.clone()].copy_from_slice(&self.deltas[..self.deltas_len]);
        self.bytes[deltas.end..end].fill(0);
        let (first, _) = self.arrivals.unwrap_or_default();
        let head = &mut self.bytes[PREFIX_LEN..];
        let words = (end - PREFIX_LEN) / 4 - 1;
        head[2..4].copy_from_slice(&(words as u16).to_be_bytes());
        head[8..12].copy_from_slice(&media_ssrc.to_be_bytes());
        head[12..14].copy_from_slice(&self.base.to_be_bytes());
        head[14..16].copy_from_slice(&self.count.to_be_bytes());
        // 32 bits of ticks are exactly the reference time's 24 bits and a first delta's 8.
        head[16..20].copy_from_slice(&((first / REFERENCE_TICKS) << 8 | u32::from(feedback_count)).to_be_bytes());
        &self.bytes[..end]
    }

    fn write_chunk(&mut self, is_last: bool) {
        let chunk = self.pending.take_chunk(is_last);
        self.bytes[self.chunks..self.chunks + 2].copy_from_slice(&chunk.to_be_bytes());
        self.chunks += 2;
    }
}

/// Statuses that are not in a chunk yet: a run, or few enough for a vector.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    /// Of a run, the first ones.
    statuses: [u8; ONE_BIT_STATUSES],
    len: u16,
    /// They are not all the same.
    is_mixed: bool,
    /// One of them takes two bits.
    has_large: bool,
}

impl Pending {
    /// Whether the next status fits into the same chunk.
    fn can_take(&self, status: u8) -> bool {
        let len = usize::from(self.len);
        len < TWO_BIT_STATUSES
            || len < ONE_BIT_STATUSES && !self.has_large && status != LARGE_DELTA
            || self.len < RUN_MAX && !self.is_mixed && status == self.statuses[0]
    }

    fn push(&mut self, status: u8) {
        self.is_mixed |= self.len > 0 && status != self.statuses[0];
        self.has_large |= status == LARGE_DELTA;
        if let Some(place) = self.statuses.get_mut(usize::from(self.len)) {
            *place = status;
        }
        self.len += 1;
    }

    /// Makes a chunk of the first statuses: as many as it takes, or all if it is the last.
    fn take_chunk(&mut self, is_last: bool) -> u16 {
        let len = usize::from(self.len);
        if !self.is_mixed {
            let run = u16::from(self.statuses[0]) << 13 | self.len;
            *self = Self::default();
            return run;
        }
        let is_one_bit = !self.has_large && (len == ONE_BIT_STATUSES || is_last && len > TWO_BIT_STATUSES);
        let (tag, bits, capacity) = if is_one_bit {
            (0b10, 1, ONE_BIT_STATUSES)
        } else {
            (0b11, 2, TWO_BIT_STATUSES)
        };
        let taken = len.min(capacity);
        let mut chunk = tag;
        for place in 0..capacity {
            let status = if place < taken { self.statuses[place] } else { 0 };
            chunk = chunk << bits | u16::from(status);
        }
        let rest = *self;
        *self = Self::default();
        for status in &rest.statuses[taken..len] {
            self.push(*status);
        }
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::super::reduced_size;
    use super::*;

    /// What a packet says of these arrivals, without the prefix.
    fn written(base: u16, feedback_count: u8, arrivals: &[Option<u32>]) -> Vec<u8> {
        let mut writer = FeedbackWriter::new(0x0102_0304);
        writer.begin(base);
        for arrival in arrivals {
            assert!(writer.push(*arrival), "{arrival:?}");
        }
        assert_eq!(writer.has_arrivals(), arrivals.iter().any(Option::is_some));
        reduced_size(writer.finish(0x0506_0708, feedback_count)).to_vec()
    }

    /// A packet written by hand: base, count, reference time, feedback count, and what follows.
    fn by_hand(base: u16, count: u16, reference: [u8; 3], feedback_count: u8, rest: &[u8]) -> Vec<u8> {
        let words = (HEAD_LEN + rest.len()) / 4 - 1;
        let mut packet = vec![0x8f, 205, 0, words as u8, 1, 2, 3, 4, 5, 6, 7, 8];
        packet.extend(base.to_be_bytes());
        packet.extend(count.to_be_bytes());
        packet.extend(reference);
        packet.push(feedback_count);
        packet.extend(rest);
        packet
    }

    #[test]
    fn packets_as_the_draft_draws_them() {
        let tick = |reference: u32, ticks: u32| Some(reference * 256 + ticks);
        // A lone packet: a run of one, one delta, one byte of padding.
        assert_eq!(
            written(1, 7, &[tick(0x01_0203, 9)]),
            by_hand(1, 1, [1, 2, 3], 7, &[0x20, 0x01, 9, 0])
        );
        // All at once: a run of 300, the deltas 0.
        let mut rest = vec![0x21, 0x2c, 5];
        rest.extend([0; 299 + 2]);
        assert_eq!(
            written(65_500, 0, &[tick(3, 5); 300]),
            by_hand(65_500, 300, [0, 0, 3], 0, &rest)
        );
        // Not more than 14 that have come quickly or not at all: one bit each.
        let arrivals = [0, 1, 0, 1, 1, 0, 0, 1].map(|came| (came == 1).then_some(512));
        let expected = [0b1001_0110, 0b0100_0000, 0, 0, 0, 0, 0, 0];
        assert_eq!(written(9, 1, &arrivals), by_hand(9, 8, [0, 0, 2], 1, &expected));
        // Up to 7 with a long or a negative delta: two bits each.
        let arrivals = [tick(2, 0), None, tick(3, 0), tick(2, 255), tick(2, 255)];
        let expected = [0b1101_0010, 0b1001_0000, 0, 1, 0, 0xff, 0xff, 0];
        assert_eq!(written(9, 1, &arrivals), by_hand(9, 5, [0, 0, 2], 1, &expected));
        // A long delta behind seven of one bit sends them off with two bits each; an eighth waits for it.
        let arrivals: Vec<_> = [0, 1, 1, 1, 1, 1, 1, 1, 300]
            .map(|ticks| (ticks > 0).then_some(ticks))
            .into();
        let expected = [
            0b1100_0101,
            0b0101_0101,
            0b1101_1000,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            1,
            43,
            0,
            0,
            0,
        ];
        assert_eq!(written(0, 0, &arrivals), by_hand(0, 9, [0; 3], 0, &expected));
        // A run behind a vector, and a run behind a run.
        let mut arrivals = vec![None, tick(0, 1)];
        arrivals.extend([None; 12]);
        arrivals.extend([None; 8_191]);
        arrivals.extend([None; 20]);
        arrivals.push(tick(0, 2));
        let expected = [
            0b1001_0000,
            0,
            0x1f,
            0xff,
            0x80,
            0x01,
            0,
            0, // the last vector is of 14: 20 fill a run, and are left
        ];
        let packet = written(5, 0, &arrivals);
        assert_eq!(packet[20..24], expected[..4]);
        assert_eq!(packet[24..], [0, 20, 0x20, 1, 1, 1, 0, 0]);
        assert_eq!(packet.len() % 4, 0);
    }

    #[test]
    fn times_wrap_and_what_cannot_be_said_is_refused() {
        // 24 bits of 64 ms are 12 days.
        let arrivals = [Some(u32::MAX - 1), Some(1), Some(u32::MAX)];
        assert_eq!(
            written(u16::MAX, u8::MAX, &arrivals),
            by_hand(
                u16::MAX,
                3,
                [0xff; 3],
                0xff,
                &[0b1101_0110, 0, 254, 3, 0xff, 0xfe, 0, 0]
            )
        );
        for (next, is_said) in [
            (100_000 + 32_767, true),
            (100_000 + 32_768, false),
            (100_000 - 32_768, true),
            (100_000 - 32_769, false),
            (100_000 + (1 << 31), false),
        ] {
            let mut writer = FeedbackWriter::new(1);
            writer.begin(0);
            assert!(writer.push(Some(100_000)));
            assert_eq!(writer.push(Some(next)), is_said, "{next}");
            // Something else can still be said.
            assert!(writer.push(Some(if is_said { next } else { 100_001 })));
        }
    }

    #[test]
    fn a_full_packet_says_so_and_fits_any_path() {
        // The shape that takes most: every delta long, and no two alike beside each other.
        let shapes: [fn(u32) -> Option<u32>; 4] = [
            |_| Some(7),
            |index| Some(index * 300),
            |index| (index % 3 > 0).then_some(index * 300),
            |index| Some(index / 2 * 300),
        ];
        for shape in shapes {
            let mut writer = FeedbackWriter::new(1);
            writer.begin(0);
            let mut count = 0;
            while writer.push(shape(count)) {
                count += 1;
            }
            assert!(count > 400, "{count}");
            let len = writer.finish(2, 3).len();
            assert!(
                (1_100..=PREFIX_LEN + BYTES_MAX).contains(&len) && len.is_multiple_of(4),
                "{len}"
            );
        }
        // What has not come takes next to nothing, but is counted with 16 bits.
        let mut writer = FeedbackWriter::new(1);
        writer.begin(0);
        let count = (0..).take_while(|_| writer.push(None)).count();
        assert_eq!(count, usize::from(u16::MAX));
        assert!(!writer.has_arrivals());
    }
}
