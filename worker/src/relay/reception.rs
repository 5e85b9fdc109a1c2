//! How a stream is received: what report blocks say of it (RFC 3550 §6.4.1, appendix A).

use std::time::Duration;

use crate::page::layout::ReceptionRecord;
use crate::rtp::rtcp::ReportBlock;
use crate::time::{Time, in_65536ths, middle_of};

/// A distance between two packets' clocks that is no jitter: the sender's clock has jumped.
const JUMP_SECS: i64 = 5;

/// A faster clock than any codec's would only make numbers overflow.
const CLOCK_RATE_MAX: u32 = 10_000_000;

/// The longest time between two packets that is measured in ticks of the clock.
const GAP_MAX: Duration = Duration::from_secs(3_600);

/// How far before its first packet a stream may have begun.
pub const REORDERED_START_MAX: u32 = 64;

/// How one SSRC is received, from its first packet or its last restart on.
///
/// It describes the path, so a packet that was lost and then sent again is not counted: it stays lost.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Reception {
    /// Of the last packet.
    arrived: Time,
    timestamp: u64,
    /// The stream's count of restarts when this began; `None` before the first packet.
    timeline: Option<u32>,
    /// Sequence numbers with their cycles in the upper 16 bits.
    first: u32,
    newest: u32,
    received: u32,
    /// Times 16 (RFC 3550 appendix A.8).
    jitter: u32,
    payload_type: u8,
    fraction_lost: u8,
    /// At the last report.
    expected_before: u32,
    received_before: u32,
    /// When the sender's last report came.
    report_arrived: Option<Time>,
}

impl Reception {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: std::ops::Range<usize> = 0..std::mem::offset_of!(Self, fraction_lost);

    /// Goes on where another one was.
    pub fn resumed(kept: &ReceptionRecord) -> Self {
        Self {
            timeline: (kept.is_some != 0).then_some(kept.timeline),
            payload_type: kept.payload_type,
            first: kept.first,
            newest: kept.newest,
            received: kept.received,
            expected_before: kept.expected_before,
            received_before: kept.received_before,
            fraction_lost: kept.fraction_lost,
            arrived: Time(kept.arrived),
            timestamp: kept.timestamp,
            // A greater jitter than 32 bits hold is nobody's.
            jitter: kept.jitter.min(1 << 30),
            report_arrived: (kept.report_arrived != 0).then_some(Time(kept.report_arrived)),
        }
    }

    /// Where it is.
    pub fn kept(&self) -> ReceptionRecord {
        ReceptionRecord {
            first: self.first,
            newest: self.newest,
            received: self.received,
            expected_before: self.expected_before,
            received_before: self.received_before,
            jitter: self.jitter,
            arrived: self.arrived.0,
            timestamp: self.timestamp,
            report_arrived: self.report_arrived.map_or(0, |at| at.0),
            timeline: self.timeline.unwrap_or(0),
            payload_type: self.payload_type,
            fraction_lost: self.fraction_lost,
            is_some: u8::from(self.timeline.is_some()),
            spare: 0,
        }
    }

    /// Takes in a packet of the stream that was not seen before. `timeline` is another one after a restart.
    #[inline]
    pub fn on_packet(&mut self, now: Time, timeline: u32, payload_type: u8, seq: u16, timestamp: u64, clock_rate: u32) {
        if self.timeline != Some(timeline) {
            *self = Self {
                timeline: Some(timeline),
                payload_type,
                first: u32::from(seq),
                newest: u32::from(seq),
                received: 1,
                arrived: now,
                timestamp,
                fraction_lost: self.fraction_lost,
                ..Self::default()
            };
            return;
        }
        if !self.counts(seq) {
            return;
        }
        self.payload_type = payload_type;
        self.received = self.received.wrapping_add(1);
        let ahead = seq.wrapping_sub(self.newest as u16);
        if ahead < 1 << 15 {
            self.newest = self.newest.wrapping_add(u32::from(ahead));
        }
        // RFC 3550 appendix A.8, with a transit time that is never computed: only how it differs from packet to packet
        // matters, and that fits into any integer.
        let rate = i64::from(clock_rate.min(CLOCK_RATE_MAX));
        let gap_ns = now.since(self.arrived).min(GAP_MAX).as_nanos() as i64;
        let ticks = (gap_ns / 1_000) * rate / 1_000_000;
        let difference = ticks.wrapping_sub(timestamp.wrapping_sub(self.timestamp).cast_signed());
        self.arrived = now;
        self.timestamp = timestamp;
        if (-JUMP_SECS * rate..=JUMP_SECS * rate).contains(&difference) {
            let difference = difference.unsigned_abs() as u32;
            self.jitter = (self.jitter + difference) - ((self.jitter + 8) >> 4);
        }
    }

