//! The time that a stream's sender says it is: its latest sender report that is believed.

use std::time::Duration;

use crate::time::Time;

use super::sender_clock::distance_of;

/// A sender's clock is not set forward by a day from one report to the next, nor are two of its streams a day apart.
const ABSURD: Duration = Duration::from_secs(86_400);

/// A report that took so much longer than the one before was overtaken, or its sender's clock was set back.
const LATE: Duration = Duration::from_secs(1);

/// So many doubtful reports in a row are true: the clock was set.
const DOUBTFUL_BELIEVED: u8 = 3;

/// What a sender report says of time: the same instant on three clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TimeReport {
    /// The sender's: NTP time in 32.32 seconds.
    pub ntp: u64,
    /// The media's: the extended RTP timestamp.
    pub timestamp: u64,
    /// Ours, later by what the report took to get here.
    pub arrived: Time,
}

/// What the sender reports of one stream say of time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SenderTime {
    /// The newest report that has a time; `None` also if the newest of all has none.
    pub report: Option<TimeReport>,
    /// What the newest report of all has for an NTP time, which reports back name it by.
    pub newest_ntp: Option<u64>,
    /// Reports in a row whose time is far from what it should be.
    doubtful: u8,
}

impl SenderTime {
    /// Takes in a report. Returns whether its time is believed. `timestamp` is its RTP timestamp, extended.
    ///
    /// A sender without a wall clock says 0 (RFC 3550 §6.4.1), which is no time: its streams are placed by their arrival then. Nor
    /// is it a time if it is a day ahead of the last one or comes late, until three reports in a row say so: then the clock was
    /// set. One late report, believed, would put sound and picture apart by as much as it is late.
    pub(super) fn on_report(&mut self, now: Time, ntp: u64, timestamp: u64) -> bool {
        self.newest_ntp = Some(ntp);
        if ntp == 0 {
            self.forget();
            return false;
        }
        let is_doubtful = |last: TimeReport| {
            let later_by = distance_of(now, ntp) - distance_of(last.arrived, last.ntp);
            let limit = if later_by > 0 { LATE } else { ABSURD };
            u128::from(later_by.unsigned_abs()) >= limit.as_nanos()
        };
        if self.report.is_some_and(is_doubtful) {
            self.doubtful += 1;
            if self.doubtful < DOUBTFUL_BELIEVED {
                return false;
            }
        }
        self.doubtful = 0;
        self.report = Some(TimeReport {
            ntp,
            timestamp,
            arrived: now,
        });
        true
    }

    /// What was said of the time means nothing any more.
    pub(super) fn forget(&mut self) {
        self.report = None;
        self.doubtful = 0;
    }
}
