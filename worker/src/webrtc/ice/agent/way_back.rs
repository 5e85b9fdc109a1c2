//! Which paths are proven to lead back to the peer: checks of ours, and what else shows it.

use std::time::Duration;

use crate::boundary::{self, Parser};
use crate::time::Time;
use crate::webrtc::stun::{self, Message};

use super::super::path::Path;
use super::super::return_check::Remote;
use super::super::{Checked, Credentials, Tuple};
use super::Agent;

/// For so long after a path should have been used, a proof of it still moves media there: a round trip of a slow link, and what is lost at its
/// beginning. After that the peer must show again that it wants it, because it may have gone back.
const PENDING_MAX: Duration = Duration::from_secs(5);

/// For so long after its peer has shown itself there, a tuple stays a transport's, whoever else says that it is there. Who sends or receives
/// media shows itself each second; who loads its page anew and comes by the same tuple waits no longer than that.
const KEPT: Duration = Duration::from_secs(2);

/// The path that should be used as soon as it is proven.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) tuple: Tuple,
    until: Time,
}

impl Pending {
    pub(super) fn new(now: Time, tuple: Tuple) -> Self {
        Self {
            tuple,
            until: now + PENDING_MAX,
        }
    }

    /// Whether a proof of `tuple` moves media there.
    pub(super) fn waits_for(&self, now: Time, tuple: &Tuple) -> bool {
        self.tuple == *tuple && now < self.until
    }
}

impl Agent {
    /// Takes an answer to a check of ours: what is sent by that path reaches the peer.
    pub(super) fn handle_answer(&mut self, now: Time, tuple: Tuple, message: &Message<'_>) -> Checked {
        let asked = self.path(Some(&tuple)).and_then(Path::return_check);
        let is_answered = message.method == stun::BINDING
            && asked.is_some_and(|check| {
                check.is_of(&message.transaction)
                    && boundary::contain(Parser::Stun, || check.is_answered_by(message, self.remote.as_deref()))
                        == Ok(true)
            });
        if !is_answered {
            return Checked::Ignored;
        }
        self.on_proven(now, &tuple);
        Checked::Answered
    }

    /// Whether the handshake has shown that the peer is at `tuple`, and it was there a moment ago.
    pub fn keeps(&self, now: Time, tuple: &Tuple) -> bool {
        let path = self
            .path(Some(tuple))
            .filter(|_| self.proven_by_handshake == Some(*tuple));
        path.is_some_and(|path| {
            let used_at = (self.selected() == Some(tuple)).then(|| self.choice.shown_at());
            let shown_at = path.checked_at.max(path.shown_at.max(used_at).unwrap_or_default());
            now < shown_at + KEPT
        })
    }

    /// The path that the peer wants to be used, or that is, if media waits for a proof of it.
    pub fn awaited(&self, now: Time) -> Option<Tuple> {
        let pending = self.pending.filter(|pending| pending.waits_for(now, &pending.tuple));
        let tuple = pending.map(|pending| pending.tuple).or(self.selected().copied())?;
        (self.asks && !self.is_proven(&tuple)).then_some(tuple)
    }

    /// What was sent by this path, and by no other, has reached the peer. If the path should be used, it is.
    pub fn on_proven(&mut self, now: Time, tuple: &Tuple) {
        let Some(path) = self.paths.iter_mut().find(|path| path.tuple == *tuple) else {
            return;
        };
        path.prove();
        if self.pending.is_some_and(|pending| pending.waits_for(now, tuple)) {
            self.use_path(now, *tuple);
        }
    }

    /// The handshake has shown that what is sent by this path reaches the peer.
    pub fn prove(&mut self, tuple: &Tuple) {
        self.proven_by_handshake = Some(*tuple);
        if let Some(path) = self.paths.iter_mut().find(|path| path.tuple == *tuple) {
            path.prove();
        }
    }

    /// Takes the peer's credentials, with which it is asked from now on: some agents leave requests without them unanswered.
    pub fn set_remote(&mut self, now: Time, credentials: Credentials) {
        self.remote = Some(Box::new(Remote::new(credentials, &mut self.entropy)));
        self.forget_questions();
        if self.asks {
            self.begin_asking(now);
        }
    }

    /// The peer has new credentials that nobody has told us.
    pub(super) fn forget_remote(&mut self) {
        if self.remote.take().is_some() {
            self.forget_questions();
        }
    }

    /// What was asked with other credentials is asked again, when it is.
    fn forget_questions(&mut self) {
        for path in &mut self.paths {
            path.forget_question();
        }
    }

    /// Media may be sent from now on, so the peer is asked whether it receives what is sent by its paths.
    pub fn begin_asking(&mut self, now: Time) {
        self.asks = true;
        for path in &mut self.paths {
            path.ask(now, &mut self.entropy);
        }
    }

    /// Sends the peer a check by a path, unless that is under way or needed no more.
    pub(super) fn ask(&mut self, now: Time, tuple: &Tuple) {
        let path = self.paths.iter_mut().find(|path| path.tuple == *tuple);
        if let Some(path) = path.filter(|_| self.asks) {
            path.ask(now, &mut self.entropy);
        }
    }

    /// Writes a check of ours that is due, and says where to send it.
    pub fn poll_check(&mut self, now: Time, request: &mut Vec<u8>) -> Option<Tuple> {
        let ours = self.credentials.username_fragment();
        let remote = self.remote.as_deref();
        self.paths.iter_mut().find_map(|path| {
            let is_due = path.return_check_mut()?.write_request(now, remote, ours, request);
            is_due.then_some(path.tuple)
        })
    }
}
