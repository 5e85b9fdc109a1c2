//! What one session holds in memory of what waits for all clients.

use super::Signalling;
use super::replay::Replay;
use crate::server::Share;

/// Messages up to this length (the answer to who joins a room of 50) are left to the time that sending may take.
const SENDING_MIN: usize = 128 * 1024;

/// The messages that are kept in case the connection breaks, and the one that is being sent.
pub(super) struct Held {
    kept: Share,
    sending: Share,
}

impl Held {
    pub(super) fn new(signalling: &Signalling) -> Self {
        Self {
            kept: signalling.kept_messages.share(),
            sending: signalling.client_memory.share(),
        }
    }

    /// Counts both, without what other sessions have, too, and forgets kept messages that are beyond their share. Returns whether
    /// the `sending` bytes of the other are within theirs.
    pub(super) fn count(&mut self, sent: &mut Replay, sending: usize) -> bool {
        sent.shrink(self.kept.allowed());
        self.kept.hold(sent.own_bytes());
        self.sending.hold(sending);
        sending <= self.sending.allowed().max(SENDING_MIN)
    }
}
