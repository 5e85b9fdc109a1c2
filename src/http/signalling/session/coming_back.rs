//! A client that has lost its connection: the wait for it, and how the session goes on when it is back on another one.

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::info;

use super::{HOLD_INTERVAL, Session};
use crate::http::signalling::claim::{Resumption, SessionMessage};
use crate::http::signalling::closing::{CLOSE_WAIT_MAX, CloseReason, close};
use crate::http::signalling::envelope::Outgoing;
use crate::http::signalling::websocket::WebSocket;
use crate::protocol::ProtocolError;

impl Session {
    /// Waits for the client to come back, as long as it may take; or why it will not. What it asked for goes on meanwhile.
    pub(super) async fn wait(&mut self) -> Result<Box<Resumption>, CloseReason> {
        if self.joined.is_none() {
            return Err(CloseReason::Left);
        }
        let last = Instant::now() + self.signalling.options.grace;
        loop {
            tokio::select! {
                biased;
                Some(message) = self.inbox.recv() => match message {
                    SessionMessage::Resume(resumption) => return Ok(resumption),
                    SessionMessage::Claim(claim) if claim.is_proven => {
                        self.claims.push(claim);
                        return Err(CloseReason::Replaced);
                    }
                    SessionMessage::Claim(claim) => self.refuse_claim(claim),
                },
                () = sleep_until(last) => return Err(CloseReason::Left),
                () = sleep(HOLD_INTERVAL) => {
                    self.hold(0);
                    // There is nothing to come back to. (A peer that was closed alone is to hear of that.)
                    if self.joined.as_ref().is_some_and(|joined| joined.peer.room().closed()) {
                        return Err(CloseReason::Closed);
                    }
                }
                Some(answer) = self.under_way.next(), if !self.under_way.is_empty() => {
                    // Kept, to be sent when it is back.
                    drop(self.take_answer(answer));
                    if self.joined.as_ref().is_some_and(|joined| joined.peer.closed()) {
                        return Err(CloseReason::Closed);
                    }
                }
            }
        }
    }

    /// Goes on with a client that is back: tells it that it is, and what it missed.
    pub(super) async fn resume(&mut self, resumption: Resumption) -> Option<(WebSocket, OwnedSemaphorePermit)> {
        let Resumption {
            mut socket,
            slot,
            id,
            seq,
            plain_remotes,
            browser,
        } = resumption;
        self.plain_remotes = plain_remotes;
        self.browser.clone_from(&browser);
        if let Some(joined) = &self.joined {
            joined.peer.set_plain_remotes(plain_remotes);
            let mut sessions = self.signalling.sessions();
            sessions.edit(&joined.token, |session| session.evidence.browser = browser);
        }
        let missed = match seq {
            Some(seq) => self.sent.after(seq),
            None => Some(Vec::new()),
        };
        let Some(missed) = missed else {
            tokio::spawn(close(socket, CloseReason::MissedTooMuch));
            return None;
        };
        info!(room = %self.room.id(), peer = self.name, missed = missed.len(), "a client is back");
        let welcome = Outgoing::response(id, Ok(Value::Null)).unnumbered(&self.signalling.shared);
        let stall = self.signalling.options.stall;
        for text in std::iter::once(welcome).chain(missed) {
            // If this fails, so will the next use of the connection, which then counts as lost again.
            if !matches!(timeout(stall, socket.send(text)).await, Ok(Ok(()))) {
                break;
            }
        }
        Some((socket, slot))
    }

    /// Gives the connection to the session with this token.
    pub(super) async fn hand_over(
        self,
        mut socket: WebSocket,
        slot: OwnedSemaphorePermit,
        id: u64,
        token: &str,
        seq: Option<u64>,
    ) {
        let found = self
            .signalling
            .sessions()
            .of_token(token)
            .map(|session| session.address.clone());
        let refused = match found {
            Some(session) => {
                let resumption = Box::new(Resumption {
                    socket,
                    slot,
                    id,
                    seq,
                    plain_remotes: self.plain_remotes,
                    browser: self.browser.clone(),
                });
                match session.send(SessionMessage::Resume(resumption)).await {
                    // It has ended this moment.
                    Err(mpsc::error::SendError(SessionMessage::Resume(unsent))) => unsent.socket,
                    _ => return,
                }
            }
            None => {
                let refusal = ProtocolError::invalid_state("there is no such session; join anew");
                let text = Outgoing::response(id, Err(refusal)).unnumbered(&self.signalling.shared);
                // It is closed next, whether it took this or not.
                let _ = timeout(CLOSE_WAIT_MAX, socket.send(text)).await;
                socket
            }
        };
        close(refused, CloseReason::NotJoined).await;
    }
}
