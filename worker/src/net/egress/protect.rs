//! Protecting packets on their way out: the relay's train is read where it lies, and what the kernel gets is written once.
//!
//! A consumer's packets have one SSRC, so the first packet of a train says which stream it is. The 48-bit index of a packet
//! is the one with its sequence number that is closest to the newest of the stream. A packet is not protected if its index
//! has gone out with other bytes, or if nobody knows: it is lost as `SendFailed`, and counted as a failure to protect.

use std::mem;

use nix::errno::Errno;
use weir_channel::message::{DropReason, IceTuple};

use super::super::clock;
use super::super::gather::{GATHER_BYTES, Train};
use super::super::prefetch::prefetch;
use super::super::send::{SendBackend, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX};
use super::aside::send_with_retry;
use super::srtp_streams::{SrtpStreams, StreamEvents};
use super::{Egress, NO_REMOTE, note_lost};
use crate::relay::sink::{ConsumerIx, Sent, TransportIx};
use crate::webrtc::srtp::{Outbound, Profile, ProtectedTrain, Spent};

/// The longest protected message, and the longest packet with what SRTP adds to it.
const BUFFER_BYTES: usize = TRAIN_BYTES_MAX + TRAIN_SEGMENTS_MAX * Profile::RTP_OVERHEAD_MAX;

/// All transports' SRTP streams, and the buffer that their packets are protected in.
pub(super) struct Protection {
    entries: Vec<Entry>,
    buffer: Box<[u8]>,
    /// Streams that nobody has looked at yet.
    begun: Vec<(TransportIx, u32)>,
    /// Transports whose peer has become unheard.
    unheard: Vec<TransportIx>,
}

#[derive(Default)]
struct Entry {
    srtp: Option<Box<SrtpStreams>>,
    failures: u64,
}

impl Protection {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            begun: Vec::with_capacity(1024),
            unheard: Vec::with_capacity(1024),
        }
    }

    #[inline]
    fn record(&mut self, transport: TransportIx, events: StreamEvents) {
        if events.begun.is_some() || events.unheard {
            self.record_cold(transport, events);
        }
    }

    #[cold]
    fn record_cold(&mut self, transport: TransportIx, events: StreamEvents) {
        self.begun.extend(events.begun.map(|ssrc| (transport, ssrc)));
        self.unheard.extend(events.unheard.then_some(transport));
    }

    pub(super) fn detach(&mut self, transport: TransportIx) {
        if let Some(entry) = self.entries.get_mut(transport.0 as usize) {
            *entry = Entry::default();
        }
        self.begun.retain(|(begun, _)| *begun != transport);
        self.unheard.retain(|unheard| *unheard != transport);
    }

    /// Begins to bring a transport's streams into the caches.
    #[inline]
    pub(super) fn prefetch(&self, transport: TransportIx) {
        if let Some(streams) = self.streams(transport) {
            prefetch(streams);
        }
    }

    #[inline]
    fn streams(&self, transport: TransportIx) -> Option<&SrtpStreams> {
        self.entries.get(transport.0 as usize)?.srtp.as_deref()
    }

    #[inline]
    fn streams_mut(&mut self, transport: TransportIx) -> Option<&mut SrtpStreams> {
        self.get_mut(transport)?.srtp.as_deref_mut()
    }

    fn get_mut(&mut self, transport: TransportIx) -> Option<&mut Entry> {
        self.entries.get_mut(transport.0 as usize)
    }
}

impl<B: SendBackend> Egress<B> {
    /// Protects what leaves on a WebRTC transport from now on.
    pub fn start_protecting(&mut self, transport: TransportIx, outbound: Outbound) {
        let index = transport.0 as usize;
        if self.protection.entries.len() <= index {
            self.protection.entries.resize_with(index + 1, Entry::default);
        }
        self.protection.entries[index].srtp = Some(Box::new(SrtpStreams::new(outbound)));
    }

    /// The number of a WebRTC transport's SRTCP packets is kept nowhere any more.
    pub fn forget_rtcp_count(&mut self, transport: TransportIx) {
        if let Some(srtp) = self.protection.streams_mut(transport) {
            srtp.forget_rtcp_count();
        }
    }

    /// A worker that is dead has used the indices of a WebRTC transport's SSRC so far, at the least.
    pub fn spend(&mut self, transport: TransportIx, spent: Spent) {
        if let Some(srtp) = self.protection.streams_mut(transport) {
            srtp.spend(spent);
        }
    }

