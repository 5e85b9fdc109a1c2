//! Everything that leaves: the kernel-facing [`Sink`].
//!
//! The common case is one call of the back end for a packet or a train; the rest is cold. When a socket is full, the rest
//! of the train waits in the backlog, and so does all that follows on its transport, until the socket is writable again.
//! When the backlog is full, packets are lost as `BacklogFull`. For the other errors see `transmit.rs`.

mod aside;
mod backlog;
mod gathering;
mod lone;
mod protect;
mod srtp_streams;

use weir_channel::message::DropReason;

use self::gathering::Dispatch;
use self::lone::LonePackets;
use self::protect::Protection;
pub use self::srtp_streams::{SrtpStreams, StreamEvents, UNHEARD_MAX};
use super::backlog::{Backlog, POOL_BYTES};
use super::clock;
use super::gather::{Gather, Train};
use super::mirror::{MirrorStats, Mirrors};
use super::prefetch::{prefetch, prefetch_head};
use super::receive::{DATAGRAM_BYTES_MAX, Received};
use super::residence::{Arrivals, Residence};
use super::send::{
    BATCH_MESSAGES_MAX, KernelSend, Message, SendBackend, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX, is_pending_error,
};
use super::sockets::Sockets;
pub use super::transmit::EgressStats;
use super::transmit::Transmitter;
use crate::page::layout::SocketCounts;
use crate::relay::sink::{ConsumerIx, Padded, Sent, Sink, TransportIx};

/// Packets that were taken by the sink and then could not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The consumer.
    pub owner: ConsumerIx,
    /// Why they were lost.
    pub reason: DropReason,
    /// The number of packets.
    pub packets: u32,
}

/// The sink that sends: see the [module](self).
pub struct Egress<B = KernelSend> {
    /// The transports' sockets.
    pub sockets: Sockets,
    /// The mirrors, which get copies of what is received and sent.
    pub mirrors: Mirrors,
    backend: B,
    gather: Gather,
    /// Those of what is gathered that leave alone.
    lone: LonePackets,
    /// Counts turns, and wraps.
    turn: u32,
    backlog: Backlog,
    /// The SRTP streams, and the buffer that packets are protected in.
    protection: Protection,
    /// Where packets of a backlog are laid end to end to be sent, at least one of any length.
    staging: Box<[u8]>,
    messages: Vec<Message>,
    /// Which packets of the last transmission failed; ascending.
    failed: Vec<usize>,
    lost: Vec<Lost>,
    blocked: Vec<TransportIx>,
    stats: EgressStats,
    arrivals: Arrivals,
    residence: Option<Residence>,
}

