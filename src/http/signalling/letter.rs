//! What sessions tell each other: that a client is back, that somebody wants a name.

use std::time::Duration;

use axum::extract::ws::WebSocket;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

use super::evidence::BrowserSecret;
use crate::protocol::PlainRemotes;

/// What one session tells another.
pub(super) enum Letter {
    /// Its client is back.
    ComeBack(Box<ComeBack>),
    /// Somebody wants to join under its name.
    Claim(Claim),
}

/// A client is back on a new connection.
pub(super) struct ComeBack {
    pub(super) socket: WebSocket,
    pub(super) slot: OwnedSemaphorePermit,
    /// Of the request to come back.
    pub(super) id: u64,
    /// The last message that the client has.
    pub(super) seq: Option<u64>,
    pub(super) plain_remotes: PlainRemotes,
    pub(super) browser: Option<BrowserSecret>,
}

/// Somebody wants to join under the name of a session that there is.
pub(super) struct Claim {
    /// It has a right to the name: the session has to go. Otherwise it has to go only if its client is gone already.
    pub(super) is_proven: bool,
    /// Dropped when the name is free, or stays taken.
    pub(super) settled: oneshot::Sender<()>,
}

/// Asks the session at `address` for its name, and returns when it has ended or will not, or when it takes too long to say.
pub(super) async fn claim(address: mpsc::Sender<Letter>, is_proven: bool, patience: Duration) {
    let (settled, settling) = oneshot::channel();
    let asked = async {
        // Whether it is there to read it or not, its end says the same as its answer.
        let _ = address.send(Letter::Claim(Claim { is_proven, settled })).await;
        let _ = settling.await;
    };
    let _ = timeout(patience, asked).await;
}
