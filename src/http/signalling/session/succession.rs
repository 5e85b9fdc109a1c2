//! Whose the session's name is next: who may claim it, what comes of that, and the end of the session, after which it is given on.

use std::time::Duration;

use axum::extract::ws::WebSocket;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{End, Session, UNDER_WAY_MAX};
use crate::http::signalling::ClientTakeover;
use crate::http::signalling::evidence::Evidence;
use crate::http::signalling::goodbye::{Goodbye, close, let_go};
use crate::http::signalling::letter::{Claim, Kept, Letter, Settled, Taken, claim, give};

/// The connection is read for claims without a right no more often than this.
const BETWEEN_STRANGERS: Duration = Duration::from_millis(100);

impl Session {
    /// If the name that the client wants to join under has a session already: what waits until that has ended, or will not. It
    /// is bounded in time.
    pub(super) fn claim(&self, token: Option<&str>) -> Option<BoxFuture<'static, Result<Option<Kept>, Taken>>> {
        let seats = self.signalling.seats();
        let seat = seats.of_peer(self.room.id(), &self.name)?;
        if seat.address.same_channel(&self.address) {
            return None;
        }
        let shown = Evidence {
            browser: self.browser.clone(),
            token: token.map(str::to_owned),
        };
        let is_proven = self.signalling.options.takeover == ClientTakeover::Any || shown.proves(&seat.evidence);
        Some(Box::pin(claim(
            seat.address.clone(),
            is_proven,
            self.signalling.options.stall,
        )))
    }

    /// Somebody wants this session's name. What the client has said before that counts first: it may have closed the
    /// connection, and be the one who asks. Strangers, who may ask as often as they like, have it read no faster than it may
    /// speak, and do not use up what it says in reply to pings.
    pub(super) fn settle(&mut self, claim: Claim, socket: &mut WebSocket) -> Result<(), End> {
        let now = Instant::now();
        if !claim.is_proven {
            if self.next_stranger.is_some_and(|next| now < next) {
                self.refuse_claim(claim);
                return Ok(());
            }
            self.next_stranger = Some(now + BETWEEN_STRANGERS);
        }
        let mut ended = Ok(());
        for _ in self.under_way.len()..UNDER_WAY_MAX {
            if !self.pace.is_due(now) {
                break;
            }
            let Some(message) = socket.recv().now_or_never() else {
                break;
            };
            self.heard = self.own.look(now);
            ended = self.hear(message);
            if ended.is_err() {
                break;
            }
        }
        match ended {
            Ok(()) | Err(End::Lost(_)) if claim.is_proven => {
                self.heirs.push(claim);
                Err(End::Over(Goodbye::Replaced))
            }
            Ok(()) | Err(End::Lost(_)) => {
                self.refuse_claim(claim);
                ended
            }
            Err(end) => {
                self.heirs.push(claim);
                Err(end)
            }
        }
    }

    /// The session goes on, unless its peer is gone already and the room is to say whose the name is.
    pub(super) fn refuse_claim(&self, claim: Claim) {
        if self.joined.as_ref().is_some_and(|joined| !joined.peer.closed()) {
            // Who waits no more need not know.
            let _ = claim.settled.send(Settled::Taken);
        }
    }

    /// Lets the peer go. Those who wait for that go on at the end of this.
    pub(super) async fn end(mut self, why: Goodbye) {
        let Some(joined) = self.joined.take() else {
            return;
        };
        // Until the peer is gone: who wants its name then waits for this.
        self.signalling
            .seats()
            .edit(&joined.token, |seat| seat.is_leaving = true);
        let_go(&joined.peer, why).await;
        self.read_late_letters();
        // The seat is there until they have joined, so that nobody else gets the name at this moment.
        give(&mut self.heirs, self.signalling.options.stall).await;
        self.signalling.seats().remove(&joined.token);
        self.mailbox.close();
        self.read_late_letters();
    }

    /// Whoever came back while the peer was let go has come too late.
    fn read_late_letters(&mut self) {
        while let Ok(letter) = self.mailbox.try_recv() {
            match letter {
                Letter::ComeBack(come_back) => drop(tokio::spawn(close(come_back.socket, Goodbye::NotJoined))),
                Letter::Claim(claim) => self.heirs.push(claim),
            }
        }
    }
}
