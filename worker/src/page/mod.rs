//! The page: what a worker writes down as it goes, so that a successor can go on where it was when it died.
//!
//! One writer; and nobody reads before the kernel has said that the writer is dead, so there are no locks. What a reader finds is
//! what a prefix of the writer's stores has left ([`memory`]), and [`layout`] says why that makes sense after every single
//! store. A writer may also have died because it had gone astray, and have written anything: [`predecessor`] believes nothing
//! that it has not checked.
//!
//! Nothing in here knows what the numbers mean. The rule of those who do: **what is used up is stored before it is used** (an
//! index before its packet is protected or sent), **what was received is stored after it was passed on** (so that the successor
//! asks for what was under way).

pub mod layout;
pub mod memory;
pub mod predecessor;
mod record;

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::atomic::Ordering;

use weir_channel::message::WorkerStats;

use crate::time::Time;

use self::layout::{
    Address, At, Capacity, DETAIL, Double, HASH, ID, MAGIC, SCHEMA, Sealed, Suspect, TABLES, Table, Twin, header,
};
use self::memory::{HeapPage, Memory};
pub use self::record::Record;
use self::record::checksum;

/// Bit of an id that says that a slot is taken.
const TAKEN: u64 = 1 << 63;

/// A page that is written to.
#[derive(Debug)]
pub struct Page {
    memory: Memory,
    capacity: Capacity,
    tables: [Slots; TABLES],
}

/// Which slots of a table are free.
#[derive(Clone, Debug, Default)]
struct Slots {
    left: Vec<u32>,
    /// Slots from here on were never taken.
    taken: u32,
}

/// A slot of an object, or none: then what is kept of the object is kept nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot(u32);

impl Slot {
    /// What is kept of the object is kept nowhere.
    pub const NONE: Self = Self(0);

    /// Whether it is kept nowhere.
    #[inline]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Where one number is kept.
#[derive(Clone, Debug)]
pub struct Counter {
    memory: Memory,
    at: usize,
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            memory: Memory::nowhere(),
            at: 0,
        }
    }
}

impl Counter {
    /// Stores the number twice, the second time inverted.
    #[inline]
    pub fn store(&self, number: u64) {
        self.memory.store_all(self.at, [number, !number]);
    }
}

impl Page {
    /// A page of which nothing is kept.
    pub fn nowhere() -> Self {
        Self {
            memory: Memory::nowhere(),
            capacity: Capacity([0; TABLES]),
            tables: Default::default(),
        }
    }

    /// A page in memory that is all zeroes. If it has fewer words than there are slots for, what is over is kept nowhere. `writer`:
    /// a number that no other page has, by which a reader knows one that it has read already.
    pub fn new(memory: Memory, capacity: Capacity, writer: u64) -> Self {
        let page = Self {
            memory,
            capacity,
            tables: Default::default(),
        };
        let slots = |table: Table| u64::from(capacity.0[table as usize]);
        let words = [
            MAGIC,
            u64::from(SCHEMA),
            HASH,
            slots(Table::Consumers) | slots(Table::Streams) << 32,
            slots(Table::Transports) | slots(Table::WebRtc) << 32,
            slots(Table::Connections),
            writer,
        ];
        // The sum last: without it nothing is a page.
        page.memory.store_all(header::MAGIC, words);
        page.memory
            .store(header::SUM, u64::from(checksum(words.into_iter())) | TAKEN);
        page
    }

    /// Makes all checksums right again in a page that was changed from outside: a test's way to get past them.
    pub fn mend(page: &HeapPage, capacity: Capacity) {
        let words = page.as_ref();
        let load = |at: usize| words.get(at).map_or(0, |word| word.load(Ordering::Relaxed));
        let mend = |at: usize, len: usize| {
            let counts = load(at);
            if let (true, Some(word)) = (counts & TAKEN != 0, words.get(at)) {
                let copy = (counts & 1) as usize;
                let sum = checksum((0..len).map(|index| load(at + 1 + copy * len + index)));
                word.store(TAKEN | u64::from(sum) << 1 | copy as u64, Ordering::Relaxed);
            }
        };
        for (table, twin, len) in layout::TWINS {
            for slot in 0..capacity.slots(table) {
                mend(capacity.base(table) + slot * table.slot_words() + twin, len);
            }
        }
        for slot in 0..capacity.slots(Table::WebRtc) {
            let slot = capacity.base(Table::WebRtc) + slot * Table::WebRtc.slot_words();
            for (sealed, len) in layout::webrtc::SEALED {
                let at = slot + sealed;
                if let (true, Some(seal)) = (load(at) & TAKEN != 0, words.get(at)) {
                    let sum = checksum((0..len).map(|index| load(at + 1 + index)));
                    seal.store(TAKEN | u64::from(sum), Ordering::Relaxed);
                }
            }
        }
    }

