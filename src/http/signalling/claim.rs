//! What sessions send each other: that a client is back, that another client claims a name.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

use super::evidence::BrowserSecret;
use super::websocket::WebSocket;
use crate::protocol::PlainRemotes;

/// What one session sends another.
pub(super) enum SessionMessage {
    /// Its client is back.
    Resume(Box<Resumption>),
    /// Somebody wants to join under its name.
    Claim(Claim),
}

/// A client is back on a new connection.
pub(super) struct Resumption {
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
    /// Gets the outcome. It is dropped when the session is over and its name is free.
    pub(super) outcome: oneshot::Sender<ClaimOutcome>,
}

/// What came of a claim.
pub(super) enum ClaimOutcome {
    /// The session goes on.
    Refused,
    /// The session is over, and its name waits for whoever claimed it.
    Granted(NameGuard),
}

/// A name is kept from all others as long as this exists.
#[derive(Clone)]
pub(super) struct NameGuard(#[expect(dead_code, reason = "it is dropped")] mpsc::Sender<Infallible>);

/// The name is another client's.
#[derive(Debug)]
pub(super) struct NameTaken;

/// Asks the session at `address` for its name, and returns when it has ended or will not, or when it takes too long to say.
///
/// Who has no right to the name is refused here, also if there is no answer. It must not get as far as to ask the room, which
/// could be at the moment at which the old peer is gone and the one with the right has not joined yet.
pub(super) async fn claim(
    address: mpsc::Sender<SessionMessage>,
    is_proven: bool,
    patience: Duration,
) -> Result<Option<NameGuard>, NameTaken> {
    let (outcome, awaited) = oneshot::channel();
    let asked = async {
        // Whether it is there to read it or not, its end says the same as its answer.
        let _ = address.send(SessionMessage::Claim(Claim { is_proven, outcome })).await;
        awaited.await
    };
    match timeout(patience, asked).await {
        Ok(Ok(ClaimOutcome::Granted(kept))) => Ok(Some(kept)),
        Ok(Ok(ClaimOutcome::Refused)) => Err(NameTaken),
        Ok(Err(_)) => Ok(None),
        Err(_) if is_proven => Ok(None),
        Err(_) => Err(NameTaken),
    }
}

/// Gives a name that is free to the claims that have a right to it, and returns when they have made use of it, or when that
/// takes too long. The other claims are left, to be settled then.
pub(super) async fn grant(claims: &mut Vec<Claim>, patience: Duration) {
    let (kept, mut used) = mpsc::channel(1);
    let (proven, others) = claims.drain(..).partition(|claim| claim.is_proven);
    *claims = others;
    for claim in Vec::<Claim>::into_iter(proven) {
        // Who waits no more has no use for it.
        let _ = claim
            .outcome
            .send(ClaimOutcome::Granted(NameGuard(Clone::clone(&kept))));
    }
    drop(kept);
    let _ = timeout(patience, used.recv()).await;
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_name_is_kept_until_who_has_a_right_to_it_has_used_it() {
        let (address, mut inbox) = mpsc::channel(2);
        let mut other = Box::pin(claim(address.clone(), false, PATIENCE));
        let mut owner = Box::pin(claim(address.clone(), true, PATIENCE));
        assert!((&mut other).now_or_never().is_none() && (&mut owner).now_or_never().is_none());
        let mut claims = Vec::new();
        while let Ok(SessionMessage::Claim(claim)) = inbox.try_recv() {
            claims.push(claim);
        }
        let mut giving = Box::pin(grant(&mut claims, PATIENCE));
        assert!((&mut giving).now_or_never().is_none());
        let kept = owner.await.unwrap();
        assert!(kept.is_some());
        assert!((&mut giving).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        drop(kept);
        giving.await;
        assert_eq!(claims.len(), 1, "the other's");
        drop(claims);
        assert!(other.await.is_ok_and(|kept| kept.is_none()), "it is anybody's now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_not_kept_for_ever_nor_for_nobody() {
        let (address, mut inbox) = mpsc::channel(1);
        let owner = tokio::spawn(claim(address, true, PATIENCE));
        let Some(SessionMessage::Claim(claimed)) = inbox.recv().await else {
            panic!("a claim");
        };
        let began = tokio::time::Instant::now();
        grant(&mut vec![claimed], PATIENCE).await;
        assert_eq!(began.elapsed(), PATIENCE);
        assert!(owner.await.unwrap().is_ok_and(|kept| kept.is_some()));
        assert!(grant(&mut Vec::new(), PATIENCE).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_right_is_refused_without_an_answer_too() {
        let (address, mut inbox) = mpsc::channel(1);
        assert!(claim(address.clone(), false, PATIENCE).await.is_err(), "nobody answers");
        drop(inbox.try_recv());
        assert!(
            claim(address.clone(), true, PATIENCE)
                .await
                .is_ok_and(|kept| kept.is_none())
        );
        drop(inbox);
        assert!(
            claim(address, false, PATIENCE).await.is_ok_and(|kept| kept.is_none()),
            "it is over"
        );
    }
}