impl Egress {
    /// A sink over the synchronous back end.
    pub fn new() -> Self {
        Self::with_backend(KernelSend::new())
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: SendBackend> Egress<B> {
    /// A sink over another back end.
    pub fn with_backend(backend: B) -> Self {
        Self {
            sockets: Sockets::new(),
            mirrors: Mirrors::default(),
            backend,
            gather: Gather::new(),
            lone: LonePackets::new(),
            turn: 1,
            backlog: Backlog::new(POOL_BYTES),
            protection: Protection::new(),
            staging: vec![0; 2 * DATAGRAM_BYTES_MAX].into_boxed_slice(),
            messages: Vec::with_capacity(BATCH_MESSAGES_MAX),
            failed: Vec::with_capacity(BATCH_MESSAGES_MAX * TRAIN_SEGMENTS_MAX),
            lost: Vec::with_capacity(1024),
            blocked: Vec::with_capacity(1024),
            stats: EgressStats::default(),
            arrivals: Arrivals::with_capacity(),
            residence: None,
        }
    }

    /// A transport whose socket is full: watch it until it is writable, then call [`Egress::handle_writable`].
    pub fn poll_blocked(&mut self) -> Option<TransportIx> {
        self.blocked.pop()
    }

    /// Packets that were accepted and then lost.
    pub fn poll_lost(&mut self) -> Option<Lost> {
        self.lost.pop()
    }

    /// Closes a transport's sockets; what was gathered for it is sent first, what waits in the backlog is given up.
    pub fn detach(&mut self, transport: TransportIx) {
        self.flush_transport(transport);
        if let Some(path) = self.sockets.paths.get_mut(transport.0 as usize) {
            while self.backlog.pop(&mut path.backlog).is_some() {}
        }
        self.blocked.retain(|&blocked| blocked != transport);
        self.mirrors.detach(transport, &mut self.backend);
        self.protection.detach(transport);
        self.sockets.detach(transport);
    }

    /// Starts or stops measuring residence times. Starting begins a new histogram.
    pub fn measure_residence(&mut self, on: bool) {
        match (on, &self.residence) {
            (true, None) => self.residence = Some(Residence::new()),
            (true, Some(_)) => {}
            (false, _) => self.residence = None,
        }
        self.arrivals.end();
    }

    /// The residence times, if they are measured.
    pub fn residence(&self) -> Option<&Residence> {
        self.residence.as_ref()
    }

    /// What is sent from now on came with this batch. Needed only while residence is measured.
    pub fn begin_batch(&mut self, received: &Received<'_>) {
        if self.residence.is_some() {
            self.arrivals.begin(received);
        }
    }

    /// What is sent from now on came with no batch.
    pub fn end_batch(&mut self) {
        self.arrivals.end();
    }

    /// Totals over all transports.
    pub fn stats(&self) -> EgressStats {
        self.stats
    }

    /// Sends a train that is not one packet or one message, or that the kernel has just not taken.
    #[cold]
    fn send_cold(&mut self, train: Train<'_>) -> Sent {
        let Train {
            transport,
            owner,
            bytes,
            segment,
            arrival_ns,
        } = train;
        let Some(path) = self
            .sockets
            .paths
            .get_mut(transport.0 as usize)
            .filter(|path| path.is_connected)
        else {
            return NO_REMOTE;
        };
        let whole = Message::whole(bytes.len(), segment);
        let packets = whole.packets();
        let mut processed = 0;
        let mut failures = 0;
        if path.backlog.is_empty() {
            let mut parts = whole.parts().peekable();
            while parts.peek().is_some() {
                self.messages.clear();
                self.messages.extend(parts.by_ref().take(BATCH_MESSAGES_MAX));
                let expected: usize = self.messages.iter().map(Message::packets).sum();
                let more = Transmitter {
                    backend: &mut self.backend,
                    path,
                    stats: &mut self.stats,
                    failed: &mut self.failed,
                }
                .transmit(bytes, &self.messages);
                processed += more;
                failures += self.failed.len();
                if more < expected {
                    break;
                }
            }
        }
        if let Some(residence) = &mut self.residence {
            let sent = processed - failures;
            residence.record(arrival_ns, clock::realtime_ns(), sent);
        }
        if failures == packets {
            return Sent {
                accepted: 0,
                reason: DropReason::SendFailed,
            };
        }
        if failures > 0 {
            note_lost(&mut self.lost, owner, DropReason::SendFailed, failures as u32);
        }
        let was_empty = path.backlog.is_empty();
        let mut accepted = processed;
        for packet in whole.singles().skip(processed) {
            let packet = &bytes[packet.start..packet.start + packet.len];
            if !self.backlog.push(&mut path.backlog, packet, owner, arrival_ns) {
                break;
            }
            accepted += 1;
        }
        if was_empty && !path.backlog.is_empty() {
            self.blocked.push(transport);
        }
        if accepted == packets {
            return Sent::all(packets);
        }
        Sent {
            accepted,
            reason: DropReason::BacklogFull,
        }
    }
}

const NO_REMOTE: Sent = Sent {
    accepted: 0,
    reason: DropReason::NoRemote,
};

impl<B: SendBackend> Egress<B> {
    /// A new transport goes on with what another worker has counted at its sockets.
    pub fn go_on_counting(&mut self, transport: TransportIx, kept: &SocketCounts) {
        self.sockets.go_on_counting(transport, kept);
        let mirrored = MirrorStats {
            packets: kept.mirrored,
            failures: kept.mirror_failures,
        };
        self.mirrors.go_on_counting(transport, mirrored);
        self.set_protect_failures(transport, kept.protect_failures);
    }
}

impl<B: SendBackend> Sink for Egress<B> {
    fn send(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        let train = self.train(transport, owner, train, segment);
        let sent = match self.is_protected(transport) {
            true => self.protect_and_send_or_scatter(train),
            false => self.send_at_once(train),
        };
        if self.mirrors.are_open() {
            self.mirror_sent(transport, train.bytes, train.segment, sent.accepted);
        }
        sent
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        let train = self.train(transport, owner, train, segment);
        let sent = match self.dispatch_of(transport) {
            None => NO_REMOTE,
            Some(dispatch) => match (dispatch, self.is_protected(transport)) {
                (Dispatch::Gather, true) => self.protect_and_keep(train),
                (Dispatch::Gather, false) => self.keep(train),
                (Dispatch::SendNow, true) => self.protect_and_send_or_scatter(train),
                (Dispatch::SendNow, false) => self.send_at_once(train),
            },
        };
        if self.mirrors.are_open() {
            self.mirror_sent(transport, train.bytes, train.segment, sent.accepted);
        }
        sent
    }

    fn resend(&mut self, transport: TransportIx, packet: &[u8]) -> bool {
        let is_sent = if self.is_protected(transport) {
            self.protect_and_resend(transport, packet)
        } else {
            self.send_again(transport, packet)
        };
        if is_sent && self.mirrors.are_open() {
            self.mirror_sent(transport, packet, packet.len(), 1);
        }
        is_sent
    }

    #[inline]
    fn prepare(&self, transport: TransportIx) {
        if let Some(path) = self.sockets.paths.get(transport.0 as usize) {
            prefetch(path);
            if path.is_protected {
                path.prefetch();
                self.protection.prefetch(transport);
            }
        }
    }

    #[inline]
    fn prefetch<T>(&self, record: &T, bytes: usize) {
        prefetch_head(record, bytes);
    }

    fn socket_counts(&self, transport: TransportIx) -> SocketCounts {
        let mirrored = self.mirrors.stats(transport);
        SocketCounts {
            mirrored: mirrored.packets,
            mirror_failures: mirrored.failures,
            protect_failures: self.protect_failures(transport),
            ..self.sockets.kept_counts(transport)
        }
    }

    fn note_padded(&mut self, padded: Padded) {
        self.stats.padded.packets += padded.packets;
        self.stats.padded.bytes += padded.bytes;
    }

    fn send_rtcp(&mut self, transport: TransportIx, packet: &[u8]) {
        if self.is_protected(transport) {
            self.protect_and_send_report(transport, packet);
        } else {
            self.send_report(transport, packet);
        }
    }
}

impl<B: SendBackend> Egress<B> {
    #[inline]
    fn is_protected(&self, transport: TransportIx) -> bool {
        self.sockets
            .paths
            .get(transport.0 as usize)
            .is_some_and(|path| path.is_protected)
    }

    #[inline]
    fn train<'a>(&self, transport: TransportIx, owner: ConsumerIx, bytes: &'a [u8], segment: usize) -> Train<'a> {
        Train {
            transport,
            owner,
            bytes,
            segment: segment.min(bytes.len()).max(1),
            arrival_ns: self.residence.as_ref().map_or(0, |_| self.arrivals.of(bytes)),
        }
    }

