//! The worker's time as the DTLS library wants it.

use std::time::{Duration, Instant};

use crate::time::Time;

/// Translates between moments of the worker's clock and the library's. It reads no clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// A translation in which `instant` is the worker's `time`.
    ///
    /// An instant cannot be made from a number, so whoever reads clocks reads both once, one after the other. If the
    /// instant lies less than `time` after the zero of its own clock, it stands for the worker's zero instead; the error
    /// is then the same for all moments, and timers only need their distances.
    pub fn new(instant: Instant, time: Time) -> Self {
        let zero = instant.checked_sub(Duration::from_nanos(time.0)).unwrap_or(instant);
        Self { zero }
    }

    /// The library's moment.
    pub fn instant(&self, time: Time) -> Instant {
        self.zero + Duration::from_nanos(time.0)
    }

    /// The worker's moment.
    pub fn time(&self, instant: Instant) -> Time {
        let nanos = instant.saturating_duration_since(self.zero).as_nanos();
        Time(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
impl Clock {
    /// A clock that starts at any moment: tests move its time themselves.
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant to count from; nothing depends on which"
    )]
    pub(crate) fn virtual_time() -> Self {
        Self::new(Instant::now(), Time(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let clock = Clock::virtual_time();
        for time in [Time(0), Time(1), Time::from_millis(123_456_789)] {
            assert_eq!(clock.time(clock.instant(time)), time);
        }
        let later = Clock::new(clock.instant(Time(500)), Time(500));
        assert_eq!(later.instant(Time(7)), clock.instant(Time(7)));
        assert_eq!(clock.time(clock.zero - Duration::from_nanos(1)), Time(0));
    }
}
