//! The numbers that a client gave to its transports and producers.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;

use serde::{Deserialize, Serialize};
use weir_channel::id::{ProducerId, TransportId};

use crate::server::random;

/// A number that a client chose, or that was chosen for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ClientId(pub(crate) i64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The numbers of closed things that are remembered: as many as notifications can wait for a client that may name them.
const CLOSED_MAX: usize = 4_096;

/// A peer's numbers.
#[derive(Debug, Default)]
pub(crate) struct ClientIds {
    pub(crate) transports: Table<TransportId>,
    pub(crate) producers: Table<ProducerId>,
}

/// The numbers of one kind of thing.
#[derive(Debug)]
pub(crate) struct Table<T> {
    things: HashMap<ClientId, Thing<T>>,
    numbers: HashMap<T, ClientId>,
    /// Things that are closed, the oldest first; what is told of them may still be on its way.
    closed: VecDeque<T>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Thing<T> {
    OnItsWay,
    Made(T),
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            things: HashMap::new(),
            numbers: HashMap::new(),
            closed: VecDeque::new(),
        }
    }
}

impl<T: Copy + Eq + Hash> Table<T> {
    /// Takes a number for what is about to be made; a free one if the client says none. `None`: it is in use. `is_open`
    /// tells which of the things that were made are still there.
    pub(crate) fn reserve(&mut self, wanted: Option<ClientId>, is_open: impl Fn(T) -> bool) -> Option<ClientId> {
        self.forget_closed(is_open);
        let number = match wanted {
            Some(number) => number,
            None => self.unused(),
        };
        if self.things.contains_key(&number) {
            return None;
        }
        self.things.insert(number, Thing::OnItsWay);
        Some(number)
    }

    /// What the number was taken for exists now.
    pub(crate) fn made(&mut self, number: ClientId, thing: T) {
        self.things.insert(number, Thing::Made(thing));
        self.numbers.insert(thing, number);
    }

    /// What the number was taken for came to nothing.
    pub(crate) fn release(&mut self, number: ClientId) {
        if self.things.get(&number) == Some(&Thing::OnItsWay) {
            self.things.remove(&number);
        }
    }

    /// What a number means.
    pub(crate) fn thing(&self, number: ClientId) -> Option<T> {
        match self.things.get(&number)? {
            Thing::OnItsWay => None,
            Thing::Made(thing) => Some(*thing),
        }
    }

    /// The number of a thing; what the client did not make itself gets one.
    pub(crate) fn number(&mut self, thing: T) -> ClientId {
        if let Some(number) = self.numbers.get(&thing) {
            return *number;
        }
        let number = self.unused();
        self.made(number, thing);
        number
    }

    fn unused(&self) -> ClientId {
        // As v2 does: one of eight digits that nobody has, and that nobody is likely to say by mistake.
        loop {
            let number = ClientId((10_000_000 + random() % 90_000_000) as i64);
            if !self.things.contains_key(&number) {
                return number;
            }
        }
    }

    /// Frees the numbers of what is closed. Which thing had which number is remembered for a while.
    fn forget_closed(&mut self, is_open: impl Fn(T) -> bool) {
        let closed = &mut self.closed;
        self.things.retain(|_, thing| match thing {
            Thing::Made(made) if !is_open(*made) => {
                closed.push_back(*made);
                false
            }
            _ => true,
        });
        while self.closed.len() > CLOSED_MAX {
            if let Some(oldest) = self.closed.pop_front() {
                self.numbers.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_again_when_its_thing_is_closed() {
        let mut table = Table::<TransportId>::default();
        let number = ClientId(-5);
        assert_eq!(table.reserve(Some(number), |_| true), Some(number));
        assert_eq!(table.reserve(Some(number), |_| true), None, "on its way");
        assert_eq!(table.thing(number), None);
        table.release(number);
        assert_eq!(table.reserve(Some(number), |_| true), Some(number));
        table.made(number, TransportId(7));
        table.release(number);
        assert_eq!(
            table.thing(number),
            Some(TransportId(7)),
            "what is made is not released"
        );
        assert_eq!(table.reserve(Some(number), |_| true), None);
        assert_eq!(table.reserve(Some(number), |_| false), Some(number));
        table.made(number, TransportId(8));
        assert_eq!(table.number(TransportId(7)), number, "told of after it was closed");
        assert_eq!(table.number(TransportId(8)), number);
    }

    #[test]
    fn numbers_are_found_for_those_who_have_none() {
        let mut table = Table::<ProducerId>::default();
        table.reserve(Some(ClientId(1)), |_| true);
        let reserved = table.reserve(None, |_| true).unwrap();
        assert!((10_000_000..100_000_000).contains(&reserved.0));
        let number = table.number(ProducerId(40));
        assert_ne!(number, reserved);
        assert_eq!(table.thing(number), Some(ProducerId(40)));
        assert_eq!(table.number(ProducerId(40)), number);
    }

    #[test]
    fn closed_things_are_not_remembered_for_ever() {
        let mut table = Table::<ProducerId>::default();
        for id in 1..=10_000 {
            table.reserve(Some(ClientId(9)), |_| false);
            table.made(ClientId(9), ProducerId(id));
        }
        assert!(table.numbers.len() <= CLOSED_MAX + 1);
        assert!(table.closed.len() <= CLOSED_MAX);
    }
}
