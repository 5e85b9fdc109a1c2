//! The requests that a worker has not answered, and when each must be (pure).
//!
//! Invariant: each request is resolved exactly once: by its answer, by its deadline, or by the worker's death. A request
//! whose deadline has passed stays known, without its waiter, until it is answered: the worker may have done it just in
//! time, and what it did must be applied.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use weir_channel::id::RequestId;

/// Requests under way: `C` is what was asked, `W` is who waits.
#[derive(Debug)]
pub(crate) struct Pending<C, W> {
    entries: HashMap<RequestId, Entry<C, W>>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    last_id: u64,
}

#[derive(Debug)]
struct Entry<C, W> {
    command: C,
    /// None once the deadline has passed.
    waiter: Option<(Instant, W)>,
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
    pub(crate) fn insert(&mut self, now: Instant, timeout: Duration, command: C, waiter: W) -> RequestId {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        let deadline = now + timeout;
        self.deadlines.insert((deadline, id));
        self.entries.insert(
            id,
            Entry {
                command,
                waiter: Some((deadline, waiter)),
            },
        );
        id
    }

    /// The answer has come: what was asked, and who waits for it, unless it came too late. `None` when nothing (or
    /// nothing any more) is asked under this id.
    pub(crate) fn answer(&mut self, id: RequestId) -> Option<(C, Option<W>)> {
        let entry = self.entries.remove(&id)?;
        let waiter = entry.waiter.map(|(deadline, waiter)| {
            self.deadlines.remove(&(deadline, id));
            waiter
        });
        Some((entry.command, waiter))
    }

    /// Who has waited until now, or longer.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<W> {
        let mut expired = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let waiter = self.entries.get_mut(&id).and_then(|entry| entry.waiter.take());
            expired.extend(waiter.map(|(_, waiter)| waiter));
        }
        expired
    }

    /// When the next one expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The worker is dead: all who wait, in the order in which they asked.
    pub(crate) fn drain(&mut self) -> Vec<W> {
        self.deadlines.clear();
        let mut entries: Vec<_> = self.entries.drain().collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        entries
            .into_iter()
            .filter_map(|(_, entry)| entry.waiter.map(|(_, waiter)| waiter))
            .collect()
    }

    /// How many requests are not answered, expired ones included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
