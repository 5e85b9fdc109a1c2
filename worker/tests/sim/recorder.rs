//! A sink that keeps everything, and checks what every sink may rely on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use weir_channel::message::DropReason;
use weir_worker::page::memory::HeapPage;
use weir_worker::relay::limits::{TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX};
use weir_worker::relay::sink::{ConsumerIx, Padded, Sent, Sink, TransportIx};
use weir_worker::time::Time;

use super::random::Random;
use super::ssrc_of;

/// A train as the relay handed it over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Train {
    pub at: Time,
    /// Which call into the relay.
    pub batch: usize,
    pub transport: TransportIx,
    pub owner: ConsumerIx,
    /// By [`Sink::gather`] rather than [`Sink::send`].
    pub gathered: bool,
    pub segment: usize,
    /// Those that were taken.
    pub packets: Vec<Vec<u8>>,
    /// How many were not.
    pub refused: usize,
}

/// Takes everything, unless told otherwise.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The time of the call into the relay that is under way.
    pub now: Time,
    /// Where the relay keeps things for its successor. Of what a dead one does nothing leaves.
    pub page: Option<Arc<HeapPage>>,
    /// Counts those calls.
    pub batch: usize,
    pub trains: Vec<Train>,
    /// What is gathered waits for [`Recorder::send_gathered`].
    pub gathers: bool,
    /// What was gathered, and what follows it on the same transport.
    gathered: Vec<Train>,
    /// RTCP: when, where, what.
    pub rtcp: VecDeque<(Time, TransportIx, Vec<u8>)>,
    /// Packets sent again: when, where, what.
    pub resent: VecDeque<(Time, TransportIx, Vec<u8>)>,
    /// Takes none of those.
    pub refuses_resends: bool,
    /// Refuses the tails of some trains: at random, that many in a thousand.
    pub refusals: Option<(Random, usize)>,
    /// Packets refused, by transport, SSRC and reason.
    pub refused: BTreeMap<(TransportIx, u32, DropReason), u64>,
    /// What was padded.
    pub padded: Padded,
    /// Packets taken, by transport and SSRC.
    pub taken: BTreeMap<(TransportIx, u32), u64>,
    /// Every consumer leaves under one SSRC on one transport, and no other does.
    owners: BTreeMap<(TransportIx, u32), ConsumerIx>,
}

impl Recorder {
    /// The sink of a relay that keeps things there.
    pub fn of(page: Arc<HeapPage>) -> Self {
        Self {
            page: Some(page),
            ..Self::default()
        }
    }

    fn take(
        &mut self,
        transport: TransportIx,
        owner: ConsumerIx,
        train: &[u8],
        segment: usize,
        gathered: bool,
    ) -> Sent {
        if self.is_dead() {
            return Sent::all(train.len().div_ceil(segment));
        }
        assert!(!train.is_empty() && segment > 0, "an empty train");
        assert!(
            train.len() <= TRAIN_BYTES_MAX,
            "{} bytes are no UDP datagram",
            train.len()
        );
        let count = train.len().div_ceil(segment);
        assert!(count <= TRAIN_PACKETS_MAX, "{count} packets are too many for one call");
        for packet in train.chunks(segment) {
            assert!(packet.len() >= 12 && packet[0] >> 6 == 2, "no RTP packet");
            let ssrc = ssrc_of(packet);
            let known = *self.owners.entry((transport, ssrc)).or_insert(owner);
            assert_eq!(known, owner, "SSRC {ssrc} is another consumer's on {transport:?}");
        }
        let mut sent = Sent::all(count);
        if let Some((random, permille)) = &mut self.refusals
            && random.chance(*permille)
        {
            sent = Sent {
                accepted: random.below(count),
                reason: random.pick(&[DropReason::BacklogFull, DropReason::SendFailed]),
            };
            let refused = self
                .refused
                .entry((transport, ssrc_of(train), sent.reason))
                .or_default();
            *refused += (count - sent.accepted) as u64;
        }
        for packet in train.chunks(segment).take(sent.accepted) {
            *self.taken.entry((transport, ssrc_of(packet))).or_default() += 1;
        }
        let waits = self.gathers && (gathered || self.gathered.iter().any(|train| train.transport == transport));
        let place = if waits { &mut self.gathered } else { &mut self.trains };
        place.push(Train {
            at: self.now,
            batch: self.batch,
            transport,
            owner,
            gathered,
            segment,
            packets: train.chunks(segment).take(sent.accepted).map(<[u8]>::to_vec).collect(),
            refused: count - sent.accepted,
        });
        sent
    }

    /// What was gathered leaves, unless its worker is dead.
    pub fn send_gathered(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        if !self.is_dead() {
            self.trains.extend(gathered);
        }
    }

    fn is_dead(&self) -> bool {
        self.page.as_ref().is_some_and(|page| page.is_dead())
    }

    /// A consumer or transport was closed: its SSRC is free, and its slot may be another's.
    pub fn forget_owners(&mut self) {
        self.owners.clear();
    }
}

impl Sink for Recorder {
    fn send(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.take(transport, owner, train, segment, false)
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.take(transport, owner, train, segment, true)
    }

    fn send_rtcp(&mut self, transport: TransportIx, packet: &[u8]) {
        if self.is_dead() {
            return;
        }
        self.rtcp.push_back((self.now, transport, packet.to_vec()));
    }

    fn resend(&mut self, transport: TransportIx, packet: &[u8]) -> bool {
        assert!(packet.len() >= 12 && packet[0] >> 6 == 2, "no RTP packet");
        if self.is_dead() {
            return true;
        }
        if self.refuses_resends {
            return false;
        }
        self.resent.push_back((self.now, transport, packet.to_vec()));
        true
    }

    fn note_padded(&mut self, padded: Padded) {
        self.padded.packets += padded.packets;
        self.padded.bytes += padded.bytes;
    }
}
