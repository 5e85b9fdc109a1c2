//! Time as the core sees it: a number that somebody hands in.

pub mod wheel;

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in nanoseconds of the machine's monotonic clock (in tests: of a virtual one).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// The time this many milliseconds after the clock's zero.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The wall clock, by what it read at one time of ours.
///
/// NTP times are 32.32 fixed point seconds since 1900, as RTCP carries them (RFC 3550 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WallClock {
    at: Time,
    ntp: u64,
}

/// From 1900 to 1970.
const NTP_SECONDS_OF_1970: u64 = 2_208_988_800;

impl WallClock {
    /// The wall clock reads `unix_ns`, nanoseconds since 1970, at the time `at`.
    pub const fn new(at: Time, unix_ns: u64) -> Self {
        let seconds = (unix_ns / 1_000_000_000 + NTP_SECONDS_OF_1970) << 32; // eras of 136 years begin at 0 again
        let fraction = ((unix_ns % 1_000_000_000) << 32) / 1_000_000_000;
        Self {
            at,
            ntp: seconds | fraction,
        }
    }

    /// The NTP time at a time of ours, before or after the one at which the clock was read.
    pub const fn ntp(self, time: Time) -> u64 {
        let after = ntp_of_ns(time.0.saturating_sub(self.at.0));
        let before = ntp_of_ns(self.at.0.saturating_sub(time.0));
        self.ntp.wrapping_add(after).wrapping_sub(before)
    }
}

/// A span of time in 32.32 fixed point seconds.
const fn ntp_of_ns(ns: u64) -> u64 {
    let fraction = ((ns % 1_000_000_000) << 32) / 1_000_000_000;
    ((ns / 1_000_000_000) << 32) | fraction
}

/// The middle 32 bits of an NTP time: 16.16 fixed point seconds, as reports refer to each other with (RFC 3550 §6.4.1).
pub const fn middle_of(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A span of time in 1/65536 seconds; what 32 bits cannot say is as much as they can.
pub fn in_65536ths(span: Duration) -> u32 {
    u32::try_from(span.as_nanos() * 65_536 / 1_000_000_000).unwrap_or(u32::MAX)
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_nanos() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_times_count_from_1900_in_fractions_of_two_to_the_32() {
        // 2020-01-01T00:00:00.5Z.
        let clock = WallClock::new(Time::from_millis(10_000), 1_577_836_800_500_000_000);
        let then = 3_786_825_600 << 32 | 0x8000_0000;
        assert_eq!(clock.ntp(Time::from_millis(10_000)), then);
        assert_eq!(clock.ntp(Time::from_millis(11_250)), then + (1 << 32) + (1 << 30));
        assert_eq!(clock.ntp(Time::from_millis(8_500)), then - (1 << 32) - (1 << 31));
        // The first era ends in 2036, and the next one begins at zero.
        let end_of_era = WallClock::new(Time(0), ((1 << 32) - NTP_SECONDS_OF_1970) * 1_000_000_000);
        assert_eq!(end_of_era.ntp(Time::from_millis(250)), 1 << 30);
    }

    #[test]
    fn reports_refer_to_each_other_in_16_16() {
        assert_eq!(middle_of(0x1122_3344_5566_7788), 0x3344_5566);
        assert_eq!(in_65536ths(Duration::from_millis(1_500)), 98_304);
        assert_eq!(in_65536ths(Duration::MAX), u32::MAX);
    }
}
