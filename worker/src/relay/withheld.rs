//! What of a stream is withheld by policy, and how it is folded out of the numbers that consumers see: a packet that a
//! receiver is not meant to have leaves no gap that it would take for a loss; a packet that was lost before it came here does.
//!
//! Consumers that are withheld the same packets share a *slot* of their producer. For each slot in use a stream counts what
//! it has withheld, and each packet carries how many withheld ones precede it ([`Counts`]). A consumer's number of a packet is
//! then `number − count[slot] + offset`: one addition more, no list for any consumer. What was withheld is remembered for one
//! window, for packets that come late, and to find the packet of a consumer's number.
//!
//! A number whose packet has not come when later ones do counts as that of a packet that goes out. If it turns out to be
//! one to withhold, its number stays a hole at the consumers.

use crate::page::layout::{FoldedOfStream, StreamPosition};
use crate::rtp::bit_ring::BitRing;
use crate::rtp::received::Seen;

/// Sets of withheld packets per producer. A consumer that would need one more sees gaps.
pub const SLOTS: usize = 4;

/// How many packets before a packet are withheld, by slot.
pub type Counts = [u64; SLOTS];

/// The slots in which a packet is withheld, one bit for each.
pub type SlotSet = u8;

/// Every slot: nobody gets the packet.
pub const ALL_SLOTS: SlotSet = (1 << SLOTS) - 1;

/// Numbers that turned out to be holes, and are remembered.
const HOLES: usize = 8;

/// What one stream has withheld. What every packet needs is in the first cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Withheld {
    /// The newest number that has come.
    newest: u64,
    /// All that was counted so far.
    counts: Counts,
    /// Something was withheld since it was last asked what is to be kept.
    is_unkept: bool,
    windows: [Option<Box<Window>>; SLOTS],
    holes: [(u64, SlotSet); HOLES],
    next_hole: usize,
}

/// No worker has so many packets of a stream in hand.
const IN_HAND_MAX: u64 = 4_096;

/// What was withheld in a slot of the packets that a worker had in hand when it died: its consumers may have been sent what came
/// behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InHand {
    /// The newest number of those.
    newest: u64,
    /// Which of the last 64 numbers up to it were withheld; as in [`FoldedOfStream`].
    latest: u64,
}

impl InHand {
    /// `position`: how far everything that came of the stream had left.
    pub fn of(left: &FoldedOfStream, slot: u8, position: &StreamPosition) -> Option<Self> {
        if left.numbers_since != position.numbers_since {
            return None;
        }
        // What has left by then was counted then.
        let in_hand = match left.newest.checked_sub(position.newest)? {
            0 => 0,
            behind @ 1..64 => u64::MAX << (64 - behind),
            64..IN_HAND_MAX => u64::MAX,
            _ => return None,
        };
        let latest = left.latest[usize::from(slot) % SLOTS] & in_hand;
        (latest != 0).then_some(Self {
            newest: left.newest,
            latest,
        })
    }

    /// The numbers withheld, ascending.
    fn numbers(self) -> impl Iterator<Item = u64> {
        let withheld = (0..64_u64).filter(move |bit| self.latest & 1 << bit != 0);
        withheld.filter_map(move |bit| (self.newest + bit).checked_sub(63))
    }
}

/// Which of the last numbers are withheld. What is newer than `newest` is not.
#[derive(Debug, Default)]
struct Window {
    /// The newest one withheld; 0 before the first.
    newest: u64,
    numbers: BitRing<{ Window::NUMBERS as usize / 64 }>,
}

impl Withheld {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: std::ops::Range<usize> = 0..std::mem::offset_of!(Self, windows);

    /// Begins to count for a slot.
    pub fn open(&mut self, slot: u8) {
        let slot = usize::from(slot);
        self.windows[slot].get_or_insert_default();
    }

    /// Places a packet that has come for the first time, by its extended number, and says what is withheld before it.
    #[inline]
    pub fn place(&mut self, seq: u64, withheld: SlotSet) -> Counts {
        if seq <= self.newest {
            return self.place_late(seq, withheld);
        }
        self.newest = seq;
        let counts = self.counts;
        if withheld != 0 {
            self.withhold(seq, withheld);
        }
        counts
    }

