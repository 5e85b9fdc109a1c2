//! The page of a worker that is dead, as its successor reads it. Nothing in it is believed unchecked: whoever wrote it may have gone
//! astray before it died. A number may still be wrong that looks right; that costs the object, never the reader.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::layout::{
    At, Capacity, DETAIL, Double, HASH, HEADER_WORDS, ID, MAGIC, SCHEMA, Sealed, Suspect, TABLES, Table, Twin, header,
};
use super::record::{Record, checksum};
use super::{Slot, TAKEN};

/// A double number and its copy differ by no more than this when its writer dies between the two: what is used at once.
const STEP_MAX: u64 = 1 << 16;

/// More was never counted.
const COUNT_MAX: u64 = 1 << 56;

/// A page that nobody writes to any more.
#[derive(Clone)]
pub struct Predecessor {
    words: Arc<dyn AsRef<[AtomicU64]> + Send + Sync>,
    capacity: Capacity,
    slots: [HashMap<(u64, u64), Slot, FixedState>; TABLES],
}

/// Why a page cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// Nothing was ever written there.
    #[error("it was never begun")]
    NeverBegun,
    /// It was overwritten.
    #[error("it is no page of a worker")]
    NoPage,
    /// Another program has written it.
    #[error("it was written by another version, whose layout is {schema} ({hash:016x})")]
    OtherLayout {
        /// The number of its layout.
        schema: u64,
        /// Its hash.
        hash: u64,
    },
}

/// What is kept of an object cannot be true.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what its last worker has left of it is damaged: {0}")]
pub struct Damaged(pub &'static str);

impl fmt::Debug for Predecessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.slots.iter().map(HashMap::len).collect();
        f.debug_tuple("Predecessor").field(&counts).finish()
    }
}

