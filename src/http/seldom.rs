//! Log lines about what strangers can cause: one a second.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::server::lock;

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// Says when a line may be logged.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: Option<Instant>,
    since_last: u64,
}

impl Seldom {
    /// If a line may be logged now: how many were not since the last one.
    pub(super) fn line(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.0);
        if state.next.is_some_and(|next| now < next) {
            state.since_last += 1;
            return None;
        }
        state.next = Some(now + INTERVAL);
        Some(std::mem::take(&mut state.since_last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_there_were() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        assert_eq!(
            (seldom.line(now), seldom.line(now), seldom.line(now)),
            (Some(0), None, None)
        );
        assert_eq!(seldom.line(now + INTERVAL), Some(2));
        assert_eq!(seldom.line(now + 3 * INTERVAL), Some(0));
    }
}