    #[cold]
    fn withhold(&mut self, seq: u64, withheld: SlotSet) {
        for (slot, window) in self.windows.iter_mut().enumerate() {
            if let (Some(window), true) = (window, withheld & 1 << slot != 0) {
                window.insert(seq);
                self.counts[slot] += 1;
                self.is_unkept = true;
            }
        }
    }

    /// What is to be kept, but for when the numbers began, if something was withheld since it was asked last.
    #[inline]
    pub fn take_unkept(&mut self) -> Option<FoldedOfStream> {
        std::mem::take(&mut self.is_unkept).then(|| self.latest())
    }

    #[cold]
    fn latest(&self) -> FoldedOfStream {
        let latest = |window: &Option<Box<Window>>| window.as_ref().map_or(0, |window| window.latest(self.newest));
        FoldedOfStream {
            newest: self.newest,
            latest: std::array::from_fn(|slot| latest(&self.windows[slot])),
            numbers_since: 0,
            spare: 0,
        }
    }

    /// Goes on in a slot as the last worker has left it, before anything has come.
    pub fn resume(&mut self, slot: u8, left: InHand) {
        let slot = usize::from(slot) % SLOTS;
        let Some(window) = &mut self.windows[slot] else { return };
        if window.newest != 0 {
            // For another consumer.
            return;
        }
        for number in left.numbers() {
            window.insert(number);
            self.counts[slot] += 1;
        }
        self.newest = self.newest.max(left.newest);
        self.is_unkept = true;
    }

    #[cold]
    fn place_late(&mut self, seq: u64, withheld: SlotSet) -> Counts {
        if withheld != 0 {
            self.holes[self.next_hole] = (seq, withheld);
            self.next_hole = (self.next_hole + 1) % HOLES;
        }
        let mut counts = self.counts;
        for (count, window) in counts.iter_mut().zip(&self.windows) {
            *count -= window.as_ref().map_or(0, |window| window.count_above(seq));
        }
        counts
    }

    /// The packet whose number less what is withheld before it is `folded`: the one that goes out under it.
    pub fn source(&self, slot: u8, folded: u64) -> u64 {
        let slot = usize::from(slot);
        let total = self.counts[slot];
        match &self.windows[slot] {
            Some(window) => window.source(total, folded),
            None => folded.wrapping_add(total),
        }
    }

    /// Whether a number is one that consumers of a slot lack for good, though nothing was lost.
    pub fn is_hole(&self, slot: u8, seq: u64) -> bool {
        let is_it = |(hole, slots): &(u64, SlotSet)| *hole == seq && slots & 1 << slot != 0;
        self.holes.iter().any(is_it)
    }

    /// Numbers begin again, and have nothing to do with those before. Counts go on: who has subtracted them goes on, too.
    pub fn on_new_numbers(&mut self) {
        self.newest = 0;
        self.holes = <[_; HOLES]>::default();
        for window in self.windows.iter_mut().flatten() {
            **window = Window::default();
        }
    }

    /// How many packets have been withheld so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether anything was ever withheld.
    pub fn is_empty(&self) -> bool {
        self.counts == Counts::default()
    }
}

impl Window {
    /// As many numbers as [`Seen`] judges: no packet that is let in is older.
    const NUMBERS: u64 = Seen::WINDOW;

    fn insert(&mut self, seq: u64) {
        // These are still from one window ago.
        self.numbers.remove_range(self.newest + 1..seq);
        self.numbers.insert(seq);
        self.newest = seq;
    }

    /// Which of the 64 numbers up to this one are withheld, its own bit the highest.
    fn latest(&self, newest: u64) -> u64 {
        let oldest = newest.saturating_sub(63);
        (oldest.max(1)..=newest.min(self.newest))
            .filter(|number| self.numbers.contains(*number))
            .fold(0, |latest, number| latest | 1 << (number + 63 - newest))
    }

