//! What a receive batch looks like to the relay.

use std::net::SocketAddr;
use std::ops::Range;

/// One datagram of a batch, or a train of them that the kernel joined (UDP_GRO).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Where it begins in the batch's bytes.
    pub start: u32,
    /// How many bytes it has in all.
    pub len: u32,
    /// The size of each packet in it; only the last may be shorter. Equal to `len` for a single packet.
    pub segment: u32,
    /// The address that sent it.
    pub source: SocketAddr,
}

impl Datagram {
    /// Where it lies in the batch's bytes.
    pub const fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// How many packets it holds.
    pub fn packets(&self) -> u64 {
        if self.segment == 0 {
            1
        } else {
            u64::from(self.len.div_ceil(self.segment).max(1))
        }
    }
}
