//! Trains that wait for the end of the turn, so that all that leaves for one transport leaves together.

use weir_channel::message::DropReason;

use super::super::clock;
use super::super::gather::Train;
use super::super::send::{Message, SendBackend};
use super::super::transmit::Transmitter;
use super::{Egress, NO_REMOTE, note_lost};
use crate::relay::sink::{Sent, TransportIx};

/// Turns in a row with one train each after which a transport's trains are sent at once until a second one comes in the
/// same turn. The copy costs about 100 ns a packet (a tenth of what sending a packet of a train of 8 does) and gains
/// nothing without a second train.
const LONELY_TURNS_MAX: u8 = 8;

/// What becomes of a train that may wait for the end of the turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dispatch {
    Gather,
    SendNow,
}

impl<B: SendBackend> Egress<B> {
    /// Sends what [`Sink::gather`](crate::relay::sink::Sink::gather) has kept. To be called at the end of each turn.
    pub fn flush_gathered(&mut self) {
        self.send_gathered();
        self.turn = self.turn.wrapping_add(1);
    }

    pub(super) fn send_gathered(&mut self) {
        self.send_all_lone_packets();
        for at in 0..self.gather.transports().len() {
            let transport = self.gather.transports()[at];
            let path = self.sockets.paths.get(transport.0 as usize);
            if path.is_some_and(|path| !path.gathered.is_empty()) {
                self.flush_transport(transport);
            }
        }
        self.gather.clear();
        self.lone.beside_others = false;
    }

    /// Sends what was gathered for one transport, and leaves its list empty.
    pub(super) fn flush_transport(&mut self, transport: TransportIx) {
        let Some(path) = self.sockets.paths.get_mut(transport.0 as usize) else {
            return;
        };
        path.lonely_turns = if path.gathered.is_single() {
            path.lonely_turns.saturating_add(1)
        } else {
            0
        };
        while let Some(plan) = self.gather.plan(&mut path.gathered, path.uses_gso, &mut self.messages) {
            let processed = if path.backlog.is_empty() {
                Transmitter {
                    backend: &mut self.backend,
                    path,
                    stats: &mut self.stats,
                    failed: &mut self.failed,
                }
                .transmit(self.gather.bytes(), &self.messages)
            } else {
                self.failed.clear();
                0
            };
            let handed_over_ns = self.residence.as_ref().map_or(0, |_| clock::realtime_ns());
            let is_complete = processed == self.messages.iter().map(Message::packets).sum::<usize>();
            if is_complete && self.failed.is_empty() && self.residence.is_none() {
                continue;
            }
            let was_empty = path.backlog.is_empty();
            let mut failed = self.failed.iter().copied().peekable();
            let mut index = 0;
            for (entry, packets) in self.gather.entries(plan) {
                for packet in packets {
                    if index >= processed {
                        if !self
                            .backlog
                            .push(&mut path.backlog, packet, entry.owner, entry.arrival_ns)
                        {
                            note_lost(&mut self.lost, entry.owner, DropReason::BacklogFull, 1);
                        }
                    } else if failed.next_if_eq(&index).is_some() {
                        note_lost(&mut self.lost, entry.owner, DropReason::SendFailed, 1);
                    } else if let Some(residence) = &mut self.residence {
                        residence.record(entry.arrival_ns, handed_over_ns, 1);
                    }
                    index += 1;
                }
            }
            if was_empty && !path.backlog.is_empty() {
                self.blocked.push(transport);
            }
        }
    }

    /// How a train that may wait is best sent; `None`: there is no remote.
    pub(super) fn dispatch_of(&mut self, transport: TransportIx) -> Option<Dispatch> {
        let path = self
            .sockets
            .paths
            .get_mut(transport.0 as usize)
            .filter(|path| path.is_connected)?;
        let is_first = path.gather_turn != self.turn;
        path.gather_turn = self.turn;
        if path.gathered.is_empty() {
            if !path.backlog.is_empty() || path.is_stream {
                return Some(Dispatch::SendNow);
            }
            if path.lonely_turns >= LONELY_TURNS_MAX {
                if is_first {
                    return Some(Dispatch::SendNow);
                }
                path.lonely_turns = 0;
            }
        }
        Some(Dispatch::Gather)
    }

    /// Keeps a train until the end of the turn.
    pub(super) fn keep(&mut self, train: Train<'_>) -> Sent {
        let whole = Message::whole(train.bytes.len(), train.segment);
        for part in whole.parts() {
            let piece = Train {
                bytes: &train.bytes[part.start..part.start + part.len],
                segment: part.segment,
                ..train
            };
            loop {
                let Some(path) = self.sockets.paths.get_mut(train.transport.0 as usize) else {
                    return NO_REMOTE;
                };
                if self.gather.push(&mut path.gathered, piece) {
                    self.lone.beside_others = true;
                    break;
                }
                if self.gather.is_empty() {
                    // Longer than all of the buffer; no message can be.
                    return Sent {
                        accepted: part.start / train.segment,
                        reason: DropReason::SendFailed,
                    };
                }
                self.send_gathered();
            }
        }
        Sent::all(whole.packets())
    }
}