    /// How many are withheld above a number.
    fn count_above(&self, seq: u64) -> u64 {
        let oldest = self.newest.saturating_sub(Self::NUMBERS - 1);
        let mut from = oldest.max(seq + 1);
        let mut count = 0;
        while from <= self.newest {
            // To the end of the word, or to the newest.
            let len = (64 - from % 64).min(self.newest + 1 - from);
            let mask = (u64::MAX >> (64 - len)) << (from % 64);
            count += u64::from((self.numbers.word(from) & mask).count_ones());
            from += len;
        }
        count
    }

    fn source(&self, total: u64, folded: u64) -> u64 {
        let behind = folded.wrapping_add(total);
        // So many numbers that are not withheld lie between the newest withheld one and the one that is looked for.
        let Some(mut wanted) = self.newest.checked_sub(behind).filter(|_| self.newest != 0) else {
            return behind;
        };
        wanted += 1;
        let oldest = self.newest.saturating_sub(Self::NUMBERS - 1);
        let mut end = self.newest + 1;
        while end > oldest {
            let start = (end - 1) / 64 * 64;
            let start = start.max(oldest);
            let len = end - start;
            let mask = (u64::MAX >> (64 - len)) << (start % 64);
            let given = !self.numbers.word(start) & mask;
            let count = u64::from(given.count_ones());
            if count >= wanted {
                return (start..end)
                    .rev()
                    .filter(|number| given & 1 << (*number % 64) != 0)
                    .nth(wanted as usize - 1)
                    .unwrap_or(start);
            }
            wanted -= count;
            end = start;
        }
        // Older than anything that is kept.
        end.saturating_sub(wanted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: u64 = 65_536;

    #[derive(Clone, Debug)]
    struct Sent {
        seq: u64,
        withheld: SlotSet,
    }

    /// Packets with consecutive numbers, some lost, each delayed by a few places.
    fn network() -> impl Strategy<Value = Vec<Sent>> {
        let packet = (
            0_u8..=ALL_SLOTS,
            prop::bool::weighted(0.5),
            prop::bool::weighted(0.1),
            0_u64..40,
        );
        prop::collection::vec(packet, 1..3_000).prop_map(|packets| {
            let mut arriving: Vec<_> = packets
                .into_iter()
                .enumerate()
                .filter(|(_, (.., is_lost, _))| !is_lost)
                .map(|(index, (slots, is_plain, _, delay))| {
                    let seq = FIRST + index as u64;
                    let withheld = if is_plain { 0 } else { slots };
                    (seq + delay / 8 * u64::from(delay > 30), Sent { seq, withheld })
                })
                .collect();
            arriving.sort_by_key(|(at, _)| *at);
            arriving.into_iter().map(|(_, sent)| sent).collect()
        })
    }

    proptest! {
        /// What a worker had in hand comes again to its successor, and then the rest: all of it is numbered as if nobody had died.
        #[test]
        fn a_successor_folds_as_its_predecessor_did(arriving in network(), left in 0_usize..3_000, in_hand in 0_usize..40) {
            let left = left.min(arriving.len());
            let died = (left + in_hand).min(arriving.len());
            let mut first = Withheld::default();
            (0..SLOTS as u8).for_each(|slot| first.open(slot));
            for sent in &arriving[..left] {
                first.place(sent.seq, sent.withheld);
            }
            first.take_unkept();
            let (before, position) = (first.counts(), StreamPosition { newest: first.newest, ..StreamPosition::default() });
            let mut folded = FoldedOfStream::default();
            for sent in &arriving[left..died] {
                first.place(sent.seq, sent.withheld);
                folded = first.take_unkept().unwrap_or(folded);
            }
            prop_assume!(first.newest - position.newest <= 64 || left == 0);
            let mut second = Withheld::default();
            for slot in 0..SLOTS as u8 {
                second.open(slot);
                if let Some(in_hand) = InHand::of(&folded, slot, &position) {
                    // For each of its consumers.
                    second.resume(slot, in_hand);
                    second.resume(slot, in_hand);
                }
            }
            for sent in arriving[left..].iter().filter(|sent| sent.seq > position.newest && left > 0) {
                let goes_out = second.place(sent.seq, sent.withheld);
                let expected = match sent.seq <= first.newest {
                    true => first.place_late(sent.seq, 0),
                    false => first.place(sent.seq, sent.withheld),
                };
                prop_assert_eq!(goes_out, std::array::from_fn(|slot| expected[slot] - before[slot]));
            }
        }

        /// A naive list for each consumer is the oracle: a number is folded out when its packet is withheld and in order.
        #[test]
        fn prefix_counts_are_what_a_list_for_each_consumer_would_be(arriving in network()) {
            let mut withheld = Withheld::default();
            (0..SLOTS as u8).for_each(|slot| withheld.open(slot));
            let mut lists: [Vec<u64>; SLOTS] = Default::default();
            let mut newest = 0;
            let mut given: [Vec<(u64, u64)>; SLOTS] = Default::default();
            for sent in &arriving {
                let counts = withheld.place(sent.seq, sent.withheld);
                for slot in 0..SLOTS {
                    let expected = lists[slot].iter().filter(|number| **number < sent.seq).count() as u64;
                    prop_assert_eq!(counts[slot], expected);
                    let is_withheld = sent.withheld & 1 << slot != 0;
                    if is_withheld && sent.seq > newest {
                        lists[slot].push(sent.seq);
                    }
                    if is_withheld {
                        prop_assert_eq!(withheld.is_hole(slot as u8, sent.seq), sent.seq <= newest);
                    } else {
                        given[slot].push((sent.seq, sent.seq - counts[slot]));
                    }
                }
                newest = newest.max(sent.seq);
            }
            for (slot, given) in given.iter().enumerate() {
                let mut numbers: Vec<_> = given.iter().map(|(_, folded)| *folded).collect();
                numbers.sort_unstable();
                prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "no number is used twice");
                for (seq, folded) in given.iter().filter(|(seq, _)| newest - seq < Window::NUMBERS) {
                    prop_assert_eq!(withheld.source(slot as u8, *folded), *seq);
                }
            }
        }
    }

    #[test]
    fn what_nobody_is_withheld_costs_nothing_and_maps_to_itself() {
        let mut withheld = Withheld::default();
        withheld.open(0);
        for seq in FIRST..FIRST + 5_000 {
            assert_eq!(withheld.place(seq, 0), Counts::default());
            assert_eq!(withheld.source(0, seq), seq);
        }
        assert!(withheld.is_empty());
    }

    #[test]
    fn long_silences_leave_no_old_bits() {
        let mut withheld = Withheld::default();
        withheld.open(1);
        let mut seq = FIRST;
        for (round, gap) in [1, 63, 64, 65, 2_000, 2_047, 2_048, 2_049, 70_000]
            .into_iter()
            .enumerate()
        {
            seq += gap;
            let before = withheld.place(seq, 0b10)[1];
            assert_eq!(before, round as u64);
            // Just before and behind it.
            assert_eq!(withheld.place(seq - 1, 0)[1], round as u64, "gap {gap}");
            assert_eq!(withheld.place(seq + 1, 0)[1], round as u64 + 1);
            assert_eq!(withheld.source(1, seq - round as u64), seq + 1, "gap {gap}");
            assert_eq!(withheld.source(1, seq - 1 - round as u64), seq - 1, "gap {gap}");
        }
    }

    #[test]
    fn new_numbers_begin_anew() {
        let mut withheld = Withheld::default();
        withheld.open(0);
        withheld.place(90_000, 1);
        withheld.place(90_001, 1);
        withheld.on_new_numbers();
        assert_eq!(withheld.place(FIRST, 0)[0], 2, "counts go on");
        assert_eq!(withheld.place(FIRST + 1, 1)[0], 2);
        assert_eq!(withheld.place(FIRST + 2, 0)[0], 3);
        assert_eq!(withheld.source(0, FIRST - 2), FIRST);
        assert_eq!(withheld.source(0, FIRST + 2 - 3), FIRST + 2);
        assert_eq!(withheld.place(FIRST + 3, 0)[0], 3);
    }
}