    /// A stream that has begun to be protected: say [`Egress::refuse_repeats`] of it unless its packets may have to be sent again
    /// as they were. Each is named once, and again when it goes on after a long silence.
    pub fn poll_begun(&mut self) -> Option<(TransportIx, u32)> {
        self.protection.begun.pop()
    }

    /// No packet of a WebRTC transport's SSRC is sent again as it was: what would tell that it is the same is not kept.
    pub fn refuse_repeats(&mut self, transport: TransportIx, ssrc: u32) {
        if let Some(srtp) = self.protection.streams_mut(transport) {
            srtp.refuse_repeats(ssrc);
        }
    }

    /// The peer of a WebRTC transport has said something that is authentic. Whether it had become
    /// [unheard](Egress::poll_unheard) before.
    #[inline]
    pub fn note_heard(&mut self, transport: TransportIx) -> bool {
        self.protection
            .streams_mut(transport)
            .is_some_and(SrtpStreams::note_heard)
    }

    /// Whether so much was sent to a WebRTC transport's peer since it was last heard that nothing more should be.
    pub fn is_unheard(&self, transport: TransportIx) -> bool {
        self.protection.streams(transport).is_some_and(|srtp| srtp.is_unheard)
    }

    /// A WebRTC transport whose peer has not been heard while [`UNHEARD_MAX`](super::UNHEARD_MAX) packets of one stream were sent to it. It will
    /// not be able to tell what comes if much more is numbered; named once, until [`Egress::note_heard`].
    pub fn poll_unheard(&mut self) -> Option<TransportIx> {
        self.protection.unheard.pop()
    }

    /// Forgets a WebRTC transport's keys. What was protected still leaves, and nothing else does.
    pub fn stop_protecting(&mut self, transport: TransportIx) {
        if let Some(entry) = self.protection.get_mut(transport) {
            entry.srtp = None;
        }
    }

    /// Keeps no more of a WebRTC transport's SSRC than how far its indices are used: nothing is sent under it for now. Whoever
    /// sends under it again goes on above them.
    pub fn retire(&mut self, transport: TransportIx, ssrc: u32) {
        if let Some(srtp) = self.protection.streams_mut(transport) {
            srtp.retire(ssrc);
        }
    }

    /// A WebRTC transport goes on, of which another worker could not protect so many packets.
    pub(in crate::net) fn set_protect_failures(&mut self, transport: TransportIx, failures: u64) {
        let index = transport.0 as usize;
        if failures > 0 && self.protection.entries.len() <= index {
            self.protection.entries.resize_with(index + 1, Entry::default);
        }
        if let Some(entry) = self.protection.entries.get_mut(index) {
            entry.failures = failures;
        }
    }

    /// Packets of a WebRTC transport that could not be protected.
    pub fn protect_failures(&self, transport: TransportIx) -> u64 {
        self.protection
            .entries
            .get(transport.0 as usize)
            .map_or(0, |entry| entry.failures)
    }

    /// Sends a train at once that is not protected yet. A train of any length is protected and sent in parts.
    pub(super) fn protect_and_send(&mut self, train: Train<'_>) -> Sent {
        let Train { transport, segment, .. } = train;
        let mut buffer = mem::take(&mut self.protection.buffer);
        let mut progress = Progress::new(train);
        while let Some(part) = progress.next(self.overhead(transport)) {
            let Some(protected) = self.protect_part(transport, part, segment, &mut buffer) else {
                progress.stop(NO_REMOTE);
                break;
            };
            let mut sent = Sent::all(protected.packets);
            if protected.packets > 0 {
                sent = self.send_protected(Train {
                    bytes: &buffer[..protected.bytes],
                    segment: (segment + self.overhead(transport)).min(protected.bytes),
                    ..train
                });
            }
            if !progress.advance(protected, sent) {
                break;
            }
        }
        self.protection.buffer = buffer;
        self.conclude(transport, train.owner, progress)
    }

    #[inline]
    fn send_protected(&mut self, train: Train<'_>) -> Sent {
        match self.sockets.paths.get(train.transport.0 as usize) {
            Some(path) if path.is_stream => {
                self.send_over_stream(train.transport, train.bytes, train.segment, train.arrival_ns)
            }
            _ => self.send_at_once(train),
        }
    }

