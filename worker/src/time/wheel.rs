//! Timers of many objects, one each: a hierarchical timing wheel (Varghese and Lauck, 1987).
//!
//! To set, move, cancel and fire a timer costs the same whether there are ten of them or a hundred thousand. Time is cut into ticks of
//! a millisecond. A level has 64 places: on the lowest one a place is a tick, on each higher one it is as long as the whole level
//! below. A timer lies on the lowest level on which its place is not the present one; when time comes to a place of a higher level,
//! what lies there is spread over the levels below.
//!
//! ```text
//!   level 1   │ 0 … 63 ms │ 64 … 127 ms │ 128 … 191 ms │ …     64 places
//!                   │ └── now
//!   level 0   │ 0 │ 1 │ … │ 63 │                              64 places
//! ```
//!
//! Eight levels have a place for each time that a [`Time`] can say.

use std::time::Duration;

use super::Time;

/// No timer fires earlier than it is due, nor later than by this.
pub const TICK: Duration = Duration::from_millis(1);

const TICK_NS: u64 = TICK.as_nanos() as u64;

/// Bits of a tick's number that one level tells apart.
const LEVEL_BITS: u32 = 6;
const LEVEL_PLACES: usize = 1 << LEVEL_BITS;

/// So that the last tick has a place: its number has 45 bits.
const LEVELS: usize = 8;
const _: () = assert!((u64::MAX / TICK_NS + 1).ilog2() < LEVELS as u32 * LEVEL_BITS);

/// No object.
const NONE: u32 = u32::MAX;

/// What has a timer: a key of an object that lives in a slot of a table.
pub trait Slot: Copy {
    /// The index of its slot. Small, because the wheel has an entry for each.
    fn slot(self) -> usize;
}

/// The timers of objects of one kind.
///
/// An object's timer goes by its slot: who takes over a slot takes over its timer, unless that was cancelled.
#[derive(Clone, Debug)]
pub struct TimerWheel<K> {
    /// By the slot of their object.
    timers: Vec<Timer<K>>,
    /// Level by level.
    places: Box<[Place]>,
    /// By level: which places have timers.
    occupied: [u64; LEVELS],
    /// The tick up to which time has come. No timer is set to an earlier one.
    now: u64,
}

/// The timer of one object, linked in a ring with the others of its place.
#[derive(Clone, Copy, Debug)]
struct Timer<K> {
    /// `None`: it is not set.
    set: Option<Set<K>>,
    next: u32,
    previous: u32,
}

#[derive(Clone, Copy, Debug)]
struct Set<K> {
    key: K,
    /// Its place.
    place: u16,
    /// The number of its tick.
    tick: u64,
}

/// The timers that lie in one place.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The one that was set first.
    first: u32,
    /// None of them has an earlier tick.
    earliest: u64,
}

impl Place {
    const EMPTY: Self = Self {
        first: NONE,
        earliest: u64::MAX,
    };
}

impl<K: Slot> Default for TimerWheel<K> {
    fn default() -> Self {
        Self {
            timers: Vec::new(),
            places: vec![Place::EMPTY; LEVELS * LEVEL_PLACES].into_boxed_slice(),
            occupied: [0; LEVELS],
            now: 0,
        }
    }
}

impl<K: Slot> TimerWheel<K> {
    /// Reserves the memory for an object's timer. With it, nothing else here allocates.
    pub fn reserve(&mut self, key: K) {
        let unset = Timer {
            set: None,
            next: NONE,
            previous: NONE,
        };
        if self.timers.len() <= key.slot() {
            self.timers.resize(key.slot() + 1, unset);
        }
    }

    /// Sets an object's timer, or moves it. One that is due before the last [`TimerWheel::pop`] fires with the next one.
    pub fn set(&mut self, key: K, due: Time) {
        self.cancel(key);
        self.reserve(key);
        self.link(key, due.0.div_ceil(TICK_NS));
    }

    /// Unsets an object's timer. Whether it was set.
    pub fn cancel(&mut self, key: K) -> bool {
        let index = key.slot();
        let Some(timer) = self.timers.get_mut(index) else {
            return false;
        };
        let Some(set) = timer.set.take() else { return false };
        self.unlink(index as u32, set.place);
        true
    }

    /// Whether an object's timer is set.
    pub fn is_set(&self, key: K) -> bool {
        self.timers.get(key.slot()).is_some_and(|timer| timer.set.is_some())
    }

    /// When to call [`TimerWheel::pop`] next; `None` if no timer is set. Seldom there is nothing yet then, because a timer was moved to
    /// a later time or cancelled.
    pub fn next(&self) -> Option<Time> {
        let place = self.first_place()?;
        Some(Time(self.places[place].earliest.saturating_mul(TICK_NS)))
    }

