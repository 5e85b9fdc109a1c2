//! Where the relay's packets go, as seen from the relay.
//!
//! The relay patches a train's headers in place for one consumer after the other, so it needs a sink that has taken the
//! bytes when a call returns. The network shell implements it over connected sockets; tests implement it over a list.

use weir_channel::message::DropReason;

use crate::page::layout::SocketCounts;

/// The dense index of a transport in its worker. Reused after the transport is closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TransportIx(pub u32);

/// The dense index of a consumer in its worker, with the generation that distinguishes it from its predecessors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConsumerIx {
    /// The slot.
    pub slot: u32,
    /// How many consumers had the slot before.
    pub generation: u32,
}

/// Which of a transport's ports a packet came from or goes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Port {
    /// RTP, and RTCP too when it is muxed.
    Rtp,
    /// RTCP, when it has a port of its own.
    Rtcp,
}

/// Packets that were padded to be as long as others of their train, and the bytes of that padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Padded {
    /// The number of packets.
    pub packets: u64,
    /// The bytes that were added to them in all.
    pub bytes: u64,
}

/// What became of a train handed to a [`Sink`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// This many packets, counted from the first, are with the kernel or in a backlog.
    pub accepted: usize,
    /// Why the others were not taken; means nothing when all were.
    pub reason: DropReason,
}

impl Sent {
    /// All `count` packets were taken.
    pub const fn all(count: usize) -> Self {
        Self {
            accepted: count,
            reason: DropReason::SendFailed,
        }
    }
}

/// Takes packets for transports. The order of calls is the order of packets on each transport.
pub trait Sink {
    /// Sends a train on the transport's RTP path at once. `train` is packets of `segment` bytes laid end to end, of which
    /// only the last may be shorter; `train.len() <= segment` means a single packet. The bytes are the caller's again
    /// when the call returns.
    fn send(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent;

    /// As [`Sink::send`], but the packets may wait until the end of the turn, so that what leaves for one transport leaves
    /// together. Used for transports with several consumers.
    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent;

    /// Sends one RTCP compound packet to the transport's remote.
    fn send_rtcp(&mut self, transport: TransportIx, packet: &[u8]);

    /// Sends one packet on the transport's RTP path that was sent before, if it can leave at once; `false`: it could not,
    /// and is forgotten. It is nobody's in the ledger.
    fn resend(&mut self, transport: TransportIx, packet: &[u8]) -> bool;

    /// Something will be sent on this transport soon. What that needs may be brought into the caches meanwhile.
    fn prepare(&self, _transport: TransportIx) {}

    /// The relay will read and write so many of this record's first bytes soon. They may be brought into the caches meanwhile.
    fn prefetch<T>(&self, _record: &T, _bytes: usize) {}

    /// What was counted at the sockets of a transport, as far as that is known without asking the kernel.
    fn socket_counts(&self, _transport: TransportIx) -> SocketCounts {
        SocketCounts::default()
    }

    /// Of the packets that the call before has taken, so many were padded. For those who count them.
    fn note_padded(&mut self, _padded: Padded) {}
}
