//! How much a worker may say (pure): buckets that fill with time and that words empty.
//!
//! Nobody trusts a worker: what it says costs the supervisor CPU, disk and the attention of whoever reads its log and its
//! events. A worker that does as it should stays far below what stands here (`docs/decisions/0032-what-a-worker-may-say.md`).

use std::time::Duration;

use tokio::time::Instant;

use crate::server::model::state::Served;

/// How much at once, and how much more every second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rate {
    pub(crate) at_once: u64,
    pub(crate) per_second: u64,
}

/// Bytes of log lines, and of what is written to standard error: each has its own. A line costs
/// [`LINE_COST`] more than its text.
pub(crate) const LOG: Rate = Rate {
    at_once: 768 << 10,
    per_second: 192 << 10,
};

/// What the supervisor writes around a line's text, at most: time, level, target and the worker's number.
pub(crate) const LINE_COST: u64 = 128;

/// Bytes of log lines that are read and thrown away, before the worker is replaced. No debugging makes a worker that does
/// as it should say so much: it has no more than 256 KiB of lines in its queue, and serves packets in between.
pub(crate) const LOG_THROWN_AWAY: Rate = Rate {
    at_once: 256 << 20,
    per_second: 16 << 20,
};

/// Bytes on standard error that are read and thrown away, before the worker is replaced. What a worker writes there by itself is
/// a panic: one that ends it, or contained ones, which it stops telling of.
pub(crate) const STDERR_THROWN_AWAY: Rate = Rate {
    at_once: 8 << 20,
    per_second: 192 << 10,
};

/// Notifications that are read and thrown away, before the worker is replaced.
pub(crate) const NOTIFICATIONS_THROWN_AWAY: Rate = Rate {
    at_once: 50_000,
    per_second: 100,
};

/// How many notifications are due to a worker that serves so much. The worker itself tells of no transport more than some
/// 20 times a second (its ICE state and its selected pair, 10 times each), of no room more than twice, of a consumer's
/// profile 10 times, however often clients change it, and of a producer some 4 times (whether it sends, and under which SSRC).
pub(crate) fn notifications(served: Served) -> Rate {
    let [transports, rooms, streams] = [served.transports, served.rooms, served.streams].map(|count| count as u64);
    Rate {
        at_once: 1_000 + 100 * transports + 20 * (rooms + streams),
        per_second: 100 + 40 * transports + 5 * rooms + 15 * streams,
    }
}

/// A bucket. It begins full.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    left: f64,
    filled_at: Option<Instant>,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            left: rate.at_once as f64,
            filled_at: None,
        }
    }

    /// The bucket is of another size from now on; what it gains in size, it gains in content.
    fn resize(&mut self, rate: Rate) {
        self.left += rate.at_once.saturating_sub(self.rate.at_once) as f64;
        self.rate = rate;
    }

    /// Takes so much, if there is so much.
    fn take(&mut self, now: Instant, cost: u64) -> bool {
        let since = self.filled_at.replace(now).unwrap_or(now);
        let gained = now.saturating_duration_since(since).as_secs_f64() * self.rate.per_second as f64;
        // Not less than there was: see `Allowance::excuse`.
        self.left = (self.left + gained).min(self.left.max(self.rate.at_once as f64));
        let taken = self.left >= cost as f64;
        if taken {
            self.left -= cost as f64;
        }
        taken
    }
}

/// What becomes of something that was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is heard.
    Hear,
    /// It is thrown away, and counted.
    ThrowAway,
    /// It is thrown away, and it was the last straw.
    Enough,
}

/// What of one kind a worker may say, and how much more is borne.
#[derive(Debug)]
pub(crate) struct Allowance {
    heard: Bucket,
    /// `None`: any number.
    thrown_away: Option<Bucket>,
    unreported: u64,
    reported_at: Option<Instant>,
    /// What was said in this time is due, too, until the given moment.
    excused: Option<(Duration, Instant)>,
}

/// What was said while nobody listened is read in this time.
const EXCUSED_FOR: Duration = Duration::from_secs(10);

