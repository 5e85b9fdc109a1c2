//! Numbers that nothing else has.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};

/// Hands out ids, unique for the life of the server.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    rooms: AtomicU64,
    transports: AtomicU64,
    producers: AtomicU64,
    consumers: AtomicU64,
}

impl Ids {
    pub(crate) fn room(&self) -> RoomId {
        RoomId(Self::next(&self.rooms))
    }

    pub(crate) fn transport(&self) -> TransportId {
        TransportId(Self::next(&self.transports))
    }

    pub(crate) fn producer(&self) -> ProducerId {
        ProducerId(Self::next(&self.producers))
    }

    pub(crate) fn consumer(&self) -> ConsumerId {
        ConsumerId(Self::next(&self.consumers))
    }

    fn next(counter: &AtomicU64) -> u64 {
        counter.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A number nobody can guess: SipHash under fresh random keys from the system.
pub(crate) fn random() -> u64 {
    #[cfg(test)]
    if let Some(number) = seeded::next() {
        return number;
    }
    RandomState::new().hash_one(0_u8)
}

/// A canonical name that nobody else has: 96 random bits (RFC 7022 §4.2).
pub(crate) fn made_up_cname() -> String {
    format!("{:016x}{:08x}", random(), random() as u32)
}

/// What a simulation puts in the place of chance, on its thread.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From now on numbers follow from a seed, or from nothing again.
    pub(crate) fn begin(seed: Option<u64>) {
        STATE.set(seed);
    }

    /// SplitMix64 by Steele, Lea and Flood.
    pub(crate) fn next() -> Option<u64> {
        let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
        STATE.set(Some(state));
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(mixed ^ mixed >> 31)
    }
}
