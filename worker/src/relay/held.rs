//! Packets that go on with nothing that their stream has sent: kept until it is known what they are, and then relayed as if
//! they had just come.
//!
//! Until then they are counted as what they would be without what follows: as duplicates, or as not believed. A command that
//! changes who is sent what gives them up, so that nobody is sent what came before. Memory is bounded and reserved once for the whole relay: a restart is
//! rare, and waits for a packet or two.

use crate::rtp::continuity::Verdict;
use crate::rtp::packet::Header;
use crate::time::Time;

use super::keys::ProducerKey;
use super::packet::{Route, Rtp};

/// Streams of which something is held at a time. One more takes the place of the oldest.
pub(super) const RUNS_MAX: usize = 64;

/// Packets held of one stream.
const PACKETS_MAX: usize = 4;

/// Their bytes.
const BYTES_MAX: usize = 8 << 10;

/// What is held of all streams.
#[derive(Debug)]
pub(super) struct HeldPackets {
    pub(super) runs: Box<[Run]>,
    /// The bytes of the runs, [`BYTES_MAX`] for each.
    pub(super) bytes: Box<[u8]>,
    /// Counts runs.
    pub(super) serial: u64,
    /// What the last packet means for what is held of its stream.
    pub(super) resolution: Option<Resolution>,
    /// When something will have waited for long enough.
    pub(super) next: Option<Time>,
}

/// What is held of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// Ascends from run to run; 0: empty.
    pub(super) serial: u64,
    pub(super) owner: Option<(ProducerKey, u8)>,
    pub(super) packets: Vec<HeldPacket>,
    pub(super) len: usize,
    /// Until when it waits; `None`: for whatever comes.
    pub(super) until: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct HeldPacket {
    pub(super) route: Route,
    pub(super) header: Header,
    /// Where it lies in the bytes of all.
    pub(super) start: usize,
    pub(super) len: usize,
    /// Something has come under its number.
    pub(super) is_known: bool,
}

/// A packet by which it is known what the held ones are. It lies in the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolution {
    pub(super) verdict: Verdict,
    pub(super) packet: HeldPacket,
}

impl HeldPackets {
    pub(super) fn new() -> Self {
        let run = || Run {
            packets: Vec::with_capacity(PACKETS_MAX),
            ..Run::default()
        };
        Self {
            runs: (0..RUNS_MAX).map(|_| run()).collect(),
            bytes: vec![0; RUNS_MAX * BYTES_MAX].into_boxed_slice(),
            serial: 0,
            resolution: None,
            next: None,
        }
    }

    /// When [`Relay::release_waiting`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.next
    }

    /// The place that has been empty or full for the longest time.
    pub(super) fn oldest(&self) -> usize {
        let by_serial = |index: &usize| self.runs[*index].serial;
        (0..RUNS_MAX).min_by_key(by_serial).unwrap_or(0)
    }

    /// Whether so long a packet more can be held in a place.
    pub(super) fn has_capacity(&self, index: usize, len: usize) -> bool {
        let run = &self.runs[index];
        run.packets.len() < PACKETS_MAX && len <= BYTES_MAX - run.len
    }

    /// Keeps a packet for which there is capacity.
    pub(super) fn push(&mut self, index: usize, route: Route, packet: &Rtp<'_>, is_known: bool) {
        let run = &mut self.runs[index];
        let start = index * BYTES_MAX + run.len;
        self.bytes[start..start + packet.bytes.len()].copy_from_slice(packet.bytes);
        run.len += packet.bytes.len();
        run.packets.push(HeldPacket {
            route,
            header: packet.header,
            start,
            len: packet.bytes.len(),
            is_known,
        });
    }
}
