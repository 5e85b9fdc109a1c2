//! What waits for the end of the turn, so that all that leaves for one transport leaves together.
//!
//! Trains are copied one after the other into one buffer and chained by transport. [`Gather::plan`] turns a transport's
//! chain into messages: neighbours of equal size become one train, for which they are copied next to each other unless
//! they lie so already. The order of each transport's packets, and so of each stream's, stays as it was.

use super::send::{BATCH_MESSAGES_MAX, Message, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX};
use crate::relay::sink::{ConsumerIx, TransportIx};

/// Bytes that can wait: about 800 full packets, the frames of a turn. When they are used up, all is sent early, which
/// costs longer trains but no packet.
pub const GATHER_BYTES: usize = 1 << 20;

/// Trains that can wait: as many as the bytes hold if each is a small packet of sound (256 bytes).
pub const GATHER_ENTRIES: usize = 4_096;

/// Where neighbours are laid next to each other: four trains of the greatest length. A plan that needs more is made in
/// several steps.
const SCRATCH_BYTES: usize = 4 * TRAIN_BYTES_MAX;

const NONE: u32 = u32::MAX;

/// Packets of one consumer on their way out, laid end to end.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a> {
    /// The transport that they leave on.
    pub transport: TransportIx,
    /// The consumer that they belong to.
    pub owner: ConsumerIx,
    /// The packets.
    pub bytes: &'a [u8],
    /// Bytes of each packet but the last, which may be shorter: at least 1, and not more than there are.
    pub segment: usize,
    /// When they had arrived, on the realtime clock in nanoseconds; 0 if that is not measured.
    pub arrival_ns: u64,
}

/// One transport's chain in a [`Gather`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct List {
    first: u32,
    last: u32,
}

impl List {
    /// An empty one.
    pub const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
    };

    /// Whether one train waits for the transport.
    pub const fn is_single(&self) -> bool {
        self.first == self.last && self.first != NONE
    }

    /// Whether nothing waits for the transport.
    pub const fn is_empty(&self) -> bool {
        self.first == NONE
    }
}

/// A train that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The consumer that the packets belong to.
    pub owner: ConsumerIx,
    /// When they had arrived, on the realtime clock in nanoseconds; 0 if that is not measured.
    pub arrival_ns: u64,
    start: u32,
    len: u32,
    segment: u32,
    next: u32,
}

impl Entry {
    /// How many packets it holds.
    pub const fn packets(&self) -> usize {
        self.message().packets()
    }

    const fn message(&self) -> Message {
        Message {
            start: self.start as usize,
            len: self.len as usize,
            segment: self.segment as usize,
        }
    }
}

/// The buffer. Nothing is allocated after [`Gather::new`].
pub struct Gather {
    /// The trains as they came, then the scratch.
    bytes: Box<[u8]>,
    used: usize,
    entries: Vec<Entry>,
    transports: Vec<TransportIx>,
}

/// Some of a transport's chain, from its first entry on, as messages that are ready to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    first: u32,
    end: u32,
}

