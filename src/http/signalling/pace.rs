//! How fast a client's messages are read (pure): so many at once, then so many a second. The generic cell rate algorithm,
//! which keeps one moment and no counters.

use std::time::Duration;

use tokio::time::Instant;

/// A client's pace.
#[derive(Debug)]
pub(super) struct Pace {
    /// Between messages in the long run.
    interval: Duration,
    /// How far the messages read may be ahead of that.
    ahead: Duration,
    /// When the messages read so far would have been due.
    due: Instant,
}

impl Pace {
    pub(super) fn new(per_second: u32, at_once: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self {
            interval,
            ahead: interval * at_once.saturating_sub(1),
            due: now,
        }
    }

    /// When the next message may be read; in the past: now.
    pub(super) fn next(&self) -> Instant {
        self.due.checked_sub(self.ahead).unwrap_or(self.due)
    }

    /// Whether a message may be read now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next() <= now
    }

    /// A message has been read.
    pub(super) fn read(&mut self, now: Instant) {
        self.due = self.due.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_read_at_once_and_the_rest_at_the_pace() {
        let start = Instant::now() + Duration::from_secs(3_600);
        let mut pace = Pace::new(10, 5, start);
        for _ in 0..5 {
            assert!(pace.next() <= start);
            pace.read(start);
        }
        assert_eq!(pace.next(), start + Duration::from_millis(100));
        assert!(!pace.is_due(start + Duration::from_millis(99)));
        assert!(pace.is_due(start + Duration::from_millis(100)));
        let later = start + Duration::from_millis(100);
        pace.read(later);
        assert_eq!(pace.next(), later + Duration::from_millis(100));
        // Quiet for long enough, a burst again and no more.
        let much_later = later + Duration::from_secs(60);
        for _ in 0..5 {
            assert!(pace.next() <= much_later);
            pace.read(much_later);
        }
        assert!(pace.next() > much_later);
    }
}
