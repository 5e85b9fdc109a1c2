//! A check of ours: whether what is sent by a path reaches the peer.
//!
//! A lite agent does not know the peer's password, and needs none for this: every ICE agent answers a binding request without
//! credentials with an error (RFC 8489 §9.1.3: 400), and repeats in it the transaction id, which nobody can guess who has not received the
//! request. A success is no answer: a STUN server gives one to anybody, so an attacker could have media sent there.

use std::time::Duration;

use crate::time::Time;
use crate::webrtc::entropy::Entropy;
use crate::webrtc::stun::{BINDING, Class, TransactionId, Writer};

/// Requests of one check, the first and those that make up for loss.
pub(super) const REQUESTS_MAX: u8 = 4;

/// From the first request to the second. It doubles from then on (RFC 8489 §6.2.1, whose 500 ms would be long for a peer that moves),
/// and after the last one an answer is waited for as long as that.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// A check that has not been answered yet.
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

    /// When the next request is due, or the check is given up.
    pub(super) fn due(&self) -> Time {
        self.due
    }

    /// Whether no answer is to be expected any more.
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.requests == REQUESTS_MAX && self.due <= now
    }

    /// Writes a request, if one is due.
    pub(super) fn write_request(&mut self, now: Time, request: &mut Vec<u8>) -> bool {
        let is_due = self.requests < REQUESTS_MAX && self.due <= now;
        if is_due {
            Writer::new(request, Class::Request, BINDING, self.transaction).fingerprint();
            self.due = now + FIRST_WAIT * (1 << self.requests);
            self.requests += 1;
        }
        is_due
    }

    /// Whether a response to this transaction is the answer.
    pub(super) fn is_answered_by(&self, transaction: &TransactionId) -> bool {
        self.requests > 0 && self.transaction == *transaction
    }
}
