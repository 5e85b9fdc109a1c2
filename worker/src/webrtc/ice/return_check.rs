//! A check of ours: whether what is sent by a path reaches the peer.
//!
//! A lite agent does not know the peer's password, unless the signalling tells it, and needs none for this: an ICE agent answers a binding
//! request without credentials with an error (RFC 8489 §9.1.3: 400), and repeats in it the transaction id, which nobody can guess who has
//! not received the request. A success is no answer then: a STUN server gives one to anybody, so an attacker could have media sent there.
//!
//! Some agents leave such a request unanswered. If the peer's credentials are known ([`Remote`]), the check is made with them, as between
//! two full agents (RFC 8445 §7.1), and only who knows the password can answer it.

use std::time::Duration;

use crate::time::Time;
use crate::webrtc::entropy::Entropy;
use crate::webrtc::stun::{BINDING, Class, Message, TransactionId, Writer, attribute};

use super::Credentials;

/// Requests of one question, the first and those that make up for loss.
pub(super) const REQUESTS_MAX: u8 = 4;

/// From the first request to the second. It doubles from then on (RFC 8489 §6.2.1, whose 500 ms would be long for a peer that moves),
/// and for as long after the last one nothing more is asked.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The priority of a peer-reflexive candidate, which ours would be if the peer did not know it (RFC 8445 §7.1.1, §5.1.2.1).
const PRIORITY: u32 = 110 << 24 | 0xffff << 8 | 0xff;

/// What the peer's agent knows a check by.
#[derive(Debug)]
pub(super) struct Remote {
    credentials: Credentials,
    tie_breaker: [u8; 8],
}

impl Remote {
    pub(super) fn new(credentials: Credentials, entropy: &mut impl Entropy) -> Self {
        let mut tie_breaker = [0; 8];
        entropy.fill(&mut tie_breaker);
        Self {
            credentials,
            tie_breaker,
        }
    }
}

/// A check that has not been answered yet. It has one transaction for as long as its path is known: on a slow link the answer may come
/// when the question has been given up, or asked again.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReturnCheck {
    transaction: TransactionId,
    requests: u8,
    due: Time,
}

impl ReturnCheck {
    /// A check whose first request is due now.
    pub(super) fn new(now: Time, entropy: &mut impl Entropy) -> Self {
        let mut transaction = TransactionId::default();
        entropy.fill(&mut transaction);
        Self {
            transaction,
            requests: 0,
            due: now,
        }
    }

    /// Asks again, if all requests have been made and the last one was not answered in time.
    pub(super) fn ask_again(&mut self, now: Time) {
        if self.requests == REQUESTS_MAX && self.due <= now {
            self.requests = 0;
            self.due = now;
        }
    }

    /// When the next request is due; `None` if there is none.
    pub(super) fn due(&self) -> Option<Time> {
        (self.requests < REQUESTS_MAX).then_some(self.due)
    }

    /// Writes a request, if one is due, for a peer that is known by `remote`, of an agent whose username fragment is `ours`.
    pub(super) fn write_request(
        &mut self,
        now: Time,
        remote: Option<&Remote>,
        ours: &str,
        request: &mut Vec<u8>,
    ) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            let mut writer = Writer::new(request, Class::Request, BINDING, self.transaction);
            if let Some(Remote {
                credentials,
                tie_breaker,
            }) = remote
            {
                let username = format!("{}:{ours}", credentials.username_fragment());
                writer = writer
                    .attribute(attribute::USERNAME, username.as_bytes())
                    .attribute(attribute::PRIORITY, &PRIORITY.to_be_bytes())
                    .attribute(attribute::ICE_CONTROLLED, tie_breaker)
                    .integrity(credentials.key());
            }
            writer.fingerprint();
            self.due = now + FIRST_WAIT * (1 << self.requests);
            self.requests += 1;
        }
        is_due
    }

    /// Whether a transaction is this one's.
    pub(super) fn is_of(&self, transaction: &TransactionId) -> bool {
        self.transaction == *transaction
    }

    /// Whether a response to it is the answer of an ICE agent, and, if the peer is known, the peer's.
    pub(super) fn is_answered_by(&self, response: &Message<'_>, remote: Option<&Remote>) -> bool {
        let is_whole = !response.has_fingerprint() || response.is_intact();
        is_whole
            && match remote {
                Some(remote) => response.is_authentic(remote.credentials.key()),
                None => response.class == Class::Error,
            }
    }
}