    #[inline]
    fn send_at_once(&mut self, train: Train<'_>) -> Sent {
        let Train { bytes, segment, .. } = train;
        let Some(path) = self.sockets.paths.get_mut(train.transport.0 as usize) else {
            return NO_REMOTE;
        };
        if !path.is_connected {
            return NO_REMOTE;
        }
        if !path.gathered.is_empty() {
            return self.keep(train);
        }
        if !path.backlog.is_empty() {
            return self.send_cold(train);
        }
        let Some(route) = path.route() else {
            return NO_REMOTE;
        };
        let packets = bytes.len().div_ceil(segment).max(1);
        let result = if packets == 1 {
            self.backend.send_packet(route, bytes)
        } else if path.uses_gso && packets <= TRAIN_SEGMENTS_MAX && bytes.len() <= TRAIN_BYTES_MAX {
            self.backend.send_train(route, bytes, segment)
        } else {
            return self.send_cold(train);
        };
        self.stats.send_calls += 1;
        if let Err(errno) = result {
            if is_pending_error(errno) {
                self.stats.pending_errors += 1;
            }
            return self.send_cold(train);
        }
        if packets > 1 {
            path.refusals = 0;
        }
        path.packets_sent += packets as u64;
        path.bytes_sent += bytes.len() as u64;
        self.stats.packets_sent += packets as u64;
        self.stats.bytes_sent += bytes.len() as u64;
        if let Some(residence) = &mut self.residence {
            residence.record(train.arrival_ns, clock::realtime_ns(), packets);
        }
        Sent::all(packets)
    }

    fn send_again(&mut self, transport: TransportIx, packet: &[u8]) -> bool {
        // What waits for a full socket comes first, and a second copy of something would only make it wait longer.
        let Some(path) = self
            .sockets
            .paths
            .get_mut(transport.0 as usize)
            .filter(|path| path.is_connected && path.backlog.is_empty())
        else {
            return false;
        };
        let whole = Message::whole(packet.len(), packet.len().max(1));
        let processed = Transmitter {
            backend: &mut self.backend,
            path,
            stats: &mut self.stats,
            failed: &mut self.failed,
        }
        .transmit(packet, &[whole]);
        processed == 1 && self.failed.is_empty()
    }
}

fn note_lost(lost: &mut Vec<Lost>, owner: ConsumerIx, reason: DropReason, packets: u32) {
    match lost.last_mut() {
        Some(last) if last.owner == owner && last.reason == reason => last.packets += packets,
        _ => lost.push(Lost { owner, reason, packets }),
    }
}

#[cfg(test)]
mod tests;
