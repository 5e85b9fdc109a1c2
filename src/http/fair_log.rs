//! What the log of events keeps when it cannot keep all (pure): of whom most is kept, the oldest is forgotten first.
//!
//! Somebody has taken over a worker, or a client has found something that makes events without end. Then what the others did must
//! keep its place: so each worker has a share of the log, and in that each room. A share that is not used up is for
//! whoever needs it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use weir_channel::id::{RoomId, WorkerId};

/// Where an event comes from: a room, and the worker that serves it; `None`: from the server itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Source {
    pub(super) worker: Option<WorkerId>,
    pub(super) room: Option<RoomId>,
}

/// Items by number, and of whom they are.
#[derive(Debug)]
pub(super) struct FairLog<T> {
    cost_max: usize,
    items: BTreeMap<u64, Kept<T>>,
    workers: HashMap<Option<WorkerId>, WorkerShare>,
}

#[derive(Debug)]
struct Kept<T> {
    source: Source,
    cost: usize,
    item: T,
}

/// What of a worker's is kept.
#[derive(Debug, Default)]
struct WorkerShare {
    cost: usize,
    rooms: HashMap<Option<RoomId>, RoomShare>,
    /// The same rooms: the one with the largest cost last; of two with as much, the one that was opened first.
    by_cost: BTreeSet<(usize, Reverse<Option<RoomId>>)>,
}

/// What of a room's is kept.
#[derive(Debug, Default)]
struct RoomShare {
    cost: usize,
    /// The oldest first.
    numbers: VecDeque<u64>,
}

impl WorkerShare {
    /// Changes what a room has.
    fn change(&mut self, room: Option<RoomId>, change: impl FnOnce(&mut RoomShare)) {
        let share = self.rooms.entry(room).or_default();
        let before = share.cost;
        change(share);
        let after = share.cost;
        let is_gone = share.numbers.is_empty();
        if is_gone {
            self.rooms.remove(&room);
        }
        self.by_cost.remove(&(before, Reverse(room)));
        if !is_gone {
            self.by_cost.insert((after, Reverse(room)));
        }
        self.cost = self.cost + after - before;
    }

    /// The oldest number of the room of which most is kept, if that is not this one.
    fn oldest_of_fullest(&self, except: u64) -> Option<u64> {
        let fullest_first = self.by_cost.iter().rev();
        let mut oldest = fullest_first.filter_map(|(_, room)| self.rooms.get(&room.0)?.numbers.front().copied());
        oldest.find(|oldest| *oldest != except)
    }
}

impl<T> FairLog<T> {
    /// One in which things of this cost have a place together, or else the newest alone.
    pub(super) fn new(cost_max: usize) -> Self {
        Self {
            cost_max,
            items: BTreeMap::new(),
            workers: HashMap::new(),
        }
    }

    /// Adds an item with a number that is larger than those before, and forgets others until there is enough room.
    pub(super) fn push(&mut self, number: u64, source: Source, cost: usize, item: T) {
        self.items.insert(number, Kept { source, cost, item });
        self.workers
            .entry(source.worker)
            .or_default()
            .change(source.room, |share| {
                share.cost += cost;
                share.numbers.push_back(number);
            });
        while self.cost() > self.cost_max {
            // There are few workers. Which of two that have as much gives way does not matter, but shall not be a matter of luck.
            let oldest = self.workers.iter().filter_map(|(worker, share)| {
                let oldest = share.oldest_of_fullest(number)?;
                Some(((share.cost, *worker), oldest))
            });
            match oldest.max() {
                Some((_, oldest)) => self.forget(oldest),
                // Only the newest is left.
                None => break,
            }
        }
    }

    fn cost(&self) -> usize {
        self.workers.values().map(|share| share.cost).sum()
    }

    /// Forgets the oldest item of its room.
    fn forget(&mut self, number: u64) {
        let Some(kept) = self.items.remove(&number) else {
            return;
        };
        if let Some(share) = self.workers.get_mut(&kept.source.worker) {
            share.change(kept.source.room, |share| {
                share.cost -= kept.cost;
                share.numbers.pop_front();
            });
            if share.rooms.is_empty() {
                self.workers.remove(&kept.source.worker);
            }
        }
    }

    /// The items after a number, oldest first.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        let items = self.items.range(number.saturating_add(1)..);
        items.map(|(number, kept)| (*number, &kept.item))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As much as has a place.
    const COST_MAX: usize = 100;

    fn source(worker: u32, room: u64) -> Source {
        let of_server = worker == 0;
        Source {
            worker: (!of_server).then_some(WorkerId(worker)),
            room: (!of_server).then_some(RoomId(u64::from(worker) * 100 + room)),
        }
    }

    fn numbers(log: &FairLog<()>) -> Vec<u64> {
        log.after(0).map(|(number, ())| number).collect()
    }

    type Pushed = (Source, usize);