    /// Takes in a packet that had come before. RFC 3550 §6.4.1: it counts as received.
    #[inline]
    pub fn on_duplicate(&mut self, seq: u16) {
        if self.counts(seq) {
            self.received = self.received.wrapping_add(1);
        }
    }

    /// Whether a packet is of those that are counted. A start in another order than the sending reaches a few packets back;
    /// a straggler from further back is none of them, and would be a gain for ever.
    #[inline]
    fn counts(&mut self, seq: u16) -> bool {
        let ahead = seq.wrapping_sub(self.newest as u16).cast_signed();
        let ext = self.newest.wrapping_add_signed(i32::from(ahead));
        match self.first.wrapping_sub(ext) {
            1..=REORDERED_START_MAX => self.first = ext,
            before if before <= 1 << 15 && before > 0 => return false,
            _ => {}
        }
        true
    }

    /// The sender's report has come.
    pub fn on_sender_report(&mut self, now: Time) {
        self.report_arrived = Some(now);
    }

    /// The payload type of the last packet.
    pub fn payload_type(&self) -> Option<u8> {
        self.timeline.map(|_| self.payload_type)
    }

    /// Interarrival jitter in ticks of the clock.
    pub fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    /// Of the packets expected between the last two reports, how many were lost, in 1/256.
    pub fn fraction_lost(&self) -> u8 {
        self.fraction_lost
    }

