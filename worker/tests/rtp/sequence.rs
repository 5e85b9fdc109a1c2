//! Sequence numbers and timestamps against models that know the truth.

use std::collections::HashSet;

use proptest::prelude::*;
use weir_worker::rtp::received::Seen;
use weir_worker::rtp::seq::{Arrival, MAX_DROPOUT, MAX_MISORDER, SeqExtender, TimestampExtender, ahead};

const CYCLE: u64 = 1 << 16;

/// RFC 3550 appendix A.1 on whole numbers: the position nearest to the newest decides.
#[derive(Default)]
struct Model {
    newest: Option<i64>,
    /// Position minus number on the wire, modulo a cycle, since the last restart.
    shift: i64,
    floor: i64,
    confirms: Option<u16>,
}

impl Model {
    fn accept(&mut self, seq: u16) -> Arrival {
        let cycle = CYCLE as i64;
        let Some(newest) = self.newest else {
            self.newest = Some(cycle + i64::from(seq));
            return Arrival::First(CYCLE + u64::from(seq));
        };
        let position = (newest - cycle / 2..newest + cycle / 2)
            .find(|position| (position - self.shift).rem_euclid(cycle) == i64::from(seq))
            .expect("a cycle has every number once");
        let distance = position - newest;
        if distance > 0 && distance < i64::from(MAX_DROPOUT) {
            self.newest = Some(position);
            self.confirms = None;
            Arrival::InOrder(position as u64)
        } else if distance <= 0 && distance > -i64::from(MAX_MISORDER) {
            if position < self.floor {
                Arrival::Bad
            } else {
                Arrival::Late(position as u64)
            }
        } else if self.confirms == Some(seq) {
            self.newest = Some(newest + 1);
            self.shift = newest + 1 - i64::from(seq);
            self.floor = newest + 1;
            self.confirms = None;
            Arrival::Restarted(newest as u64 + 1)
        } else {
            self.confirms = Some(seq.wrapping_add(1));
            Arrival::Bad
        }
    }
}

/// Steps of a sender and its network: mostly small, sometimes at the limits, sometimes anywhere.
fn steps() -> impl Strategy<Value = Vec<i32>> {
    let step = prop_oneof![
        20 => Just(1),
        5 => 0..4i32,
        3 => -20..20i32,
        2 => 2990..3010i32,
        2 => -1510..-1490i32,
        1 => any::<u16>().prop_map(i32::from),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_numbers_are_judged_as_appendix_a_1_says(first in any::<u16>(), steps in steps()) {
        let (mut seqs, mut model) = (SeqExtender::default(), Model::default());
        let mut seq = first;
        for (at, step) in steps.into_iter().enumerate() {
            prop_assert_eq!(seqs.accept(seq), model.accept(seq), "packet {}, number {}", at, seq);
            prop_assert_eq!(seqs.newest().map(|newest| newest as i64), model.newest);
            seq = seq.wrapping_add(step as u16);
        }
    }

    #[test]
    fn a_disturbed_stream_keeps_its_true_numbers(
        first in any::<u16>(),
        // For each sent packet: lost, sent twice, and by how many places it is delayed.
        fates in prop::collection::vec((prop::bool::weighted(0.05), prop::bool::weighted(0.05), 0usize..30), 500..3_000),
    ) {
        let mut arrivals: Vec<(usize, u64)> = Vec::new();
        for (at, (lost, twice, delay)) in fates.into_iter().enumerate() {
            let truth = CYCLE + u64::from(first) + at as u64;
            if !lost || at == 0 {
                arrivals.push((at + if at == 0 { 0 } else { delay }, truth));
            }
            if twice && at > 0 {
                arrivals.push((at + 40, truth));
            }
        }
        arrivals.sort_by_key(|(place, _)| *place);
        let (mut seqs, mut seen) = (SeqExtender::default(), Seen::default());
        let mut had = HashSet::new();
        for (_, truth) in arrivals {
            let newest = seqs.newest();
            let ext = match seqs.accept(truth as u16) {
                Arrival::First(ext) => {
                    prop_assert_eq!(newest, None);
                    ext
                }
                Arrival::InOrder(ext) => {
                    prop_assert!(newest < Some(ext));
                    ext
                }
                Arrival::Late(ext) => {
                    prop_assert!(newest >= Some(ext));
                    ext
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert_eq!(ext, truth);
            prop_assert_eq!(seen.insert(ext), had.insert(ext));
        }
    }

    #[test]
    fn the_window_knows_what_a_set_knows(
        first in CYCLE..10 * CYCLE,
        steps in prop::collection::vec(
            prop_oneof![10 => -70i64..70, 3 => -2100i64..2100, 1 => 0i64..10_000, 1 => -10_000i64..0],
            1..400,
        ),
    ) {
        let mut seen = Seen::default();
        let (mut had, mut newest) = (HashSet::new(), 0);
        let mut ext = first;
        for step in steps {
            newest = newest.max(ext);
            let known = newest - ext < Seen::WINDOW;
            prop_assert_eq!(seen.insert(ext), known && had.insert(ext), "{} with newest {}", ext, newest);
            // Around the newest, so that walks do not drift out of the window for good.
            ext = newest.saturating_add_signed(step);
        }
    }

    #[test]
    fn timestamps_keep_their_true_distance(
        first in any::<u32>(),
        steps in prop::collection::vec(-(1i64 << 31)..(1i64 << 31), 1..200),
    ) {
        let mut timestamps = TimestampExtender::default();
        let mut newest = (1i64 << 32) + i64::from(first);
        prop_assert_eq!(timestamps.extend(first), newest as u64);
        for step in steps {
            let truth = newest + step;
            prop_assert_eq!(timestamps.extend(truth as u32), truth as u64);
            newest = newest.max(truth);
            prop_assert_eq!(timestamps.newest(), Some(newest as u64));
        }
    }

    #[test]
    fn counters_keep_their_true_distance(from in any::<u16>(), step in -64i16..64) {
        let to = from.wrapping_add_signed(step);
        prop_assert_eq!(ahead::<15>(to, from), step);
        prop_assert_eq!(ahead::<7>(to, from), step);
        prop_assert_eq!(ahead::<8>(to, from), step);
    }
}

#[test]
fn rfc3550_a_1_a_restarted_sender_continues_without_a_gap() {
    let mut seqs = SeqExtender::default();
    let mut newest = 0;
    for seq in 0..100 {
        seqs.accept(seq);
        newest = seqs.newest().unwrap();
    }
    // It comes back somewhere else; one packet is lost to the doubt.
    assert_eq!(seqs.accept(40_000), Arrival::Bad);
    assert_eq!(seqs.accept(40_001), Arrival::Restarted(newest + 1));
    for step in 2..70_000u64 {
        let seq = 40_000u16.wrapping_add(step as u16);
        assert_eq!(seqs.accept(seq), Arrival::InOrder(newest + step));
    }
}

#[test]
fn rfc3550_a_1_long_streams_count_every_cycle() {
    let mut seqs = SeqExtender::default();
    let first = CYCLE + 65_000;
    for truth in first..first + 10 * CYCLE {
        let expected = if truth == first {
            Arrival::First(truth)
        } else {
            Arrival::InOrder(truth)
        };
        assert_eq!(seqs.accept(truth as u16), expected);
    }
}
