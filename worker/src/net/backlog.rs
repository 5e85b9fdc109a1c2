//! Packets that a full socket did not take, in the order they were sent, until it is writable again.
//!
//! All transports share one pool of chunks, so that no number of slow receivers costs more than the pool. A packet takes
//! as many chunks as it needs; each transport's packets form a chain, its [`Queue`].

use crate::relay::sink::ConsumerIx;

/// Bytes of a chunk: a packet of an Ethernet MTU fits into one.
pub const CHUNK_BYTES: usize = 2_048;

/// Bytes of the pool: 2,048 packets of a worker that sends 10⁵ to 10⁶ of them a second, so 2 to 20 ms of everything.
pub const POOL_BYTES: usize = 4 << 20;

/// Chunks of one transport, 256 KiB: 128 packets, a large key frame. A path that stays full for longer than that
/// loses packets rather than gaining delay.
pub const QUEUE_CHUNKS_MAX: u32 = 128;

const NONE: u32 = u32::MAX;

/// One transport's part of a [`Backlog`]. Belongs to one backlog and must be emptied into it, not dropped full.
#[derive(Debug)]
pub struct Queue {
    head: u32,
    tail: u32,
    chunks: u32,
    packets: u32,
}

impl Queue {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            chunks: 0,
            packets: 0,
        }
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// How many packets wait.
    pub const fn packets(&self) -> u32 {
        self.packets
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

/// What is known of a packet that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// The consumer that the packet is counted for if it is lost.
    pub owner: ConsumerIx,
    /// When it had arrived, on the realtime clock in nanoseconds; 0 if that is not measured.
    pub arrival_ns: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// The pool. Its memory is reserved when it is made, and becomes resident as it is used.
pub struct Backlog {
    bytes: Box<[u8]>,
    /// For each chunk the one after it in its chain, be it a queue or the free list.
    next: Box<[u32]>,
    /// For the first chunk of each packet.
    waiting: Box<[Waiting]>,
    free: u32,
    /// Chunks from here on were never used, and are not in the free list either, so that they need not be touched.
    fresh: u32,
    in_use: u32,
}

impl Backlog {
    /// A pool of `bytes`, rounded down to whole chunks.
    pub fn new(bytes: usize) -> Self {
        let chunks = bytes / CHUNK_BYTES;
        let nobody = Waiting {
            owner: ConsumerIx { slot: 0, generation: 0 },
            arrival_ns: 0,
            len: 0,
        };
        Self {
            bytes: vec![0; chunks * CHUNK_BYTES].into_boxed_slice(),
            next: vec![0; chunks].into_boxed_slice(),
            waiting: vec![nobody; chunks].into_boxed_slice(),
            free: NONE,
            fresh: 0,
            in_use: 0,
        }
    }

    /// Appends a packet; `false` if the queue or the pool is full, and then nothing has changed.
    pub fn push(&mut self, queue: &mut Queue, packet: &[u8], owner: ConsumerIx, arrival_ns: u64) -> bool {
        let needed = chunks_of(packet.len());
        let left = self.next.len() as u32 - self.in_use;
        if needed > left || queue.chunks + needed > QUEUE_CHUNKS_MAX {
            return false;
        }
        let mut rest = packet;
        for index in 0..needed {
            let chunk = self.take();
            if index == 0 {
                self.waiting[chunk as usize] = Waiting {
                    owner,
                    arrival_ns,
                    len: packet.len() as u32,
                };
            }
            let (part, after) = rest.split_at(rest.len().min(CHUNK_BYTES));
            let start = chunk as usize * CHUNK_BYTES;
            self.bytes[start..start + part.len()].copy_from_slice(part);
            rest = after;
            match queue.tail {
                NONE => queue.head = chunk,
                tail => self.next[tail as usize] = chunk,
            }
            queue.tail = chunk;
        }
        queue.chunks += needed;
        queue.packets += 1;
        true
    }

    /// The packets that wait, first to last.
    pub fn packets(&self, queue: &Queue) -> impl Iterator<Item = Packet<'_>> {
        let mut chunk = queue.head;
        (0..queue.packets).map(move |_| {
            let packet = Packet { backlog: self, chunk };
            for _ in 0..chunks_of(packet.waiting().len as usize) {
                chunk = self.next[chunk as usize];
            }
            packet
        })
    }

    /// Removes the first packet and says what it was; `None` if nothing waits.
    pub fn pop(&mut self, queue: &mut Queue) -> Option<Waiting> {
        if queue.is_empty() {
            return None;
        }
        let waiting = self.waiting[queue.head as usize];
        let chunks = chunks_of(waiting.len as usize);
        for _ in 0..chunks {
            let chunk = queue.head;
            queue.head = self.next[chunk as usize];
            self.next[chunk as usize] = self.free;
            self.free = chunk;
        }
        self.in_use -= chunks;
        queue.chunks -= chunks;
        queue.packets -= 1;
        if queue.packets == 0 {
            *queue = Queue::new();
        }
        Some(waiting)
    }

    /// Bytes of the pool that are taken.
    pub fn bytes_in_use(&self) -> usize {
        self.in_use as usize * CHUNK_BYTES
    }

    /// A free chunk at the end of a chain. The caller has checked that there is one.
    fn take(&mut self) -> u32 {
        let chunk = if self.free == NONE {
            self.fresh += 1;
            self.fresh - 1
        } else {
            let chunk = self.free;
            self.free = self.next[chunk as usize];
            chunk
        };
        self.in_use += 1;
        self.next[chunk as usize] = NONE;
        chunk
    }
}