impl Predecessor {
    /// Looks for all objects of a page.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn open(words: Arc<dyn AsRef<[AtomicU64]> + Send + Sync>) -> Result<Self, Unreadable> {
        let load = |at: usize| load((*words).as_ref(), at);
        let header: Vec<_> = (0..header::SUMMED).map(load).collect();
        if load(header::SUM) == 0 {
            return Err(Unreadable::NeverBegun);
        }
        if header[header::MAGIC] != MAGIC || load(header::SUM) != u64::from(checksum(header.iter().copied())) | TAKEN {
            return Err(Unreadable::NoPage);
        }
        let (schema, hash) = (header[header::SCHEMA], header[header::LAYOUT]);
        if (schema, hash) != (u64::from(SCHEMA), HASH) {
            return Err(Unreadable::OtherLayout { schema, hash });
        }
        let [low, high] = [header[header::CAPACITY], header[header::CAPACITY + 1]];
        let connections = header[header::CAPACITY + 2] as u32;
        let capacity = Capacity([
            low as u32,
            (low >> 32) as u32,
            high as u32,
            (high >> 32) as u32,
            connections,
        ]);
        let mut slots = [const { HashMap::with_hasher(FixedState::with_seed(0)) }; TABLES];
        for table in Table::ALL {
            let slots: &mut HashMap<_, _, _> = &mut slots[table as usize];
            let taken = load(header::TAKEN + table as usize);
            // No more than there is memory for, whatever is written there.
            let memory = (*words).as_ref().len();
            let room = memory.saturating_sub(capacity.base(table)) / table.slot_words();
            let taken = usize::try_from(taken)
                .unwrap_or(usize::MAX)
                .min(room)
                .min(capacity.slots(table));
            for index in 0..taken {
                let at = capacity.base(table) + index * table.slot_words();
                let id = load(at + ID);
                if id & TAKEN != 0 {
                    // A consumer is known by its id alone; what else is there is checked.
                    let detail = match table {
                        Table::Streams | Table::WebRtc | Table::Connections => load(at + DETAIL),
                        Table::Consumers | Table::Transports => 0,
                    };
                    slots.insert((id & !TAKEN, detail), Slot(at as u32));
                }
            }
        }
        Ok(Self { words, capacity, slots })
    }

    /// How many slots of a table are taken.
    pub fn taken(&self, table: Table) -> usize {
        self.slots[table as usize].len()
    }

    /// How many slots there are.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The slot of an object; `detail` is a stream's encoding, the number of a WebRTC transport's slot, a connection's cookie, of
    /// others 0.
    pub fn find(&self, table: Table, id: u64, detail: u64) -> Option<Slot> {
        self.slots[table as usize].get(&(id, detail)).copied()
    }

    /// What was noted of an object when it took its slot.
    pub fn detail(&self, slot: Slot) -> u64 {
        self.load(slot, DETAIL)
    }

    /// A record that is kept as it is.
    pub fn record<R: Record>(&self, slot: Slot, at: At<R>) -> R {
        R::from_words(|index| self.load(slot, at.0 + index))
    }

    /// A record of nothing but counters. None of them has counted so far that it could not go on for ever.
    pub fn counters<R: Record>(&self, slot: Slot, at: At<R>) -> R {
        R::from_words(|index| self.load(slot, at.0 + index).min(COUNT_MAX))
    }

    /// A record whose fields belong together; `None` if it was never stored.
    ///
    /// # Errors
    /// It was overwritten.
    pub fn twin<R: Record>(&self, slot: Slot, twin: Twin<R>) -> Result<Option<R>, Damaged> {
        let at = twin.0;
        let counts = self.load(slot, at);
        if counts == 0 {
            return Ok(None);
        }
        let copy = (counts & 1) as usize;
        let record = R::from_words(|index| self.load(slot, at + 1 + copy * R::WORDS + index));
        if counts != TAKEN | u64::from(checksum(record.to_words())) << 1 | copy as u64 {
            return Err(Damaged("a checksum does not fit"));
        }
        Ok(Some(record))
    }

    /// A record that is there as a whole or not at all.
    ///
    /// # Errors
    /// It was overwritten.
    pub fn sealed<R: Record>(&self, slot: Slot, sealed: Sealed<R>) -> Result<Option<R>, Damaged> {
        let seal = self.load(slot, sealed.0);
        if seal == 0 {
            return Ok(None);
        }
        let record = R::from_words(|index| self.load(slot, sealed.0 + 1 + index));
        if seal != TAKEN | u64::from(checksum(record.to_words())) {
            return Err(Damaged("a checksum does not fit"));
        }
        Ok(Some(record))
    }

    /// A number that is stored twice; `None` if it was never stored.
    ///
    /// # Errors
    /// It was overwritten.
    pub fn double(&self, slot: Slot, Double(at): Double) -> Result<Option<u64>, Damaged> {
        double(self.load(slot, at), self.load(slot, at + 1))
    }

    /// Where the last batch came from that the dead worker began with.
    pub fn suspect(&self) -> Suspect {
        Suspect::from_words(|index| load((*self.words).as_ref(), header::SUSPECT + index))
    }

    fn load(&self, slot: Slot, at: usize) -> u64 {
        load((*self.words).as_ref(), slot.0 as usize + at)
    }
}

/// Which worker has written a page, if it is one; 0 of one that was never begun. Nothing is checked.
pub fn writer_of(words: &[AtomicU64]) -> u64 {
    load(words, header::WRITER)
}

/// A number by its two copies, the second one inverted; `None` if it was never stored.
///
/// # Errors
/// They do not fit together.
pub fn double(number: u64, inverted: u64) -> Result<Option<u64>, Damaged> {
    if (number, inverted) == (0, 0) {
        return Ok(None);
    }
    // Between the first store and the second one nothing was used yet; the greater number is right in any case. Before the
    // first second one there is none.
    match number.checked_sub(!inverted) {
        Some(0..=STEP_MAX) => Ok(Some(number)),
        _ if inverted == 0 => Ok(Some(number)),
        _ => Err(Damaged("a number and its copy do not fit together")),
    }
}

fn load(words: &[AtomicU64], at: usize) -> u64 {
    words.get(at).map_or(0, |word| word.load(Ordering::Acquire))
}

const _: () = assert!(HEADER_WORDS > header::TAKEN + Table::ALL.len());