    /// Sends what is protected over the transport's connection.
    fn send_over_stream(&mut self, transport: TransportIx, train: &[u8], segment: usize, arrival_ns: u64) -> Sent {
        let Some(number) = self.sockets.stream(transport) else {
            return NO_REMOTE;
        };
        self.stats.send_calls += 1;
        let accepted = self.sockets.send_frames(transport, number, train, segment);
        let bytes = train.len().min(accepted * segment) as u64;
        self.stats.packets_sent += accepted as u64;
        self.stats.bytes_sent += bytes;
        if let Some(path) = self.sockets.paths.get_mut(transport.0 as usize) {
            path.packets_sent += accepted as u64;
            path.bytes_sent += bytes;
        }
        if let Some(residence) = &mut self.residence {
            residence.record(arrival_ns, clock::realtime_ns(), accepted);
        }
        Sent {
            accepted,
            reason: DropReason::BacklogFull,
        }
    }

    /// Keeps a train until the end of the turn that is not protected yet: protected, where it waits.
    pub(super) fn protect_and_keep(&mut self, train: Train<'_>) -> Sent {
        let Train { transport, segment, .. } = train;
        let overhead = self.overhead(transport);
        let mut progress = Progress::new(train);
        while let Some(part) = progress.next(overhead) {
            let len = part.len() + part.len().div_ceil(segment) * overhead;
            if self.gather.reserve(len).is_none() {
                if len > GATHER_BYTES {
                    progress.stop(Sent {
                        accepted: 0,
                        reason: DropReason::SendFailed,
                    });
                    break;
                }
                self.send_gathered();
            }
            let (
                Some(path),
                Some(Entry {
                    srtp: Some(srtp),
                    failures,
                }),
            ) = (
                self.sockets.paths.get_mut(transport.0 as usize),
                self.protection.entries.get_mut(transport.0 as usize),
            )
            else {
                progress.stop(NO_REMOTE);
                break;
            };
            let Some(buffer) = self.gather.reserve(len) else { break };
            let (protected, news) = srtp.protect_train(part, segment, buffer);
            *failures += u64::from(protected.refused.is_some());
            if protected.packets > 0 {
                let segment = (segment + overhead).min(protected.bytes);
                self.gather
                    .commit(&mut path.gathered, protected.bytes, Train { segment, ..train });
                self.lone.beside_others = true;
            }
            self.protection.record(transport, news);
            progress.advance(protected, Sent::all(protected.packets));
        }
        self.conclude(transport, train.owner, progress)
    }

    pub(super) fn protect_and_resend(&mut self, transport: TransportIx, packet: &[u8]) -> bool {
        let mut buffer = mem::take(&mut self.protection.buffer);
        let protected = self.protect_part(transport, packet, packet.len().max(1), &mut buffer);
        let is_sent = protected
            .filter(|protected| protected.packets == 1)
            .is_some_and(|protected| {
                let packet = &buffer[..protected.bytes];
                match self.sockets.stream(transport) {
                    Some(_) => self.send_over_stream(transport, packet, packet.len(), 0).accepted == 1,
                    None => self.send_again(transport, packet),
                }
            });
        self.protection.buffer = buffer;
        is_sent
    }

    pub(super) fn protect_and_send_report(&mut self, transport: TransportIx, packet: &[u8]) {
        let path = self.sockets.paths.get(transport.0 as usize);
        if !path.is_some_and(|path| path.is_connected) {
            return;
        }
        let Some(len) = self.protect_report(transport, packet) else {
            return;
        };
        let protected = &self.protection.buffer[..len];
        let result = match self.sockets.stream(transport) {
            Some(number) => {
                self.stats.send_calls += 1;
                match self.sockets.send_frames(transport, number, protected, len) {
                    1 => Ok(()),
                    _ => Err(Errno::EAGAIN),
                }
            }
            None => match self.sockets.paths[transport.0 as usize].route() {
                Some(route) => send_with_retry(&mut self.backend, &mut self.stats, route, protected),
                None => return,
            },
        };
        self.on_report_sent(transport, result, len, packet);
    }

    /// Sends a WebRTC transport's RTCP to another tuple than the one that it sends to, or to that one while it may not send.
    pub fn send_report_to(&mut self, transport: TransportIx, tuple: IceTuple, packet: &[u8]) {
        let Some(len) = self.protect_report(transport, packet) else {
            return;
        };
        let protected = &self.protection.buffer[..len];
        let result = self.sockets.send_to(&mut self.backend, transport, tuple, protected);
        self.on_report_sent(transport, result, len, packet);
    }