    /// An object whose timer is due, which is unset by that, and its tick; of those of the same tick, the one that was set first.
    /// To be called again until there is none.
    pub fn pop(&mut self, now: Time) -> Option<(Time, K)> {
        let to = now.0 / TICK_NS;
        self.advance(to);
        let place = self.first_place()?;
        if place >= LEVEL_PLACES || self.places[place].earliest > to {
            return None;
        }
        let index = self.places[place].first;
        let set = self.timers[index as usize].set.take()?;
        self.unlink(index, set.place);
        Some((Time(set.tick * TICK_NS), set.key))
    }

    /// Lets time go on to a tick, or to the first timer if that is due earlier.
    fn advance(&mut self, to: u64) {
        while let Some(place) = self.first_place() {
            let level = place / LEVEL_PLACES;
            let earliest = self.places[place].earliest;
            if level == 0 {
                self.now = self.now.max(to.min(earliest));
                return;
            }
            let bits = LEVEL_BITS * level as u32;
            let above = self.now >> bits >> LEVEL_BITS << LEVEL_BITS;
            let begins = (above | (place % LEVEL_PLACES) as u64) << bits;
            if begins > to {
                break;
            }
            // All that lies there is at this tick or later.
            self.now = self.now.max(to.min(earliest));
            self.spread(place);
        }
        self.now = self.now.max(to);
    }

    /// Moves what lies in a place, to which time has come, to lower levels.
    fn spread(&mut self, place: usize) {
        while self.places[place].first != NONE {
            let index = self.places[place].first;
            let Some(set) = self.timers[index as usize].set else {
                return;
            };
            self.unlink(index, set.place);
            self.link(set.key, set.tick);
        }
    }

    /// The place whose timers come first.
    fn first_place(&self) -> Option<usize> {
        // What lies on a level comes before all that lies above.
        let level = self.occupied.iter().position(|occupied| *occupied != 0)?;
        Some(level * LEVEL_PLACES + self.occupied[level].trailing_zeros() as usize)
    }

    /// Puts a timer that is in no place into the one of its tick, behind what is there.
    fn link(&mut self, key: K, tick: u64) {
        let tick = tick.max(self.now);
        let level = ((tick ^ self.now) | 1).ilog2() / LEVEL_BITS;
        let index_in_level = (tick >> (LEVEL_BITS * level)) as usize % LEVEL_PLACES;
        let place = level as usize * LEVEL_PLACES + index_in_level;
        self.occupied[level as usize] |= 1 << index_in_level;

        let index = key.slot() as u32;
        let Place { first, earliest } = &mut self.places[place];
        *earliest = tick.min(*earliest);
        let (next, previous) = if *first == NONE {
            *first = index;
            (index, index)
        } else {
            (*first, self.timers[*first as usize].previous)
        };
        self.timers[index as usize] = Timer {
            set: Some(Set {
                key,
                place: place as u16,
                tick,
            }),
            next,
            previous,
        };
        self.timers[previous as usize].next = index;
        self.timers[next as usize].previous = index;
    }