    /// Takes a slot for an object. There may be none left.
    pub fn take(&mut self, table: Table, id: u64, detail: u64) -> Slot {
        let slots = &mut self.tables[table as usize];
        let index = match slots.left.pop() {
            Some(index) => index,
            None if (slots.taken as usize) < self.capacity.slots(table) => {
                slots.taken += 1;
                self.memory
                    .store(header::TAKEN + table as usize, u64::from(slots.taken));
                slots.taken - 1
            }
            None => return Slot::NONE,
        };
        let at = self.capacity.base(table) + index as usize * table.slot_words();
        let slot = Slot(at as u32);
        self.begin(slot, table, id, detail);
        slot
    }

    /// The slot at an index, of a table whose slots are not chosen here; none if there are not so many.
    #[inline]
    pub fn slot(&self, table: Table, index: u32) -> Slot {
        if index >= self.capacity.0[table as usize] {
            return Slot::NONE;
        }
        Slot((self.capacity.base(table) + index as usize * table.slot_words()) as u32)
    }

    /// Takes the slot at an index for an object.
    pub fn take_at(&mut self, table: Table, index: u32, id: u64, detail: u64) -> Slot {
        let slot = self.slot(table, index);
        if !slot.is_none() {
            let taken = &mut self.tables[table as usize].taken;
            if *taken <= index {
                *taken = index + 1;
                self.memory.store(header::TAKEN + table as usize, u64::from(*taken));
            }
            self.begin(slot, table, id, detail);
        }
        slot
    }

    /// Has the memory of a table's slots there of which none is taken: the system takes a while for it.
    pub fn warm(&self, table: Table, indices: std::ops::Range<u32>) {
        for index in indices {
            let slot = self.slot(table, index);
            if !slot.is_none() {
                self.memory.store(slot.0 as usize + ID, 0);
            }
        }
    }

    /// The object at an index is gone.
    pub fn leave_at(&mut self, table: Table, index: u32) {
        let slot = self.slot(table, index);
        if !slot.is_none() {
            self.memory.store(slot.0 as usize + ID, 0);
        }
    }

    fn begin(&self, Slot(at): Slot, table: Table, id: u64, detail: u64) {
        let at = at as usize;
        // What its last object has left there is nobody's now.
        self.memory.store_all(at + 1, (1..table.slot_words()).map(|_| 0));
        self.memory.store(at + DETAIL, detail);
        self.memory.store(at + ID, id | TAKEN);
    }

    /// The object is gone.
    pub fn leave(&mut self, table: Table, slot: Slot) {
        if slot.is_none() {
            return;
        }
        self.memory.store(slot.0 as usize + ID, 0);
        let index = (slot.0 as usize - self.capacity.base(table)) / table.slot_words();
        self.tables[table as usize].left.push(index as u32);
    }

    /// Stores a record, word by word.
    #[inline]
    pub fn store<R: Record>(&self, slot: Slot, at: At<R>, record: &R) {
        if !slot.is_none() {
            self.memory.store_all(slot.0 as usize + at.0, record.to_words());
        }
    }

    /// As [`Page::store`], but the first two words last: a number that is used with what the others say, and its copy.
    #[inline]
    pub fn store_number_last<R: Record>(&self, slot: Slot, at: At<R>, record: &R) {
        if !slot.is_none() {
            let at = slot.0 as usize + at.0;
            let words = record.to_words();
            self.memory.store_all(at + 2, words.clone().skip(2));
            self.memory.store_all(at, words.take(2));
        }
    }

    /// As [`Page::store`], but the first word last: the one that says that there is anything.
    pub fn store_last_first<R: Record>(&self, slot: Slot, at: At<R>, record: &R) {
        if !slot.is_none() {
            let mut words = record.to_words();
            let first = words.next();
            self.memory.store_all(slot.0 as usize + at.0 + 1, words);
            self.memory.store_all(slot.0 as usize + at.0, first);
        }
    }

    /// Whether anything is kept.
    pub fn is_somewhere(&self) -> bool {
        self.memory.words() > 0
    }

    /// Stores a record whose fields belong together: whole or not at all.
    #[inline]
    pub fn store_twin<R: Record>(&self, slot: Slot, twin: Twin<R>, record: &R) {
        store_twin(&self.memory, slot, twin, record);
    }

