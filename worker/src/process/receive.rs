//! One batch of what has come to a socket: taken, sieved, counted, relayed.

use weir_channel::message::{IceProtocol, UnroutedReason};

use crate::net::poll::Source;
use crate::net::shell::{ReceiveBackend, Shell};
use crate::time::Time;

use super::event_loop::EventLoop;
use super::webrtc::IoContext;

/// Datagrams of one batch from a socket of a single transport at which anybody is heard. The longest ones take 80 µs.
const OPEN_BATCH_MAX: usize = 8;

/// Datagrams of one batch while rooms are adopted: whoever has waited gets something before anybody gets all.
const ADOPTING_BATCH_MAX: usize = 8;

impl<S: Shell> EventLoop<S> {
    /// Takes one batch from a socket and relays it, or accepts the connections that wait at it.
    pub(super) fn receive(&mut self, now: Time, source: Source) {
        let sockets = &self.egress.sockets;
        let (owner, socket) = match source {
            Source::Channel | Source::Open => return,
            Source::Connection { transport, number, .. } => {
                return self.read_connection(now, source, transport, number);
            }
            Source::Unassigned { number } => {
                if self.refuse_unassigned(source, number) {
                    return;
                }
                let (webrtc, mut io) = self.webrtc_and_io();
                let brought = webrtc.read_unassigned(now, &mut io, number);
                return self.note_brought(brought);
            }
            Source::Listener {
                transport, listener, ..
            } if sockets.is_tcp(transport, listener) => {
                let (webrtc, mut io) = self.webrtc_and_io();
                return webrtc.accept(now, &mut io, transport, listener);
            }
            // It was reported before the adoption began.
            Source::SharedPort { .. } if !self.reads_shared_ports() => return,
            Source::SharedPort { number } if matches!(sockets.shared_port_at(number), Some((IceProtocol::Tcp, _))) => {
                let (webrtc, mut io) = self.webrtc_and_io();
                return webrtc.accept_at_shared_port(now, &mut io, number);
            }
            Source::Socket { transport, port, side } => (Some(transport), sockets.get(transport, port, side)),
            Source::Listener {
                transport,
                listener,
                side,
            } => (Some(transport), sockets.listener(transport, listener, side)),
            Source::SharedPort { number } => (None, sockets.shared_port(number)),
        };
        // A transport may be closed since its socket was reported.
        let Some(socket) = socket else { return };
        // What comes to a shared port is more than strangers and beginnings.
        let limit = match owner.is_some() && source.is_open() {
            true => self.batch_limit.get().min(OPEN_BATCH_MAX),
            false => self.batch_limit.get(),
        };
        let limit = match self.adoptions.is_empty() {
            true => limit,
            false => limit.min(ADOPTING_BATCH_MAX),
        };
        let mut received = match self.batch.receive(socket, limit) {
            Ok(received) => received,
            Err(errno) => {
                self.warn(now, "recvmmsg", errno);
                return;
            }
        };
        let sockets = &mut self.egress.sockets;
        if let Some(count) = received.drop_count {
            sockets.note_drop_count(source, count);
        }
        match owner {
            _ if received.truncated == 0 => {}
            Some(transport) => sockets.note_truncated(transport, received.truncated),
            None => self
                .webrtc
                .count_unrouted(UnroutedReason::TooLong, received.truncated.into()),
        }
        for datagram in received.datagrams.iter() {
            self.counters.packets_received += datagram.packets();
            self.counters.bytes_received += u64::from(datagram.len);
        }
        if !self.sieve.is_open() {
            let dropped = self.sieve.sift(now, &mut received, source);
            dropped.count(owner, &mut self.relay, &mut self.webrtc);
        }
        let bound = match source {
            Source::Listener {
                transport, listener, ..
            } => sockets.listens_at(transport, listener),
            Source::SharedPort { number } => sockets.shared_port_at(number),
            _ => None,
        };
        if let Some(first) = received.datagrams.first() {
            self.relay.note_suspect(owner, first.source);
        }
        if let Source::Socket { transport, port, .. } = source {
            self.egress
                .mirror_received(transport, port, received.bytes, received.datagrams);
            self.egress.begin_batch(&received);
            self.relay.handle_datagrams(
                now,
                transport,
                port,
                received.bytes,
                received.datagrams,
                &mut self.egress,
            );
            self.egress.end_batch();
        } else if let Some((_, local)) = bound {
            let mut io: IoContext<'_, S> = IoContext {
                relay: &mut self.relay,
                egress: &mut self.egress,
                poller: &self.poller,
            };
            match owner.filter(|owner| !io.egress.sockets.uses_shared_ports(*owner)) {
                Some(transport) => self.webrtc.handle_batch(now, &mut io, transport, local, received),
                None => self
                    .webrtc
                    .handle_shared_port_batch(now, &mut io, local, owner, received),
            }
        }
        self.handle_actions();
    }

    /// Counts the packets and bytes that a connection has brought, and carries out what follows.
    pub(super) fn note_brought(&mut self, (packets, bytes): (u64, u64)) {
        self.counters.packets_received += packets;
        self.counters.bytes_received += bytes;
        self.handle_actions();
    }
}
