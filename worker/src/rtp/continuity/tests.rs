//! Rows of packets and what is made of them; no clock but the one that the rows move.

use super::Verdict::{Clock, Displaced, Fits, Hold, Passed, Refuse, Restart};
use super::*;

const RATE: u32 = 48_000;

/// A stream of packets 20 ms and 960 ticks apart, and its judge; nothing that is late has come before.
struct Judged {
    continuity: Continuity,
    newest: Option<u16>,
    now: Time,
}

impl Judged {
    /// After so many packets, of which the newest has this number and this timestamp.
    fn after(packets: u16, seq: u16, timestamp: u32) -> Self {
        let mut judged = Self {
            continuity: Continuity::default(),
            newest: None,
            now: Time::from_millis(10_000),
        };
        for back in (0..packets).rev() {
            let verdict = judged.see(
                seq.wrapping_sub(back),
                timestamp.wrapping_sub(u32::from(back) * 960),
                Known::New,
            );
            assert_eq!(verdict, Fits);
        }
        judged
    }

    fn see(&mut self, seq: u16, timestamp: u32, known: Known) -> Verdict {
        self.now = self.now + Duration::from_millis(20);
        let packet = PacketTiming {
            seq,
            timestamp,
            at: self.now,
        };
        let verdict = self.continuity.judge(packet, self.newest, RATE, || known);
        let is_newer = self.newest.is_none_or(|newest| distance(newest, seq) > 0);
        match verdict {
            Fits | Passed if is_newer => self.newest = Some(seq),
            Restart | Clock(_) => self.newest = Some(seq),
            _ => {}
        }
        verdict
    }

    /// Verdicts on packets (number, timestamp) of which nothing is known.
    fn check(mut self, rows: &[(u16, u32, Verdict)]) {
        for (place, (seq, timestamp, verdict)) in rows.iter().enumerate() {
            assert_eq!(self.see(*seq, *timestamp, Known::New), *verdict, "row {place}");
        }
    }
}

#[test]
fn what_goes_on_fits_over_both_wraps() {
    let judged = Judged::after(50, 65_535, 0u32.wrapping_sub(100));
    judged.check(&[
        (0, 860, Fits),
        // Lost, late, and again in order.
        (3, 3_740, Fits),
        (2, 2_780, Fits),
        (4, 4_700, Fits),
        // The clock may stand still, and leap, in order.
        (5, 4_700, Fits),
        (6, 4_700 + (1 << 26), Fits),
    ]);
}

#[test]
fn two_of_a_run_elsewhere_are_a_restart() {
    let elsewhere = 1_u32 << 30;
    for first in [101, 110, 1_000, 3_098, 3_200, 30_000, 60_000, 65_000, 100, 99, 50] {
        let judged = Judged::after(50, 100, 50_000);
        let believed = if first == 101 {
            Clock(960_u32.wrapping_sub(elsewhere))
        } else {
            Restart
        };
        judged.check(&[
            (first, 50_000 + elsewhere, Hold),
            (first + 1, 50_960 + elsewhere, believed),
        ]);
    }
    // Far away, also with a clock that fits.
    let judged = Judged::after(50, 100, 50_000);
    judged.check(&[(20_000, 50_960, Hold), (20_002, 52_880, Restart)]);
}

#[test]
fn the_order_of_the_first_packets_does_not_matter() {
    let judged = Judged::after(50, 100, 50_000);
    judged.check(&[
        (20_001, 960, Hold),
        (20_000, 0, Hold),
        (20_001, 960, Refuse),
        (20_002, 1_920, Restart),
    ]);
}

#[test]
fn an_accident_is_passed_by() {
    let judged = Judged::after(50, 100, 50_000);
    judged.check(&[
        (20_000, 77, Hold),
        (101, 50_960, Passed),
        (20_001, 1_037, Hold),
        (5_000, 99, Displaced),
        (102, 51_920, Passed),
        // A timestamp of 0 in order, and another one.
        (103, 1 << 31, Hold),
        (104, 53_840, Passed),
    ]);
}

#[test]
fn a_clock_that_goes_back_goes_on() {
    let mut judged = Judged::after(3_000, 5_000, 3_000 * 960);
    assert_eq!(judged.see(5_001, 960, Known::New), Hold);
    assert_eq!(judged.see(5_002, 1_920, Known::New), Clock(3_000 * 960));
    // From here on timestamps are seen with that added. The same once more, with two packets lost before it.
    for index in 1..3_000_u32 {
        let timestamp = 3_002 * 960 + index * 960;
        assert_eq!(judged.see(5_002 + index as u16, timestamp, Known::New), Fits);
    }
    assert_eq!(judged.see(8_004, 3_000 * 960 + 960, Known::New), Hold);
    assert!(matches!(judged.see(8_005, 3_000 * 960 + 1_920, Known::New), Clock(_)));
}