/// A packet that waits.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    backlog: &'a Backlog,
    chunk: u32,
}

impl Packet<'_> {
    /// What is known of it.
    pub fn waiting(&self) -> Waiting {
        self.backlog.waiting[self.chunk as usize]
    }

    /// Copies its bytes to the front of `out`, which must be long enough.
    pub fn copy_to(&self, out: &mut [u8]) {
        let mut chunk = self.chunk as usize;
        for part in out[..self.waiting().len as usize].chunks_mut(CHUNK_BYTES) {
            let start = chunk * CHUNK_BYTES;
            part.copy_from_slice(&self.backlog.bytes[start..start + part.len()]);
            chunk = self.backlog.next[chunk] as usize;
        }
    }
}

/// Chunks that a packet of `len` bytes takes; an empty packet takes one too.
fn chunks_of(len: usize) -> u32 {
    len.div_ceil(CHUNK_BYTES).max(1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn owner(slot: u32) -> ConsumerIx {
        ConsumerIx { slot, generation: 0 }
    }

    fn read(packet: Packet<'_>) -> Vec<u8> {
        let mut bytes = vec![0; packet.waiting().len as usize];
        packet.copy_to(&mut bytes);
        bytes
    }

    #[test]
    fn packets_of_two_queues_come_out_in_their_order() {
        let mut backlog = Backlog::new(64 * CHUNK_BYTES);
        let mut queues = [Queue::new(), Queue::new()];
        let lengths = [0, 1, 1200, CHUNK_BYTES, CHUNK_BYTES + 1, 9000, 3];
        let packet = |index: usize, queue: usize| -> Vec<u8> {
            (0..lengths[index]).map(|at| (at + index * 3 + queue) as u8).collect()
        };
        // Twice, so that the second time runs on recycled chunks in another order.
        for _ in 0..2 {
            for index in 0..lengths.len() {
                for (queue, which) in queues.iter_mut().zip(0..) {
                    assert!(backlog.push(queue, &packet(index, which), owner(which as u32), index as u64));
                }
            }
            for (queue, which) in queues.iter_mut().zip(0..) {
                let contents: Vec<_> = backlog.packets(queue).map(read).collect();
                assert_eq!(contents.len(), lengths.len());
                for (index, content) in contents.iter().enumerate() {
                    assert_eq!(*content, packet(index, which));
                    let expected = Waiting {
                        owner: owner(which as u32),
                        arrival_ns: index as u64,
                        len: lengths[index] as u32,
                    };
                    assert_eq!(backlog.pop(queue), Some(expected));
                }
                assert!(queue.is_empty());
                assert_eq!(backlog.pop(queue), None);
            }
            assert_eq!(backlog.bytes_in_use(), 0);
        }
    }

    #[test]
    fn a_full_pool_and_a_full_queue_refuse_and_change_nothing() {
        let mut backlog = Backlog::new(4 * CHUNK_BYTES);
        let mut queue = Queue::new();
        assert!(backlog.push(&mut queue, &[1; 3 * CHUNK_BYTES], owner(1), 0));
        assert!(!backlog.push(&mut queue, &[2; CHUNK_BYTES + 1], owner(1), 0));
        assert!(backlog.push(&mut queue, &[3; CHUNK_BYTES], owner(1), 0));
        assert!(!backlog.push(&mut queue, &[], owner(1), 0));
        assert_eq!(queue.packets(), 2);
        let contents: Vec<_> = backlog.packets(&queue).map(read).collect();
        assert_eq!(contents, [vec![1; 3 * CHUNK_BYTES], vec![3; CHUNK_BYTES]]);

        let mut backlog = Backlog::new(2 * QUEUE_CHUNKS_MAX as usize * CHUNK_BYTES);
        let mut queue = Queue::new();
        for _ in 0..QUEUE_CHUNKS_MAX {
            assert!(backlog.push(&mut queue, &[7; 100], owner(1), 0));
        }
        assert!(!backlog.push(&mut queue, &[7; 100], owner(1), 0));
        assert!(
            backlog.push(&mut Queue::new(), &[7; 100], owner(2), 0),
            "others are not affected"
        );
    }
}
