//! What waited for a full socket, when that is writable again.

use weir_channel::message::DropReason;

use super::super::backlog::Backlog;
use super::super::clock;
use super::super::send::{BATCH_MESSAGES_MAX, Message, SendBackend};
use super::super::sockets::Path;
use super::super::transmit::Transmitter;
use super::{Egress, note_lost};
use crate::relay::sink::TransportIx;

/// Times in a row that a writable socket may take nothing of its backlog before the first packet is given up: the kernel
/// is short of memory (ENOBUFS) rather than the socket full, or the packet can never fit.
pub(super) const STALLS_MAX: u8 = 8;

impl<B: SendBackend> Egress<B> {
    /// Sends more of what waits for a socket that has become writable. `false` when nothing waits any more, and so there is
    /// no need to watch for that either.
    pub fn handle_writable(&mut self, transport: TransportIx) -> bool {
        while let Some(path) = self.sockets.paths.get_mut(transport.0 as usize) {
            if path.backlog.is_empty() {
                return false;
            }
            // A stall may be about the length of a train; then a single packet has better prospects.
            let merge = path.uses_gso && path.stalls == 0;
            let staged = stage(&self.backlog, path, merge, &mut self.staging, &mut self.messages);
            let processed = Transmitter {
                backend: &mut self.backend,
                path,
                stats: &mut self.stats,
                failed: &mut self.failed,
            }
            .transmit(&self.staging, &self.messages);
            let handed_over_ns = self.residence.as_ref().map_or(0, |_| clock::realtime_ns());
            let mut failed = self.failed.iter().copied().peekable();
            for packet in 0..processed {
                let Some(waiting) = self.backlog.pop(&mut path.backlog) else {
                    break;
                };
                if failed.next_if_eq(&packet).is_some() {
                    note_lost(&mut self.lost, waiting.owner, DropReason::SendFailed, 1);
                } else if let Some(residence) = &mut self.residence {
                    residence.record(waiting.arrival_ns, handed_over_ns, 1);
                }
            }
            if processed == staged {
                path.stalls = 0;
                continue;
            }
            if processed > 0 {
                path.stalls = 0;
            } else {
                path.stalls += 1;
                if path.stalls >= STALLS_MAX {
                    path.stalls = 0;
                    if let Some(waiting) = self.backlog.pop(&mut path.backlog) {
                        self.stats.send_failures += 1;
                        note_lost(&mut self.lost, waiting.owner, DropReason::SendFailed, 1);
                    }
                }
            }
            return !path.backlog.is_empty();
        }
        false
    }
}

/// Lays as many packets of a backlog as fit end to end, and returns how many these are.
fn stage(backlog: &Backlog, path: &Path, merge: bool, staging: &mut [u8], messages: &mut Vec<Message>) -> usize {
    messages.clear();
    let mut end = 0;
    let mut staged = 0;
    for packet in backlog.packets(&path.backlog) {
        let len = packet.waiting().len as usize;
        let next = Message {
            start: end,
            len,
            segment: len.max(1),
        };
        if end + len > staging.len() {
            break;
        }
        let count = messages.len();
        match messages.last_mut() {
            Some(last) if merge && last.can_append(&next) => last.len += len,
            _ if count == BATCH_MESSAGES_MAX => break,
            _ => messages.push(next),
        }
        packet.copy_to(&mut staging[end..]);
        end += len;
        staged += 1;
    }
    staged
}
