//! Time in which this process itself ran.
//!
//! Who waits for another process's answer until a deadline blames that process for what may be its own doing: it was stopped
//! (SIGSTOP, a paused virtual machine), or others had its CPU, and the answer has come long ago. So the time between two
//! looks at the clock counts only as far as a process that runs would have let pass between them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// A clock that a process must look at, or it does not go on.
///
/// ```
/// use std::time::Duration;
/// use tokio::time::Instant;
/// use weir_channel::own_time::OwnTime;
///
/// let start = Instant::now();
/// let mut own = OwnTime::new(start, Duration::from_secs(5));
/// own.look(start + own.step());
/// // Stopped for an hour.
/// let now = own.look(start + Duration::from_secs(3_600));
/// assert_eq!(now, 3 * own.step());
/// ```
#[derive(Clone, Debug)]
pub struct OwnTime {
    step: Duration,
    last_look: Instant,
    passed: Duration,
}

impl OwnTime {
    /// The longest step. Short enough that a process that gets a turn now and then is not charged for much more than its
    /// turns, long enough to cost nothing.
    const STEP_MAX: Duration = Duration::from_millis(100);

    /// A clock that says zero, for waits of `shortest` or longer.
    pub fn new(now: Instant, shortest: Duration) -> Self {
        Self {
            step: (shortest / 8).clamp(Duration::from_millis(1), Self::STEP_MAX),
            last_look: now,
            passed: Duration::ZERO,
        }
    }

    /// A clock that says zero, of who looks at it every `step` at least, however long that is.
    pub fn in_steps(now: Instant, step: Duration) -> Self {
        Self {
            step,
            last_look: now,
            passed: Duration::ZERO,
        }
    }

    /// How often to look, as long as somebody waits.
    pub fn step(&self) -> Duration {
        self.step
    }

    /// What it said at the last look.
    pub fn passed(&self) -> Duration {
        self.passed
    }

    /// What it would say now.
    pub fn at(&self, now: Instant) -> Duration {
        // Twice the step: timers and schedulers are not exact, and time that did pass shall count.
        self.passed + now.saturating_duration_since(self.last_look).min(2 * self.step)
    }

    /// What it says now, and goes on from.
    pub fn look(&mut self, now: Instant) -> Duration {
        self.passed = self.at(now);
        self.last_look = now;
        self.passed
    }
}

/// Waits for `future` as long as `timeout` of this task's own time; `None` when that is over. What `future` waits for may have
/// come all the same: it was not polled again since.
pub async fn within_own_time<F: Future>(timeout: Duration, future: F) -> Option<F::Output> {
    let mut own = OwnTime::new(Instant::now(), timeout);
    let mut future = std::pin::pin!(future);
    let mut passed = Duration::ZERO;
    while passed < timeout {
        tokio::select! {
            biased;
            output = &mut future => return Some(output),
            () = sleep(own.step().min(timeout - passed)) => passed = own.look(Instant::now()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    #[test]
    fn time_between_two_looks_counts_up_to_a_bound() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut own = OwnTime::new(start, ms(5_000));
        assert_eq!((own.step(), own.look(start)), (ms(100), ms(0)));
        let mut now = start;
        for (passes, says) in [
            (100, 100),
            (101, 201),
            (199, 400),
            (7_000, 600),
            (0, 600),
            (3_600_000, 800),
            (1, 801),
        ] {
            now += ms(passes);
            assert_eq!(own.at(now), ms(says));
            assert_eq!(own.look(now), ms(says), "after {passes} ms");
        }
        let pings = Duration::from_secs(10);
        let mut of_pings = OwnTime::in_steps(start, pings);
        assert_eq!((of_pings.step(), of_pings.look(start + pings)), (pings, pings));
        // Stopped for an hour.
        assert_eq!(of_pings.look(start + ms(3_600_000)), 3 * pings);
        // A clock that goes back is none of ours.
        assert_eq!(own.look(start), ms(801));
        assert_eq!(OwnTime::new(start, ms(10)).step(), Duration::from_micros(1_250));
        assert_eq!(OwnTime::new(start, ms(0)).step(), ms(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_as_long_as_it_should_be_and_a_stop_does_not_shorten_it() {
        let began = Instant::now();
        let never = std::future::pending::<()>();
        assert_eq!(within_own_time(Duration::from_secs(5), never).await, None);
        assert!(
            (5_000..5_200).contains(&began.elapsed().as_millis()),
            "{:?}",
            began.elapsed()
        );

        let waiting = tokio::spawn(within_own_time(
            Duration::from_secs(5),
            sleep(Duration::from_secs(3_604)),
        ));
        tokio::task::yield_now().await;
        advance(Duration::from_secs(3_600)).await;
        let waited = timeout(Duration::from_secs(60), waiting).await;
        assert_eq!(waited.expect("it ends").expect("it does not panic"), Some(()));
    }
}
