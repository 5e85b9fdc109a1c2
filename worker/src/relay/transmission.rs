//! How a consumer's stream is sent, and how it arrives: what its sender reports say, and what its receiver answers.

use std::time::Duration;

use crate::rtp::rtcp::ReportBlock;
use crate::time::{Time, middle_of};

use super::producer::Producer;
use super::rtt::RoundTrip;

/// Reports that an answer may refer to. They are half a second apart at least, and one that is answered after more than
/// two seconds measures nothing that is of use.
const ANSWERABLE: usize = 4;

/// A longer way there and back is a mistake of the other end.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

/// What rounding of the other end's delay may make of a very short way.
const ROUNDING_MAX: Duration = Duration::from_millis(1);

/// When the last few reports with an NTP time were sent, so that answers to them can be told from inventions, and the way
/// there and back be measured by our own clock, also while the wall clock is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct SentReports {
    /// The middle 32 bits of their NTP times; 0: none.
    sent: [(u32, Time); ANSWERABLE],
    next: u8,
}

impl SentReports {
    /// A report has been sent.
    pub fn on_sent(&mut self, now: Time, ntp: u64) {
        self.sent[usize::from(self.next)] = (middle_of(ntp), now);
        self.next = (self.next + 1) % ANSWERABLE as u8;
    }

    /// The way there and back, by an answer that has just come: it names the report, and how long the other end has kept
    /// it, in 1/65536 seconds (RFC 3550 §6.4.1, RFC 3611 §4.5). `None` for a report that was never sent, or long ago, and
    /// for an answer that makes no sense.
    pub fn round_trip(&self, now: Time, report: u32, kept: u32) -> Option<Duration> {
        if report == 0 {
            return None;
        }
        let (_, sent) = self.sent.iter().find(|(ntp, _)| *ntp == report)?;
        let there_and_back = now.since(*sent);
        let kept = Duration::from_nanos((u64::from(kept) * 1_000_000_000) >> 16);
        if kept > there_and_back + ROUNDING_MAX {
            return None;
        }
        Some(there_and_back.saturating_sub(kept)).filter(|way| *way <= ROUND_TRIP_MAX)
    }
}

/// Of one consumer.
#[derive(Debug)]
pub struct Transmission {
    /// The canonical name of the endpoint whose media it is, as it was given or made up.
    cname: Box<str>,
    /// Nobody has given it.
    is_made_up: bool,
    /// Packets sent under the media's SSRC, also those that were sent again. What the socket had taken and lost after all is
    /// lost like what the network loses: these counters never go back.
    pub packets: u64,
    /// Their payload bytes, without padding.
    pub octets: u64,
    /// The producer's payload type of the packet sent last; 255: none was sent.
    pub payload_type: u8,
    /// Packets sent when the last two reports were made.
    packets_before: [u64; 2],
    reports: SentReports,
    last_report: LastReport,
}

/// What the receiver has said last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastReport {
    /// Lost on the way to it, since the beginning.
    pub packets_lost: i32,
    /// Of the packets between its last two reports, in 1/256.
    pub fraction_lost: u8,
    /// In units of the RTP clock.
    pub jitter: u32,
}

impl Transmission {
    /// Nothing was sent yet.
    pub fn new(cname: &str, is_made_up: bool) -> Self {
        Self {
            cname: cname.into(),
            is_made_up,
            packets: 0,
            octets: 0,
            payload_type: u8::MAX,
            packets_before: [0; 2],
            reports: SentReports::default(),
            last_report: LastReport::default(),
        }
    }

    /// The canonical name that the stream goes by, and its retransmissions with it: what was given, else what the sender says,
    /// by which receivers tie sound and picture together (RFC 3550 §6.5.1), also through another relay.
    pub(super) fn cname<'a>(&'a self, producer: &'a Producer) -> &'a str {
        let said = if self.is_made_up { producer.cname() } else { None };
        said.unwrap_or(&self.cname)
    }

    /// Whether it is a sender at the moment, who reports as one: it has sent something since the report before the last
    /// one (RFC 3550 §6.4). Begins the next interval.
    pub fn is_sender(&mut self) -> bool {
        let [before, last] = self.packets_before;
        self.packets_before = [last, self.packets];
        self.packets != before
    }

    /// A sender report has been sent.
    pub fn on_report_sent(&mut self, now: Time, ntp: u64) {
        self.reports.on_sent(now, ntp);
    }

    /// The receiver reports.
    pub fn on_block(&mut self, now: Time, block: &ReportBlock, round_trip: &mut RoundTrip) {
        self.last_report = LastReport {
            packets_lost: block.packets_lost,
            fraction_lost: block.fraction_lost,
            jitter: block.jitter,
        };
        let (report, kept) = (block.last_sender_report, block.delay_since_last_sender_report);
        if let Some(way) = self.reports.round_trip(now, report, kept) {
            round_trip.measured(way);
        }
    }

    /// What the receiver has said last.
    pub fn last_report(&self) -> LastReport {
        self.last_report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3550_figure_2_round_trip() {
        // Sent at b705:2000, answered with a delay of 5.25 s, back at b710:8000: 6.125 s after.
        let mut reports = SentReports::default();
        let sent = Time::from_millis(100_000);
        reports.on_sent(sent, 0xb44d_b705_2000_0000);
        let now = sent + Duration::from_millis(11_375);
        let answer = |now, delay| reports.round_trip(now, 0xb705_2000, delay);
        // The RFC's 6.125 s are longer than what is believed here; of a delay of 11 s, 375 ms are.
        assert_eq!(answer(now, 0x0005_4000), None);
        assert_eq!(answer(now, 11 << 16), Some(Duration::from_millis(375)));
    }

    #[test]
    fn what_was_not_sent_or_makes_no_sense_measures_nothing() {
        let mut reports = SentReports::default();
        let sent = Time::from_millis(1_000);
        let now = Time::from_millis(1_100);
        assert_eq!(reports.round_trip(now, 0, 0), None);
        reports.on_sent(sent, 7 << 16);
        assert_eq!(reports.round_trip(now, 0, 0), None, "no report was received");
        assert_eq!(reports.round_trip(now, 8, 0), None);
        assert_eq!(
            reports.round_trip(now, 7, 6_554),
            Some(Duration::ZERO),
            "a little more than 100 ms"
        );
        assert_eq!(reports.round_trip(now, 7, 6_700), None, "longer than ago");
        assert_eq!(reports.round_trip(now, 7, u32::MAX), None);
        for ntp in 0..ANSWERABLE as u64 {
            reports.on_sent(now, ntp << 32);
        }
        assert_eq!(reports.round_trip(now, 7, 0), None, "forgotten");
    }

    #[test]
    fn rfc3550_6_4_a_sender_has_sent_since_the_report_before_the_last() {
        let mut transmission = Transmission::new("x", false);
        let senders = [0, 5, 5, 5, 6].map(|packets| {
            transmission.packets = packets;
            transmission.is_sender()
        });
        assert_eq!(senders, [false, true, true, false, true]);
    }
}
