//! How many datagrams a receive batch may bring.

use std::time::Duration;

use crate::net::receive::SLOTS;

/// One batch should not take longer than this to relay, whatever the fan-out. A batch of 32 trains to 5,000 consumers
/// takes half a second; in 20 ms a sixteenth of a second of audio is not even late.
const BATCH_TIME_MAX: Duration = Duration::from_millis(20);

/// The datagrams that a batch may bring: fewer after one that took too long, and more again after some that were quick.
#[derive(Debug)]
pub(super) struct BatchLimit(usize);

impl BatchLimit {
    /// As many as there is room for.
    pub(super) fn new() -> Self {
        Self(SLOTS)
    }

    /// The limit.
    pub(super) fn get(&self) -> usize {
        self.0
    }

    /// A batch of so many packets took so long. How long media takes, only one shows that was media for the most part: what is dropped
    /// is quick, and the next batch may be what was slow.
    pub(super) fn on_batch(&mut self, took: Duration, packets: u64, accepted: u64) {
        if took > BATCH_TIME_MAX {
            self.0 = (self.0 / 2).max(1);
        } else if self.0 < SLOTS && took < BATCH_TIME_MAX / 4 && accepted > 0 && accepted >= packets / 2 {
            self.0 = (self.0 * 2).min(SLOTS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_when_they_are_slow_and_grow_when_media_is_quick() {
        let (slow, quick) = (Duration::from_millis(30), Duration::from_millis(1));
        let mut limit = BatchLimit::new();
        for _ in 0..20 {
            limit.on_batch(slow, 32, 32);
        }
        assert_eq!(limit.get(), 1);
        // Garbage, nothing at all, and a packet in a lot of garbage.
        for (packets, accepted) in [(32, 0), (0, 0), (32, 1)] {
            limit.on_batch(quick, packets, accepted);
            assert_eq!(limit.get(), 1);
        }
        limit.on_batch(Duration::from_millis(10), 1, 1);
        assert_eq!(limit.get(), 1);
        for _ in 0..20 {
            limit.on_batch(quick, 1, 1);
        }
        assert_eq!(limit.get(), SLOTS);
        // Garbage that is slow makes them smaller, too.
        limit.on_batch(slow, 32, 0);
        assert_eq!(limit.get(), SLOTS / 2);
    }
}
