//! What the RTCP reports of one transport need: its schedule, its bitrate limit, and the reference times of both ends.

use crate::rtp::rtcp::xr::Delay;
use crate::time::{Time, in_65536ths, middle_of};

use super::echo::Echo;
use super::rtt::SentReports;

/// Reference times of receivers that wait to be answered, for each transport.
pub(super) const REFERENCES_MAX: usize = 4;

/// What is sent when there is no limit any more: more than anybody sends (a terabit a second), and so that no receiver's
/// arithmetic overflows.
const UNLIMITED_BPS: u64 = 1 << 40;

/// How often the end of a limit is sent. The one packet may be lost, and nothing else would say it.
const UNLIMITED_REPEATS: u8 = 3;

/// What a transport's reports need.
#[derive(Debug, Default)]
pub(super) struct TransportReports {
    /// The report has been begun, and the consumers before this one have had their part.
    pub(super) next_consumer: Option<usize>,
    /// What its senders may send in all, in bits per second.
    max_bitrate: Option<u64>,
    /// How often its senders are still to be sent the end of their limit.
    unlimited: u8,
    /// What its remote said that it can receive, in bits per second.
    pub(super) remote_bitrate: Option<u64>,
    /// Reference times sent.
    pub(super) references: SentReports,
    /// Reference times received, as (whose, the middle 32 bits of it, when it came).
    received_references: [Option<(u32, u32, Time)>; REFERENCES_MAX],
    /// Reports that were sent to an address of which nobody knows whether they arrive there.
    pub(super) echo: Option<Echo>,
    /// SSRCs of consumers that have left, and whose BYE is still to be sent.
    pub(super) left: Vec<u32>,
}

impl TransportReports {
    /// Limits what the senders may send in all, or ends that; whether this changes anything.
    pub(super) fn set_max_bitrate(&mut self, bitrate: Option<u64>) -> bool {
        let is_change = self.max_bitrate != bitrate;
        if is_change {
            self.max_bitrate = bitrate;
            self.unlimited = if bitrate.is_none() { UNLIMITED_REPEATS } else { 0 };
        }
        is_change
    }

    /// What the senders may send in all.
    pub(super) fn max_bitrate(&self) -> Option<u64> {
        self.max_bitrate
    }

    /// The limit to be sent with a report, if there is one, or if its end is still to be sent.
    pub(super) fn limit_to_send(&self) -> Option<u64> {
        self.max_bitrate.or((self.unlimited > 0).then_some(UNLIMITED_BPS))
    }

    /// The limit has been sent.
    pub(super) fn on_limit_sent(&mut self) {
        self.unlimited = self.unlimited.saturating_sub(1);
    }

    /// A receiver has sent its reference time (RFC 3611 §4.4). It is answered with the next report.
    pub(super) fn on_reference_time(&mut self, now: Time, ssrc: u32, ntp: u64) {
        let received = &mut self.received_references;
        let same = |entry: &Option<(u32, u32, Time)>| entry.is_some_and(|(other, ..)| other == ssrc);
        let place = received.iter().position(same);
        let place = place.or_else(|| received.iter().position(Option::is_none));
        if let Some(place) = place {
            received[place] = Some((ssrc, middle_of(ntp), now));
        }
    }

    /// The answers to the reference times that have come since the last report, and how many there are.
    pub(super) fn take_delays(&mut self, now: Time) -> ([Delay; REFERENCES_MAX], usize) {
        let mut delays = [Delay::default(); REFERENCES_MAX];
        let received = self.received_references.iter_mut().filter_map(Option::take);
        let mut count = 0;
        for ((ssrc, reference, at), delay) in received.zip(&mut delays) {
            *delay = Delay {
                ssrc,
                reference,
                since: in_65536ths(now.since(at)),
            };
            count += 1;
        }
        (delays, count)
    }
}
