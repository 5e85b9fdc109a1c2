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
    RandomState::new().hash_one(0_u8)
}

/// A canonical name that nobody else has: 96 random bits (RFC 7022 §4.2).
pub(crate) fn made_up_cname() -> String {
    format!("{:016x}{:08x}", random(), random() as u32)
}