    /// What stores at a slot from elsewhere.
    pub fn kept(&self, slot: Slot) -> Kept {
        Kept {
            memory: self.memory.clone(),
            slot,
        }
    }

    /// Stores a record that is whole or not there. `before` it counts, what belongs to it is stored; if the same is there already, that
    /// is all that is done.
    pub fn store_sealed<R: Record>(&self, slot: Slot, sealed: Sealed<R>, record: &R, before: impl FnOnce()) {
        if slot.is_none() {
            return;
        }
        let at = slot.0 as usize + sealed.0;
        let seal = TAKEN | u64::from(checksum(record.to_words()));
        let is_there = self.memory.load(at) == seal;
        if !is_there {
            self.memory.store(at, 0);
        }
        before();
        if !is_there {
            self.memory.store_all(at + 1, record.to_words());
            self.memory.store(at, seal);
        }
    }

    /// Such a record is not there any more. Of what it was, something may be.
    pub fn break_seal<R: Record>(&self, slot: Slot, sealed: Sealed<R>) {
        let at = slot.0 as usize + sealed.0;
        if !slot.is_none() && self.memory.load(at) != 0 {
            self.memory.store(at, 0);
        }
    }

    /// Such a record is not there any more, and nothing is left of it.
    pub fn wipe_sealed<R: Record>(&self, slot: Slot, sealed: Sealed<R>) {
        if !slot.is_none() {
            self.memory
                .store_all(slot.0 as usize + sealed.0, (0..R::WORDS + 1).map(|_| 0));
        }
    }

    /// The object is gone, and so is all that was kept of it.
    pub fn wipe(&mut self, table: Table, slot: Slot) {
        if !slot.is_none() {
            self.memory
                .store_all(slot.0 as usize, (0..table.slot_words()).map(|_| 0));
            self.leave(table, slot);
        }
    }

    /// Where one number is kept, for those who have nothing else to do with the page.
    pub fn counter(&self, slot: Slot, Double(at): Double) -> Counter {
        match slot.is_none() {
            true => Counter::default(),
            false => Counter {
                memory: self.memory.clone(),
                at: slot.0 as usize + at,
            },
        }
    }

    /// Stores a number twice, the second time inverted.
    #[inline]
    pub fn store_double(&self, slot: Slot, Double(at): Double, number: u64) {
        if !slot.is_none() {
            self.memory.store_all(slot.0 as usize + at, [number, !number]);
        }
    }

    /// A turn of the event loop has begun.
    #[inline]
    pub fn set_turn(&self, began: Time) {
        self.memory.store_all(header::TURN, [began.0, !began.0]);
    }

    /// The last turn has ended then, and the next one waits for something to do.
    #[inline]
    pub fn set_rest(&self, since: Time) {
        self.memory.store(header::REST, since.0);
        self.memory.store_all(header::TURN, [0, !0]);
    }

    /// Keeps what was counted of everything together.
    pub fn set_totals(&self, totals: &WorkerStats) {
        self.memory.store_all(header::TOTALS, totals.to_words());
    }

    /// The packets that are handled next have come from there.
    #[inline]
    pub fn set_suspect(&self, transport: u64, source: SocketAddr) {
        let suspect = Suspect {
            transport,
            source: Address::from(source),
        };
        self.memory.store_all(header::SUSPECT, suspect.to_words());
    }

    /// The packets have been handled: nobody is to blame for what follows.
    #[inline]
    pub fn clear_suspect(&self) {
        self.memory.store(header::SUSPECT + Suspect::WORDS - 1, 0);
    }
}

/// A slot, and where it lies: for those who are not there when the page is.
#[derive(Clone, Debug)]
pub struct Kept {
    memory: Memory,
    slot: Slot,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            memory: Memory::nowhere(),
            slot: Slot::NONE,
        }
    }
}

impl Kept {
    /// The slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// As [`Page::store_twin`].
    #[inline]
    pub fn store_twin<R: Record>(&self, twin: Twin<R>, record: &R) {
        store_twin(&self.memory, self.slot, twin, record);
    }
}

