//! When to let packets wait for others.
//!
//! Each time the worker wakes up costs it microseconds, whether one packet has come or fifty, and packets of one stream that
//! are read together leave as one train. Under full load packets gather by themselves, while a turn works. Below that they
//! gather if turns begin a *window* apart: not sooner than this time after the turn before has begun. So a packet after a silence is
//! relayed at once, no packet waits longer than the window, and there is no wait where turns take longer than that anyway.

use std::time::Duration;

use weir_channel::message::{Coalescing, WorkerError};

use crate::time::Time;

/// Packets that must be expected in a window before it opens, and the number below which it closes.
const GATHERED_ON: f64 = 4.0;
const GATHERED_OFF: f64 = 2.0;

/// Packets to a turn that are enough: the costs of a turn are spread to a thirtieth. Where they come in less time than the longest
/// window, the window is shorter.
const GATHERED_ENOUGH: f64 = 32.0;

/// The worker must work for this share of its time before packets wait: nobody needs the time of a worker that has little to do.
const BUSY_ON: f64 = 0.25;
const BUSY_OFF: f64 = 0.1;

/// How long the averages look back: short enough to follow a load within a few frames of video.
const HALF_LIFE: Duration = Duration::from_millis(20);

/// The averages, and the decision.
#[derive(Clone, Debug, Default)]
pub struct Window {
    max: Duration,
    /// The share of the time in which the worker works.
    busy: f64,
    /// Packets per second that it receives.
    rate: f64,
    is_open: bool,
}

/// What one turn of the event loop was like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// How long it waited, for events and in the window.
    pub waited: Duration,
    /// How long it worked.
    pub worked: Duration,
    /// Packets that it received.
    pub packets: u64,
}

impl Window {
    /// A window of at most so many microseconds; 0 switches it off.
    ///
    /// # Errors
    /// [`WorkerError::InvalidParameters`] above [`Coalescing::WINDOW_US_MAX`].
    pub fn with_max(window_us_max: u32) -> Result<Self, WorkerError> {
        if window_us_max > Coalescing::WINDOW_US_MAX {
            return Err(WorkerError::invalid(format!(
                "a coalescing window of {window_us_max} µs; at most {} are allowed",
                Coalescing::WINDOW_US_MAX
            )));
        }
        Ok(Self {
            max: Duration::from_micros(window_us_max.into()),
            ..Self::default()
        })
    }

    /// Takes a finished turn into account.
    pub fn on_turn(&mut self, turn: Turn) {
        if self.max.is_zero() {
            return;
        }
        let elapsed = (turn.waited + turn.worked).as_secs_f64().max(1e-9);
        let weight = 1.0 - (-elapsed / HALF_LIFE.as_secs_f64()).exp2();
        self.busy += (turn.worked.as_secs_f64() / elapsed - self.busy) * weight;
        self.rate += (turn.packets as f64 / elapsed - self.rate) * weight;
        let gathered = self.rate * self.max.as_secs_f64();
        self.is_open = match self.is_open {
            true => gathered >= GATHERED_OFF && self.busy >= BUSY_OFF,
            false => gathered >= GATHERED_ON && self.busy >= BUSY_ON,
        };
    }

    /// When the next turn should begin, if one that began at `began` should not be followed at once.
    pub fn next_turn(&self, began: Time) -> Option<Time> {
        let enough = Duration::try_from_secs_f64(GATHERED_ENOUGH / self.rate).unwrap_or(self.max);
        (self.is_open && !self.max.is_zero()).then(|| began + self.max.min(enough))
    }
}
