//! How long a packet takes to the other end and back.

use std::time::Duration;

use crate::time::{Time, middle_of};

/// Until something is measured (differences §2.10, §3.12).
pub const DEFAULT: Duration = Duration::from_millis(100);

/// A longer round trip is a mistake of the other end, or of somebody who wants us to wait.
const MAX: Duration = Duration::from_secs(5);

/// A smoothed round-trip time, as TCP's: each measurement counts an eighth (RFC 6298 §2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
}

impl RoundTrip {
    /// Takes a measurement in.
    pub fn measured(&mut self, sample: Duration) {
        let sample = sample.min(MAX);
        self.smoothed = Some(match self.smoothed {
            None => sample,
            Some(smoothed) => (smoothed * 7 + sample) / 8,
        });
    }

    /// What it is, if anything was measured.
    pub fn known(self) -> Option<Duration> {
        self.smoothed
    }

    /// What to reckon with.
    pub fn estimate(self) -> Duration {
        self.smoothed.unwrap_or(DEFAULT)
    }

    /// As the counters have it.
    pub fn micros(self) -> Option<u32> {
        self.smoothed
            .map(|smoothed| u32::try_from(smoothed.as_micros()).unwrap_or(u32::MAX))
    }
}

/// Reports that an answer may refer to. They are half a second apart at least, and one that is answered after more than
/// two seconds measures nothing that is of use.
const ANSWERABLE: usize = 4;

/// By how much rounding may make the other end's delay longer than a very short round trip.
const ROUNDING_MAX: Duration = Duration::from_millis(1);

/// When the last few reports with an NTP time were sent. An answer to a report that was never sent is so recognised, and
/// the round trip is measured by our own clock, also while the wall clock is set.
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

    /// Whether one of the last few reports has this time, as somebody repeats it who has reckoned with it meanwhile.
    pub fn contain(&self, report: u32) -> bool {
        self.sent.iter().any(|(ntp, _)| ntp.abs_diff(report) <= 1)
    }

    /// The round trip, by an answer that has just come: it names the report, and how long the other end has kept
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
        Some(there_and_back.saturating_sub(kept)).filter(|round_trip| *round_trip <= MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_measurement_counts_whole_and_later_ones_an_eighth() {
        let mut rtt = RoundTrip::default();
        assert_eq!((rtt.known(), rtt.estimate()), (None, DEFAULT));
        rtt.measured(Duration::from_millis(8));
        assert_eq!(rtt.micros(), Some(8_000));
        rtt.measured(Duration::from_millis(16));
        assert_eq!(rtt.micros(), Some(9_000));
        rtt.measured(Duration::from_secs(3_600));
        assert!(rtt.estimate() < Duration::from_secs(1));
    }

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
}
