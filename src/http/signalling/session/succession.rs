//! Whose the session's name is next: who may claim it, what comes of that, and the end of the session, after which it is given on.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{End, Session, UNDER_WAY_MAX};
use crate::http::signalling::ClientTakeover;
use crate::http::signalling::claim::{Claim, ClaimOutcome, NameGuard, NameTaken, SessionMessage, claim, grant};
use crate::http::signalling::closing::{CloseReason, close, remove_peer};
use crate::http::signalling::evidence::Evidence;
use crate::http::signalling::websocket::WebSocket;

/// The connection is read for claims without a right no more often than this.
const UNPROVEN_CLAIM_INTERVAL: Duration = Duration::from_millis(100);

impl Session {
    /// If the name that the client wants to join under has a session already: what waits until that has ended, or will not. It
    /// is bounded in time.
    pub(super) fn claim(
        &self,
        token: Option<&str>,
    ) -> Option<BoxFuture<'static, Result<Option<NameGuard>, NameTaken>>> {
        let sessions = self.signalling.sessions();
        let session = sessions.of_peer(self.room.id(), &self.name)?;
        if session.address.same_channel(&self.address) {
            return None;
        }
        let shown = Evidence {
            browser: self.browser.clone(),
            token: token.map(str::to_owned),
        };
        let is_proven = self.signalling.options.takeover == ClientTakeover::Any || shown.proves(&session.evidence);
        Some(Box::pin(claim(
            session.address.clone(),
            is_proven,
            self.signalling.options.stall,
        )))
    }

    /// Another client claims this session's name. What this session's client has sent before that is read first: it may have
    /// closed the connection, and be the one that claims. Clients without a right to the name may claim as often as they like.
    /// They do not make the server read the connection faster than its rate allows, nor use up the answers to its pings.
    pub(super) fn on_claim(&mut self, claim: Claim, socket: &mut WebSocket) -> Result<(), End> {
        let now = Instant::now();
        if !claim.is_proven {
            if self.next_unproven_claim.is_some_and(|next| now < next) {
                self.refuse_claim(claim);
                return Ok(());
            }
            self.next_unproven_claim = Some(now + UNPROVEN_CLAIM_INTERVAL);
        }
        let mut ended = Ok(());
        for _ in self.under_way.len()..UNDER_WAY_MAX {
            if !self.pace.is_due(now) {
                break;
            }
            let Some(message) = socket.receive().now_or_never() else {
                break;
            };
            self.last_heard = self.own.look(now);
            ended = self.on_message(message);
            if ended.is_err() {
                break;
            }
        }
        match ended {
            Ok(()) | Err(End::Lost(_)) if claim.is_proven => {
                self.claims.push(claim);
                Err(End::Over(CloseReason::Replaced))
            }
            Ok(()) | Err(End::Lost(_)) => {
                self.refuse_claim(claim);
                ended
            }
            Err(end) => {
                self.claims.push(claim);
                Err(end)
            }
        }
    }

    /// The session goes on, unless its peer is gone already and the room is to say whose the name is.
    pub(super) fn refuse_claim(&self, claim: Claim) {
        if self.joined.as_ref().is_some_and(|joined| !joined.peer.closed()) {
            // Who waits no more need not know.
            let _ = claim.outcome.send(ClaimOutcome::Refused);
        }
    }

    /// Lets the peer go. Those who wait for that go on at the end of this.
    pub(super) async fn end(mut self, why: CloseReason) {
        let Some(joined) = self.joined.take() else {
            return;
        };
        // Until the peer is gone: who wants its name then waits for this.
        self.signalling
            .sessions()
            .edit(&joined.token, |session| session.is_leaving = true);
        remove_peer(&joined.peer, why).await;
        self.read_late_messages();
        // The session is there until they have joined, so that nobody else gets the name at this moment.
        grant(&mut self.claims, self.signalling.options.stall).await;
        self.signalling.sessions().remove(&joined.token);
        self.inbox.close();
        self.read_late_messages();
    }

    /// Whoever came back while the peer was let go has come too late.
    fn read_late_messages(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                SessionMessage::Resume(resumption) => {
                    drop(tokio::spawn(close(resumption.socket, CloseReason::NotJoined)))
                }
                SessionMessage::Claim(claim) => self.claims.push(claim),
            }
        }
    }
}
