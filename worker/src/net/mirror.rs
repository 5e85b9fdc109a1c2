//! Copies of a transport's packets for somebody else, sent through a connected socket of their own.
//!
//! Copies never stand in the way of media: a packet is copied into memory when it comes or goes, and all copies of a turn
//! leave at its end, when the media has left. What the socket does not take then is lost and counted. Trains stay trains,
//! and neighbours of equal size become one.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{SockaddrStorage, getpeername};
use weir_channel::message::{Mirror, Remote, WorkerError};

use super::send::{BATCH_MESSAGES_MAX, Message, SendBackend, TRAIN_SEGMENTS_MAX};
use super::sockets::{Path, check_udp};
use super::transmit::{EgressStats, Transmitter};
use crate::relay::datagram::Datagram;
use crate::relay::sink::{Port, TransportIx};

/// Bytes of copies that can wait for the end of the turn: the media of a whole turn from and to a busy transport. When
/// they are used up, copies leave early.
const WAITING_BYTES: usize = 1 << 20;

/// Copied trains that can wait.
const WAITING_MAX: usize = 4_096;

/// A packet's direction and kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    SendRtp,
    SendRtcp,
    RecvRtp,
    RecvRtcp,
}

/// The socket of a mirror, checked.
#[derive(Debug)]
pub struct MirrorSocket(OwnedFd);

impl MirrorSocket {
    /// Takes the descriptor of [`StartMirroring`](weir_channel::message::Method::StartMirroring). It is closed if it is
    /// refused.
    ///
    /// # Errors
    /// [`WorkerError::Descriptors`] if it is not one, [`WorkerError::InvalidParameters`] if it is not a connected UDP socket.
    pub fn adopt(descriptors: Vec<OwnedFd>) -> Result<Self, WorkerError> {
        let [socket] = <[OwnedFd; 1]>::try_from(descriptors)
            .map_err(|descriptors| WorkerError::descriptors(1, descriptors.len()))?;
        check_udp(&socket)?;
        if getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_err() {
            return Err(WorkerError::invalid("the socket of a mirror is not connected"));
        }
        Ok(Self(socket))
    }
}

/// What has become of a transport's copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MirrorStats {
    /// Packets given to the kernel.
    pub packets: u64,
    /// Packets that the kernel did not take.
    pub failures: u64,
}

/// All transports' mirrors.
#[derive(Debug, Default)]
pub struct Mirrors {
    mirrors: Vec<Entry>,
    /// How many there are; with none of them, a packet costs one look at this.
    open: usize,
    /// Made with the first mirror.
    waiting: Option<Waiting>,
    stats: EgressStats,
}

#[derive(Debug, Default)]
struct Entry {
    open: Option<Box<Open>>,
    stats: MirrorStats,
}

#[derive(Debug)]
struct Open {
    mirror: Mirror,
    path: Path,
}

#[derive(Debug)]
struct Waiting {
    bytes: Box<[u8]>,
    used: usize,
    copies: Vec<(TransportIx, Message)>,
    messages: Vec<Message>,
    failed: Vec<usize>,
}

impl Waiting {
    fn new() -> Self {
        Self {
            bytes: vec![0; WAITING_BYTES].into_boxed_slice(),
            used: 0,
            copies: Vec::with_capacity(WAITING_MAX),
            messages: Vec::with_capacity(BATCH_MESSAGES_MAX),
            failed: Vec::with_capacity(BATCH_MESSAGES_MAX * TRAIN_SEGMENTS_MAX),
        }
    }

    /// `false` if the buffer is full.
    fn push(&mut self, transport: TransportIx, packets: &[u8], segment: usize) -> bool {
        let end = self.used + packets.len();
        if end > self.bytes.len() || self.copies.len() == WAITING_MAX {
            return false;
        }
        self.bytes[self.used..end].copy_from_slice(packets);
        let next = Message {
            start: self.used,
            len: packets.len(),
            segment,
        };
        self.used = end;
        match self.copies.last_mut() {
            // They lie end to end.
            Some((last_of, last)) if *last_of == transport && last.can_append(&next) => last.len += next.len,
            _ => self.copies.push((transport, next)),
        }
        true
    }
}

impl Mirrors {
    /// Begins to copy a transport's packets.
    ///
    /// # Errors
    /// Gives the socket back if they are copied already.
    pub fn start(&mut self, transport: TransportIx, mirror: Mirror, socket: MirrorSocket) -> Result<(), MirrorSocket> {
        let index = transport.0 as usize;
        if self.mirrors.len() <= index {
            self.mirrors.resize_with(index + 1, Entry::default);
        }
        let entry = &mut self.mirrors[index];
        if entry.open.is_some() {
            return Err(socket);
        }
        entry.open = Some(Box::new(Open {
            mirror,
            path: Path::connected(socket.0),
        }));
        self.open += 1;
        self.waiting.get_or_insert_with(Waiting::new);
        Ok(())
    }

    /// Where copies of a transport's packets go.
    pub fn remote(&self, transport: TransportIx) -> Option<SocketAddr> {
        self.get(transport).map(|open| open.mirror.remote)
    }

    /// What has become of a transport's copies, also of those of a mirror that has ended.
    pub fn stats(&self, transport: TransportIx) -> MirrorStats {
        self.mirrors
            .get(transport.0 as usize)
            .map_or_else(MirrorStats::default, |entry| entry.stats)
    }

