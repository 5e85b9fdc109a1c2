//! When to ask a sender for a key frame: at most once a second and stream. What is asked in between is remembered, and what
//! nobody answers is asked again, less and less often, as long as somebody waits.

use std::time::Duration;

use crate::time::Time;

/// The least time between two requests to one stream (differences §2.9).
pub const INTERVAL: Duration = Duration::from_secs(1);

/// After how many intervals a request is repeated, by how often it was already. RTCP is lost like anything else (RFC 4585 §3.5
/// leaves repetition to the one that asks); but a sender that has not answered five has probably chosen not to.
const REPEATED_AFTER: [u32; 7] = [1, 1, 1, 1, 2, 3, 5];

/// The requests of one stream.
///
/// ```text
///   Idle ──request──▶ ask now, Blocked ──request──▶ Blocked, wanted
///     ▲                     │ interval over              │ interval over
///     ├── nobody waits ─────┤                            └──▶ ask now, Blocked
///     │                     │ somebody waits: for 1, 1, 1, 1, 2, 3, 5, 5, ... intervals
///     └── nobody waits ──── ask again
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyFramePacer {
    last: Option<Time>,
    wanted: bool,
    /// How often the last request was repeated.
    repeats: u8,
}

impl KeyFramePacer {
    /// Somebody needs a key frame who did not before: whether to ask now. If not, it is remembered.
    pub fn request(&mut self, now: Time) -> bool {
        self.repeats = 0;
        self.wanted = self.last.is_some_and(|last| now < last + INTERVAL);
        if !self.wanted {
            // Also serves what was remembered, if this comes before its timer.
            self.last = Some(now);
        }
        !self.wanted
    }

    /// Somebody still needs a key frame: whether to ask again now.
    pub fn repeat(&mut self, now: Time) -> bool {
        if self.wanted {
            return self.on_timer(now, true);
        }
        match self.last {
            Some(last) if now < last + self.patience() => return false,
            Some(_) => self.repeats = self.repeats.saturating_add(1),
            None => {}
        }
        self.last = Some(now);
        true
    }

    /// To be called at [`Self::next_timer`]: whether to ask now, for what was remembered or because somebody still waits.
    pub fn on_timer(&mut self, now: Time, is_awaited: bool) -> bool {
        if !self.wanted {
            return is_awaited && self.repeat(now);
        }
        if self.last.is_some_and(|last| now < last + INTERVAL) {
            return false;
        }
        self.wanted = false;
        self.last = Some(now);
        true
    }

    /// When to call [`Self::on_timer`] next, if there is something remembered or somebody waits. Never more than an interval
    /// away, so that a timer that is queued is always early enough for a new request.
    pub fn next_timer(&self, now: Time) -> Time {
        let Some(last) = self.last else { return now };
        let passed = now.since(last).as_nanos() / INTERVAL.as_nanos();
        last + INTERVAL * u32::try_from(passed + 1).unwrap_or(u32::MAX)
    }

    /// Goes on where another one was, which asked last then and has repeated that so often; `wanted`: a request was remembered.
    pub fn resumed(last: Option<Time>, wanted: bool, repeats: u8) -> Self {
        Self { last, wanted, repeats }
    }

    /// When it asked last, and how often it has repeated that.
    pub fn last(&self) -> (Option<Time>, u8) {
        (self.last, self.repeats)
    }

    /// Whether a request is remembered.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// A key frame has come: a request from before it is satisfied.
    pub fn on_key_frame(&mut self) {
        self.forget();
    }

    /// Forgets what was remembered.
    pub fn forget(&mut self) {
        self.wanted = false;
        self.repeats = 0;
    }

    /// How long an answer is waited for.
    fn patience(&self) -> Duration {
        let last = REPEATED_AFTER.len() - 1;
        INTERVAL * REPEATED_AFTER[usize::from(self.repeats).min(last)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn one_a_second_and_none_forgotten() {
        let mut pacer = KeyFramePacer::default();
        assert!(pacer.request(at(10)));
        assert_eq!(pacer.next_timer(at(10)), at(1_010));
        assert!(!pacer.request(at(20)));
        assert_eq!(pacer.next_timer(at(20)), at(1_010));
        assert!(!pacer.request(at(500)) && pacer.is_wanted());
        assert!(!pacer.on_timer(at(1_009), false));
        assert!(pacer.on_timer(at(1_010), false));
        assert!(!pacer.on_timer(at(2_010), false), "asked for once, sent once");
        assert!(pacer.request(at(2_010)));
    }

    #[test]
    fn a_request_that_overtakes_the_timer_serves_what_was_remembered() {
        let mut pacer = KeyFramePacer::default();
        assert!(pacer.request(at(0)));
        assert!(!pacer.request(at(500)));
        assert_eq!(pacer.next_timer(at(500)), at(1_000));
        assert!(pacer.request(at(1_200)));
        assert!(!pacer.on_timer(at(1_200), false));
        assert!(!pacer.request(at(1_500)));
        assert_eq!(pacer.next_timer(at(1_500)), at(2_200));
    }

    /// When it asks up to `end`, if its timer is kept as it says and somebody waits all the time.
    fn asks(pacer: &mut KeyFramePacer, mut now: Time, end: Time) -> Vec<u64> {
        let mut asked = vec![];
        while now <= end {
            if pacer.on_timer(now, true) {
                asked.push(now.since(Time::default()).as_millis() as u64);
            }
            let next = pacer.next_timer(now);
            assert!(next > now && next.since(now) <= INTERVAL);
            now = next;
        }
        asked
    }

    #[test]
    fn repeated_less_and_less_often_while_somebody_waits() {
        let mut pacer = KeyFramePacer::default();
        assert!(pacer.request(at(0)));
        let expected = [1_000, 2_000, 3_000, 4_000, 6_000, 9_000, 14_000, 19_000];
        assert_eq!(asks(&mut pacer, at(0), at(23_500)), expected);
        // Somebody new waits: from the beginning.
        assert!(pacer.request(at(24_700)));
        let expected = [25_700, 26_700, 27_700, 28_700];
        assert_eq!(asks(&mut pacer, at(25_000), at(29_500)), expected);
        // As with one whose request is remembered, and whatever comes.
        assert!(!pacer.request(at(29_600)));
        let expected = [29_700, 30_700, 31_700, 32_700, 33_700];
        assert_eq!(asks(&mut pacer, at(29_700), at(34_600)), expected);
        assert!(!pacer.repeat(at(35_600)) && !pacer.on_timer(at(99_000), false));
        assert!(pacer.repeat(at(99_000)));
        // A key frame has come, and somebody needs another one.
        pacer.on_key_frame();
        assert!(!pacer.repeat(at(99_500)));
        assert!(pacer.repeat(at(100_000)));
    }

    #[test]
    fn who_was_never_asked_is_asked_at_once() {
        let mut pacer = KeyFramePacer::default();
        assert_eq!(pacer.next_timer(at(7)), at(7));
        assert!(!pacer.on_timer(at(7), false));
        assert!(pacer.repeat(at(7)));
        assert!(!pacer.repeat(at(8)));
    }
}