    /// What is kept of those for which something holds, by cost.
    fn cost_of(log: &FairLog<()>, pushed: &[Pushed], of: impl Fn(Source) -> bool) -> usize {
        let kept = numbers(log).into_iter().map(|number| pushed[number as usize - 1]);
        kept.filter(|(source, _)| of(*source)).map(|(_, cost)| cost).sum()
    }

    fn pushes() -> impl Strategy<Value = Vec<Pushed>> {
        // One worker, and one of its rooms, says more than the others.
        let worker = prop_oneof![3 => Just(1_u32), 2 => 0_u32..4];
        let room = prop_oneof![3 => Just(1_u64), 2 => 0_u64..4];
        let push = (worker, room, 1_usize..8).prop_map(|(worker, room, cost)| (source(worker, room), cost));
        prop::collection::vec(push, 1..300)
    }

    proptest! {
        #[test]
        fn only_who_has_most_loses_and_its_oldest_first(pushes in pushes()) {
            let mut log = FairLog::new(COST_MAX);
            for (at, (source, cost)) in pushes.iter().enumerate() {
                let before = numbers(&log);
                log.push(at as u64 + 1, *source, *cost, ());
                let after = numbers(&log);
                prop_assert_eq!(after.last(), Some(&(at as u64 + 1)), "the newest is there");
                prop_assert!(cost_of(&log, &pushes, |_| true) <= COST_MAX);
                // The newest has a place in any case.
                let newest = |is_of: bool| if is_of { *cost } else { 0 };
                for lost in before.iter().filter(|number| !after.contains(number)) {
                    let (loser, _) = pushes[*lost as usize - 1];
                    // It had most before, so it has about as much as anybody else has now.
                    let left = cost_of(&log, &pushes, |source| source.worker == loser.worker);
                    for worker in 0..4 {
                        let other = source_worker(worker);
                        let others = cost_of(&log, &pushes, |source| source.worker == other) - newest(source.worker == other);
                        prop_assert!(other == loser.worker || left + 7 >= others, "{} lost {lost}", worker);
                    }
                    let in_room = cost_of(&log, &pushes, |source| source == loser);
                    for room in 0..4 {
                        let other = Source { room: loser.room.map(|_| RoomId(u64::from(loser.worker.unwrap().0) * 100 + room)), ..loser };
                        let others = cost_of(&log, &pushes, |source| source == other) - newest(*source == other);
                        prop_assert!(other == loser || in_room + 7 >= others);
                    }
                    // What is left of its room came later.
                    let older = after.iter().filter(|number| pushes[**number as usize - 1].0 == loser);
                    prop_assert!(older.min().is_none_or(|oldest| oldest > lost));
                }
            }
        }

        #[test]
        fn who_needs_less_than_an_equal_share_loses_nothing(pushes in pushes()) {
            let mut log = FairLog::new(COST_MAX);
            let mut needed = [0; 4];
            for (at, (source, cost)) in pushes.iter().enumerate() {
                needed[source.worker.map_or(0, |worker| worker.0 as usize)] += cost;
                log.push(at as u64 + 1, *source, *cost, ());
            }
            for (worker, needed) in needed.into_iter().enumerate() {
                let worker = source_worker(worker as u32);
                if needed <= COST_MAX / 4 - 8 {
                    prop_assert_eq!(cost_of(&log, &pushes, |source| source.worker == worker), needed);
                }
            }
        }
    }

    fn source_worker(worker: u32) -> Option<WorkerId> {
        source(worker, 0).worker
    }

    #[test]
    fn a_flood_of_one_worker_leaves_what_others_said() {
        let mut log = FairLog::new(1_000);
        log.push(1, source(0, 0), 1, ());
        (2..=300).for_each(|number| log.push(number, source(2, number % 3), 1, ()));
        (301..=400).for_each(|number| log.push(number, source(1, 2), 1, ()));
        (401..=1_000_000).for_each(|number| log.push(number, source(1, 1), 1, ()));
        let kept = numbers(&log);
        assert_eq!(kept.len(), 1_000);
        assert!(
            (1..=400).all(|number| kept.contains(&number)),
            "the server, another worker, and another room of the same worker"
        );
        assert_eq!(log.workers.len(), 3);
    }

    #[test]
    fn who_has_gone_leaves_nothing_behind() {
        let mut log = FairLog::new(10);
        (1..=1_000).for_each(|number| log.push(number, source(1, number), 1, ()));
        assert_eq!(numbers(&log).len(), 10);
        let share = &log.workers[&Some(WorkerId(1))];
        assert_eq!((share.rooms.len(), share.by_cost.len(), share.cost), (10, 10, 10));
    }

    #[test]
    fn the_newest_is_kept_whatever_its_size() {
        let mut log = FairLog::new(10);
        (1..=5).for_each(|number| log.push(number, source(1, 1), 1, ()));
        log.push(6, source(1, 1), 11, ());
        assert_eq!(numbers(&log), [6]);
        log.push(7, source(1, 1), 1, ());
        assert_eq!(numbers(&log), [7]);
    }
}
