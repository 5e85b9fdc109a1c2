//! When to ask a sender for a key frame: at most once a second and stream; what is asked in between is remembered.

use std::time::Duration;

use crate::time::Time;

/// The least time between two requests to one stream (spec §2.9).
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The requests of one stream.
///
/// ```text
///   Idle ──request──▶ ask now, Blocked ──request──▶ Blocked, wanted
///     ▲                     │ interval over              │ interval over
///     └─────────────────────┘                            └──▶ ask now, Blocked
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyFramePacer {
    last: Option<Time>,
    wanted: bool,
}

/// What to do about a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Ask the sender.
    Now,
    /// Call [`KeyFramePacer::on_timer`] at this time.
    At(Time),
    /// It is remembered already.
    Remembered,
}

impl KeyFramePacer {
    /// Somebody needs a key frame.
    pub fn request(&mut self, now: Time) -> Pace {
        match self.last {
            Some(last) if now < last + INTERVAL => {
                if self.wanted {
                    return Pace::Remembered;
                }
                self.wanted = true;
                Pace::At(last + INTERVAL)
            }
            _ => {
                // Also serves what was remembered, if this comes before its timer.
                self.wanted = false;
                self.last = Some(now);
                Pace::Now
            }
        }
    }

    /// The block is over: whether to ask now for what was remembered.
    pub fn on_timer(&mut self, now: Time) -> bool {
        if !self.wanted || self.last.is_some_and(|last| now < last + INTERVAL) {
            return false;
        }
        self.wanted = false;
        self.last = Some(now);
        true
    }

    /// A key frame has come: a request from before it is satisfied.
    pub fn on_key_frame(&mut self) {
        self.wanted = false;
    }

    /// Forgets what was remembered.
    pub fn forget(&mut self) {
        self.wanted = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_and_none_forgotten() {
        let mut pacer = KeyFramePacer::default();
        assert_eq!(pacer.request(Time::from_millis(10)), Pace::Now);
        assert_eq!(pacer.request(Time::from_millis(20)), Pace::At(Time::from_millis(1_010)));
        assert_eq!(pacer.request(Time::from_millis(500)), Pace::Remembered);
        assert!(!pacer.on_timer(Time::from_millis(1_009)));
        assert!(pacer.on_timer(Time::from_millis(1_010)));
        assert!(!pacer.on_timer(Time::from_millis(2_010)), "asked for once, sent once");
        assert_eq!(pacer.request(Time::from_millis(2_010)), Pace::Now);
    }

    #[test]
    fn a_request_that_overtakes_the_timer_serves_what_was_remembered() {
        let mut pacer = KeyFramePacer::default();
        assert_eq!(pacer.request(Time::from_millis(0)), Pace::Now);
        assert_eq!(
            pacer.request(Time::from_millis(500)),
            Pace::At(Time::from_millis(1_000))
        );
        assert_eq!(pacer.request(Time::from_millis(1_200)), Pace::Now);
        assert!(!pacer.on_timer(Time::from_millis(1_200)));
        assert_eq!(
            pacer.request(Time::from_millis(1_500)),
            Pace::At(Time::from_millis(2_200))
        );
    }
}
