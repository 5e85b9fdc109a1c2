//! When each transport wants to be woken: a heap in which what has become wrong is left until its time comes.
//!
//! A check moves the end of its consent by seconds, many times a second in a worker; a timer that is moved to a later time
//! is therefore left where it is, and set anew when it comes too early. So there are hardly more entries than transports.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::relay::sink::TransportIx;
use crate::time::Time;

/// The timers of all transports, one each.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Time, TransportIx)>>,
    /// By transport: the entry that counts.
    due: Vec<Option<Time>>,
}

impl Timers {
    /// Wakes a transport at `due`, or earlier if it is to be woken then already; `None` changes nothing.
    pub(super) fn set(&mut self, transport: TransportIx, due: Option<Time>) {
        let Some(due) = due else { return };
        let index = transport.0 as usize;
        if self.due.len() <= index {
            self.due.resize(index + 1, None);
        }
        if self.due[index].is_none_or(|before| due < before) {
            self.due[index] = Some(due);
            self.heap.push(Reverse((due, transport)));
        }
    }

    /// Forgets a transport's timer.
    pub(super) fn cancel(&mut self, transport: TransportIx) {
        if let Some(due) = self.due.get_mut(transport.0 as usize) {
            *due = None;
        }
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// A transport that is to be woken now. Set its timer again.
    pub(super) fn pop(&mut self, now: Time) -> Option<TransportIx> {
        while let Some(Reverse((due, transport))) = self.heap.peek().copied() {
            if due > now {
                return None;
            }
            self.heap.pop();
            let counts = &mut self.due[transport.0 as usize];
            if *counts == Some(due) {
                *counts = None;
                return Some(transport);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TransportIx = TransportIx(0);
    const B: TransportIx = TransportIx(7);

    fn at(ms: u64) -> Option<Time> {
        Some(Time::from_millis(ms))
    }

    #[test]
    fn the_earliest_time_counts_and_each_is_woken_once() {
        let mut timers = Timers::default();
        timers.set(A, at(50));
        timers.set(B, at(30));
        timers.set(A, at(20));
        timers.set(A, at(90));
        timers.set(B, None);
        assert_eq!(timers.next(), at(20));
        assert_eq!(timers.pop(Time::from_millis(19)), None);
        assert_eq!(timers.pop(Time::from_millis(40)), Some(A));
        assert_eq!(timers.pop(Time::from_millis(40)), Some(B));
        assert_eq!(timers.pop(Time::from_millis(40)), None);
        // What was replaced wakes nobody.
        assert_eq!(timers.pop(Time::from_millis(1_000)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_cancelled_timer_is_not_the_next_transports() {
        let mut timers = Timers::default();
        timers.set(A, at(50));
        timers.cancel(A);
        timers.set(A, at(80));
        assert_eq!(timers.pop(Time::from_millis(60)), None);
        assert_eq!(timers.pop(Time::from_millis(80)), Some(A));
        timers.cancel(B);
    }

    #[test]
    fn moving_a_timer_back_costs_no_memory() {
        let mut timers = Timers::default();
        for ms in 30_000..60_000 {
            timers.set(A, at(ms));
        }
        assert_eq!(timers.heap.len(), 1);
    }
}
