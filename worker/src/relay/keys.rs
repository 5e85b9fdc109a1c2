//! Where the relay's objects live: generational slots, so that a stale index finds nothing, and never another object.

use slotmap::{Key, KeyData, new_key_type};

use crate::time::wheel::Slot;

use super::sink::{ConsumerIx, TransportIx};

new_key_type! {
    /// Slot of a transport.
    pub struct TransportKey;
    /// Slot of a producer.
    pub struct ProducerKey;
    /// Slot of a consumer.
    pub struct ConsumerKey;
}

impl TransportKey {
    /// The slot without its generation, for the shell's table.
    pub(super) fn index(self) -> TransportIx {
        TransportIx(self.data().as_ffi() as u32)
    }
}

impl Slot for TransportKey {
    fn slot(self) -> usize {
        self.index().0 as usize
    }
}

impl Slot for ProducerKey {
    fn slot(self) -> usize {
        self.data().as_ffi() as u32 as usize
    }
}

impl ConsumerKey {
    /// As the shell keeps it beside packets that wait.
    pub(super) fn index(self) -> ConsumerIx {
        let ffi = self.data().as_ffi();
        ConsumerIx {
            slot: ffi as u32,
            generation: (ffi >> 32) as u32,
        }
    }

    /// Back again.
    pub(super) fn from_index(index: ConsumerIx) -> Self {
        Self::from(KeyData::from_ffi(
            u64::from(index.generation) << 32 | u64::from(index.slot),
        ))
    }
}
