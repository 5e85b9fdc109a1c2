//! What a peer's client is told, as whoever serves the client reads it.

use std::sync::Arc;

use crate::server::model::peer::PeerNode;
use crate::server::model::peer_notification::PeerNotification;

/// The notifications for a peer's client, in order; see [`Peer::notifications`](crate::Peer::notifications).
#[derive(Debug)]
pub struct PeerNotifications {
    peer: Arc<PeerNode>,
    reader: u64,
}

impl PeerNotifications {
    pub(crate) fn new(peer: Arc<PeerNode>) -> Self {
        let reader = peer.outbox.add_reader();
        Self { peer, reader }
    }

    /// The next notification, which stays in the queue until [`PeerNotifications::advance`] is called with its number: a
    /// connection that is lost while it is being sent loses nothing. `None` when the peer is closed and everything has been
    /// read, when the client was given up ([`Peer::overflowed`](crate::Peer::overflowed)), or when another reader has taken
    /// over.
    pub async fn peek(&mut self) -> Option<(u64, PeerNotification)> {
        self.peer.outbox.peek(self.reader).await
    }

    /// Takes the notification with this number, and those before it, out of the queue: the client has them.
    pub fn advance(&mut self, number: u64) {
        self.peer.outbox.advance(self.reader, number);
    }

    /// The next notification, taken out of the queue at once. As [`PeerNotifications::peek`] otherwise.
    pub async fn next(&mut self) -> Option<PeerNotification> {
        let (number, notification) = self.peek().await?;
        self.advance(number);
        Some(notification)
    }
}