#[inline]
fn store_twin<R: Record>(memory: &Memory, slot: Slot, twin: Twin<R>, record: &R) {
    if slot.is_none() {
        return;
    }
    let at = slot.0 as usize + twin.0;
    // The copy that does not count.
    let copy = 1 ^ (memory.load(at) & 1);
    memory.store_all(at + 1 + copy as usize * R::WORDS, record.to_words());
    let sum = u64::from(checksum(record.to_words()));
    memory.store(at, TAKEN | sum << 1 | copy);
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let (ip, scope, is_v4) = match address {
            SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), 0, 1),
            SocketAddr::V6(address) => (*address.ip(), address.scope_id(), 0),
        };
        Self {
            ip: ip.octets(),
            scope,
            port: address.port(),
            is_v4,
            spare: 0,
        }
    }
}

impl Address {
    /// The address, if there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        let address = SocketAddrV6::new(self.ip.into(), self.port, 0, self.scope);
        let address = match self.is_v4 {
            0 => SocketAddr::V6(address),
            _ => SocketAddr::new(IpAddr::V4(address.ip().to_ipv4_mapped()?), self.port),
        };
        (self.port != 0).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::layout::{
        Feedback, FlowOfConsumer, FoldedOfStream, Newest, RemoteOfTransport, SocketCounts, StreamCounts,
        StreamPosition, webrtc,
    };
    use super::predecessor::{Damaged, Predecessor, Unreadable};
    use super::*;

    const CAPACITY: Capacity = Capacity([2, 2, 1, 1, 1]);

    fn new() -> (Arc<HeapPage>, Page) {
        let heap = HeapPage::new(CAPACITY.words());
        (heap.clone(), Page::new(Memory::heap(heap), CAPACITY, 1))
    }

    /// Another number in each word.
    fn numbered<R: Record>(from: u64) -> R {
        R::from_words(|index| (from + index as u64) * 0x0101_0101_0101_0101)
    }

