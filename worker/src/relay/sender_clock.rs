//! Where a sender's clock stands on ours, so that what it sends together stays together.
//!
//! A receiver plays audio and video of one sender in sync by their sender reports: each says which RTP timestamp belongs
//! to which NTP time, on a clock that all streams of the sender share. The relay sends receivers its own wall clock's time
//! in place of the sender's, so it must know the distance between the two clocks. What it can measure is when a report
//! arrives, which is later than it was sent by whatever the network takes; and if each stream were placed by its own
//! reports, the jitter between an audio report and a video report would become an offset between sound and picture.
//!
//! **The rule**: all streams of one producing endpoint (the same CNAME in one room) are placed with the same distance. It
//! follows the fastest reports, since nothing arrives before it was sent, and it is moved by at most 500 µs a second, which
//! is more than clocks drift apart and less than anybody sees or hears. Two streams' reports are at most 1.5 s apart, so
//! they agree within a millisecond. (docs/decisions/0013-sender-reports.md)

use std::collections::BTreeMap;
use std::time::Duration;

use slotmap::{SlotMap, new_key_type};
use weir_channel::id::RoomId;

use crate::time::Time;

new_key_type! {
    /// A clock that streams share.
    pub struct ClockKey;
}

/// How fast the distance may change: as fast as clocks that are kept by NTP are slewed at most (RFC 5905, 500 ppm).
const SLEW_PPM: i64 = 500;

/// The fastest report of so long, or of as long before, counts. Reports come every 5 s at least, clocks drift apart by
/// less than a millisecond in that time.
const WINDOW: Duration = Duration::from_secs(10);

/// Reports so far from the others are from another clock, or from one that was set.
const STEP_NS: i64 = 1_000_000_000;

/// So many late reports in a row are not late: the sender's clock was set back.
const STEPS_BELIEVED: u8 = 3;

/// A sender's clock is not set forward by a day from one report to the next, nor are two of its streams a day apart.
const ABSURD: Duration = Duration::from_secs(86_400);

/// A report that took so much longer than the one before was overtaken, or its sender's clock was set back.
const LATE: Duration = Duration::from_secs(1);

/// So many doubtful reports in a row are true: the clock was set.
const DOUBTFUL_BELIEVED: u8 = 3;

/// The distance between a sender's clock and ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderClock {
    anchor: Option<Anchor>,
    /// Reports in a row that came later than the clock would have it, by more than a step.
    late: u8,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    /// Our time less the sender's, in nanoseconds.
    distance: i64,
    moved: Time,
    /// The least that was measured since `window`, and in the window before.
    least: i64,
    least_before: i64,
    window: Time,
}

/// How far our clock is from the sender's by one report: when it arrived, less when it says that it was sent.
pub fn distance_of(arrived: Time, ntp: u64) -> i64 {
    arrived.0.cast_signed() - ns_of_ntp(ntp)
}

/// A sender's NTP time in nanoseconds.
fn ns_of_ntp(ntp: u64) -> i64 {
    let seconds = (ntp >> 32).cast_signed();
    let fraction = ((ntp & 0xffff_ffff) * 1_000_000_000) >> 32;
    seconds * 1_000_000_000 + fraction.cast_signed()
}

/// How long after a report was sent it is now, at a distance between the clocks, in nanoseconds. Negative when the report
/// came faster than those by which the distance was measured.
pub fn since_report(now: Time, ntp: u64, distance: i64) -> i64 {
    distance_of(now, ntp) - distance
}

impl SenderClock {
    /// Takes a report in that was sent at `ntp` of the sender's clock and has just arrived.
    pub fn on_report(&mut self, now: Time, ntp: u64) {
        let measured = distance_of(now, ntp);
        let Some(anchor) = &mut self.anchor else {
            return self.begin(now, measured);
        };
        let error = measured - anchor.distance;
        if error > STEP_NS {
            self.late += 1;
            if self.late >= STEPS_BELIEVED {
                self.begin(now, measured);
            }
            return;
        }
        if error < -STEP_NS {
            return self.begin(now, measured);
        }
        self.late = 0;
        if now.since(anchor.window) >= WINDOW {
            anchor.least_before = anchor.least;
            anchor.least = measured;
            anchor.window = now;
        }
        anchor.least = anchor.least.min(measured);
        let way = anchor.least.min(anchor.least_before) - anchor.distance;
        let elapsed_us = now.since(anchor.moved).as_micros().min(1_000_000_000) as i64;
        let step_max = elapsed_us * SLEW_PPM / 1_000;
        anchor.distance += way.clamp(-step_max, step_max);
        anchor.moved = now;
    }

    fn begin(&mut self, now: Time, distance: i64) {
        self.late = 0;
        self.anchor = Some(Anchor {
            distance,
            moved: now,
            least: distance,
            least_before: distance,
            window: now,
        });
    }

    /// The distance to place a stream with whose own latest report says `own`: the shared one, unless the stream's clock
    /// is another one (some senders give each stream its own), or was set just now.
    pub fn distance_for(&self, own: i64) -> i64 {
        self.anchor
            .map(|anchor| anchor.distance)
            .filter(|distance| (distance - own).abs() <= STEP_NS)
            .unwrap_or(own)
    }
}

/// The clocks of all producing endpoints, each by its room and CNAME.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    clocks: SlotMap<ClockKey, Shared>,
    of_name: BTreeMap<(RoomId, Box<str>), ClockKey>,
}

#[derive(Debug)]
struct Shared {
    clock: SenderClock,
    producers: u32,
    name: (RoomId, Box<str>),
}