    /// Sends a datagram of ICE or DTLS on a tuple of a WebRTC transport, at once or not at all.
    ///
    /// # Errors
    /// Why it was not sent.
    pub fn send_to(&mut self, transport: TransportIx, tuple: IceTuple, datagram: &[u8]) -> Result<(), Errno> {
        self.sockets.send_to(&mut self.backend, transport, tuple, datagram)
    }

    /// Protects RTCP, at the beginning of the buffer; `None` if that cannot be.
    fn protect_report(&mut self, transport: TransportIx, packet: &[u8]) -> Option<usize> {
        let Some(Entry {
            srtp: Some(srtp),
            failures,
        }) = self.protection.entries.get_mut(transport.0 as usize)
        else {
            return None;
        };
        let buffer = &mut self.protection.buffer;
        let protected = match buffer.get_mut(..packet.len()) {
            Some(place) => {
                place.copy_from_slice(packet);
                srtp.protect_rtcp(buffer, packet.len()).ok()
            }
            None => None,
        };
        *failures += u64::from(protected.is_none());
        protected
    }

    /// Bytes that SRTP adds to each packet of a transport.
    fn overhead(&self, transport: TransportIx) -> usize {
        self.protection
            .streams(transport)
            .map_or(Profile::RTP_OVERHEAD_MAX, |srtp| srtp.outbound.profile().rtp_overhead())
    }

    /// `None`: there is nobody to send to.
    #[inline]
    fn protect_part(
        &mut self,
        transport: TransportIx,
        part: &[u8],
        segment: usize,
        buffer: &mut [u8],
    ) -> Option<ProtectedTrain> {
        let path = self.sockets.paths.get(transport.0 as usize)?;
        let entry = self.protection.get_mut(transport).filter(|_| path.is_connected)?;
        let (protected, news) = entry.srtp.as_mut()?.protect_train(part, segment, buffer);
        entry.failures += u64::from(protected.refused.is_some());
        self.protection.record(transport, news);
        Some(protected)
    }

    fn conclude(&mut self, transport: TransportIx, owner: ConsumerIx, progress: Progress<'_>) -> Sent {
        let Progress {
            accepted,
            refused,
            reason,
            ..
        } = progress;
        if refused > 0 {
            tracing::debug!(transport = transport.0, refused, "packets could not be protected");
        }
        if accepted == refused {
            return Sent {
                accepted: 0,
                reason: reason.unwrap_or(DropReason::SendFailed),
            };
        }
        if refused > 0 {
            note_lost(&mut self.lost, owner, DropReason::SendFailed, refused as u32);
        }
        Sent {
            accepted,
            reason: reason.unwrap_or(DropReason::SendFailed),
        }
    }
}

/// What is protected of a train at a time: as many packets as one message can carry then.
fn step_of(segment: usize, overhead: usize) -> usize {
    (TRAIN_BYTES_MAX / (segment + overhead)).clamp(1, TRAIN_SEGMENTS_MAX) * segment
}

/// How far a train has come.
struct Progress<'a> {
    rest: &'a [u8],
    segment: usize,
    /// Packets that are sent, or refused with others behind them.
    accepted: usize,
    /// Packets that could not be protected.
    refused: usize,
    /// Why the rest is not sent.
    reason: Option<DropReason>,
}

impl<'a> Progress<'a> {
    fn new(train: Train<'a>) -> Self {
        Self {
            rest: train.bytes,
            segment: train.segment,
            accepted: 0,
            refused: 0,
            reason: None,
        }
    }

    /// What to protect next.
    fn next(&self, overhead: usize) -> Option<&'a [u8]> {
        let len = step_of(self.segment, overhead).min(self.rest.len());
        (len > 0).then(|| &self.rest[..len])
    }

    /// Takes note of what became of it; whether to go on.
    fn advance(&mut self, protected: ProtectedTrain, sent: Sent) -> bool {
        self.accepted += sent.accepted;
        if sent.accepted < protected.packets {
            self.reason = Some(sent.reason);
            return false;
        }
        let mut done = protected.packets;
        if protected.refused.is_some() {
            self.refused += 1;
            self.accepted += 1;
            done += 1;
        }
        self.rest = self.rest.get(done * self.segment..).unwrap_or_default();
        true
    }

    fn stop(&mut self, sent: Sent) {
        self.reason = Some(sent.reason);
    }
}
