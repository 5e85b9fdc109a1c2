//! A network between two ends that loses, doubles, delays and reorders, always in the same way for the same seed.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use weir_worker::time::Time;

/// Numbers that follow from a seed.
pub(crate) struct Random(pub u64);

impl Random {
    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A datagram on its way.
pub(crate) struct Flight {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// How bad a network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// Of a hundred datagrams; but never two in a row of the same kind on the same way. Handshakes wait twice as long
    /// each time, so a run of losses would be a test of patience, and not the same one each time: their timers have
    /// random parts of their own.
    pub(crate) lost: u64,
    /// Of a hundred datagrams.
    pub(crate) doubled: u64,
    /// Each way; the difference reorders.
    pub(crate) delay_ms: (u64, u64),
}

pub(crate) const PERFECT: Quality = Quality {
    lost: 0,
    doubled: 0,
    delay_ms: (10, 10),
};

pub(crate) struct Network {
    pub(crate) quality: Quality,
    /// Nothing gets through.
    pub(crate) is_cut: bool,
    /// What does not get through.
    pub(crate) filter: fn(&Flight) -> bool,
    random: Random,
    flights: BTreeMap<(Time, u64), Flight>,
    /// Ways, and whether of STUN, on which the last datagram was lost.
    unlucky: HashSet<(SocketAddr, bool)>,
    sent: u64,
}

impl Network {
    pub(crate) fn new(seed: u64, quality: Quality) -> Self {
        Self {
            quality,
            is_cut: false,
            filter: |_| false,
            random: Random(seed),
            flights: BTreeMap::new(),
            unlucky: HashSet::new(),
            sent: 0,
        }
    }

    pub(crate) fn send(&mut self, now: Time, flight: Flight) {
        if self.is_cut || (self.filter)(&flight) {
            return;
        }
        let way = (flight.to, flight.bytes[0] < 4);
        if !self.unlucky.remove(&way) && self.random.below(100) < self.quality.lost {
            self.unlucky.insert(way);
            return;
        }
        let copies = 1 + usize::from(self.random.below(100) < self.quality.doubled);
        for _ in 0..copies {
            let (least, most) = self.quality.delay_ms;
            let delay = Duration::from_millis(least + self.random.below(most - least + 1));
            self.sent += 1;
            let copy = Flight {
                from: flight.from,
                to: flight.to,
                bytes: flight.bytes.clone(),
            };
            self.flights.insert((now + delay, self.sent), copy);
        }
    }

    /// When something arrives.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.flights.keys().next().map(|(at, _)| *at)
    }

    /// What has arrived.
    pub(crate) fn receive(&mut self, now: Time) -> Option<Flight> {
        let first = self.flights.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
