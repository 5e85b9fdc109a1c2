//! How connections and peers end: the reasons that clients are told, and what is still said and waited for.

use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::{debug, info};

use super::websocket::WebSocket;
use crate::Peer;

/// For which a client may take to answer that a connection is closed.
pub(super) const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// Why a connection is closed, as the client is told (RFC 6455 §7.4: from 4000 on a server's own).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CloseReason {
    Malformed,
    NotText,
    Left,
    Replaced,
    TakenOver,
    Closed,
    NotJoined,
    TooSlow,
    MissedTooMuch,
    Crowded,
}

impl CloseReason {
    fn told(self) -> (u16, &'static str) {
        match self {
            Self::Malformed => (1007, "that was not a message; see docs/protocol.md"),
            Self::NotText => (1003, "messages are text"),
            Self::Left => (4000, "you have left"),
            // The code after which protoo's client does not connect again, or two pages would end each other for ever.
            Self::Replaced => (4000, "you have joined anew on another connection"),
            Self::TakenOver => (4001, "another connection speaks for this peer now"),
            Self::Closed => (4002, "the peer was closed"),
            Self::NotJoined => (4003, "join, or come back, in time"),
            Self::TooSlow => (
                4004,
                "you read too slowly and do not know what the room looks like any more",
            ),
            Self::MissedTooMuch => (4005, "you missed more than is kept; join anew"),
            Self::Crowded => (
                4006,
                "others need the place, and you had not joined; connect again and join",
            ),
        }
    }
}

/// Answers a client that has closed its connection (RFC 6455 §5.5.1): reading on sends what there is to be sent.
pub(super) async fn answer_close(mut socket: WebSocket) {
    let _ = timeout(CLOSE_WAIT_MAX, async {
        while let Some(Ok(_)) = socket.receive().await {}
    })
    .await;
}

pub(super) async fn close(mut socket: WebSocket, reason: CloseReason) {
    let (code, told) = reason.told();
    if reason == CloseReason::Crowded {
        // Somebody waits for the place.
        let _ = socket.say_end(code, told).now_or_never();
        return;
    }
    // The client may be gone, or not listen; neither is worth waiting for.
    let _ = timeout(CLOSE_WAIT_MAX, async {
        socket.say_end(code, told).await?;
        while let Some(Ok(message)) = socket.receive().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
        Ok::<(), Error>(())
    })
    .await;
}

/// Lets a peer go, in the end also if its worker refuses.
pub(super) async fn remove_peer(peer: &Peer, why: CloseReason) {
    if peer.closed() {
        return;
    }
    info!(room = %peer.room().id(), peer = peer.name(), ?why, "a client is gone");
    if let Err(error) = peer.leave(Value::Null).await {
        debug!(peer = peer.name(), %error, "a peer could not be let go");
    }
    // Nobody else will: without its client it would stay for as long as its room.
    if !peer.closed() {
        let peer = peer.clone();
        tokio::spawn(async move { peer.leave_in_the_end().await });
    }
}