#[test]
fn what_came_before_is_a_restart_only_if_something_else_comes_with_it() {
    let mut judged = Judged::after(400, 1_399, 400 * 960);
    for (index, timestamp) in (0..400_u32).map(|index| (index, index * 960)) {
        let verdict = judged.see(1_000 + index as u16, timestamp, Known::Same);
        assert_eq!(verdict, if index < 9 { Fits } else { Hold });
    }
    // As if from before a long pause.
    let mut judged = Judged::after(400, 1_399, 400 * 960);
    for index in 0..400_u32 {
        let verdict = judged.see(1_000 + index as u16, (1 << 31) + index * 960, Known::Same);
        assert_eq!(verdict, Hold);
    }
    let mut judged = Judged::after(400, 1_399, 400 * 960);
    assert_eq!(judged.see(1_000, 960, Known::Other), Hold);
    assert_eq!(judged.see(1_001, 1_920, Known::Same), Restart);
}

/// The same file from its beginning, byte for byte: a restart only if it comes as a sender would send it.
#[test]
fn the_same_all_over_is_a_restart_after_a_silence_and_in_real_time() {
    for (silence, is_restart) in [(1, false), (5, true), (60, true)] {
        let mut judged = Judged::after(400, 1_399, 400 * 960);
        judged.now = judged.now + Duration::from_secs(silence);
        let verdicts: Vec<_> = (0..300_u16)
            .map(|index| judged.see(1_000 + index, (1 + u32::from(index)) * 960, Known::Same))
            .collect();
        let believed = verdicts.iter().position(|verdict| *verdict == Restart);
        assert_eq!(believed, is_restart.then_some(31));
    }
    // All at once.
    let mut judged = Judged::after(400, 1_399, 400 * 960);
    judged.now = judged.now + Duration::from_secs(60);
    for index in 0..400_u16 {
        let at = judged.now;
        let verdict = judged.see(1_000 + index, (1 + u32::from(index)) * 960, Known::Same);
        assert_eq!(verdict, Hold);
        judged.now = at;
    }
}

#[test]
fn what_is_later_than_is_believed_begins_nothing() {
    let mut judged = Judged::after(3_000, 3_000, 3_000 * 960);
    for seq in 1_200..1_205_u16 {
        assert_eq!(judged.see(seq, u32::from(seq) * 960, Known::New), Refuse);
    }
    assert_eq!(judged.see(3_001, 3_001 * 960, Known::New), Fits);
    // Another clock under these numbers does.
    assert_eq!(judged.see(1_200, 1 << 30, Known::New), Hold);
    assert_eq!(judged.see(1_201, (1 << 30) + 960, Known::New), Restart);
}

#[test]
fn what_was_before_the_beginning_is_another_stream() {
    let mut judged = Judged::after(1, 5_000, 0);
    assert_eq!(judged.see(4_000, 960, Known::Foreign), Hold);
    assert_eq!(judged.see(4_001, 1_920, Known::Foreign), Restart);
}

#[test]
fn stragglers_begin_nothing_for_a_second() {
    let mut judged = Judged::after(400, 1_399, 400 * 960);
    assert_eq!(judged.see(30_000, 1 << 30, Known::New), Hold);
    assert_eq!(judged.see(30_001, (1 << 30) + 960, Known::New), Restart);
    for back in [9_u16, 8, 7, 6] {
        let timestamp = (400 - u32::from(back)) * 960;
        assert_eq!(judged.see(1_399 - back, timestamp, Known::New), Refuse);
    }
    // The old one goes on after all.
    assert_eq!(judged.see(1_400, 401 * 960, Known::New), Hold);
    assert_eq!(judged.see(1_401, 402 * 960, Known::New), Restart);
}

#[test]
fn any_numbers_and_rates_are_judged() {
    for rate in [0, 1, 8_000, u32::MAX] {
        let mut continuity = Continuity::default();
        let mut random = 1_u64;
        let mut newest = None;
        for _ in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let seq = (random >> 48) as u16 >> (random % 16);
            let timestamp = (random >> 16) as u32 >> (random % 32);
            let at = Time(random >> (random % 64));
            let known = [Known::New, Known::Same, Known::Other, Known::Foreign][random as usize >> 5 & 3];
            continuity.judge(PacketTiming { seq, timestamp, at }, newest, rate, || known);
            newest = Some(seq.wrapping_add(random as u16 & 7));
        }
    }
}
