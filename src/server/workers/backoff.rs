//! How long to wait before a dead worker is replaced, and how often to try before its rooms are given up (pure).

use std::time::Duration;

/// The first wait, after a death that came soon after another.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait: a worker that dies at once whenever it is started costs a spawn in ten seconds.
const LONGEST: Duration = Duration::from_secs(10);

/// A worker that has served for so long, with all that its predecessor left, did not die of its start: its successor starts at once.
const STABLE: Duration = Duration::from_secs(1);

/// After so many processes in a row that did not live to serve, the rooms are given up: three seconds after the first of them.
const ATTEMPTS_MAX: u32 = 6;

/// No wait after the first death, then 100 ms, doubled with every further one up to 10 s; starts again when a worker has served
/// for a second.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            next: Duration::ZERO,
            failures: 0,
        }
    }

    /// How long to wait after the death of a worker that has served for `served`, if it ever did.
    pub(crate) fn after_death(&mut self, served: Option<Duration>) -> Duration {
        self.failures = match served {
            Some(_) => 0,
            None => self.failures.saturating_add(1),
        };
        if served.is_some_and(|served| served >= STABLE) {
            self.next = Duration::ZERO;
        }
        let wait = self.next;
        self.next = (wait * 2).clamp(FIRST, LONGEST);
        wait
    }

    /// Whether so many have died before they served that there is no hope for the rooms.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.failures >= ATTEMPTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_a_stable_life_resets_it() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..10)
            .map(|_| backoff.after_death(Some(Duration::from_millis(999))).as_millis())
            .collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        for _ in 0..3 {
            assert_eq!(backoff.after_death(Some(Duration::from_secs(1))).as_millis(), 0);
        }
        assert_eq!(backoff.after_death(None).as_millis(), 100);
    }

    #[test]
    fn there_is_hope_until_several_in_a_row_have_not_served() {
        let mut backoff = Backoff::new();
        backoff.after_death(Some(Duration::from_secs(1)));
        for _ in 1..ATTEMPTS_MAX {
            backoff.after_death(None);
            assert!(!backoff.is_hopeless());
        }
        backoff.after_death(None);
        assert!(backoff.is_hopeless());
        backoff.after_death(Some(Duration::ZERO));
        assert!(!backoff.is_hopeless());
    }
}
