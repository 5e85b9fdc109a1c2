//! The requests that a worker has not answered, and when each must be (pure). Times are those of a clock of the caller's.
//!
//! Invariant: each request is resolved exactly once: by its answer, by its deadline, or by the worker's death. A request
//! whose deadline has passed stays known, without its waiter, until it is answered: the worker may have done it just in
//! time, and what it did must be applied.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use weir_channel::id::RequestId;

/// Requests under way: `C` is what was asked, `W` is who waits.
#[derive(Debug)]
pub(crate) struct Pending<C, W> {
    entries: HashMap<RequestId, Entry<C, W>>,
    deadlines: BTreeSet<(Duration, RequestId)>,
    last_id: u64,
}

#[derive(Debug)]
struct Entry<C, W> {
    command: C,
    /// None once the deadline has passed.
    waiting: Option<Waiting<W>>,
}

#[derive(Debug)]
struct Waiting<W> {
    deadline: Duration,
    timeout: Duration,
    waiter: W,
}

impl<C, W> Pending<C, W> {
    pub(crate) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            deadlines: BTreeSet::new(),
            last_id: 0,
        }
    }

    /// Takes up a request and numbers it.
    pub(crate) fn insert(&mut self, now: Duration, timeout: Duration, command: C, waiter: W) -> RequestId {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        let deadline = now + timeout;
        self.deadlines.insert((deadline, id));
        self.entries.insert(
            id,
            Entry {
                command,
                waiting: Some(Waiting {
                    deadline,
                    timeout,
                    waiter,
                }),
            },
        );
        id
    }

    /// The answer has come: what was asked, and who waits for it, unless it came too late. `None` when nothing (or
    /// nothing any more) is asked under this id.
    pub(crate) fn answer(&mut self, id: RequestId) -> Option<(C, Option<W>)> {
        let entry = self.entries.remove(&id)?;
        let waiter = entry.waiting.map(|waiting| {
            self.deadlines.remove(&(waiting.deadline, id));
            waiting.waiter
        });
        Some((entry.command, waiter))
    }

    /// Who has waited for as long as they would, and how long that was.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<(W, Duration)> {
        let mut expired = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let waiting = self.entries.get_mut(&id).and_then(|entry| entry.waiting.take());
            expired.extend(waiting.map(|waiting| (waiting.waiter, waiting.timeout)));
        }
        expired
    }

    /// Takes out those of which `is_over` says so, given what was asked and whether somebody waits. Who waited is not told.
    pub(crate) fn extract(&mut self, is_over: impl Fn(&C, bool) -> bool) -> Vec<C> {
        let over = self.entries.iter();
        let mut over: Vec<RequestId> = over
            .filter(|(_, entry)| is_over(&entry.command, entry.waiting.is_some()))
            .map(|(id, _)| *id)
            .collect();
        over.sort_unstable();
        let commands = over.into_iter().filter_map(|id| self.answer(id));
        commands.map(|(command, _)| command).collect()
    }

    /// What is not answered, in the order in which it was asked, and when who asked stops waiting, if anybody waits.
    pub(crate) fn unanswered(&self) -> Vec<(RequestId, &C, Option<Duration>)> {
        let entries = self.entries.iter();
        let mut unanswered: Vec<_> = entries
            .map(|(id, entry)| {
                let deadline = entry.waiting.as_ref().map(|waiting| waiting.deadline);
                (*id, &entry.command, deadline)
            })
            .collect();
        unanswered.sort_unstable_by_key(|(id, ..)| *id);
        unanswered
    }

    /// When the next one expires.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The worker is dead: all who wait, in the order in which they asked.
    pub(crate) fn drain(&mut self) -> Vec<W> {
        self.deadlines.clear();
        let mut entries: Vec<_> = self.entries.drain().collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        entries
            .into_iter()
            .filter_map(|(_, entry)| entry.waiting.map(|waiting| waiting.waiter))
            .collect()
    }

    /// How many requests are not answered, expired ones included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What happens to a table of requests.
    #[derive(Clone, Debug)]
    enum Step {
        Ask { timeout_ms: u64 },
        Answer { id: u64 },
        Wait { ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1_u64..50).prop_map(|timeout_ms| Step::Ask { timeout_ms }),
            2 => (1_u64..40).prop_map(|id| Step::Answer { id }),
            1 => (0_u64..30).prop_map(|ms| Step::Wait { ms }),
        ]
    }

    #[test]
    fn a_late_answer_still_brings_its_command_but_no_waiter() {
        let start = Duration::ZERO;
        let mut pending = Pending::new();
        let id = pending.insert(start, Duration::from_millis(10), "pause", "caller");
        assert!(pending.expire(start + Duration::from_millis(9)).is_empty());
        assert_eq!(pending.next_deadline(), Some(start + Duration::from_millis(10)));
        let expired = pending.expire(start + Duration::from_millis(10));
        assert_eq!(expired, [("caller", Duration::from_millis(10))]);
        assert_eq!(pending.next_deadline(), None);
        assert_eq!(pending.answer(id), Some(("pause", None)));
        assert_eq!(pending.answer(id), None, "answered twice");
        assert_eq!(pending.len(), 0);
    }

    proptest! {
        /// Whatever happens in whatever order, each waiter is resolved exactly once, none before its deadline, none
        /// later than the first look at the clock after it, and nothing stays behind.
        #[test]
        fn each_request_is_resolved_exactly_once(steps in proptest::collection::vec(step(), 1..200)) {
            let start = Duration::ZERO;
            let mut now = start;
            let mut pending: Pending<u64, u64> = Pending::new();
            let mut waiting: BTreeMap<u64, Duration> = BTreeMap::new();
            let mut unanswered: BTreeMap<u64, ()> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Ask { timeout_ms } => {
                        let timeout = Duration::from_millis(timeout_ms);
                        let number = pending.last_id + 1;
                        let id = pending.insert(now, timeout, number, number);
                        prop_assert_eq!(id.0, number);
                        waiting.insert(number, now + timeout);
                        unanswered.insert(number, ());
                    }
                    Step::Answer { id } => {
                        let answered = pending.answer(RequestId(id));
                        match unanswered.remove(&id) {
                            None => prop_assert_eq!(answered, None),
                            Some(()) => {
                                let waiter = waiting.remove(&id).map(|_| id);
                                prop_assert_eq!(answered, Some((id, waiter)));
                            }
                        }
                    }
                    Step::Wait { ms } => {
                        now += Duration::from_millis(ms);
                        for (waiter, timeout) in pending.expire(now) {
                            let deadline = waiting.remove(&waiter);
                            prop_assert!(deadline.is_some_and(|deadline| deadline <= now), "{} after {:?}", waiter, timeout);
                        }
                        prop_assert!(waiting.values().all(|deadline| *deadline > now));
                    }
                }
                prop_assert_eq!(pending.next_deadline(), waiting.values().min().copied());
                prop_assert_eq!(pending.len(), unanswered.len());
            }
            prop_assert_eq!(pending.drain(), waiting.into_keys().collect::<Vec<_>>());
            prop_assert_eq!(pending.len(), 0);
            prop_assert_eq!(pending.next_deadline(), None);
        }
    }
}
