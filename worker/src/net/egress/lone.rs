//! Packets that leave alone, for many transports of one shared port: one call takes all of them.
//!
//! A transport on a shared port has two ways out with the same source and the same destination: its connected socket, and the
//! port's unconnected one. A train is cheaper through the first, which needs no route lookup. But of hundreds of connected
//! sockets that each get a packet now and then, none is in the caches any more when its next packet comes; through the one
//! unconnected socket sixteen packets to sixteen peers are a single call (benches/README.md).
//!
//! So a packet that is alone waits, protected, until others do, or the turn ends. What comes for its transport before that waits
//! behind it, and then all of it leaves through the connected socket. That one also gets what the unconnected one refuses, so
//! that errors and full buffers are its transport's affair.

use super::super::clock;
use super::super::gather::{GATHER_ENTRIES, List, Train};
use super::super::send::{BATCH_MESSAGES_MAX, Destination, Message, SendBackend};
use super::super::transmit::is_full;
use super::Egress;
use crate::relay::sink::{Sent, TransportIx};

/// Packets that make a batch: more gain nothing worth having, and would have the first wait longer.
const BATCH: usize = 16;

/// Fewer than these leave through the connected sockets: what a call saves is then less than a route lookup for each.
const BATCH_MIN: usize = 4;

/// Where the packets are that wait to leave in a batch.
pub(super) struct LonePackets {
    /// The number of the shared port, and the transport, for which there was one packet at that time.
    waiting: Vec<(u8, TransportIx)>,
    /// Something else waits too, for the end of the turn.
    pub(super) beside_others: bool,
    messages: Vec<(Message, Destination)>,
    /// For each message whose it is, and what was taken from there.
    taken: Vec<(TransportIx, List)>,
}

impl LonePackets {
    pub(super) fn new() -> Self {
        Self {
            waiting: Vec::with_capacity(GATHER_ENTRIES),
            beside_others: false,
            messages: Vec::with_capacity(BATCH_MESSAGES_MAX),
            taken: Vec::with_capacity(BATCH_MESSAGES_MAX),
        }
    }
}

impl<B: SendBackend> Egress<B> {
    /// Protects a train and sends it at once, or soon if it is a packet that may leave with those of others.
    #[inline]
    pub(super) fn protect_and_send_or_scatter(&mut self, train: Train<'_>) -> Sent {
        let path = self.sockets.paths.get(train.transport.0 as usize);
        let port = path
            .filter(|path| {
                train.bytes.len() <= train.segment
                    && path.is_connected
                    && !path.is_stream
                    && path.gathered.is_empty()
                    && path.backlog.is_empty()
            })
            .and_then(|path| path.scattered())
            .map(|scattered| scattered.port);
        match port {
            Some(port) => self.protect_and_scatter(train, port),
            None => self.protect_and_send(train),
        }
    }

    fn protect_and_scatter(&mut self, train: Train<'_>, port: u8) -> Sent {
        let beside_others = self.lone.beside_others;
        let sent = self.protect_and_keep(train);
        self.lone.beside_others = beside_others;
        self.lone.waiting.push((port, train.transport));
        if self.lone.waiting.len() >= BATCH {
            match self.lone.beside_others {
                // Its memory can be used again at once, while it is in the caches.
                false => self.send_gathered(),
                true => self.send_lone_packets(),
            }
        }
        sent
    }

    /// Sends all that is alone at the end of the turn, also on transports for which more might have come.
    pub(super) fn send_all_lone_packets(&mut self) {
        self.lone.waiting.clear();
        if !self.sockets.has_shared_ports() {
            return;
        }
        for transport in self.gather.transports() {
            if let Some(path) = self.sockets.paths.get(transport.0 as usize)
                && self.gather.lone_packet(path.gathered).is_some()
                && let Some(scattered) = path.scattered()
            {
                self.lone.waiting.push((scattered.port, *transport));
            }
        }
        self.send_lone_packets();
    }

    /// Sends the packets that are still alone, port by port. What is left of them waits for the end of the turn.
    fn send_lone_packets(&mut self) {
        let mut waiting = std::mem::take(&mut self.lone.waiting);
        if waiting.iter().any(|(port, _)| *port != waiting[0].0) {
            waiting.sort_unstable_by_key(|(port, _)| *port);
        }
        for of_port in waiting.chunk_by(|(one, _), (other, _)| one == other) {
            for batch in of_port.chunks(BATCH_MESSAGES_MAX) {
                self.send_batch_of_lone_packets(batch);
            }
        }
        waiting.clear();
        self.lone.waiting = waiting;
    }

    fn send_batch_of_lone_packets(&mut self, waiting: &[(u8, TransportIx)]) {
        if waiting.len() < BATCH_MIN {
            return;
        }
        self.lone.messages.clear();
        self.lone.taken.clear();
        for (port, transport) in waiting {
            let Some(path) = self.sockets.paths.get_mut(transport.0 as usize) else {
                continue;
            };
            // Since then more may have come for it, or it has another path, or none.
            let scattered = path.scattered().filter(|scattered| scattered.port == *port);
            let (Some(scattered), Some((_, message))) = (scattered, self.gather.lone_packet(path.gathered)) else {
                continue;
            };
            if path.is_connected && path.backlog.is_empty() {
                self.lone.messages.push((message, *scattered.destination));
                self.lone.taken.push((*transport, path.gathered));
                // A transport can be named twice.
                path.gathered = List::EMPTY;
            }
        }
        let mut done = 0;
        while done < self.lone.messages.len() {
            match self.call_scattered(done) {
                Ok(count) => {
                    let handed_over_ns = self.residence.as_ref().map_or(0, |_| clock::realtime_ns());
                    for at in done..(done + count).min(self.lone.taken.len()) {
                        self.note_scattered(at, handed_over_ns);
                    }
                    done += count.max(1);
                }
                Err(full) => {
                    let left = if full { self.lone.taken.len() } else { done + 1 };
                    for (transport, list) in &self.lone.taken[done..left] {
                        if let Some(path) = self.sockets.paths.get_mut(transport.0 as usize) {
                            path.gathered = *list;
                        }
                    }
                    done = left;
                }
            }
        }
    }

    /// Hands the messages from this one on to the kernel, and says how many it took; `Err`: not the first one, because the
    /// socket is full, or (`false`) for a reason that need not hold for the others.
    fn call_scattered(&mut self, from: usize) -> Result<usize, bool> {
        let (first, _) = self.lone.taken[from];
        let path = self.sockets.paths.get(first.0 as usize);
        let Some(scattered) = path.and_then(|path| path.scattered()) else {
            return Err(false);
        };
        self.stats.send_calls += 1;
        self.backend
            .send_scattered(scattered.socket, self.gather.bytes(), &self.lone.messages[from..])
            .map_err(is_full)
    }

    fn note_scattered(&mut self, at: usize, handed_over_ns: u64) {
        let ((transport, list), (message, _)) = (self.lone.taken[at], self.lone.messages[at]);
        if let Some(path) = self.sockets.paths.get_mut(transport.0 as usize) {
            path.lonely_turns = path.lonely_turns.saturating_add(1);
            path.packets_sent += 1;
            path.bytes_sent += message.len as u64;
        }
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += message.len as u64;
        if let (Some(residence), Some((entry, _))) = (&mut self.residence, self.gather.lone_packet(list)) {
            residence.record(entry.arrival_ns, handed_over_ns, 1);
        }
    }
}
