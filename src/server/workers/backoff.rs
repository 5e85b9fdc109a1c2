//! How long to wait before a dead worker is replaced (pure).

use std::time::Duration;

/// The first wait: short, because most deaths are single.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait: a worker that dies at once whenever it is started costs a spawn in ten seconds.
const LONGEST: Duration = Duration::from_secs(10);

/// A worker that has lived this long did not die of its start.
const STABLE: Duration = Duration::from_secs(60);

/// Doubles the wait with every death, from 100 ms to 10 s; starts again after a life of a minute.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// How long to wait after the death of a worker that has lived for `lived`.
    pub(crate) fn after_death(&mut self, lived: Duration) -> Duration {
        if lived >= STABLE {
            self.next = FIRST;
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_a_stable_life_resets_it() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..9)
            .map(|_| backoff.after_death(Duration::from_secs(59)).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(backoff.after_death(Duration::from_secs(60)).as_millis(), 100);
        assert_eq!(backoff.after_death(Duration::ZERO).as_millis(), 200);
    }
}
