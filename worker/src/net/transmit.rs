//! Getting messages out in spite of errors.
//!
//! ```text
//! the socket is full       stop, and say how far it went
//!   (EAGAIN, ENOBUFS)
//! an earlier packet's      the kernel reports it in place of sending: the call is repeated once; if the remote really
//!   error (ICMP)           cannot be reached, the packet has failed
//! a train is refused       it goes out as single packets. EIO (the device cannot segment) ends trains for the transport
//!   (EIO, EINVAL,          at once, the others (a packet is larger than the path's MTU) after some in a row, until it is
//!   EMSGSIZE)              connected anew
//! anything else            the message has failed; the next one may not
//! ```

use nix::errno::Errno;

use super::send::{Message, SendBackend, TRAIN_SEGMENTS_MAX, is_pending_error};
use super::sockets::Path;
use crate::relay::sink::Padded;

/// Refusals in a row after which a transport sends no more trains: more than a change of route would bring about, few
/// enough that the wasted calls do not matter.
const REFUSALS_MAX: u8 = 4;

/// Totals over all transports, closed ones included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EgressStats {
    /// Packets given to the kernel, RTCP included.
    pub packets_sent: u64,
    /// Their UDP payload bytes.
    pub bytes_sent: u64,
    /// Calls into the kernel that sent, or tried to.
    pub send_calls: u64,
    /// Trains that were refused and went out as single packets.
    pub gso_refusals: u64,
    /// Calls that reported an earlier packet's error in place of sending.
    pub pending_errors: u64,
    /// Packets the kernel refused for good.
    pub send_failures: u64,
    /// RTCP packets that found the socket full; they do not wait, because the next report supersedes them.
    pub rtcp_lost: u64,
    /// Packets that were padded to be as long as others of their train.
    pub padded: Padded,
}

/// Whether the socket's buffer, or the kernel's memory, is full at the moment.
pub(super) fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM)
}

/// Hands one transport's packets to the kernel, with all that a transmission changes.
pub(super) struct Transmitter<'a, B> {
    pub(super) backend: &'a mut B,
    pub(super) path: &'a mut Path,
    pub(super) stats: &'a mut EgressStats,
    pub(super) failed: &'a mut Vec<usize>,
}

impl<B: SendBackend> Transmitter<'_, B> {
    /// Sends messages in their order. Returns how many packets, counted from the first, were processed: sent, or listed in
    /// `failed`. If these are not all, the socket is full.
    pub(super) fn transmit(&mut self, bytes: &[u8], messages: &[Message]) -> usize {
        self.failed.clear();
        self.transmit_from(0, bytes, messages)
    }

    /// As [`Transmitter::transmit`], where `before` packets were processed before the first of these.
    fn transmit_from(&mut self, before: usize, bytes: &[u8], messages: &[Message]) -> usize {
        let mut processed = 0;
        let mut rest = messages;
        let mut is_retry = false;
        while let Some(&message) = rest.first() {
            if message.is_train() && !self.path.uses_gso {
                let more = self.transmit_singles(before + processed, bytes, message);
                processed += more;
                if more < message.packets() {
                    break;
                }
                rest = &rest[1..];
                continue;
            }
            self.stats.send_calls += 1;
            match self.call(bytes, rest) {
                Ok(0) => break,
                Ok(count) => {
                    let (sent, after) = rest.split_at(count);
                    for message in sent {
                        processed += message.packets();
                        self.note_sent(*message);
                    }
                    rest = after;
                    is_retry = false;
                }
                Err(errno) if is_full(errno) => break,
                Err(errno @ (Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE)) if message.is_train() => {
                    self.note_refusal(errno);
                    let more = self.transmit_singles(before + processed, bytes, message);
                    processed += more;
                    if more < message.packets() {
                        break;
                    }
                    rest = &rest[1..];
                    is_retry = false;
                }
                Err(errno) if is_pending_error(errno) && !is_retry => {
                    self.stats.pending_errors += 1;
                    is_retry = true;
                }
                Err(_) => {
                    for _ in 0..message.packets() {
                        self.failed.push(before + processed);
                        processed += 1;
                    }
                    self.stats.send_failures += message.packets() as u64;
                    rest = &rest[1..];
                    is_retry = false;
                }
            }
        }
        processed
    }

    fn transmit_singles(&mut self, before: usize, bytes: &[u8], train: Message) -> usize {
        let mut singles = [train; TRAIN_SEGMENTS_MAX];
        let mut count = 0;
        for (slot, single) in singles.iter_mut().zip(train.singles()) {
            *slot = single;
            count += 1;
        }
        self.transmit_from(before, bytes, &singles[..count])
    }

    /// One call of the back end, for as many of the messages as one call can carry.
    fn call(&mut self, bytes: &[u8], messages: &[Message]) -> Result<usize, Errno> {
        let route = self.path.route().ok_or(Errno::ENOTCONN)?;
        let messages = if self.path.uses_gso {
            messages
        } else {
            let singles = messages.iter().position(Message::is_train).unwrap_or(messages.len());
            &messages[..singles]
        };
        match messages {
            [message] => {
                let packets = &bytes[message.start..message.start + message.len];
                if message.is_train() {
                    self.backend.send_train(route, packets, message.segment)
                } else {
                    self.backend.send_packet(route, packets)
                }
                .map(|()| 1)
            }
            messages => self.backend.send_batch(route, bytes, messages),
        }
    }

    fn note_sent(&mut self, message: Message) {
        if message.is_train() {
            self.path.refusals = 0;
        }
        let packets = message.packets() as u64;
        self.path.packets_sent += packets;
        self.path.bytes_sent += message.len as u64;
        self.stats.packets_sent += packets;
        self.stats.bytes_sent += message.len as u64;
    }

    fn note_refusal(&mut self, errno: Errno) {
        self.stats.gso_refusals += 1;
        self.path.refusals = self.path.refusals.saturating_add(1);
        if errno == Errno::EIO || self.path.refusals >= REFUSALS_MAX {
            self.path.uses_gso = false;
        }
    }
}
