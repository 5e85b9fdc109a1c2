//! When to let packets wait for others of their train.
//!
//! Under load trains form by themselves: while one turn works, the kernel queues the packets of the next. In between lies a
//! range where the worker is busy and yet wakes up for a packet or two; there a short wait makes trains, and saves the
//! calls into the kernel that cost most. Below that range nobody needs the saved time, above it there is nothing to wait
//! for.
//!
//! The wait is at most the window after the worker has seen the first packet, so no packet stays longer than a window more.

use std::time::Duration;

use weir_channel::message::WorkerError;

/// The longest window that can be set, in microseconds.
pub const WINDOW_US_MAX: u32 = 1_000;

/// The worker must be busy for this share of its time before packets wait, and half as much before they stop waiting: waiting
/// itself makes the worker less busy.
const BUSY_ON: f64 = 0.5;
const BUSY_OFF: f64 = 0.25;

/// Above this share the worker hardly waits for packets: its queues are never empty.
const BUSY_SATURATED: f64 = 0.95;

/// Packets that a receiving call brings on average, from which on trains are long enough: with 8, the cost of a call is
/// spread to an eighth (docs/kernel-costs.md).
const TRAIN_LONG: f64 = 8.0;

/// How long the averages look back: short enough to follow a load within a few frames of video.
const HALF_LIFE: Duration = Duration::from_millis(20);

/// The averages, and the decision.
#[derive(Clone, Debug)]
pub struct Window {
    max: Duration,
    busy: f64,
    train: f64,
    is_open: bool,
}

/// What one turn of the event loop was like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// How long it waited, for events and in the window.
    pub waited: Duration,
    /// How long it worked.
    pub worked: Duration,
    /// The number of calls that received packets.
    pub receive_calls: u64,
    /// Packets that they brought.
    pub packets: u64,
}

impl Window {
    /// A window that is switched off.
    pub const fn new() -> Self {
        Self {
            max: Duration::ZERO,
            busy: 0.0,
            train: 0.0,
            is_open: false,
        }
    }

    /// Sets the longest wait; 0 switches it off.
    ///
    /// # Errors
    /// [`WorkerError::InvalidParameters`] above [`WINDOW_US_MAX`].
    pub fn set_max(&mut self, window_us_max: u32) -> Result<(), WorkerError> {
        if window_us_max > WINDOW_US_MAX {
            return Err(WorkerError::invalid(format!(
                "a coalescing window of {window_us_max} µs; at most {WINDOW_US_MAX} are allowed"
            )));
        }
        self.max = Duration::from_micros(window_us_max.into());
        self.is_open = false;
        Ok(())
    }

    /// Takes a finished turn into account.
    pub fn on_turn(&mut self, turn: Turn) {
        if self.max.is_zero() {
            return;
        }
        let elapsed = turn.waited + turn.worked;
        let weight = 1.0 - (-elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64() * std::f64::consts::LN_2).exp();
        let share = turn.worked.as_secs_f64() / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        self.busy += (share - self.busy) * weight;
        if turn.receive_calls > 0 {
            let train = turn.packets as f64 / turn.receive_calls as f64;
            // By calls rather than by time: an average of trains, not of moments.
            self.train += (train - self.train) / 64.0;
        }
        let threshold = if self.is_open { BUSY_OFF } else { BUSY_ON };
        self.is_open = self.busy >= threshold && self.busy <= BUSY_SATURATED && self.train < TRAIN_LONG;
    }

    /// How long packets that are ready now should wait for others, if at all.
    pub fn wait(&self) -> Option<Duration> {
        (self.is_open && !self.max.is_zero()).then_some(self.max)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand turns of 100 µs each.
    fn window_after(busy_percent: u64, packets_per_call: u64) -> Window {
        let mut window = Window::new();
        window.set_max(200).unwrap();
        run(&mut window, busy_percent, packets_per_call);
        window
    }

    fn run(window: &mut Window, busy_percent: u64, packets_per_call: u64) {
        for _ in 0..1_000 {
            window.on_turn(Turn {
                waited: Duration::from_micros(100 - busy_percent),
                worked: Duration::from_micros(busy_percent),
                receive_calls: 2,
                packets: 2 * packets_per_call,
            });
        }
    }

    #[test]
    fn packets_wait_only_between_the_thresholds_and_for_short_trains() {
        let wait = Some(Duration::from_micros(200));
        for (busy_percent, packets_per_call, expected) in [
            (10, 1, None),
            (45, 1, None),
            (60, 1, wait),
            (90, 1, wait),
            (100, 1, None),
            (60, 6, wait),
            (60, 10, None),
        ] {
            let window = window_after(busy_percent, packets_per_call);
            assert_eq!(
                window.wait(),
                expected,
                "{busy_percent} % busy, {packets_per_call} packets per call"
            );
        }
    }

    #[test]
    fn it_closes_later_than_it_opens() {
        let mut window = window_after(60, 1);
        run(&mut window, 30, 1);
        assert!(window.wait().is_some());
        run(&mut window, 20, 1);
        assert!(window.wait().is_none());
        run(&mut window, 30, 1);
        assert!(window.wait().is_none());
    }

    #[test]
    fn zero_is_off_and_too_long_is_refused() {
        let mut window = window_after(60, 1);
        window.set_max(0).unwrap();
        assert_eq!(window.wait(), None);
        run(&mut window, 60, 1);
        assert_eq!(window.wait(), None);
        window.set_max(WINDOW_US_MAX).unwrap();
        let error = window.set_max(WINDOW_US_MAX + 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a coalescing window of 1001 µs; at most 1000 are allowed"
        );
        run(&mut window, 60, 1);
        assert_eq!(window.wait(), Some(Duration::from_millis(1)));
    }
}
