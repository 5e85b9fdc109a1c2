//! How long packets stay: from their arrival at the socket to their hand-over to the kernel.

use weir_channel::message::Histogram;

use super::receive::{Received, SLOTS};

/// A fixed array of counts in the shape of [`Histogram`]; values are nanoseconds.
pub struct Residence {
    counts: Box<[u64]>,
}

impl Residence {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            counts: vec![0; Histogram::BUCKETS].into_boxed_slice(),
        }
    }

    /// Counts `packets` that arrived and were handed over at these times on the realtime clock. Packets without a stamp
    /// (0) are not counted; a clock that was set back in between counts as no time.
    pub fn record(&mut self, arrival_ns: u64, handed_over_ns: u64, packets: usize) {
        if arrival_ns != 0 {
            let index = Histogram::index_of(handed_over_ns.saturating_sub(arrival_ns));
            self.counts[index] += packets as u64;
        }
    }

    /// The counts as they travel.
    pub fn histogram(&self) -> Histogram {
        let used = self
            .counts
            .iter()
            .rposition(|&count| count != 0)
            .map_or(0, |last| last + 1);
        Histogram {
            counts: self.counts[..used].to_vec(),
        }
    }
}

impl Default for Residence {
    fn default() -> Self {
        Self::new()
    }
}

/// When the packets of the batch that is being relayed had arrived.
///
/// The relay patches trains in place, so the address of a train that it sends tells the slot, and the slot the stamp.
/// What it has copied elsewhere counts from the oldest arrival of the batch.
#[derive(Default)]
pub(super) struct Arrivals {
    base: usize,
    stride: usize,
    /// By slot; 0 where the datagram was not stamped.
    stamps: Vec<u64>,
    oldest: u64,
}

impl Arrivals {
    pub(super) fn with_capacity() -> Self {
        Self {
            stamps: Vec::with_capacity(SLOTS),
            stride: 1,
            ..Self::default()
        }
    }

    pub(super) fn begin(&mut self, received: &Received<'_>) {
        self.base = received.bytes.as_ptr().addr();
        self.stride = received.stride;
        self.stamps.clear();
        for (datagram, &stamp) in received.datagrams.iter().zip(received.arrivals.iter()) {
            let slot = datagram.start as usize / self.stride;
            self.stamps.resize(slot, 0);
            self.stamps.push(stamp);
        }
        self.oldest = received
            .arrivals
            .iter()
            .copied()
            .filter(|&stamp| stamp != 0)
            .min()
            .unwrap_or(0);
    }

    pub(super) fn end(&mut self) {
        self.stamps.clear();
        self.oldest = 0;
    }

    pub(super) fn of(&self, train: &[u8]) -> u64 {
        let slot = train.as_ptr().addr().wrapping_sub(self.base) / self.stride;
        self.stamps.get(slot).copied().unwrap_or(self.oldest)
    }
}