/// The number of things thrown away is reported this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Allowance {
    pub(crate) fn new(heard: Rate, thrown_away: Option<Rate>) -> Self {
        Self {
            heard: Bucket::new(heard),
            thrown_away: thrown_away.map(Bucket::new),
            unreported: 0,
            reported_at: None,
            excused: None,
        }
    }

    /// Decides about something of this cost. `heard` says how much is due now; it is asked only when there seems to be too
    /// little.
    pub(crate) fn judge(&mut self, now: Instant, cost: u64, heard: impl FnOnce() -> Rate) -> Verdict {
        if self.heard.take(now, cost) {
            return Verdict::Hear;
        }
        self.heard.resize(heard());
        if let Some((stopped, until)) = self.excused.take()
            && now < until
        {
            self.heard.left += stopped.as_secs_f64() * self.heard.rate.per_second as f64;
        }
        if self.heard.take(now, cost) {
            return Verdict::Hear;
        }
        self.unreported += 1;
        let borne = self.thrown_away.as_mut().is_none_or(|bucket| bucket.take(now, cost));
        if borne { Verdict::ThrowAway } else { Verdict::Enough }
    }

    /// The supervisor did not run for so long, and hears only now what was said meanwhile.
    pub(crate) fn excuse(&mut self, now: Instant, stopped: Duration) {
        self.excused = Some((stopped, now + EXCUSED_FOR));
    }

    /// How much was thrown away since the last time, if it is time to say so: at once, and then once a second.
    pub(crate) fn report(&mut self, now: Instant) -> Option<u64> {
        let is_due = self
            .reported_at
            .is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL);
        if self.unreported == 0 || !is_due {
            return None;
        }
        self.reported_at = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        at_once: 10,
        per_second: 4,
    };

    /// How many of `tries` are heard, thrown away, and too much.
    fn judged(allowance: &mut Allowance, now: Instant, rate: Rate, tries: usize) -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..tries {
            counts[allowance.judge(now, 1, || rate) as usize] += 1;
        }
        counts
    }

    #[test]
    fn what_is_too_much_is_thrown_away_and_what_goes_on_is_enough() {
        let start = Instant::now();
        let mut allowance = Allowance::new(RATE, Some(RATE));
        assert_eq!(judged(&mut allowance, start, RATE, 10), [10, 0, 0]);
        let half = start + Duration::from_millis(500);
        assert_eq!(judged(&mut allowance, half, RATE, 5), [2, 3, 0]);
        assert_eq!(judged(&mut allowance, half, RATE, 8), [0, 7, 1]);
        // After a while of silence all is as before.
        assert_eq!(
            judged(&mut allowance, start + Duration::from_secs(60), RATE, 20),
            [10, 10, 0]
        );
        let mut patient = Allowance::new(RATE, None);
        assert_eq!(judged(&mut patient, start, RATE, 1_000), [10, 990, 0]);
    }

    #[test]
    fn the_number_thrown_away_is_reported_at_once_and_then_every_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(RATE, None);
        assert_eq!(allowance.report(start), None);
        judged(&mut allowance, start, RATE, 13);
        assert_eq!(allowance.report(start), Some(3));
        judged(&mut allowance, start, RATE, 5);
        assert_eq!(allowance.report(start + Duration::from_millis(999)), None);
        assert_eq!(allowance.report(start + REPORT_INTERVAL), Some(5));
        assert_eq!(allowance.report(start + Duration::from_secs(60)), None);
    }

    #[test]
    fn what_was_said_while_the_supervisor_did_not_run_is_due_too() {
        let start = Instant::now();
        let mut allowance = Allowance::new(RATE, None);
        judged(&mut allowance, start, RATE, 10);
        let later = start + Duration::from_secs(100);
        allowance.excuse(later, Duration::from_secs(100));
        assert_eq!(judged(&mut allowance, later, RATE, 420)[0], 10 + 4 * 100);
        // Once, and not long afterwards.
        allowance.excuse(later, Duration::from_secs(100));
        assert_eq!(judged(&mut allowance, later + EXCUSED_FOR, RATE, 420)[0], 10);
    }

    #[test]
    fn a_worker_that_serves_more_may_say_more_at_once() {
        let start = Instant::now();
        let little = notifications(Served::default());
        let mut allowance = Allowance::new(little, None);
        let rate = notifications(Served {
            streams: 10_000,
            ..Served::default()
        });
        // All of 10,000 consumers get another profile, and once more, and a producer falls silent.
        assert_eq!(judged(&mut allowance, start, rate, 20_001), [20_001, 0, 0]);
        // They are gone, and what was saved with them.
        assert_eq!(
            judged(&mut allowance, start + Duration::from_secs(3_600), little, 201_001)[0],
            201_000
        );
        assert_eq!(
            judged(&mut allowance, start + Duration::from_secs(7_200), little, 1_001)[0],
            1_000
        );
    }
}
