//! Which worker gets a new room (pure).

use weir_channel::id::WorkerId;

/// A worker that takes rooms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) worker: WorkerId,
    /// It has not answered the last request in time, or its process is being replaced.
    pub(crate) is_late: bool,
    /// The number of its rooms, with those that are being created.
    pub(crate) rooms: usize,
}

/// The worker with the fewest rooms, of those that are not late if there are any. Among several with as few it is the next one after `last` (by id, wrapping around),
/// so that short-lived rooms, which leave all workers empty, still go around.
pub(crate) fn choose(candidates: impl IntoIterator<Item = Candidate>, last: Option<WorkerId>) -> Option<WorkerId> {
    let after_last = |worker: WorkerId| last.is_some_and(|last| worker > last);
    candidates
        .into_iter()
        .min_by_key(|candidate| {
            let Candidate { worker, is_late, rooms } = *candidate;
            (is_late, rooms, !after_last(worker), worker)
        })
        .map(|candidate| candidate.worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rooms: &[(u32, usize)], last: Option<u32>, expected: Option<u32>) {
        let candidates = rooms.iter().map(|&(worker, rooms)| Candidate {
            worker: WorkerId(worker),
            is_late: false,
            rooms,
        });
        let chosen = choose(candidates, last.map(WorkerId));
        assert_eq!(chosen, expected.map(WorkerId), "{rooms:?} after {last:?}");
    }

    #[test]
    fn the_fewest_rooms_win_and_ties_go_around() {
        check(&[], None, None);
        check(&[(1, 0), (2, 0), (3, 0)], None, Some(1));
        check(&[(1, 0), (2, 0), (3, 0)], Some(1), Some(2));
        check(&[(1, 0), (2, 0), (3, 0)], Some(3), Some(1));
        check(&[(1, 5), (2, 4), (3, 5)], Some(2), Some(2));
        check(&[(1, 5), (3, 5)], Some(2), Some(3));
        check(&[(1, 5), (3, 5)], Some(3), Some(1));
        check(&[(2, 1)], Some(2), Some(2));
    }

    #[test]
    fn a_worker_that_is_late_gets_rooms_only_if_all_are() {
        let candidate = |worker, is_late, rooms| Candidate {
            worker: WorkerId(worker),
            is_late,
            rooms,
        };
        let (one, two) = (candidate(1, true, 0), candidate(2, false, 9));
        assert_eq!(choose([one, two], None), Some(WorkerId(2)));
        let two = candidate(2, true, 9);
        assert_eq!(choose([one, two], None), Some(WorkerId(1)));
    }

    #[test]
    fn rooms_spread_evenly() {
        let mut rooms = [0_usize; 4];
        let mut last = None;
        for _ in 0..1_000 {
            let candidates = (1..=4).map(|worker| Candidate {
                worker: WorkerId(worker),
                is_late: false,
                rooms: rooms[worker as usize - 1],
            });
            last = choose(candidates, last);
            rooms[last.unwrap().0 as usize - 1] += 1;
        }
        assert_eq!(rooms, [250; 4]);
    }
}