impl Clocks {
    /// The clock of an endpoint, which one more producer shares from now on.
    pub(super) fn join(&mut self, room: RoomId, cname: &str) -> ClockKey {
        let name = (room, Box::from(cname));
        let key = match self.of_name.get(&name) {
            Some(key) => *key,
            None => {
                let key = self.clocks.insert(Shared {
                    clock: SenderClock::default(),
                    producers: 0,
                    name: name.clone(),
                });
                self.of_name.insert(name, key);
                key
            }
        };
        self.clocks[key].producers += 1;
        key
    }

    /// One producer less.
    pub(super) fn leave(&mut self, key: ClockKey) {
        let Some(shared) = self.clocks.get_mut(key) else {
            return;
        };
        shared.producers -= 1;
        if shared.producers == 0
            && let Some(shared) = self.clocks.remove(key)
        {
            self.of_name.remove(&shared.name);
        }
    }

    pub(super) fn get(&self, key: Option<ClockKey>) -> Option<&SenderClock> {
        self.clocks.get(key?).map(|shared| &shared.clock)
    }

    pub(super) fn get_mut(&mut self, key: Option<ClockKey>) -> Option<&mut SenderClock> {
        self.clocks.get_mut(key?).map(|shared| &mut shared.clock)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;

    /// The sender's NTP time at a time of ours, for a clock that runs `ahead_ms` before ours.
    fn ntp(sent_ms: u64, ahead_ms: u64) -> u64 {
        let ms = sent_ms + ahead_ms;
        ntp_of(ms * 1_000_000)
    }

    fn ntp_of(ns: u64) -> u64 {
        let fraction = ((ns % 1_000_000_000) << 32) / 1_000_000_000;
        ((ns / 1_000_000_000) << 32) | fraction
    }

    /// Reports each second, each of which takes so many milliseconds.
    fn reported(clock: &mut SenderClock, from_s: u64, delays_ms: impl IntoIterator<Item = u64>, ahead_ms: u64) -> u64 {
        let mut at = from_s;
        for delay in delays_ms {
            at += 1;
            clock.on_report(Time::from_millis(at * 1_000 + delay), ntp(at * 1_000, ahead_ms));
        }
        at
    }

    fn distance_ms(clock: &SenderClock) -> i64 {
        clock.anchor.unwrap().distance / 1_000_000
    }

    #[test]
    fn jitter_moves_it_by_half_a_millisecond_a_second_at_most() {
        let mut clock = SenderClock::default();
        let mut at = reported(&mut clock, 10, [80], 5_000);
        assert_eq!(distance_ms(&clock), -4_920);
        let mut before = clock.anchor.unwrap().distance;
        for delay in [30, 200, 20, 900, 25, 60, 20, 20] {
            at = reported(&mut clock, at, [delay], 5_000);
            let distance = clock.anchor.unwrap().distance;
            assert!(
                (-600_000 * 2..=0).contains(&(distance - before)),
                "{}",
                distance - before
            );
            before = distance;
        }
        // In the end it is where the fastest reports say.
        reported(&mut clock, at, std::iter::repeat_n(20, 200), 5_000);
        assert!((distance_ms(&clock) + 4_980).abs() <= 1, "{}", distance_ms(&clock));
    }

    #[test]
    fn drift_is_followed() {
        let mut clock = SenderClock::default();
        for second in 0..3_600 {
            // The sender's clock is slow by 200 parts in a million.
            let sent_ns = second * 1_000_000_000u64;
            let senders_ns = sent_ns - sent_ns / 5_000;
            let delay_ns = 10_000_000 + second * 7_919 % 50 * 1_000_000;
            clock.on_report(Time(sent_ns + delay_ns), ntp_of(senders_ns));
        }
        let expected = 3_600 * SECOND_NS / 5_000 + 10_000_000;
        let error = clock.anchor.unwrap().distance - expected;
        assert!(error.abs() < 10_000_000, "{error}");
    }

    #[test]
    fn a_clock_that_is_set_is_believed_forwards_at_once_and_backwards_after_three() {
        let mut clock = SenderClock::default();
        let at = reported(&mut clock, 10, [10, 10], 60_000);
        let at = reported(&mut clock, at, [10], 70_000);
        assert_eq!(distance_ms(&clock), -69_990);
        let at = reported(&mut clock, at, [10, 10], 60_000);
        assert_eq!(distance_ms(&clock), -69_990);
        reported(&mut clock, at, [10], 60_000);
        assert_eq!(distance_ms(&clock), -59_990);
    }

    #[test]
    fn a_stream_with_a_clock_of_its_own_is_placed_by_it() {
        let mut clock = SenderClock::default();
        let own = distance_of(Time::from_millis(11_010), ntp(11_000, 0));
        assert_eq!(clock.distance_for(own), own);
        reported(&mut clock, 10, [20], 500);
        assert_eq!(clock.distance_for(own), clock.anchor.unwrap().distance);
        assert_eq!(clock.distance_for(own + 2 * SECOND_NS), own + 2 * SECOND_NS);
    }

    #[test]
    fn endpoints_share_a_clock_by_room_and_name_while_they_live() {
        let mut clocks = Clocks::default();
        let (a, b) = (clocks.join(RoomId(1), "x"), clocks.join(RoomId(1), "x"));
        assert_eq!(a, b);
        assert_ne!(a, clocks.join(RoomId(2), "x"));
        assert_ne!(a, clocks.join(RoomId(1), "y"));
        clocks.leave(a);
        assert!(clocks.get(Some(a)).is_some());
        clocks.leave(a);
        assert!(clocks.get(Some(a)).is_none());
        assert_eq!((clocks.clocks.len(), clocks.of_name.len()), (2, 2));
    }
}