    /// Takes a timer out of its place.
    fn unlink(&mut self, index: u32, place: u16) {
        let Timer { next, previous, .. } = self.timers[index as usize];
        self.timers[index as usize].set = None;
        let place = usize::from(place);
        if next == index {
            self.places[place] = Place::EMPTY;
            self.occupied[place / LEVEL_PLACES] &= !(1 << (place % LEVEL_PLACES));
            return;
        }
        self.timers[previous as usize].next = next;
        self.timers[next as usize].previous = previous;
        if self.places[place].first == index {
            self.places[place].first = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Slot for usize {
        fn slot(self) -> usize {
            self
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// So many nanoseconds after the present time.
        Set(usize, u64),
        SetAt(usize, u64),
        Cancel(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || 0..40_usize;
        // As likely near as far: spans of 0 to 64 bits.
        let span = || (0..=64_u32, any::<u64>()).prop_map(|(bits, value)| value.checked_shr(64 - bits).unwrap_or(0));
        prop_oneof![
            6 => (key(), span()).prop_map(|(key, after)| Step::Set(key, after)),
            1 => (key(), span()).prop_map(|(key, at)| Step::SetAt(key, at)),
            2 => key().prop_map(Step::Cancel),
            4 => (0..40_u32, any::<u64>()).prop_map(|(bits, value)| Step::Pass(value.checked_shr(64 - bits).unwrap_or(0))),
        ]
    }

    proptest! {
        /// Against a sorted list: the same timers fire, none early, none later than a tick, the earliest tick first, and those of
        /// one tick in the order in which they were set. And nothing allocates once its memory is reserved.
        #[test]
        fn timers_fire_in_their_order_never_early_and_at_most_a_tick_late(steps in prop::collection::vec(step(), 1..200)) {
            let mut wheel = TimerWheel::default();
            wheel.reserve(39);
            let memory = wheel.timers.as_ptr();
            // By tick and order: whose it is, and when it is due.
            let mut model: BTreeMap<(u64, u64), (usize, u64)> = BTreeMap::new();
            let (mut now, mut order) = (0_u64, 0);
            for step in steps {
                let set = match step {
                    Step::Set(key, after) => Some((key, now.saturating_add(after))),
                    Step::SetAt(key, at) => Some((key, at)),
                    Step::Cancel(key) => {
                        let was_set = model.values().any(|(other, _)| *other == key);
                        model.retain(|_, (other, _)| *other != key);
                        prop_assert_eq!(wheel.cancel(key), was_set);
                        None
                    }
                    Step::Pass(time) => {
                        now = now.saturating_add(time);
                        None
                    }
                };
                if let Some((key, due)) = set {
                    model.retain(|_, (other, _)| *other != key);
                    order += 1;
                    model.insert((due.div_ceil(TICK_NS).max(now / TICK_NS), order), (key, due));
                    wheel.set(key, Time(due));
                }
                let next = wheel.next();
                while let Some((at, key)) = wheel.pop(Time(now)) {
                    let ((tick, _), (expected, due)) = model.pop_first().unwrap();
                    prop_assert_eq!((at, key), (Time(tick * TICK_NS), expected));
                    prop_assert!(due <= now && tick <= now / TICK_NS);
                    prop_assert!(next.is_some_and(|next| next <= Time(now)), "nobody would have asked");
                }
                let first = model.first_key_value().map(|((tick, _), _)| *tick);
                prop_assert!(first.is_none_or(|tick| tick > now / TICK_NS), "late: {:?} at {}", first, now);
                // It is never late, and what it says leads somewhere.
                prop_assert_eq!(wheel.next().is_some(), first.is_some());
                if let (Some(next), Some(first)) = (wheel.next(), first) {
                    prop_assert!(next.0 <= first.saturating_mul(TICK_NS));
                    prop_assert!(next.0 > now);
                }
                for key in 0..40 {
                    prop_assert_eq!(wheel.is_set(key), model.values().any(|(other, _)| *other == key));
                }
            }
            prop_assert_eq!(wheel.timers.as_ptr(), memory);
        }
    }

    /// Without moving and cancelling, the time that is named is that of the first timer.
    #[test]
    fn nobody_is_woken_for_nothing() {
        let mut wheel = TimerWheel::default();
        let dues = [7, 63, 64, 65, 4_095, 4_096, 700_000, 1 << 40];
        for (key, ms) in dues.into_iter().enumerate() {
            wheel.set(key, Time::from_millis(ms));
        }
        for (key, ms) in dues.into_iter().enumerate() {
            let due = Time::from_millis(ms);
            assert_eq!(wheel.next(), Some(due));
            assert_eq!(wheel.pop(due - Duration::from_nanos(1)), None);
            assert_eq!(wheel.next(), Some(due));
            assert_eq!(wheel.pop(due), Some((due, key)));
            assert_eq!(wheel.pop(due), None);
        }
        assert_eq!(wheel.next(), None);
    }

    /// Who looks ahead gets what is due by then, and nothing that is due later comes early for it.
    #[test]
    fn after_a_look_ahead_the_rest_is_in_time() {
        let mut wheel = TimerWheel::default();
        for (key, ms) in [(0, 150), (1, 190), (2, 230)] {
            wheel.set(key, Time::from_millis(ms));
        }
        assert_eq!(wheel.pop(Time::from_millis(180)), Some((Time::from_millis(150), 0)));
        assert_eq!(wheel.pop(Time::from_millis(180)), None);
        assert_eq!(wheel.pop(Time::from_millis(100)), None);
        assert_eq!(wheel.next(), Some(Time::from_millis(190)));
        assert_eq!(wheel.pop(Time::from_millis(189)), None);
        assert_eq!(wheel.pop(Time::from_millis(190)), Some((Time::from_millis(190), 1)));
        assert_eq!(wheel.pop(Time::from_millis(230)), Some((Time::from_millis(230), 2)));
    }

    /// What is set to the end of time waits for it, and holds up nobody.
    #[test]
    fn the_end_of_time_has_a_place() {
        let mut wheel = TimerWheel::default();
        wheel.set(0, Time(u64::MAX));
        wheel.set(1, Time(u64::MAX - 10 * TICK_NS));
        wheel.set(2, Time(1));
        assert_eq!(wheel.pop(Time::from_millis(1)), Some((Time::from_millis(1), 2)));
        assert_eq!(wheel.pop(Time(u64::MAX / 2)), None);
        assert_eq!(wheel.pop(Time(u64::MAX - 1)).map(|(_, key)| key), Some(1));
        assert_eq!(wheel.pop(Time(u64::MAX)), None);
        assert!(wheel.cancel(0));
        assert_eq!(wheel.next(), None);
    }
}