    /// A transport is mirrored on, and another worker has counted so much.
    pub(super) fn go_on_counting(&mut self, transport: TransportIx, counted: MirrorStats) {
        let index = transport.0 as usize;
        if counted != MirrorStats::default() && self.mirrors.len() <= index {
            self.mirrors.resize_with(index + 1, Entry::default);
        }
        if let Some(entry) = self.mirrors.get_mut(index) {
            entry.stats = counted;
        }
    }

    /// Whether any transport is mirrored.
    pub(super) fn are_open(&self) -> bool {
        self.open > 0
    }

    /// Sends what waits, and ends a mirror, if there is one.
    pub(super) fn stop(&mut self, transport: TransportIx, backend: &mut impl SendBackend) {
        if self.get(transport).is_none() {
            return;
        }
        self.flush(backend);
        self.mirrors[transport.0 as usize].open = None;
        self.open -= 1;
        if self.open == 0 {
            self.waiting = None;
        }
    }

    /// Forgets a transport that is closed.
    pub(super) fn detach(&mut self, transport: TransportIx, backend: &mut impl SendBackend) {
        self.stop(transport, backend);
        if let Some(entry) = self.mirrors.get_mut(transport.0 as usize) {
            entry.stats = MirrorStats::default();
        }
    }

    /// Copies packets of `segment` bytes laid end to end, of which the last may be shorter, if their flow is mirrored.
    pub(super) fn copy(
        &mut self,
        transport: TransportIx,
        flow: Flow,
        packets: &[u8],
        segment: usize,
        backend: &mut impl SendBackend,
    ) {
        if packets.is_empty() || !self.get(transport).is_some_and(|open| open.wants(flow)) {
            return;
        }
        for part in Message::whole(packets.len(), segment).parts() {
            let bytes = &packets[part.start..part.start + part.len];
            let pushed = |waiting: &mut Option<Waiting>| {
                waiting
                    .as_mut()
                    .is_some_and(|waiting| waiting.push(transport, bytes, part.segment))
            };
            if !pushed(&mut self.waiting) {
                self.flush(backend);
                pushed(&mut self.waiting); // no datagram is longer than an empty buffer
            }
        }
    }

    /// Copies what has been received, before anybody changes it: of each datagram from the remote the packets that are
    /// wanted.
    pub(super) fn copy_received(
        &mut self,
        transport: TransportIx,
        port: Port,
        remote: Remote,
        bytes: &[u8],
        datagrams: &[Datagram],
        backend: &mut impl SendBackend,
    ) {
        let Some(open) = self.get(transport) else { return };
        let wants_all = open.wants(Flow::RecvRtp) && open.wants(Flow::RecvRtcp);
        let source = match port {
            Port::Rtp => Some(remote.rtp),
            Port::Rtcp => remote.rtcp,
        };
        for datagram in datagrams.iter().filter(|datagram| Some(datagram.source) == source) {
            let Some(train) = bytes.get(datagram.range()) else {
                continue;
            };
            let segment = (datagram.segment as usize).clamp(1, train.len().max(1));
            if wants_all {
                self.copy(transport, Flow::RecvRtp, train, segment, backend);
                continue;
            }
            for packet in train.chunks(segment) {
                let flow = if port == Port::Rtcp || is_rtcp(packet) {
                    Flow::RecvRtcp
                } else {
                    Flow::RecvRtp
                };
                self.copy(transport, flow, packet, packet.len(), backend);
            }
        }
    }

    /// Sends the copies that wait.
    pub(super) fn flush(&mut self, backend: &mut impl SendBackend) {
        let Some(waiting) = self.waiting.as_mut().filter(|waiting| !waiting.copies.is_empty()) else {
            return;
        };
        let Waiting {
            bytes,
            copies,
            messages,
            failed,
            ..
        } = waiting;
        let mut rest = &copies[..];
        while let Some((transport, _)) = rest.first() {
            let count = rest
                .iter()
                .take(BATCH_MESSAGES_MAX)
                .take_while(|(other, _)| other == transport)
                .count();
            let (run, after) = rest.split_at(count);
            rest = after;
            messages.clear();
            messages.extend(run.iter().map(|(_, message)| *message));
            let entry = &mut self.mirrors[transport.0 as usize];
            let Some(open) = &mut entry.open else { continue };
            let processed = Transmitter {
                backend,
                path: &mut open.path,
                stats: &mut self.stats,
                failed,
            }
            .transmit(bytes, messages);
            // The socket is full: nobody waits for it.
            let all: usize = messages.iter().map(Message::packets).sum();
            let sent = processed - failed.len();
            entry.stats.packets += sent as u64;
            entry.stats.failures += (all - sent) as u64;
        }
        copies.clear();
        waiting.used = 0;
    }

    fn get(&self, transport: TransportIx) -> Option<&Open> {
        self.mirrors.get(transport.0 as usize)?.open.as_deref()
    }
}

impl Open {
    fn wants(&self, flow: Flow) -> bool {
        match flow {
            Flow::SendRtp => self.mirror.send_rtp,
            Flow::SendRtcp => self.mirror.send_rtcp,
            Flow::RecvRtp => self.mirror.recv_rtp,
            Flow::RecvRtcp => self.mirror.recv_rtcp,
        }
    }
}

/// RFC 5761 §4: the second byte of RTCP is 192 to 223, and RTP avoids payload types that look like it.
fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet, [_, 192..=223, ..])
}
