//! How long a packet takes to the other end and back.

use std::time::Duration;

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
}