    /// A page like this is what older workers leave: another picture needs another schema number.
    #[test]
    fn the_layout_is_as_it_was() {
        let (heap, mut page) = new();
        page.set_rest(Time(6));
        page.set_turn(Time(7));
        page.set_totals(&WorkerStats::from_words(&std::array::from_fn(|place| {
            0x100 + place as u64
        })));
        page.set_suspect(3, ([192, 0, 2, 1], 5_004).into());
        let slot = page.take(Table::Consumers, 11, 0x2222_1111);
        page.store(slot, layout::consumer::NEWEST, &numbered::<Newest>(1));
        page.store_double(slot, layout::consumer::AGAIN, 9);
        page.store_twin(slot, layout::consumer::FLOW, &numbered::<FlowOfConsumer>(0x10));
        let slot = page.take(Table::Streams, 12, 1);
        page.store_twin(slot, layout::stream::POSITION, &numbered::<StreamPosition>(0x20));
        page.store(slot, layout::stream::COUNTERS, &numbered::<StreamCounts>(0x60));
        page.store_twin(slot, layout::stream::FOLDED, &numbered::<FoldedOfStream>(0x71));
        let slot = page.take(Table::Transports, 13, 0);
        page.store_twin(slot, layout::transport::REMOTE, &numbered::<RemoteOfTransport>(0x80));
        page.store(slot, layout::transport::FEEDBACK, &numbered::<Feedback>(0x70));
        page.store(slot, layout::transport::SOCKETS, &numbered::<SocketCounts>(0x74));
        let slot = page.take(Table::WebRtc, 13, 0);
        page.store(slot, webrtc::DTLS, &numbered::<webrtc::DtlsProgress>(0x90));
        page.store_double(slot, webrtc::SRTCP_SENT, 0x91);
        page.store_sealed(slot, webrtc::KEYS, &numbered::<webrtc::SrtpKeys>(0x92), || ());
        let (pair, state) = webrtc::path(1);
        page.store_sealed(slot, pair, &numbered::<webrtc::Pair>(0xa0), || {
            page.store(slot, state, &numbered::<webrtc::PathState>(0xb0));
        });
        page.store(slot, webrtc::position(2).1, &webrtc::Position::new(7, 8, 9));
        page.store_twin(slot, webrtc::AGENT, &numbered::<webrtc::AgentRecord>(0xc0));
        let words = heap.as_ref().as_ref().iter().enumerate();
        let words = words.map(|(place, word)| (place, word.load(Ordering::Relaxed)));
        let shown: String = words
            .filter(|(_, word)| *word != 0)
            .map(|(place, word)| format!("{place:4} {word:016x}\n"))
            .collect();
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn a_consumer_takes_half_a_kilobyte_at_most() {
        assert!(Table::Consumers.slot_words() * 8 <= 512);
    }

    #[test]
    fn addresses_come_back() {
        for address in [
            "192.0.2.1:5004",
            "[2001:db8::1]:9",
            "[fe80::1%3]:65535",
            "[::ffff:192.0.2.1]:1",
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(Address::from(address).address(), Some(address));
        }
        assert_eq!(Address::default().address(), None);
    }

    #[test]
    fn slots_are_found_by_their_ids_and_used_again() {
        let (heap, mut page) = new();
        let (first, second) = (page.take(Table::Consumers, 5, 0), page.take(Table::Consumers, 6, 0));
        assert!(
            page.take(Table::Consumers, 7, 0).is_none(),
            "there is no room for a third"
        );
        page.store_double(first, layout::consumer::AGAIN, 44);
        page.leave(Table::Consumers, first);
        let third = page.take(Table::Consumers, 7, 0);
        let read = Predecessor::open(heap).unwrap();
        assert_eq!(read.find(Table::Consumers, 5, 0), None);
        assert_eq!(read.find(Table::Consumers, 6, 0), Some(second));
        assert_eq!(read.find(Table::Consumers, 7, 0), Some(third));
        assert_eq!(
            read.double(third, layout::consumer::AGAIN),
            Ok(None),
            "what another left there is gone"
        );
    }

    #[test]
    fn a_writer_may_die_at_any_store() {
        let flows = [numbered::<FlowOfConsumer>(1), numbered(2), numbered(3)];
        for dies_after in 0.. {
            let (heap, mut page) = new();
            let slot = page.take(Table::Consumers, 5, 0);
            page.store_double(slot, layout::consumer::AGAIN, 0x1_0000);
            let before = heap.stores();
            heap.kill_after(before + dies_after);
            for (again, flow) in (0x1_0001..).zip(&flows) {
                page.store_twin(slot, layout::consumer::FLOW, flow);
                page.store_double(slot, layout::consumer::AGAIN, again);
            }
            let is_over = !heap.is_dead();
            let read = Predecessor::open(heap).unwrap();
            let flow = read.twin(slot, layout::consumer::FLOW).unwrap();
            let again = read.double(slot, layout::consumer::AGAIN).unwrap().unwrap() - 0x1_0000;
            let place = flow.map_or(0, |flow| 1 + flows.iter().position(|one| *one == flow).unwrap() as u64);
            assert!(place == again || place == again + 1, "{place}, {again}");
            if is_over {
                assert_eq!(place, 3);
                break;
            }
        }
    }

    #[test]
    fn what_somebody_has_scribbled_over_is_damaged() {
        let (heap, mut page) = new();
        let slot = page.take(Table::Consumers, 5, 0);
        page.store_twin(slot, layout::consumer::FLOW, &numbered::<FlowOfConsumer>(1));
        page.store_double(slot, layout::consumer::AGAIN, 3);
        let base = CAPACITY.base(Table::Consumers);
        let scribble = |at: usize| (*heap).as_ref()[base + at].fetch_xor(1 << 40, Ordering::Relaxed);
        // The words of the copy that counts are those of the second one.
        scribble(18 + 1 + 6 + 2);
        scribble(16);
        let read = Predecessor::open(heap.clone()).unwrap();
        assert!(matches!(
            read.twin::<FlowOfConsumer>(slot, layout::consumer::FLOW),
            Err(Damaged(_))
        ));
        assert!(matches!(read.double(slot, layout::consumer::AGAIN), Err(Damaged(_))));
    }

    #[test]
    fn a_page_is_known_by_its_writer() {
        let (heap, _) = new();
        assert_eq!(predecessor::writer_of((*heap).as_ref()), 1);
        assert_eq!(predecessor::writer_of(&[]), 0);
    }

    #[test]
    fn other_pages_are_not_read() {
        let empty = HeapPage::new(CAPACITY.words());
        assert_eq!(Predecessor::open(empty).unwrap_err(), Unreadable::NeverBegun);
        let (heap, _) = new();
        (*heap).as_ref()[header::CAPACITY].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(Predecessor::open(heap.clone()).unwrap_err(), Unreadable::NoPage);
        // A writer of the next version.
        let words = (*heap).as_ref();
        words[header::SCHEMA].store(u64::from(SCHEMA) + 1, Ordering::Relaxed);
        let sum = checksum((0..header::SUMMED).map(|at| words[at].load(Ordering::Relaxed)));
        words[header::SUM].store(u64::from(sum) | TAKEN, Ordering::Relaxed);
        let other = Unreadable::OtherLayout {
            schema: u64::from(SCHEMA) + 1,
            hash: HASH,
        };
        assert_eq!(Predecessor::open(heap.clone()).unwrap_err(), other);
    }
}