impl Gather {
    /// An empty buffer of [`GATHER_BYTES`] and [`GATHER_ENTRIES`].
    pub fn new() -> Self {
        Self {
            bytes: vec![0; GATHER_BYTES + SCRATCH_BYTES].into_boxed_slice(),
            used: 0,
            entries: Vec::with_capacity(GATHER_ENTRIES),
            transports: Vec::with_capacity(GATHER_ENTRIES),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends a train, which must be one that a single message can carry. `false` if the buffer is full: send what waits,
    /// then call this again.
    pub fn push(&mut self, list: &mut List, train: Train<'_>) -> bool {
        let Some(buffer) = self.reserve(train.bytes.len()) else {
            return false;
        };
        buffer.copy_from_slice(train.bytes);
        self.commit(list, train.bytes.len(), train);
        true
    }

    /// Where a train of `len` bytes can be written, to be committed then; `None` if the buffer is full.
    pub fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        let end = self.used + len;
        if end > GATHER_BYTES || self.entries.len() == GATHER_ENTRIES {
            return None;
        }
        Some(&mut self.bytes[self.used..end])
    }

    /// Appends a train whose bytes are the first `len` of what [`Gather::reserve`] gave last, in place of its own. It must be one
    /// that a single message can carry.
    pub fn commit(&mut self, list: &mut List, len: usize, train: Train<'_>) {
        debug_assert!(len <= TRAIN_BYTES_MAX && len.div_ceil(train.segment) <= TRAIN_SEGMENTS_MAX);
        let index = self.entries.len() as u32;
        self.entries.push(Entry {
            owner: train.owner,
            arrival_ns: train.arrival_ns,
            start: self.used as u32,
            len: len as u32,
            segment: train.segment as u32,
            next: NONE,
        });
        self.used += len;
        if list.is_empty() {
            list.first = index;
            self.transports.push(train.transport);
        } else {
            self.entries[list.last as usize].next = index;
        }
        list.last = index;
    }

    /// The transports for which something waits, each once, in the order of their first train.
    pub fn transports(&self) -> &[TransportIx] {
        &self.transports
    }

    /// Forgets everything. The transports' lists must have been emptied.
    pub fn clear(&mut self) {
        self.used = 0;
        self.entries.clear();
        self.transports.clear();
    }

    /// Takes from the front of `list` as much as one batch can send, writes it to `messages` (at most
    /// [`BATCH_MESSAGES_MAX`]), and says which entries that is; `None` when the list is empty.
    ///
    /// With `merge` neighbours of equal size become one train. The messages lie in [`Gather::bytes`] until the next call.
    pub fn plan(&mut self, list: &mut List, merge: bool, messages: &mut Vec<Message>) -> Option<Plan> {
        messages.clear();
        let first = list.first;
        let mut scratch = GATHER_BYTES;
        let mut at = first;
        while let Some(entry) = self.entries.get(at as usize).copied() {
            let next = entry.message();
            let count = messages.len();
            match messages.last_mut() {
                Some(last) if merge && last.can_append(&next) => {
                    if last.start + last.len != next.start || last.start >= GATHER_BYTES {
                        // Side by side in the scratch, at whose end `last` is if it is there already.
                        let is_moved = last.start >= GATHER_BYTES;
                        let needed = if is_moved { next.len } else { last.len + next.len };
                        if scratch + needed > self.bytes.len() {
                            break;
                        }
                        if !is_moved {
                            self.bytes.copy_within(last.start..last.start + last.len, scratch);
                            last.start = scratch;
                            scratch += last.len;
                        }
                        self.bytes.copy_within(next.start..next.start + next.len, scratch);
                        scratch += next.len;
                    }
                    last.len += next.len;
                }
                _ if count == BATCH_MESSAGES_MAX => break,
                _ => messages.push(next),
            }
            at = entry.next;
        }
        list.first = at;
        if list.is_empty() {
            *list = List::EMPTY;
        }
        (first != NONE).then_some(Plan { first, end: at })
    }

    /// The packet that a list has, if it is one train of one packet: whose it is, when it came, and where it lies in
    /// [`Gather::bytes`].
    pub fn lone_packet(&self, list: List) -> Option<(Entry, Message)> {
        let entry = self.entries.get(list.first as usize).copied()?;
        (list.is_single() && entry.packets() == 1).then(|| (entry, entry.message()))
    }

    /// What the messages of a plan point into.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The entries of a plan in their order, each with its packets' bytes.
    pub fn entries(&self, plan: Plan) -> impl Iterator<Item = (Entry, impl Iterator<Item = &[u8]>)> {
        let mut at = plan.first;
        std::iter::from_fn(move || {
            if at == plan.end {
                return None;
            }
            let entry = self.entries[at as usize];
            at = entry.next;
            let packets = entry
                .message()
                .singles()
                .map(|packet| &self.bytes[packet.start..packet.start + packet.len]);
            Some((entry, packets))
        })
    }
}

impl Default for Gather {
    fn default() -> Self {
        Self::new()
    }
}
