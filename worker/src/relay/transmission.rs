//! How a consumer's stream is sent, and how it arrives: what its sender reports say, and what its receiver answers.

use crate::rtp::rtcp::ReportBlock;
use crate::time::Time;

use super::producer::Producer;
use super::rtt::{RoundTrip, SentReports};

/// How one consumer's stream is sent, and how it arrives.
#[derive(Debug)]
pub struct Transmission {
    /// The canonical name of the endpoint whose media it is, as it was given or made up.
    cname: Box<str>,
    /// Nobody has given it.
    is_made_up: bool,
    /// Packets sent when the last two reports were made.
    packets_before: [u64; 2],
    reports: SentReports,
    last_report: LastReport,
}

/// What the receiver has said last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastReport {
    /// Packets lost on the path to it, since the beginning.
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
            packets_before: [0; 2],
            reports: SentReports::default(),
            last_report: LastReport::default(),
        }
    }

    /// Goes on where the receiver has last reported so many packets lost.
    pub(super) fn resume(&mut self, packets_lost: i32) {
        self.last_report.packets_lost = packets_lost;
    }

    /// The canonical name that the stream goes by, and its retransmissions with it: what was given, else what the sender says,
    /// by which receivers tie sound and picture together (RFC 3550 §6.5.1), also through another relay.
    pub(super) fn cname<'a>(&'a self, producer: &'a Producer) -> &'a str {
        let said = if self.is_made_up { producer.cname() } else { None };
        said.unwrap_or(&self.cname)
    }

    /// Whether it is a sender now, and so sends sender reports: it has sent something since the report before the last
    /// one (RFC 3550 §6.4). `packets`: sent so far. Begins the next interval.
    pub fn is_sender(&mut self, packets: u64) -> bool {
        let [before, last] = self.packets_before;
        self.packets_before = [last, packets];
        packets != before
    }

    /// Packets sent when the last report was made.
    pub(super) fn packets_before(&self) -> u64 {
        self.packets_before[1]
    }

    /// A sender report has been sent.
    pub fn on_report_sent(&mut self, now: Time, ntp: u64) {
        self.reports.on_sent(now, ntp);
    }

    /// Whether one of the last few sender reports has this time.
    pub fn has_reported(&self, time: u32) -> bool {
        self.reports.contain(time)
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
    fn rfc3550_6_4_a_sender_has_sent_since_the_report_before_the_last() {
        let mut transmission = Transmission::new("x", false);
        let senders = [0, 5, 5, 5, 6].map(|packets| transmission.is_sender(packets));
        assert_eq!(senders, [false, true, true, false, true]);
    }
}