    /// What there is to report, and begins the next interval; `None` when nothing has come since the last time (RFC 3550
    /// §6.4). `report` is the NTP time of the sender's last report.
    pub fn block(&mut self, now: Time, ssrc: u32, report: Option<u64>) -> Option<ReportBlock> {
        if self.received == self.received_before {
            return None;
        }
        // RFC 3550 appendix A.3.
        let expected = self.newest.wrapping_sub(self.first).wrapping_add(1);
        let lost = i64::from(expected) - i64::from(self.received);
        let expected_now = expected.wrapping_sub(self.expected_before);
        let lost_now = i64::from(expected_now) - i64::from(self.received.wrapping_sub(self.received_before));
        self.fraction_lost = if expected_now == 0 || lost_now <= 0 {
            0
        } else {
            ((lost_now << 8) / i64::from(expected_now)).min(255) as u8
        };
        self.expected_before = expected;
        self.received_before = self.received;
        let (last, delay) = match (report, self.report_arrived) {
            (Some(ntp), Some(arrived)) => (middle_of(ntp), in_65536ths(now.since(arrived))),
            _ => (0, 0),
        };
        Some(ReportBlock {
            ssrc,
            fraction_lost: self.fraction_lost,
            packets_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_seq: self.newest,
            jitter: self.jitter(),
            last_sender_report: last,
            delay_since_last_sender_report: delay,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 90_000;

    /// One packet each 20 ms of a clock of 90 kHz, of those that `arrives` lets through and as late as it says, in ms.
    fn received(seqs: std::ops::Range<u32>, arrives: impl Fn(u32) -> Option<u64>) -> Reception {
        let mut reception = Reception::default();
        for seq in seqs {
            if let Some(late) = arrives(seq) {
                let now = Time::from_millis(u64::from(seq) * 20 + late);
                reception.on_packet(now, 1, 96, seq as u16, u64::from(seq) * 1_800, RATE);
            }
        }
        reception
    }

    #[test]
    fn a_3_losses_in_all_and_since_the_last_report() {
        let mut reception = received(65_530..65_630, |seq| (seq % 4 != 0).then_some(0));
        // 65,532, .. 65,628: 25 lost of 100, and the first one lost is not the first.
        let block = reception.block(Time::from_millis(0), 7, None).unwrap();
        assert_eq!((block.ssrc, block.packets_lost, block.fraction_lost), (7, 25, 64));
        assert_eq!(block.highest_seq, (1 << 16) + 65_629 - 65_536);
        assert_eq!(
            reception.block(Time::from_millis(0), 7, None),
            None,
            "nothing has come since"
        );
        // One late packet is no loss any more, and the interval has none.
        reception.on_packet(Time::from_millis(0), 1, 96, 65_532, 0, RATE);
        let block = reception.block(Time::from_millis(0), 7, None).unwrap();
        assert_eq!((block.packets_lost, block.fraction_lost), (24, 0));
    }

    #[test]
    fn rfc3550_6_4_1_duplicates_make_losses_negative_and_24_bits_are_not_exceeded() {
        let mut reception = received(0..10, |_| Some(0));
        reception.on_duplicate(9);
        reception.on_duplicate(0);
        let block = reception.block(Time::default(), 7, None).unwrap();
        assert_eq!((block.packets_lost, block.fraction_lost), (-2, 0));
        assert_eq!(block.to_bytes()[4..8], [0, 0xff, 0xff, 0xfe]);

        (reception.received, reception.received_before) = (1, 0);
        (reception.newest, reception.expected_before) = (u32::MAX - 9, 0);
        let block = reception.block(Time::default(), 7, None).unwrap();
        assert_eq!(block.packets_lost, 0x7f_ffff);
        assert_eq!(block.to_bytes()[4..8], [255, 0x7f, 0xff, 0xff]);
        reception.first = reception.newest;
        reception.received = u32::MAX;
        let block = reception.block(Time::default(), 7, None).unwrap();
        assert_eq!(block.to_bytes()[4..8], [0, 0x80, 0, 0]);
    }

    #[test]
    fn a_8_jitter_is_in_ticks_and_converges_on_what_it_is() {
        assert_eq!(received(0..500, |_| Some(3)).jitter(), 0);
        // Every second packet is late by 5 ms: each differs from the one before by 450 ticks.
        let jitter = received(0..500, |seq| Some(u64::from(seq % 2) * 5)).jitter();
        assert!((445..=450).contains(&jitter), "{jitter}");
        // By hand: 0 + 450 − 0 = 450; 450 + 450 − 28 = 872. A sixteenth of that is reported.
        assert_eq!(received(0..3, |seq| Some(u64::from(seq % 2) * 5)).jitter(), 872 / 16);
    }

    #[test]
    fn jumps_and_long_silences_are_no_jitter_and_overflow_nothing() {
        let mut reception = received(0..100, |_| Some(0));
        for timestamp in [0, u64::MAX, 1 << 63, 5, 1 << 40] {
            reception.on_packet(Time(u64::MAX), 1, 96, 100, timestamp, u32::MAX);
            reception.on_packet(Time(0), 1, 96, 101, timestamp, 1);
        }
        assert!(reception.jitter() <= 1, "{}", reception.jitter());
    }

    #[test]
    fn a_restart_begins_anew() {
        let mut reception = received(0..100, |seq| (seq % 2 == 0).then_some(0));
        reception.block(Time::default(), 7, None).unwrap();
        reception.on_packet(Time::from_millis(9_000), 2, 96, 5_000, 77, RATE);
        let block = reception.block(Time::default(), 7, Some(1 << 32)).unwrap();
        assert_eq!(
            (block.highest_seq, block.packets_lost, block.last_sender_report),
            (5_000, 0, 0)
        );
    }

    #[test]
    fn rfc3550_6_4_1_lsr_and_dlsr() {
        let mut reception = received(0..2, |_| Some(0));
        reception.on_sender_report(Time::from_millis(1_000));
        let block = reception
            .block(Time::from_millis(6_250), 7, Some(0xb44d_b705_2000_0000))
            .unwrap();
        // RFC 3550 figure 2.
        assert_eq!(block.last_sender_report, 0xb705_2000);
        assert_eq!(block.delay_since_last_sender_report, 0x0005_4000);
    }
}
