//! Bytes in all, and bits per second over the last second, without a timer.

use std::time::Duration;

use crate::time::Time;

const WINDOW: Duration = Duration::from_secs(1);

/// Bytes in all, and two windows of a second each: the one that fills, and the one before, of which a share still counts. What every
/// packet needs comes first.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Rate {
    /// When the window began that fills.
    start: Time,
    total: u64,
    /// The total when it began.
    total_at_start: u64,
    previous: u64,
}

impl Rate {
    /// So much was added before, by another worker.
    pub fn resumed(total: u64) -> Self {
        Self {
            total,
            total_at_start: total,
            ..Self::default()
        }
    }

    /// What every packet needs is in so many of its first bytes.
    pub(super) const HOT_BYTES: usize = std::mem::offset_of!(Self, total_at_start);

    /// Counts bytes.
    #[inline]
    pub fn add(&mut self, now: Time, bytes: u64) {
        if now.since(self.start) >= WINDOW {
            self.turn(now);
        }
        self.total += bytes;
    }

    /// Bits per second.
    pub fn bitrate(mut self, now: Time) -> u64 {
        if now.since(self.start) >= WINDOW {
            self.turn(now);
        }
        let elapsed_ms = now.since(self.start).as_millis() as u64;
        let previous_share = self.previous * (1_000 - elapsed_ms.min(1_000)) / 1_000;
        (self.current() + previous_share) * 8
    }

    /// All bytes so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn current(&self) -> u64 {
        self.total - self.total_at_start
    }

    /// Starts a window. The grid is kept while packets flow, so that a window is a whole second.
    fn turn(&mut self, now: Time) {
        let next = self.start + WINDOW;
        if now.since(next) < WINDOW && self.start != Time::default() {
            self.previous = self.current();
            self.start = next;
        } else {
            self.previous = 0;
            self.start = now;
        }
        self.total_at_start = self.total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_flow_reads_as_its_rate() {
        let mut rate = Rate::default();
        for ms in 1..=5_000 {
            rate.add(Time::from_millis(ms), 125); // 1 Mbit/s
        }
        let bitrate = rate.bitrate(Time::from_millis(5_000));
        assert!((990_000..=1_010_000).contains(&bitrate), "{bitrate}");
    }

    #[test]
    fn silence_reads_as_zero() {
        let mut rate = Rate::default();
        rate.add(Time::from_millis(1), 1_000_000);
        assert_eq!(rate.bitrate(Time::from_millis(1)), 8_000_000);
        assert_eq!(rate.bitrate(Time::from_millis(2_500)), 0);
    }
}
