//! Whether to look for packets a little longer before going to sleep.
//!
//! A CPU that sleeps needs time to wake up: tens of microseconds on many machines, more on virtual ones. A worker that looks again and
//! again instead relays what comes in that time at once. This costs the CPU's whole time, so it is only done while packets come soon
//! enough for it.

use std::time::Duration;

use weir_channel::message::{Coalescing, WorkerError};

/// The share of waits that ended in time, from which on it spins, and below which it stops.
const IN_TIME_ON: f64 = 0.6;
const IN_TIME_OFF: f64 = 0.4;

/// How many waits the share looks back on.
const WAITS: f64 = 32.0;

/// How long to spin, and whether it is worth it.
#[derive(Clone, Debug, Default)]
pub struct Spin {
    max: Duration,
    in_time: f64,
    is_worth_it: bool,
}

impl Spin {
    /// Spins for at most so many microseconds; 0 switches it off.
    ///
    /// # Errors
    /// [`WorkerError::InvalidParameters`] above [`Coalescing::SPIN_US_MAX`].
    pub fn with_max(spin_us_max: u32) -> Result<Self, WorkerError> {
        if spin_us_max > Coalescing::SPIN_US_MAX {
            return Err(WorkerError::invalid(format!(
                "spinning for {spin_us_max} µs; at most {} are allowed",
                Coalescing::SPIN_US_MAX
            )));
        }
        Ok(Self {
            max: Duration::from_micros(spin_us_max.into()),
            ..Self::default()
        })
    }

    /// Takes into account how long a wait took that began with nothing to do.
    pub fn on_wait(&mut self, took: Duration) {
        let in_time = if took <= self.max { 1.0 } else { 0.0 };
        self.in_time += (in_time - self.in_time) / WAITS;
        let threshold = if self.is_worth_it { IN_TIME_OFF } else { IN_TIME_ON };
        self.is_worth_it = self.in_time >= threshold;
    }

    /// How long to look before going to sleep, if at all.
    pub fn duration(&self) -> Option<Duration> {
        (self.is_worth_it && !self.max.is_zero()).then_some(self.max)
    }
}
